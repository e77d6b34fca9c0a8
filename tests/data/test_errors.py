import copy
from importlib import import_module
from pathlib import Path

import pytest

import data
from data.errors import InputError, RowError, SkipReason
from data.images import decode_image
from data.tsv import Rejects


@pytest.mark.parametrize(
    ("kind", "detail", "text"),
    [
        ("no image", "", "no image"),
        ("invalid base64", "Incorrect padding", "invalid base64: Incorrect padding"),
        ("damaged image", "chunk: bad CRC (IDAT)", "damaged image: chunk: bad CRC (IDAT)"),
    ],
)
def test_a_skip_reason_and_its_error_have_the_same_text(kind, detail, text, tmp_path):
    error = RowError(kind, detail)
    assert str(error.reason) == str(error) == text
    assert error.reason == SkipReason(kind, detail)
    rejects = Rejects(tmp_path / "rejects.tsv")
    rejects.add(7, error.reason, "a\tb")
    assert rejects.reasons == {kind: 1}
    assert rejects.first == f"line 7: {text}"
    assert rejects.path.read_text() == f"7\t{text}\ta\\tb\n"


def test_a_row_error_keeps_its_reason_between_processes():
    error = copy.copy(RowError("not an image", "JSON"))  # by the steps of pickle
    assert (type(error), error.reason) == (RowError, SkipReason("not an image", "JSON"))


def test_an_image_error_carries_its_reason():
    with pytest.raises(RowError) as caught:
        decode_image(b"<html>")
    assert caught.value.reason == SkipReason("not an image", "an HTML page")


def test_a_message_that_quotes_a_damaged_file_is_cut_in_its_middle():
    text = str(InputError("a" * 3000 + "Try this."))
    assert len(text) < 2500
    assert text.startswith("aaa")
    assert text.endswith("Try this.")
    assert str(InputError("short")) == "short"


def test_the_package_lists_each_of_its_modules():
    folder = Path(data.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(data.__all__) == modules | {"datasets"}
    assert all(import_module(f"data.{name}") is not None for name in data.__all__)
