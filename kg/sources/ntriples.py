"""Split lines of N-Triples into the positions of their terms, in one compiled pass.

The grammar is that of RDF 1.1 N-Triples (https://www.w3.org/TR/n-triples/), one triple per line;
DBpedia's Turtle files are in this form, too. Lines outside the grammar are returned with a reason.

Indices are not checked in compiled code. Each docstring states the shapes and dtypes of the arrays
and the invariants that bound every index; `make test-bounds` runs the tests with checked indices.

What the terms mean is in `kg.sources.rdf`.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import tsv
from data.errors import SkipReason
from data.jit import jit
from kg.arrays import Bytes, Ints
from kg.reading.row_scanner import NEWLINE, decode_character

IRI, BLANK, PLAIN, TAGGED, TYPED = range(5)  # kinds of terms; the last three are literals
SUBJECT, PREDICATE, OBJECT, SUFFIX = range(4)  # columns of `Terms.span`
(_OK, _EMPTY, _NUL, _NOT_UTF8, _CUT, _NO_SUBJECT, _NO_PREDICATE, _NO_OBJECT, _IRI_CHARACTER,
 _ESCAPE, _TAG, _NO_DOT, _AFTER_DOT) = range(13)  # fmt: skip
REASONS = {
    _NUL: tsv.NUL,
    _NOT_UTF8: tsv.NOT_UTF8,
    _CUT: SkipReason("line ends inside a term"),
    _NO_SUBJECT: SkipReason("subject is neither <IRI> nor blank node"),
    _NO_PREDICATE: SkipReason("predicate is not <IRI>"),
    _NO_OBJECT: SkipReason("object is neither <IRI>, blank node nor literal"),
    _IRI_CHARACTER: SkipReason("IRI contains a space or another character that must be escaped"),
    _ESCAPE: SkipReason("invalid escape"),
    _TAG: SkipReason("invalid language tag"),
    _NO_DOT: SkipReason("no dot at the end"),
    _AFTER_DOT: SkipReason("text after the dot"),
}
_SPACE, _QUOTE, _DOT, _HASH, _LESS, _GREATER, _AT, _CARET, _MINUS, _UNDER, _COLON, _BACK, _CR = (
    ord(c) for c in ' ".#<>@^-_:\\\r'
)
_IN_IRI = np.array([c > 32 and chr(c) not in '<>"{}|^`\\' for c in range(128)])
_ALNUM = np.array([chr(c).isalnum() for c in range(128)])
_HEX = np.array([chr(c) in "0123456789abcdefABCDEF" for c in range(128)])
_ECHAR = np.array([chr(c) in "tbnrf\"'\\" for c in range(128)])
_ESCAPES = dict(zip("tbnrf\"'\\", "\t\b\n\r\f\"'\\", strict=True))
_ESCAPED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)


class Terms(NamedTuple):
    """The triples of a chunk; all spans are half-open, within the chunk.

    Attributes:
        span: int64 `[n, 4, 2]`: subject, predicate and object, without their delimiters, and the
            suffix of a literal: its language tag or the IRI of its datatype.
        kind: uint8 `[n, 2]`: IRI, BLANK or a kind of literal, of subject and object.
        escaped: uint8 `[n]`: bit c is set where column c contains a backslash.
        line: int64 `[n]`, from 0.
        rejected: int64 `[m, 4]`: line, begin, end, and a key of `REASONS`.
    """

    span: Ints
    kind: Bytes
    escaped: Bytes
    line: Ints
    rejected: Ints


def unescape(text: str) -> str:
    r"""Return the text with `\t`, `\"`, `\uXXXX`, `\UXXXXXXXX` ... replaced (RDF 1.1 N-Triples).

    Two escapes that form a surrogate pair, which some writers emit, become their character.

    Raises:
        ValueError: An escape is a lone surrogate or above U+10FFFF.
    """
    plain = _ESCAPED.sub(lambda m: _ESCAPES[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), text)
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@jit
def _after_character(data: Any, at: Any) -> Any:
    """Return the end of the UTF-8 character at `data[at]`, and _OK or _NOT_UTF8.

    See `decode_character` for the requirements.
    """
    code, length = decode_character(data, at)
    return at + length, _OK if code else _NOT_UTF8


@jit
def _after_escape(data: Any, at: Any, in_iri: Any) -> Any:
    """Return the end of the escape whose backslash is `data[at]`; `at` itself if it is invalid.

    Each byte is read only if those before it are not a newline, so no index passes the last byte.
    """
    letter = data[at + 1]
    digits = 4 if letter == 117 else 8 if letter == 85 else 0  # u, U
    if not digits:
        return at + 2 if not in_iri and letter < 128 and _ECHAR[letter] else at
    for i in range(digits):
        byte = data[at + 2 + i]
        if byte >= 128 or not _HEX[byte]:
            return at
    return at + 2 + digits


@jit
def _after_iri(data: Any, at: Any) -> Any:
    """Scan an IRI from its first character; return the index of `>`, the reason, if escaped."""
    escaped = False
    while True:
        byte = np.int64(data[at])
        if byte == _GREATER:
            return at, _OK, escaped
        if byte >= 128:
            at, reason = _after_character(data, at)
            if reason:
                return at, reason, escaped
        elif _IN_IRI[byte]:
            at += 1
        elif byte == _BACK:
            end = _after_escape(data, at, True)
            if end == at:
                return at, _ESCAPE, escaped
            at, escaped = end, True
        elif byte == NEWLINE:
            return at, _CUT, escaped
        else:
            return at, _NUL if byte == 0 else _IRI_CHARACTER, escaped


@jit
def _after_literal(data: Any, at: Any) -> Any:
    """Scan a literal from after its quote; return the index of the closing quote, and as above."""
    escaped = False
    while True:
        byte = np.int64(data[at])
        if byte >= 128:
            at, reason = _after_character(data, at)
            if reason:
                return at, reason, escaped
        elif byte == _QUOTE:
            return at, _OK, escaped
        elif byte == _BACK:
            end = _after_escape(data, at, False)
            if end == at:
                return at, _CUT if data[at + 1] == NEWLINE else _ESCAPE, escaped
            at, escaped = end, True
        elif byte in (NEWLINE, _CR, 0):
            return at, _CUT if byte else _NUL, escaped
        else:
            at += 1


@jit
def _after_label(data: Any, at: Any) -> Any:
    """Return the end of a blank node label, which begins at `data[at]`; `at`: it has no `_:`."""
    begin = at
    if data[at] != _UNDER or data[at + 1] != _COLON:
        return begin
    at += 2
    while data[at] >= 128 or _ALNUM[data[at]] or data[at] in (_MINUS, _UNDER, _COLON, _DOT):
        at += 1
    while data[at - 1] == _DOT:  # the last character is not a dot
        at -= 1
    return at


@jit
def _after_tag(data: Any, at: Any) -> Any:
    """Return the end of a language tag; its first part has letters only. `at` follows the `@`."""
    first = True
    while data[at] < 128:
        if data[at] == _MINUS:
            if not _ALNUM[data[at - 1]]:
                return at
            first = False
        elif not _ALNUM[data[at]] or (first and data[at] <= 57):
            return at
        at += 1
    return at


@jit
def _skip_blanks(data: Any, at: Any) -> Any:
    while data[at] == _SPACE or data[at] == 9:
        at += 1
    return at


@jit
def _scan_suffix(data: Any, at: Any, span: Any) -> Any:
    """Scan what follows the closing quote of a literal; return end, reason, kind."""
    if data[at] == _AT:
        begin = at + 1
        end = _after_tag(data, begin)
        span[0], span[1] = begin, end
        return end, _OK if end > begin and data[end - 1] != _MINUS else _TAG, TAGGED
    if data[at] == _CARET:
        if data[at + 1] != _CARET or data[at + 2] != _LESS:
            return at, _NO_OBJECT, TYPED
        end, reason, _ = _after_iri(data, at + 3)
        span[0], span[1] = at + 3, end
        return end + (reason == _OK), reason, TYPED
    return at, _OK, PLAIN


@jit
def _scan_line(data: Any, at: Any, span: Any, kind: Any) -> Any:
    """Scan one line; return where the scan ended, the reason, and the bits of `Terms.escaped`.

    Args:
        data: uint8; the last byte is a newline. No scan passes a newline.
        at: The begin of the line, below `len(data)`.
        span: int64 `[4, 2]`, written.
        kind: uint8 `[2]`, written.
    """
    escaped = 0
    for column in range(3):
        at = _skip_blanks(data, at)
        if column == 0 and data[at] in (NEWLINE, _CR, _HASH):
            return at, _EMPTY if data[at] != _CR or data[at + 1] == NEWLINE else _NO_SUBJECT, 0
        this = IRI
        if data[at] == _LESS:
            end, reason, has_escape = _after_iri(data, at + 1)
            span[column, 0], span[column, 1] = at + 1, end
            after = end + 1
        elif data[at] == _QUOTE and column == OBJECT:
            end, reason, has_escape = _after_literal(data, at + 1)
            span[column, 0], span[column, 1] = at + 1, end
            if reason == _OK:
                after, reason, this = _scan_suffix(data, end + 1, span[SUFFIX])
                end = after
        else:
            after = end = _after_label(data, at) if column != PREDICATE else at
            span[column, 0], span[column, 1] = at, end
            this, has_escape = BLANK, False
            reason = _OK if end > at + 2 else _NO_SUBJECT + column
            if data[at] == NEWLINE:
                reason = _CUT
        if reason:
            return end, reason, escaped
        if column != PREDICATE:
            kind[column >> 1] = this
        escaped |= has_escape << column
        at = after
    at = _skip_blanks(data, at)
    if data[at] != _DOT:
        return at, _NO_DOT, escaped
    at = _skip_blanks(data, at + 1)
    if data[at] == _CR:
        at += 1
    return at, _OK if data[at] in (NEWLINE, _HASH) else _AFTER_DOT, escaped


@jit
def _scan(data: Any, num_lines: Any) -> Any:
    """Scan whole lines; return the fields of `Terms`.

    Each line adds at most one row or one rejected line, which bounds every index of the results.

    Args:
        data: uint8; the last byte is a newline.
        num_lines: The number of newlines in `data`, exactly.
    """
    span = np.zeros((num_lines, 4, 2), np.int64)
    kind = np.empty((num_lines, 2), np.uint8)
    escaped = np.empty(num_lines, np.uint8)
    line_of = np.empty(num_lines, np.int64)
    rejected = np.empty((num_lines, 4), np.int64)
    rows = num_rejected = at = 0
    for line in range(num_lines):
        begin = at
        at, reason, bits = _scan_line(data, begin, span[rows], kind[rows])
        while data[at] != NEWLINE:
            at += 1
        if reason == _OK:
            escaped[rows] = bits
            line_of[rows] = line
            rows += 1
        elif reason != _EMPTY:
            rejected[num_rejected, 0] = line
            rejected[num_rejected, 1] = begin
            rejected[num_rejected, 2] = at
            rejected[num_rejected, 3] = reason
            num_rejected += 1
        at += 1
    return span[:rows], kind[:rows], escaped[:rows], line_of[:rows], rejected[:num_rejected]


def scan(data: NDArray[Any], num_lines: int) -> Terms:
    """Return the terms of whole lines of N-Triples.

    Args:
        data: uint8; the last byte is a newline.
        num_lines: The number of newlines in `data`.
    """
    return Terms(*_scan(data, num_lines))


@jit
def starts_with(data: Any, span: Any, prefix: Any) -> Any:
    """Return for each span whether its bytes begin with `prefix` and continue: bool `[n]`.

    Args:
        data: uint8.
        span: int64 `[n, 2]`, within `data`.
        prefix: uint8.
    """
    found = np.zeros(len(span), np.bool_)
    size = len(prefix)
    for i in range(len(span)):
        begin = span[i, 0]
        if span[i, 1] - begin > size:
            same = True
            # The end of a prefix differs sooner than its scheme and host.
            for j in range(size - 1, -1, -1):
                if data[begin + j] != prefix[j]:
                    same = False
                    break
            found[i] = same
    return found


@jit
def local_begin(data: Any, span: Any) -> Any:
    """Return where the last part of each IRI, after `#` or `/`, begins: int64 `[n]`.

    Args:
        data: uint8.
        span: int64 `[n, 2]`, within `data`.
    """
    found = np.empty(len(span), np.int64)
    for i in range(len(span)):
        at = span[i, 1] - 1
        while at > span[i, 0] and data[at - 1] != 35 and data[at - 1] != 47:
            at -= 1
        found[i] = max(at, span[i, 0])
    return found
