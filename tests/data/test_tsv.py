"""Rows are read as they are: nothing quoted, guessed, merged or lost without a report."""

import bz2
import gzip
import lzma
import zlib

import pytest
from backports.zstd import compress as zstd
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.tsv import Rejects, open_bytes, read_rows

LINES = "".join(f"{n}\t甲{n * 7919}\n" for n in range(20_000)).encode()
fields = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0")), min_size=2, max_size=2
).filter(lambda row: "".join(row).strip())


def file(folder, content: bytes):
    path = folder / "a.tsv"
    path.write_bytes(content)
    return path


def read(path, columns=(2,)):
    rejects = Rejects(path.with_name("rejects.tsv"))
    return [(row.line, row.fields) for row in read_rows(path, columns, rejects)], rejects


@given(rows=st.lists(fields, min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(tmp_path_factory, rows, end):
    rows[0][0] = "first" + rows[0][0]  # a byte-order mark would be removed there
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    found, rejects = read(path)
    assert [row for _, row in found] == rows
    assert rejects.count == 0


@pytest.mark.parametrize(
    "value",
    ['"', '"1+8"时代广场', "NA", "null", "007", " x ", "a\u2028b", "a\x85b", "a\x0bb", "\r!"],
)
def test_values_that_other_readers_change_are_kept(tmp_path, value):
    assert read(file(tmp_path, f"1\t{value}\n2\ty\n".encode()))[0] == [
        (1, ["1", value]),
        (2, ["2", "y"]),
    ]


def test_bad_rows_are_counted_with_line_and_reason_and_kept(tmp_path):
    path = file(tmp_path, b"\xef\xbb\xbf1\tx\n2\n3\ta\tb\n\n5\t\xff\n6\ta\0b\n7\ty")
    found, rejects = read(path)
    assert found == [(1, ["1", "x"]), (7, ["7", "y"])]
    assert rejects.reasons == {
        "wrong column count": 2,
        "blank line": 1,
        "not UTF-8": 1,
        "NUL character": 1,
    }
    assert rejects.first == "line 2: wrong column count: 1, expected 2"
    kept = (tmp_path / "rejects.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in kept] == ["2", "3", "4", "5", "6"]
    assert kept[1] == "3\twrong column count: 3, expected 2\t3\\ta\\tb"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compression_is_detected_by_the_first_bytes(tmp_path, pack):
    assert read(file(tmp_path, pack("1\t甲\n".encode())))[0] == [(1, ["1", "甲"])]
    path = file(tmp_path, pack(LINES[:9]) + pack(LINES[9:]))
    with open_bytes(path) as opened:
        assert opened.read() == LINES
        for place, size in [(300_000, 70_000), (12, 9)]:
            opened.seek(place)
            assert opened.read(size) == LINES[place : place + size]
    path.write_bytes(pack(LINES)[:-20])
    with open_bytes(path) as opened, pytest.raises(InputError, match="is a damaged"):
        opened.read()


def test_three_letters_do_not_make_a_bzip2_file(tmp_path):
    assert read(file(tmp_path, b"BZh9\tb\n"))[0] == [(1, ["BZh9", "b"])]


def test_the_error_of_a_truncated_gzip_has_its_line(tmp_path):
    path = tmp_path / "a.tsv.gz"
    whole = gzip.compress(LINES)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"damaged gzip file after line [1-9]") as caught:
        read(path)
    line = int(str(caught.value).split("after line ")[1].split(":")[0])
    rows = zlib.decompressobj(31).decompress(whole[: len(whole) // 2]).count(b"\n")
    assert rows // 2 < line <= rows


def test_damage_is_an_error_for_every_way_of_reading(tmp_path):
    path = tmp_path / "a.tsv.gz"
    whole = gzip.compress(LINES)
    path.write_bytes(whole[:-9])
    readers = [lambda f: f.read(), lambda f: f.readlines(), list, lambda f: f.seek(10**6)]
    for reader in readers:
        with open_bytes(path) as file, pytest.raises(InputError, match="damaged gzip file"):
            reader(file)
    path.write_bytes(whole[:100] + b"\xff" * 100 + whole[200:])
    with open_bytes(path) as file, pytest.raises(InputError, match="damaged gzip file"):
        file.read()


def test_a_gzip_file_can_be_read_at_a_place_as_a_plain_one(tmp_path):
    (tmp_path / "plain").write_bytes(LINES)
    (tmp_path / "packed").write_bytes(gzip.compress(LINES[:9]) + gzip.compress(LINES[9:]))
    for place, size in [(0, 5), (300_000, 70_000), (12, 9), (300_000, 200_000), (10**7, 1)]:
        found = []
        for name in ("plain", "packed"):
            with open_bytes(tmp_path / name) as file:
                file.read(100)
                file.seek(place)
                found.append((file.read(size), file.readline()))
        assert found[0] == found[1]
        assert found[0][0] == LINES[place : place + size]


def test_the_error_of_a_gbk_file_suggests_a_conversion(tmp_path):
    path = file(tmp_path, "".join(f"{n}\t花椰菜\n" for n in range(50)).encode("gbk"))
    with pytest.raises(InputError, match="iconv -f GB18030 -t UTF-8"):
        read(path)


def test_an_empty_and_a_missing_file_and_a_folder_are_errors(tmp_path):
    empty, missing = file(tmp_path, b""), tmp_path / "none.tsv"
    for path, said in ((empty, "is empty"), (missing, "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=said):
            read(path)


def test_fields_longer_than_the_csv_modules_limit_are_read(tmp_path):
    assert len(read(file(tmp_path, b"1\t" + b"x" * 200_000 + b"\n"))[0][0][1][1]) == 200_000
