"""Split lines of bytes into fields, normalise the names and hash them, in one compiled pass.

The normal form of a name is `normalise`. The compiled loops look it up in a table, character by
character. Names with a character whose normal form depends on its neighbours, or with white space
outside ASCII, are *deferred*: the loops return their positions and the caller normalises them in
Python.

Indices are not checked in compiled code. Each docstring states the shapes and dtypes of the arrays
and the invariants that bound every index; `make test-bounds` runs the tests with checked indices.
tests/kg/reading/slow_reader.py states the rule of reading in plain Python.

Files, graphs and ids are handled elsewhere.
"""

import unicodedata
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from data.jit import jit
from kg.arrays import Bytes, Ids

NEWLINE, TAB, COMMA = (ord(c) for c in "\n\t,")
# Why a line is rejected.
NUL, NOT_UTF8, BLANK, COLUMNS, TAB_IN_FIELD = range(5)

_UNCHANGED, _MAPPED, _DEFERRED = range(3)  # how a character is normalised; a name: the maximum
_TABLE = 0x20000  # code points in the table of normal forms
_GROWTH = 3  # the normal form of a mapped character has at most 3 times its bytes
_STABLE_PLANES = (0x20000, 0x40000)  # ideographs, unchanged by NFKC
_COMPATIBILITY = (0x2F800, 0x2FA20)  # except these

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
    """Return the normal form of a name: NFKC, without leading and trailing white space."""
    return unicodedata.normalize("NFKC", name).strip()


class NormalForms(NamedTuple):
    """The normal form of each code point below 0x20000, independent of its neighbours.

    Attributes:
        kind: uint8 `[0x20000]`: `_UNCHANGED`, `_MAPPED` or `_DEFERRED`.
        start: int32 `[0x20000 + 1]`, ascending, at most `len(text)`. A mapped code point c becomes
            `text[start[c]:start[c + 1]]`.
        text: uint8, UTF-8.
    """

    kind: Bytes
    start: Ids
    text: Bytes


@cache
def normal_forms() -> NormalForms:
    """Return the table for the Unicode version of this Python."""
    kind = np.array([_kind(code) for code in range(_TABLE)], np.uint8)
    text = bytearray()
    start = np.zeros(_TABLE + 1, np.int32)
    before = 0
    for code in np.flatnonzero(kind == _MAPPED).tolist():
        start[before : code + 1] = len(text)
        text += unicodedata.normalize("NFKC", chr(code)).encode()
        before = code + 1
    start[before:] = len(text)
    return NormalForms(kind, start, np.frombuffer(bytes(text), np.uint8))


def _kind(code: int) -> int:
    char = chr(code)
    if unicodedata.category(char)[0] == "M" or 0x1100 <= code < 0x1200 or 0xD800 <= code < 0xE000:
        return _DEFERRED  # marks and Hangul letters compose with the character before them
    if unicodedata.is_normalized("NFKC", char):
        return _DEFERRED if char.isspace() and code > 127 else _UNCHANGED
    normal = unicodedata.normalize("NFKC", char)
    unchanged = all(_kind(ord(c)) == _UNCHANGED for c in normal)
    short = len(normal.encode()) <= _GROWTH * len(char.encode())
    return _MAPPED if unchanged and short else _DEFERRED


# ---- Hashes


@jit
def _word(data: Any, i: Any) -> Any:
    """Return `data[i:i + 8]` as a little-endian uint64. Requires `0 <= i <= len(data) - 8`."""
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
    """Return XXH64 (https://github.com/Cyan4973/xxHash, its specification), seed 0, as uint64.

    Names are compared by this hash only: two of n names collide with probability n**2 / 2**65.

    Args:
        data: uint8; `data[begin:end]` is hashed and no other byte is read.
        begin: `0 <= begin <= end`.
        end: `end <= len(data)`.
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
    """Return the hash of each `data[begin[i]:end[i]]`, uint64 `[n]`.

    Args:
        data: uint8.
        begin: int64 `[n]`, `0 <= begin[i] <= end[i]`.
        end: int64 `[n]`, `end[i] <= len(data)`.
    """
    found = np.empty(len(begin), np.uint64)
    for i in range(len(begin)):
        found[i] = xxh64(data, begin[i], end[i])
    return found


# ---- Characters


@jit
def decode_character(data: Any, at: Any) -> Any:
    """Decode the UTF-8 character at `data[at]`; return code point and length in bytes.

    Invalid UTF-8 gives (0, 1): overlong forms, surrogates, code points above 0x10FFFF, and a
    character that is cut off.

    Args:
        data: uint8. The last byte is below 0x80: each byte is read only if all bytes before it
            are 0x80 or above, so no index passes the last byte.
        at: `0 <= at < len(data)`, and `data[at] >= 0x80`.
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
    """Return the kind of a code point; `kind` is uint8 `[_TABLE]` and read below `_TABLE` only."""
    if code < _TABLE:
        return np.int64(kind[code])
    if code >= _STABLE_PLANES[1] or _COMPATIBILITY[0] <= code < _COMPATIBILITY[1]:
        return _DEFERRED
    return _UNCHANGED


