"""Names by id and ids by name, over the bytes of a file."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.kg_folder import open_names, read_names, write_names
from data.names import MappedNames, Names

texts = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r", min_codepoint=32))
letters = "甲乙丙ab（( "


@settings(max_examples=100, deadline=None)
@given(names=st.lists(texts, min_size=1, max_size=120, unique=True))
def test_written_names_are_found_by_id_and_by_name(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / "entity2id.txt"
    write_names(path, names)
    lines = [f"{name}\t{i}\n" for i, name in enumerate(names)]
    assert path.read_bytes() == f"{len(names)}\n{''.join(lines)}".encode()
    found = open_names(path)
    assert list(found) == read_names(path) == names
    assert [found[i] for i in range(len(names))] == names
    assert found[-1] == names[-1]
    assert found[1:3] == names[1:3]
    assert [found.find(name) for name in names] == list(range(len(names)))
    assert found.find(names[0] + "?!") is None
    assert names[0] in found
    assert found.index(names[-1]) == len(names) - 1

    mapped = MappedNames(path.read_bytes())  # without reading it all
    assert [mapped[i] for i in range(len(names))] == names
    assert [mapped.find(name) for name in names] == list(range(len(names)))
    assert mapped.find(names[0] + "?!") is None
    assert (len(mapped), mapped[-1], mapped[1:3]) == (len(names), names[-1], names[1:3])
    assert list(mapped) == names


def test_arrow_arrays_are_written_like_lists(tmp_path):
    whole = pa.array(["零", "一", "", "三"] * 300)
    write_names(tmp_path / "a", whole.slice(1, 700))
    write_names(tmp_path / "b", whole.slice(1, 700).to_pylist())
    write_names(tmp_path / "c", whole.slice(1, 700).cast(pa.large_string()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    assert open_names(tmp_path / "a").to_arrow(5, 9).to_pylist() == whole.to_pylist()[6:10]


@pytest.mark.parametrize(
    "content",
    [
        b"3\r\na\t0\r\nb\t1\r\nc\t2\r\n",
        b"\xef\xbb\xbf3\na\t0\nb\t1\nc\t2\n",
        b"3\nb\t1\na\t0\nc\t2\n",
        b"3\na 0\nb 1\nc 2\n",
        b"a\t0\nb\t1\nc\t2\n",
        b"3\na\t0\nb\t1\nc\t2",
        b"3\na\t00\nb\t01\nc\t2\n",
        gzip.compress(b"3\na\t0\nb\t1\nc\t2\n", mtime=0),
    ],
)
def test_other_forms_of_id_files_are_read_too(tmp_path, content):
    path = tmp_path / "entity2id.txt"
    path.write_bytes(content)
    names = open_names(path)
    assert list(names) == ["a", "b", "c"]
    assert names.find("c") == 2
    assert names[1] == "b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no names"),
        (b"3\na\t0\nb\t1\n", "announces 3 names .* but contains 2"),
        (b"2\na\t0\nb\t2\n", "largest is 2"),
        (b"2\na\t0\nb\t0\n", "given twice"),
        (b"2\na\t0\nb\n", "expected `name<TAB>id`"),
        (b"2\na\t0\n\xff\t1\n", ":3: not UTF-8"),
        (gzip.compress(b"2\na\t0\nb\t1\n", mtime=0)[:-9], "damaged gzip file"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "entity2id.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_names(path)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        corner, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            corner, row[j + 1] = (
                row[j + 1],
                min(row[j] + 1, row[j + 1] + 1, corner + (x != y)),
            )
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(
    names=st.lists(st.text(letters, min_size=1, max_size=7), min_size=1, max_size=30, unique=True),
    wanted=st.text(letters, min_size=1, max_size=6),
)
def test_similar_names_are_the_nearest_by_edit_distance(names, wanted):
    def distance(name: str) -> int:
        begins = name.startswith((wanted + "(", wanted + " ("))
        return 0 if begins else levenshtein(name, wanted)

    near = sorted(range(len(names)), key=lambda i: (distance(names[i]), i))
    near = [names[i] for i in near if distance(names[i]) <= len(wanted) // 2][:3]
    assert Names.of(names).similar(wanted) == near


def test_a_name_without_its_bracket_offers_those_with_one():
    names = Names.of(["苹果树", "苹果(水果)", "苹果 (公司)", "香蕉"])
    assert names.similar("苹果") == ["苹果(水果)", "苹果 (公司)", "苹果树"]
    others = Names.of(["大山〔山名〕", "大海", "大山[某协会会长]", "大山【歌手】"])
    assert others.similar("大山") == ["大山〔山名〕", "大山[某协会会长]", "大山【歌手】"]
    assert names.similar("草" * 100) == names.similar("") == []


def test_ids_of_several_digits_do_not_end_up_in_the_names(tmp_path):
    names = [f"{i}" for i in range(1234)]
    write_names(tmp_path / "ids", names)
    assert list(open_names(tmp_path / "ids")) == names
    assert [open_names(tmp_path / "ids")[i] for i in np.arange(0, 1234, 100)] == names[::100]
