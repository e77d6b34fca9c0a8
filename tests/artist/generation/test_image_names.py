"""Names of image files: unique, portable and inside their folder, for any idx."""

from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artist.generation.image_files import image_file_name
from data.tsv import one_line

HOSTILE = [
    "../../x", "/etc/passwd", "..\\..\\x", "C:\\x", "a/b", ".", "..", "", " ", "x" * 300,
    "龙" * 300,
    "Cat", "cat", "CAT", "con", "NUL", "aux.png", "a\tb", "a\nb", "a\0b", "é", "e\u0301",
    "~", "-rf", "*", "a:b", "a.png", "\ud800", "\u202e", "1_0", "1", "0",
]  # fmt: skip
ids = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=400)), max_size=30)


@given(ids=ids, number=st.integers(1, 12))
def test_names_stay_in_their_folder_and_are_unique_ignoring_case(ids, number):
    names = [image_file_name(row, idx, n) for row, idx in enumerate(ids) for n in range(number)]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name.isascii()
        assert len(name) <= 64
        assert Path(name).name == name == PureWindowsPath(name).name
        assert name[0].isdigit()
        assert name.endswith(".png")
        assert not PureWindowsPath(name).drive


@pytest.mark.parametrize("idx", HOSTILE)
def test_files_with_those_names_can_be_created(tmp_path, idx):
    path = tmp_path / "images" / image_file_name(0, idx, 0)
    path.parent.mkdir()
    path.touch()
    assert [p.name for p in tmp_path.iterdir()] == ["images"]
    assert path.resolve().parent == (tmp_path / "images").resolve()


@given(text=st.text())
def test_a_text_becomes_one_field_of_one_row(text):
    assert len(f"x\t{one_line(text)}\ty\n".split("\t")) == 3
    assert not {*"\t\n\r"} & {*one_line(text)}
    assert len(one_line(text)) == len(text)
