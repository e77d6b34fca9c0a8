"""Lines of bytes -> fields, normal forms and 64-bit hashes, in one compiled pass.

Knows what a row, a name and a hash are; knows nothing of files, graphs or ids. A name's normal form
is `normalise`; the loops do it by a table for nearly all names, and hand back the few that are
*hard*: those with a character that depends on its neighbours, or that is white space beyond ASCII.
"""

import unicodedata
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

NEWLINE, TAB, COMMA = (ord(c) for c in "\n\t,")
# Why a line is not a row; 5 + column: that column is empty.
NUL, NOT_UTF8, BLANK, COLUMNS, TAB_IN_FIELD, EMPTY = range(6)

_PLAIN, _SIMPLE, _HARD = range(3)  # what a character, and so the name with it, asks for
_TABLE = 0x20000  # code points that have a place in the table of normal forms
_GROWTH = 3  # a simple character's normal form is at most so many times as long, in bytes
_STABLE_PLANES = (0x20000, 0x40000)  # ideographs, but for
_COMPATIBILITY = (0x2F800, 0x2FA20)  # these

_U = np.uint64
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)


def normalise(name: str) -> str:
    """The name as the graph holds it: NFKC, without white space around it."""
    return unicodedata.normalize("NFKC", name).strip()


class NormalForms(NamedTuple):
    """What `normalise` makes of each code point below 0x20000, wherever it stands.

    Attributes:
        kind: uint8; stays as it is, becomes `text[start[c]:start[c + 1]]`, or is hard.
        start: int32.
        text: UTF-8.
    """

    kind: Bytes
    start: NDArray[np.int32]
    text: Bytes


@cache
def normal_forms() -> NormalForms:
    """The table for this Python's version of Unicode."""
    kind = np.array([_kind(code) for code in range(_TABLE)], np.uint8)
    text = bytearray()
    start = np.zeros(_TABLE + 1, np.int32)
    before = 0
    for code in np.flatnonzero(kind == _SIMPLE).tolist():
        start[before : code + 1] = len(text)
        text += unicodedata.normalize("NFKC", chr(code)).encode()
        before = code + 1
    start[before:] = len(text)
    return NormalForms(kind, start, np.frombuffer(bytes(text), np.uint8))


def _kind(code: int) -> int:
    char = chr(code)
    if unicodedata.category(char)[0] == "M" or 0x1100 <= code < 0x1200 or 0xD800 <= code < 0xE000:
        return _HARD  # marks and Hangul letters compose with what stands before them
    if unicodedata.is_normalized("NFKC", char):
        return _HARD if char.isspace() and code > 127 else _PLAIN
    normal = unicodedata.normalize("NFKC", char)
    simple = all(_kind(ord(c)) == _PLAIN for c in normal)
    short = len(normal.encode()) <= _GROWTH * len(char.encode())
    return _SIMPLE if simple and short else _HARD


# ---- Hashes


@jit
def _word(data: Any, i: Any) -> Any:
    """Eight bytes, the lowest first."""
    return (
        _U(data[i])
        | _U(data[i + 1]) << _U(8)
        | _U(data[i + 2]) << _U(16)
        | _U(data[i + 3]) << _U(24)
        | _U(data[i + 4]) << _U(32)
        | _U(data[i + 5]) << _U(40)
        | _U(data[i + 6]) << _U(48)
        | _U(data[i + 7]) << _U(56)
    )


@jit
def _rotate(value: Any, bits: Any) -> Any:
    return value << _U(bits) | value >> _U(64 - bits)


@jit
def _round(state: Any, word: Any) -> Any:
    return _rotate(state + word * _P2, 31) * _P1


