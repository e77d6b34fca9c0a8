"""Columnar reading gives the rows and the rejects of `data.tsv.read_rows`."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.tsv import Rejects, read_rows
from lattice.building import caption_reader as corpus
from lattice.building.caption_reader import read_captions

PIECES = [b"1", "北京".encode(), b"\t", b"\t", b"\t", b"\n", b"\n", b"\r\n", b"\r", b"\0", b"\xff"]
PIECES += [b" ", b'"', "\u2028".encode(), b"a\tb\n", b"1\t2\n", b"\xef\xbb\xbf"]


def columnar(path, rejects):
    return [
        (line, idx, text)
        for batch in read_captions(path, rejects, "full")
        for line, idx, text in zip(
            batch.lines.tolist(), *(c.to_pylist() for c in batch.captions.columns[:2]), strict=True
        )
    ]


@pytest.mark.parametrize("packed", [False, True])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40), size=st.integers(1, 20))
def test_rows_equal_those_of_the_plain_reader(packed, pieces, size, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"corpus{packed}.tsv"
    content = b"7\tfirst\n8\tsecond\n" + b"".join(pieces)
    path.write_bytes(gzip.compress(content) if packed else content)
    theirs, ours = Rejects(), Rejects()
    expected = [(row.line, *row.fields) for row in read_rows(path, (2,), theirs)]
    if sum(line.count(b"\t") == 2 for line in content.split(b"\n")) > 1:
        return  # the file may have three columns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_TEXT_CHUNK", size)
        patch.setattr(corpus, "_BATCH_ROWS", 2)
        found = columnar(path, ours)
    # A row of white space is rejected by the kernel, which finds no token in it.
    blank = [row for row in found if not "\t".join(row[1:]).strip()]
    assert [row for row in found if row not in blank] == expected
    assert theirs.count == ours.count + len(blank)
    theirs.reasons["blank line"] -= len(blank)
    assert +theirs.reasons == +ours.reasons


def test_a_damaged_gzip_is_one_clear_error(write):
    content = gzip.compress("".join(f"{n}\t北京{n * 7919}\n" for n in range(5000)).encode())
    path = write("corpus.tsv.gz", content[:-2000])
    with pytest.raises(InputError, match="damaged gzip"):
        columnar(path, Rejects())


def test_a_row_longer_than_any_buffer_is_an_error(write, monkeypatch):
    monkeypatch.setattr(corpus, "_TEXT_CHUNK", 1 << 10)
    monkeypatch.setattr(corpus, "LONGEST_LINE", 1 << 14)
    with pytest.raises(InputError, match=r"corpus.tsv:2: this row is longer than"):
        columnar(write("corpus.tsv", "1\ta\n2\t" + "x" * (1 << 15)), Rejects())


class Counted(bytes):
    """Bytes that count the bytes copied by `+`."""

    copied = 0

    def __add__(self, other):
        Counted.copied += len(self) + len(other)
        return Counted(bytes(self) + bytes(other))

    def __radd__(self, other):
        return Counted(other) + self

    def __getitem__(self, part):
        return Counted(super().__getitem__(part))


def test_a_long_row_is_not_copied_with_every_block(write, monkeypatch):
    blocks, size = 500, 1 << 10
    content = b"1\ta\n2\t" + b"x" * (blocks * size) + b"\n3\tb\n"
    path = write("corpus.tsv", content)

    class File(io.BytesIO):
        def read(self, size=-1):
            return Counted(super().read(size))

    monkeypatch.setattr(corpus, "_TEXT_CHUNK", size)
    monkeypatch.setattr(corpus, "open_bytes", lambda path: File(content))
    Counted.copied = 0
    rows = columnar(path, Rejects())
    assert [(line, len(text)) for line, _, text in rows] == [(1, 1), (2, blocks * size), (3, 1)]
    assert Counted.copied <= 2 * len(content)