@jit
def _is_blank(byte: Any) -> Any:
    """Return whether `str.strip` removes this ASCII character."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@jit
def _strip(data: Any, begin: Any, end: Any) -> Any:
    """Strip ASCII white space: begin and end within `data[begin:end]`, as in `str.strip`."""
    while begin < end and _is_blank(data[begin]):
        begin += 1
    while begin < end and _is_blank(data[end - 1]):
        end -= 1
    return begin, end


@jit
def _write_normal(
    data: Any, begin: Any, end: Any, out: Any, at: Any, kind: Any, start: Any, text: Any
) -> Any:
    """Write the NFKC form of `data[begin:end]` to `out[at:]`; return the end of what was written.

    Args:
        data: uint8. `data[begin:end]` is valid UTF-8 without deferred characters, and a byte below
            0x80 follows it, `end < len(data)` (see `decode_character`).
        begin: `0 <= begin <= end`.
        end: See `data`.
        out: uint8, `len(out) >= at + _GROWTH * (end - begin)`.
        at: `0 <= at`.
        kind: `NormalForms.kind`.
        start: `NormalForms.start`.
        text: `NormalForms.text`.
    """
    while begin < end:
        byte = data[begin]
        if byte < 0x80:
            out[at] = byte
            begin += 1
            at += 1
            continue
        code, length = decode_character(data, begin)
        if code < _TABLE and kind[code] == _MAPPED:
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
    """Split a chunk of whole lines into rows, hash their names and report the other lines.

    Each line is scanned once, left to right. `at` is below `len(data)` when a byte is read, because
    the scan of a line stops at its newline and there are exactly `num_lines` newlines. Each line
    adds at most one row or one rejected line, and each row at most three deferred names, which
    bounds every index into the results.

    Args:
        data: uint8; the last byte is a newline.
        num_lines: The number of newlines in `data`, exactly.
        separator: TAB or COMMA.
        skip: uint8 `[num_lines]`, 1 for lines to ignore; or `[0]`: ignore none.
        kind: `NormalForms.kind`.
        start: `NormalForms.start`.
        text: `NormalForms.text`.

    Returns:
        hashes: uint64 `[rows, 3]`, of the normalised names; undefined for deferred names.
        raw_hashes: uint64 `[rows, 2]`, of head and tail as written in the file.
        begin: int64 `[rows]`, ascending: offset of each row in `data`.
        line: int64 `[rows]`: line number of each row within the chunk, from 0.
        empty: uint8 `[rows]`, bit c is set where field c is empty; 0 for deferred names.
        rejected: int64 `[n, 5]`: line, begin, end, reason, number of fields.
        deferred: int64 `[n, 4]`: row, column, and begin and end of the field in `data`.
    """
    hashes = np.empty((num_lines, 3), np.uint64)
    raw_hashes = np.empty((num_lines, 2), np.uint64)
    row_begin = np.empty(num_lines, np.int64)
    row_line = np.empty(num_lines, np.int64)
    empty = np.empty(num_lines, np.uint8)
    rejected = np.empty((num_lines, 5), np.int64)
    deferred = np.empty((3 * num_lines, 4), np.int64)
    scratch = np.empty(_GROWTH * len(data) + 8, np.uint8)
    begin, end, kinds = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    rows = num_rejected = num_deferred = at = 0
    plain_above = max(separator, NEWLINE)  # higher ASCII characters are plain text
    for line in range(num_lines):
        line_begin = at
        fields = worst = 0
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
                        kinds[fields] = worst
                    worst = 0
                    fields += 1
                    if fields < 3:
                        begin[fields] = at + 1
                elif byte == 0:
                    reason = NUL
                elif byte == TAB and reason < 0:
                    reason = TAB_IN_FIELD
                at += 1
            elif (
                0xE4 <= byte <= 0xE9  # ideographs: most of the text, unchanged by NFKC
                and np.int64(data[at + 1]) & 0xC0 == 0x80
                and np.int64(data[at + 2]) & 0xC0 == 0x80
            ):
                at += 3
            else:
                code, length = decode_character(data, at)
                if code == 0:
                    reason = NUL if reason == NUL else NOT_UTF8
                else:
                    worst = max(worst, _kind_of(code, kind))
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
            rejected[num_rejected, 0] = line
            rejected[num_rejected, 1] = line_begin
            rejected[num_rejected, 2] = line_end
            rejected[num_rejected, 3] = reason
            rejected[num_rejected, 4] = fields + 1
            num_rejected += 1
            continue
        end[2] = line_end
        kinds[2] = worst
        row_begin[rows] = line_begin
        row_line[rows] = line
        empty[rows] = 0
        for c in range(3):
            b, e = begin[c], end[c]
            if kinds[c] == _DEFERRED:
                deferred[num_deferred, 0] = rows
                deferred[num_deferred, 1] = c
                deferred[num_deferred, 2] = b
                deferred[num_deferred, 3] = e
                num_deferred += 1
                raw = xxh64(data, b, e) if c != 1 else _U(0)
                normal = raw
            elif kinds[c] == _MAPPED:
                stop = _write_normal(data, b, e, scratch, 0, kind, start, text)
                first, stop = _strip(scratch, 0, stop)
                normal = xxh64(scratch, first, stop)
                raw = xxh64(data, b, e) if c != 1 else _U(0)
                empty[rows] |= np.uint8((first == stop) << c)
            else:
                first, stop = _strip(data, b, e)
                normal = xxh64(data, first, stop)
                same = (first == b and stop == e) or c == 1
                raw = normal if same else xxh64(data, b, e)
                empty[rows] |= np.uint8((first == stop) << c)
            hashes[rows, c] = normal
            if c != 1:
                raw_hashes[rows, c >> 1] = raw
        rows += 1
    return (
        hashes[:rows],
        raw_hashes[:rows],
        row_begin[:rows],
        row_line[:rows],
        empty[:rows],
        rejected[:num_rejected].copy(),
        deferred[:num_deferred].copy(),
    )


@jit
def cut_names(
    data: Any, row: Any, column: Any, separator: int, kind: Any, start: Any, text: Any
) -> Any:
    """Cut out names and normalise them.

    Args:
        data: uint8; the last byte is a newline, so that every scan of a field stops in `data`.
        row: int64 `[n]`, ascending, `row[i] < len(data)`: where rows accepted by `scan_rows` begin.
        column: int64 `[n]`, 0, 1 or 2. Each pair of row and column occurs once; this bounds the
            bytes of the result.
        separator: TAB or COMMA.
        kind: `NormalForms.kind`.
        start: `NormalForms.start`.
        text: `NormalForms.text`.

    Returns:
        names: uint8, the bytes of the names.
        span: int64 `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`; empty for deferred names.
        deferred: int64 `[m, 3]`: i, and begin and end in `data` of the names left to `normalise`.
    """
    # The names of a row do not overlap, so their normal forms fit into _GROWTH times its length.
    size = 0
    for i in range(len(row)):
        if i == 0 or row[i] != row[i - 1]:
            at = row[i]
            while data[at] != NEWLINE:
                at += 1
            size += _GROWTH * (at - row[i])
    names = np.empty(size, np.uint8)
    span = np.empty((len(row), 2), np.int64)
    deferred = np.empty((len(row), 3), np.int64)
    num_deferred = used = 0
    for i in range(len(row)):
        at = row[i]
        for _ in range(column[i]):
            while data[at] != separator and data[at] != NEWLINE:
                at += 1
            at += data[at] == separator
        begin = at
        worst = _UNCHANGED
        while data[at] != separator and data[at] != NEWLINE:
            if data[at] < 0x80:
                at += 1
            else:
                code, length = decode_character(data, at)
                worst = max(worst, _kind_of(code, kind))
                at += length
        end = at
        if data[at] == NEWLINE and end > begin and data[end - 1] == 13:
            end -= 1
        if worst == _DEFERRED:
            deferred[num_deferred, 0] = i
            deferred[num_deferred, 1] = begin
            deferred[num_deferred, 2] = end
            num_deferred += 1
            span[i, 0] = span[i, 1] = used
            continue
        stop = _write_normal(data, begin, end, names, used, kind, start, text)
        span[i, 0], span[i, 1] = _strip(names, used, stop)
        used = stop
    return names[:used].copy(), span, deferred[:num_deferred].copy()
