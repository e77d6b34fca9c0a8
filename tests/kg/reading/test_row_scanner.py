"""The compiled loops over bytes, compared with decoding, normalising and splitting in Python."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.reading.row_scanner import (
    BLANK,
    COLUMNS,
    NOT_UTF8,
    NUL,
    TAB,
    cut_names,
    hash_spans,
    normal_forms,
    normalise,
    scan_rows,
    xxh64,
)

NO_SKIP = np.empty(0, np.uint8)


def scan(data: bytes):
    return scan_rows(
        np.frombuffer(data, np.uint8), data.count(b"\n"), TAB, NO_SKIP, *normal_forms()
    )


def cut(data: bytes, rows, columns) -> list[str]:
    """Return the names at these positions; deferred ones are normalised by Python."""
    names, span, hard = cut_names(
        np.frombuffer(data, np.uint8), np.array(rows), np.array(columns), TAB, *normal_forms()
    )
    texts = [names[a:b].tobytes().decode() for a, b in span.tolist()]
    for i, begin, end in hard.tolist():
        texts[i] = normalise(data[begin:end].decode())
    return texts


def hash_of(name: bytes) -> int:
    data = np.frombuffer(name + b"\n", np.uint8)
    return int(hash_spans(data, np.array([0]), np.array([len(name)]))[0])


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_hashes_are_xxh64(text, digest):
    assert hash_of(text) == digest
    around = np.frombuffer(b"??" + text + b"!!", np.uint8)
    assert xxh64(around, 2, 2 + len(text)) == digest


@pytest.mark.skipif(
    os.environ.get("NUMBA_BOUNDSCHECK") != "1", reason="`make test-bounds` checks indices"
)
def test_an_index_out_of_bounds_is_an_error():
    with pytest.raises(IndexError):
        hash_spans(np.zeros(8, np.uint8), np.array([0]), np.array([9]))


def test_distinct_names_have_distinct_hashes():
    words = {f"{a}{b}" for a in range(3000) for b in "甲乙丙丁ab"} | {"a" * n for n in range(99)}
    assert len({hash_of(w.encode()) for w in words}) == len(words)


def test_every_character_is_normalised_as_in_python():
    codes = [*range(0x32000), *range(0x32000, 0x110000, 97)]
    chars = [chr(c) for c in codes if not 0xD800 <= c < 0xE000 and chr(c) not in "\0\t\n"]
    data = "".join(f"a{c}b\tr\t{c}\n" for c in chars).encode()
    hashes, _, begin, _, empty, bad, hard = scan(data)
    assert not len(bad)
    wanted = [normalise(name) for c in chars for name in (f"a{c}b", c)]
    assert cut(data, np.repeat(begin, 2), np.tile([0, 2], len(begin))) == wanted
    # The names cut in the second pass are those hashed in the first.
    held = {2 * row + column // 2 for row, column, _, _ in hard.tolist()}
    easy = [i for i in range(len(wanted)) if i not in held]
    for i in easy[:: len(easy) // 3000]:
        assert hashes[i // 2, i % 2 * 2] == hash_of(wanted[i].encode())
    assert np.flatnonzero(empty == 4).tolist() == [i // 2 for i in easy if not wanted[i]]


def test_chinese_text_with_its_punctuation_is_not_deferred():
    ideographs = "".join(map(chr, range(0x4E00, 0xA000))) + "\U00020000\U0002f000\U00030000"
    text = ideographs + "，。：；！？（）《》「」、·—％ＡＢＣａｂｃ０１２①②㎡℃…Ⅳ"
    *_, hard = scan(f"{text}\t{text}\t{text}\n".encode())
    assert not len(hard)


PIECES = b"\t", b"\n", b"\0", b"\r", b"\xff", b"\xe4\xb8", b"\xc0\x80", b"\xed\xa0\x80"
CHARS = "a", "b", " ", "甲", "Ａ", "é", "e\u0301", "\u3000", "㎡", "\u2028", "\U0001f600"
pieces = st.sampled_from([b"\t", b"\xf4\x90\x80\x80", *PIECES, *(c.encode() for c in CHARS)])


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.one_of(pieces, st.binary(max_size=4)), max_size=40))
def test_lines_are_accepted_and_rejected_as_by_a_slow_scan(parts):
    data = b"".join(parts) + b"\n"
    rows, refused = [], []
    for line in data.split(b"\n")[:-1]:
        line = line.removesuffix(b"\r")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            refused.append(NUL if b"\0" in line else NOT_UTF8)
            continue
        if b"\0" in line:
            refused.append(NUL)
        elif not line:
            refused.append(BLANK)
        elif line.count(b"\t") != 2:
            refused.append(COLUMNS)
        else:
            rows.append([normalise(field) for field in text.split("\t")])
    hashes, _, begin, _, empty, bad, hard = scan(data)
    assert bad[:, 3].tolist() == refused
    assert len(hashes) == len(rows)
    if rows:
        found = cut(data, np.repeat(begin, 3), np.tile([0, 1, 2], len(begin)))
        assert found == [field for row in rows for field in row]
        held = {(row, column) for row, column, _, _ in hard.tolist()}
        for i, row in enumerate(rows):
            for c, name in enumerate(row):
                if (i, c) not in held:
                    assert hashes[i, c] == hash_of(name.encode())
                    assert bool(empty[i] >> c & 1) == (not name)
