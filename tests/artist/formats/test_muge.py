"""MUGE submissions: every id once, in order, with a valid image; otherwise nothing is written."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from artist.formats.muge import export_muge
from data.errors import ConfigError, InputError
from data.runs import verify


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


def cell(*greys: int) -> str:
    found = [base64.b64encode(png(grey)).decode() for grey in greys]
    return found[0] if len(found) == 1 else json.dumps(found)


def write(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def submitted(path: Path) -> list[tuple[str, int]]:
    """Return ids and the grey level of each image."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    images = [Image.open(io.BytesIO(base64.b64decode(text, validate=True))) for _, text in rows]
    return [(idx, image.getpixel((0, 0))) for (idx, _), image in zip(rows, images, strict=True)]


def test_ids_of_the_task_determine_the_order_and_others_are_left_out(tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    write(folder / "predictions.tsv", f"b\t乙\t{cell(2)}", f"x\t旁\t{cell(9)}", f"a\t甲\t{cell(1)}")
    ids = write(tmp_path / "T2I_test.tsv", "a\t", "b\t")
    report = export_muge(folder, tmp_path / "out.tsv", ids=ids)
    assert submitted(tmp_path / "out.tsv") == [("a", 1), ("b", 2)]
    assert "2 ids, one image each. Predictions of other ids, left out: 1." in str(report)
    assert verify(tmp_path / "out.tsv").kind == "muge-submission"
    assert export_muge(folder, tmp_path / "out.tsv", ids=ids).already_finished


def test_one_of_several_images_is_picked_from_json_and_from_easynlp(tmp_path):
    as_python = str(json.loads(cell(3, 4)))
    assert as_python.startswith("['")
    table = write(tmp_path / "p.tsv", f"a\t甲\t{cell(1, 2)}", f"b\t乙\t{as_python}")
    export_muge(table, tmp_path / "out.tsv", pick=2)
    assert submitted(tmp_path / "out.tsv") == [("a", 2), ("b", 4)]


def test_url_safe_images_are_written_in_the_standard_alphabet(tmp_path):
    found = next(png(n) for n in range(256) if {*"+/"} & {*base64.b64encode(png(n)).decode()})
    table = write(tmp_path / "p.tsv", f"a\t甲\t{base64.urlsafe_b64encode(found).decode()}")
    export_muge(table, tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == f"a\t{base64.b64encode(found).decode()}\n"


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([f"a\t甲\t{cell(1)}"], {"ids": ["a", "b", "c"]}, "no image for 2 of 3 ids"),
        ([f"a\t甲\t{cell(1)}"] * 2, {}, "line 2: idx a occurs in an earlier row"),
        ([f"a\t甲\t{cell(1)}", "b\t乙\t" + cell(1)[:-40]], {}, "idx b: "),
        (["a\t甲\t[1, 2]"], {}, "not a list of images"),
        (["a\t甲"], {}, "line 1: expected the columns idx, text, gen_imgbase64"),
        ([f"a\t甲\t{cell(1)}"], {"pick": 2}, "has 1 images, fewer than --pick 2"),
        ([], {}, "is empty"),
    ],
)
def test_an_incomplete_submission_is_not_written(tmp_path, rows, more, message):
    table = write(tmp_path / "p.tsv", *rows)
    if "ids" in more:
        more = {"ids": write(tmp_path / "ids.tsv", *more["ids"])}
    before = {*tmp_path.iterdir()}
    with pytest.raises(InputError, match=message):
        export_muge(table, tmp_path / "out.tsv", **more)
    assert {*tmp_path.iterdir()} == before


def test_images_are_counted_from_one(tmp_path):
    with pytest.raises(ConfigError, match="from 1"):
        export_muge(tmp_path / "p.tsv", tmp_path / "out.tsv", pick=0)