@jit
def xxh64(data: Any, begin: Any, end: Any) -> Any:
    """XXH64 (https://github.com/Cyan4973/xxHash, its specification) of `data[begin:end]`, seed 0.

    Names are told apart by it alone: n of them share a hash with a probability of n**2 / 2**65.
    """
    at = begin
    if end - begin >= 32:
        a, b, c, d = _P1 + _P2, _P2, _U(0), _U(0) - _P1
        while at + 32 <= end:
            a = _round(a, _word(data, at))
            b = _round(b, _word(data, at + 8))
            c = _round(c, _word(data, at + 16))
            d = _round(d, _word(data, at + 24))
            at += 32
        value = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        for lane in (a, b, c, d):
            value = (value ^ _round(_U(0), lane)) * _P1 + _P4
    else:
        value = _P5
    value += _U(end - begin)
    while at + 8 <= end:
        value = _rotate(value ^ _round(_U(0), _word(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        half = _U(data[at]) | _U(data[at + 1]) << _U(8)
        half |= _U(data[at + 2]) << _U(16) | _U(data[at + 3]) << _U(24)
        value = _rotate(value ^ half * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate(value ^ _U(data[at]) * _P5, 11) * _P1
        at += 1
    value = (value ^ value >> _U(33)) * _P2
    value = (value ^ value >> _U(29)) * _P3
    return value ^ value >> _U(32)


@jit
def hash_spans(data: Any, begin: Any, end: Any) -> Any:
    """The hash of each `data[begin[i]:end[i]]`."""
    found = np.empty(len(begin), np.uint64)
    for i in range(len(begin)):
        found[i] = xxh64(data, begin[i], end[i])
    return found


# ---- Characters


@jit
def _character(data: Any, at: Any) -> Any:
    """The code point that begins at `at` with a byte >= 0x80, and its length; 0, 1 if none does.

    The data must end in a byte below 0x80.
    """
    b0 = np.int64(data[at])
    b1 = np.int64(data[at + 1])
    if b0 < 0xC2 or b0 > 0xF4 or b1 & 0xC0 != 0x80:
        return 0, 1
    if b0 < 0xE0:
        return (b0 & 0x1F) << 6 | b1 & 0x3F, 2
    b2 = np.int64(data[at + 2])
    if b2 & 0xC0 != 0x80:
        return 0, 1
    if b0 < 0xF0:
        code = (b0 & 0x0F) << 12 | (b1 & 0x3F) << 6 | b2 & 0x3F
        return (code, 3) if code >= 0x800 and code >> 11 != 0x1B else (0, 1)
    b3 = np.int64(data[at + 3])
    code = (b0 & 0x07) << 18 | (b1 & 0x3F) << 12 | (b2 & 0x3F) << 6 | b3 & 0x3F
    if b3 & 0xC0 == 0x80 and 0x10000 <= code <= 0x10FFFF:
        return code, 4
    return 0, 1


@jit
def _kind_of(code: Any, kind: Any) -> Any:
    if code < _TABLE:
        return np.int64(kind[code])
    if code >= _STABLE_PLANES[1] or _COMPATIBILITY[0] <= code < _COMPATIBILITY[1]:
        return _HARD
    return _PLAIN


@jit
def _is_blank(byte: Any) -> Any:
    """Whether `str.strip` takes this ASCII character away."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@jit
def _strip(data: Any, begin: Any, end: Any) -> Any:
    while begin < end and _is_blank(data[begin]):
        begin += 1
    while begin < end and _is_blank(data[end - 1]):
        end -= 1
    return begin, end


@jit
def _write_normal(
    data: Any, begin: Any, end: Any, out: Any, at: Any, kind: Any, start: Any, text: Any
) -> Any:
    """Write the NFKC form of a name without hard characters to `out[at:]`; where it ends there."""
    while begin < end:
        byte = data[begin]
        if byte < 0x80:
            out[at] = byte
            begin += 1
            at += 1
            continue
        code, length = _character(data, begin)
        if code < _TABLE and kind[code] == _SIMPLE:
            for i in range(start[code], start[code + 1]):
                out[at] = text[i]
                at += 1
            begin += length
        else:
            for _ in range(length):
                out[at] = data[begin]
                begin += 1
                at += 1
    return at


# ---- Rows


@jit
def scan_rows(
    data: Any, num_lines: int, separator: int, skip: Any, kind: Any, start: Any, text: Any
) -> Any:
    """The rows of a chunk of whole lines: hashes of their names; and what is wrong with the others.

    Args:
        data: Bytes that end in a newline.
        num_lines: How many newlines they hold.
        separator: Between fields.
        skip: Lines to leave alone (1), or an empty array.
        kind: Of `normal_forms()`.
        start: The same.
        text: The same.

    Returns:
        hashes: `[rows, 3]` of the normalised names; those of hard names are not filled in.
        stood: `[rows, 2]`, of head and tail as they stood.
        begin: `[rows]`, where each row begins.
        line: `[rows]`, which line of the chunk it is.
        empty: `[rows]`, bit c is set where field c is empty.
        bad: `[n, 5]`: line, begin, end, reason, number of fields.
        hard: `[n, 4]`: row, column, begin, end of each hard name.
    """
    hashes = np.empty((num_lines, 3), np.uint64)
    stood = np.empty((num_lines, 2), np.uint64)
    row_begin = np.empty(num_lines, np.int64)
    row_line = np.empty(num_lines, np.int64)
    empty = np.empty(num_lines, np.uint8)
    bad = np.empty((num_lines, 5), np.int64)
    hard = np.empty((3 * num_lines, 4), np.int64)
    scratch = np.empty(_GROWTH * len(data) + 8, np.uint8)
    begin, end, asks = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    rows = num_bad = num_hard = at = 0
    plain_above = max(separator, NEWLINE)  # ASCII characters that mean nothing here
    for line in range(num_lines):
        line_begin = at
        fields = ask = 0
        reason = -1
        begin[0] = at
        while True:
            byte = np.int64(data[at])
            if byte < 0x80:
                if byte > plain_above:
                    at += 1
                    continue
                if byte == NEWLINE:
                    break
                if byte == separator:
                    if fields < 3:
                        end[fields] = at
                        asks[fields] = ask
                    ask = 0
                    fields += 1
                    if fields < 3:
                        begin[fields] = at + 1
                elif byte == 0:
                    reason = NUL
                elif byte == TAB and reason < 0:
                    reason = TAB_IN_FIELD
                at += 1
            elif (
                0xE4 <= byte <= 0xE9  # ideographs: most of the text, and stable
                and np.int64(data[at + 1]) & 0xC0 == 0x80
                and np.int64(data[at + 2]) & 0xC0 == 0x80
            ):
                at += 3
            else:
                code, length = _character(data, at)
                if code == 0:
                    reason = NUL if reason == NUL else NOT_UTF8
                else:
                    ask = max(ask, _kind_of(code, kind))
                at += length
        line_end = at
        at += 1
        if len(skip) and skip[line]:
            continue
        if line_end > line_begin and data[line_end - 1] == 13:
            line_end -= 1
        if reason < 0 or reason == TAB_IN_FIELD:
            if line_end == line_begin:
                reason = BLANK
            elif fields != 2:
                reason = COLUMNS
        if reason >= 0:
            bad[num_bad, 0] = line
            bad[num_bad, 1] = line_begin
            bad[num_bad, 2] = line_end
            bad[num_bad, 3] = reason
            bad[num_bad, 4] = fields + 1
            num_bad += 1
            continue
        end[2] = line_end
        asks[2] = ask
        row_begin[rows] = line_begin
        row_line[rows] = line
        empty[rows] = 0
        for c in range(3):
            b, e = begin[c], end[c]
            if asks[c] == _HARD:
                hard[num_hard, 0] = rows
                hard[num_hard, 1] = c
                hard[num_hard, 2] = b
                hard[num_hard, 3] = e
                num_hard += 1
                before = xxh64(data, b, e) if c != 1 else _U(0)
                after = before
            elif asks[c] == _SIMPLE:
                stop = _write_normal(data, b, e, scratch, 0, kind, start, text)
                first, stop = _strip(scratch, 0, stop)
                after = xxh64(scratch, first, stop)
                before = xxh64(data, b, e) if c != 1 else _U(0)
                empty[rows] |= np.uint8((first == stop) << c)
            else:
                first, stop = _strip(data, b, e)
                after = xxh64(data, first, stop)
                same = (first == b and stop == e) or c == 1
                before = after if same else xxh64(data, b, e)
                empty[rows] |= np.uint8((first == stop) << c)
            hashes[rows, c] = after
            if c != 1:
                stood[rows, c >> 1] = before
        rows += 1
    return (
        hashes[:rows],
        stood[:rows],
        row_begin[:rows],
        row_line[:rows],
        empty[:rows],
        bad[:num_bad].copy(),
        hard[:num_hard].copy(),
    )


@jit
def cut_names(
    data: Any, row: Any, column: Any, separator: int, kind: Any, start: Any, text: Any
) -> Any:
    """The normalised name in column `column[i]` of the row that begins at `row[i]`, for each i.

    Args:
        data: Bytes that end in a newline.
        row: Where rows begin that `scan_rows` took; ascending.
        column: 0, 1 or 2.
        separator: Between fields.
        kind: Of `normal_forms()`.
        start: The same.
        text: The same.

    Returns:
        names: The names' bytes.
        span: `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`.
        hard: `[n, 3]`: i, begin, end in `data` of the names that are left to `normalise`.
    """
    # A row holds three names at most, so its normal forms fit into three times its length.
    size = 0
    for i in range(len(row)):
        if i == 0 or row[i] != row[i - 1]:
            at = row[i]
            while data[at] != NEWLINE:
                at += 1
            size += _GROWTH * (at - row[i])
    names = np.empty(size, np.uint8)
    span = np.empty((len(row), 2), np.int64)
    hard = np.empty((len(row), 3), np.int64)
    num_hard = used = 0
    for i in range(len(row)):
        at = row[i]
        for _ in range(column[i]):
            while data[at] != separator and data[at] != NEWLINE:
                at += 1
            at += data[at] == separator
        begin = at
        ask = _PLAIN
        while data[at] != separator and data[at] != NEWLINE:
            if data[at] < 0x80:
                at += 1
            else:
                code, length = _character(data, at)
                ask = max(ask, _kind_of(code, kind))
                at += length
        end = at
        if data[at] == NEWLINE and end > begin and data[end - 1] == 13:
            end -= 1
        if ask == _HARD:
            hard[num_hard, 0] = i
            hard[num_hard, 1] = begin
            hard[num_hard, 2] = end
            num_hard += 1
            span[i, 0] = span[i, 1] = used
            continue
        stop = _write_normal(data, begin, end, names, used, kind, start, text)
        span[i, 0], span[i, 1] = _strip(names, used, stop)
        used = stop
    return names[:used].copy(), span, hard[:num_hard].copy()
