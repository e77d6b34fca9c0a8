"""Rows of a TSV that look quoted, as csv.writer, pandas and Excel write them.

A TSV has no quotes: the caption of `1<TAB>"a ""b"" c"` has six of them. Readers count such rows, so
that they can be reported, and do not change them; `unquoted` removes the quotes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_QUOTED, _DOUBLED = "rows_that_look_quoted", "rows_with_doubled_quotes"  # of a manifest's counts
_FIRST_QUOTED = "first_row_that_looks_quoted"
_FIELD = re.compile(rb'"((?:[^"]++|"")*+)"(?=\t|\Z)')  # RFC 4180, with tabs
_OPENED = re.compile(rb'"(?:[^"]++|"")*+\Z')
_INSIDE = re.compile(rb'(?:[^"]++|"")*+\Z')
_CLOSED = re.compile(rb'(?:[^"]++|"")*+"(?=\t|\Z)')
_LONGEST_RECORD = 100  # lines of a quoted field
_BREAK_BYTES = bytes.maketrans(b"\t\n\r", b"   ")


class QuotedRows:
    """Counts rows with a quoted field, as csv.writer, pandas and Excel write; they are not changed.

    A field looks quoted if it begins and ends with `"` and every `"` in it is doubled. It may
    contain tabs, and line ends, which make several rows of it.

    Attributes:
        count: Rows that look quoted.
        doubled: Those with a doubled quote, which is hardly ever part of a text.
        first: Line of the first, from 1.
    """

    def __init__(self) -> None:
        self.count = self.doubled = self.first = 0
        self._opened = 0  # line where a quoted field began that has not ended

    def add(self, line: int, row: bytes) -> None:
        """Look at one row, without its line end."""
        if self._opened:
            if _INSIDE.match(row):
                return
            opened, self._opened = self._opened, 0
            if line - opened < _LONGEST_RECORD and (end := _CLOSED.match(row)):
                self._count(opened, end[0])
                return
        at = _next_quote(row, -1)
        while at >= 0:
            if found := _FIELD.match(row, at):
                self._count(line, found[1])
                return
            at = _next_quote(row, at)
        if _opens(row):
            self._opened = line

    def add_lines(self, lines: bytes, line: int) -> None:
        """Look at whole lines; the first is number `line` of its file."""
        counted, at = 0, lines.find(b'"')
        while at >= 0:
            begin = lines.rfind(b"\n", 0, at) + 1
            end = lines.find(b"\n", at)
            end = len(lines) if end < 0 else end
            line += lines.count(b"\n", counted, begin)
            counted = begin
            self.add(line, lines[begin:end].removesuffix(b"\r"))
            at = lines.find(b'"', end)

    def merge(self, other: "QuotedRows") -> None:
        """Add the rows of another part of the file, or of another file."""
        self.count += other.count
        self.doubled += other.doubled
        self.first = self.first or other.first

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> "QuotedRows":
        """Return what `counts` wrote."""
        found = cls()
        found.count, found.doubled = counts.get(_QUOTED, 0), counts.get(_DOUBLED, 0)
        found.first = counts.get(_FIRST_QUOTED, 0)
        return found

    def counts(self) -> dict[str, int]:
        """Return the counts for a manifest; empty if no row looks quoted."""
        if not self.count:
            return {}
        return {_QUOTED: self.count, _DOUBLED: self.doubled, _FIRST_QUOTED: self.first}

    def _count(self, line: int, content: bytes) -> None:
        self.count += 1
        self.doubled += b'""' in content
        self.first = self.first or line


def _next_quote(row: bytes, at: int) -> int:
    """Return where the next field from `at` on begins that begins with a quote; -1: none does.

    -1 as `at` is the beginning of the row.
    """
    if at < 0 and row.startswith(b'"'):
        return 0
    found = row.find(b'\t"', max(at, 0))
    return found + 1 if found >= 0 else -1


def unquoted(row: bytes) -> bytes:
    """Return a row with its quoted fields unquoted; tabs and line ends in them become spaces."""
    parts, done, at = [], 0, _next_quote(row, -1)
    while at >= 0:
        found = _FIELD.match(row, at)
        if found:
            plain = found[1].replace(b'""', b'"').translate(_BREAK_BYTES)
            parts += [row[done:at], plain]
            done = at = found.end()
        at = _next_quote(row, at)
    return b"".join([*parts, row[done:]])


def records(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of each row: one, or those that a quoted field goes over.

    Args:
        lines: Without their line ends.
    """
    held: list[bytes] = []
    for line in lines:
        held.append(line)
        while held and (count := _length(held)):
            yield held[:count]
            del held[:count]
    yield from ([line] for line in held)


def _length(held: Sequence[bytes]) -> int:
    """Return how many of these lines are the first row; 0: that depends on further lines."""
    if not _opens(held[0]):
        return 1
    for number, line in enumerate(held[1:], 2):
        if b'"' in line and not _INSIDE.match(line):
            return number if _CLOSED.match(line) else 1
    return 0 if len(held) < _LONGEST_RECORD else 1


def _opens(row: bytes) -> bool:
    """Return whether the last quoted field of a row does not end in it."""
    at = _next_quote(row, -1)
    while at >= 0:
        found = _FIELD.match(row, at)
        if not found and _OPENED.match(row, at):
            return True
        at = _next_quote(row, found.end() if found else at)
    return False


def quoted_note(counts: Mapping[str, Any]) -> str:
    """Return a report's line on rows that look quoted, from a manifest's counts, or nothing."""
    if not counts.get(_QUOTED):
        return ""
    return (
        f"warning: {counts[_QUOTED]:,} rows look quoted, as pandas, csv.writer and Excel write "
        f"them (first: line {counts[_FIRST_QUOTED]}). A TSV has no quotes, so they are part of the "
        "text. Convert the file: `cli.py data unquote FILE --out NEW.tsv`."
    )
