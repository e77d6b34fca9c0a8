"""Read a dump of triples as chunks of whole lines, plain or gzip, TSV or CSV.

The separator and a header are detected from the first line. Records with quotes (CSV, RFC 4180) are
parsed here, one at a time; all other lines are left to `kg.reading.row_scanner`.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import tsv
from data.errors import InputError, SkipReason
from data.tsv import Rejected, is_utf8, open_bytes, wrong_column_count
from kg.arrays import Bytes, Ints
from kg.reading.row_scanner import BLANK, COMMA, NEWLINE, NOT_UTF8, NUL, TAB, TAB_IN_FIELD

_BLOCK = 1 << 22  # bytes per read
_LONGEST_ROW = 1 << 26  # bytes
_LONGEST_RECORD = 1000  # lines of a quoted CSV record
CSV_HEADER = "实体,属性,值"
_BOM = b"\xef\xbb\xbf"
_COLUMNS = {  # names of the columns in a header
    "head": ("head", "h", "subject", "subj", "s", "entity", "entity1", "source", "src", "node1",
             "实体", "实体1", "头实体", "头", "主体", "主语"),
    "relation": ("relation", "r", "rel", "predicate", "pred", "p", "attribute", "property", "edge",
                 "关系", "属性", "谓语", "谓词"),
    "tail": ("tail", "t", "object", "obj", "o", "value", "entity2", "target", "dst", "node2",
             "值", "属性值", "实体2", "尾实体", "尾", "客体", "宾语"),
}  # fmt: skip
REASONS = {  # of `row_scanner`, as reported; see `wrong_column_count` for COLUMNS
    NUL: tsv.NUL,
    NOT_UTF8: tsv.NOT_UTF8,
    BLANK: tsv.BLANK,
    TAB_IN_FIELD: SkipReason("line break, tab or NUL in a field"),
}


class Chunk(NamedTuple):
    """Whole lines of a dump, and the CSV records with quotes already parsed from them.

    Attributes:
        data: The bytes; they end in a newline.
        base: Their offset in the bytes of all dumps, concatenated.
        line: Number of the first line in its file.
        separator: TAB or COMMA.
        skip: uint8, 1 for each line that belongs to a record with quotes; empty: no such line.
        records: Line, offset in `data` and fields of each such record.
        rejected: Malformed records.
    """

    data: bytes
    base: int
    line: int
    separator: int
    skip: Bytes = np.empty(0, np.uint8)
    records: Sequence[tuple[int, int, list[str]]] = ()
    rejected: Sequence[Rejected] = ()


def read_chunks(path: Path, base: int) -> Iterator[Chunk]:
    """Read a dump chunk by chunk.

    Args:
        path: The dump.
        base: Total size of the dumps before it, in bytes.

    Raises:
        InputError: The file is empty or damaged, its header names the columns in another order, or
            a row is longer than 64 MB.
    """
    number = 1
    rest = b""
    separator = 0  # unknown
    header: list[Rejected] = []
    with open_bytes(path) as file:
        while block := file.read(_BLOCK):
            rest += block
            cut = rest.rfind(b"\n") + 1
            if not separator and cut:
                separator, skipped, header = _detect(path, rest)
                number += rest.count(b"\n", 0, skipped)
                rest, base = rest[skipped:], base + skipped
                cut = rest.rfind(b"\n") + 1
            if not cut and len(rest) > _LONGEST_ROW:
                raise InputError(
                    f"{path}:{number}: a row of more than {_LONGEST_ROW >> 20} MB. Is this a "
                    "text file of triples?"
                )
            if cut:
                chunk = _chunk_of(rest[:cut], base, number, separator, final=False)
                yield chunk._replace(rejected=[*header, *chunk.rejected]) if header else chunk
                header = []
                used = len(chunk.data)
                number += rest.count(b"\n", 0, used)
                rest, base = rest[used:], base + used
    if not separator and not rest:
        raise InputError(f"{path} is empty.")
    rest = rest if not rest or rest.endswith(b"\n") else rest + b"\n"
    if not separator:  # a single line without a line break
        separator, skipped, header = _detect(path, rest)
        rest, base = rest[skipped:], base + skipped
    if rest or header:
        chunk = _chunk_of(rest, base, number, separator, final=True)
        yield chunk._replace(rejected=[*header, *chunk.rejected])


def _detect(path: Path, start: bytes) -> tuple[int, int, list[Rejected]]:
    """Return what the first line of a file determines.

    Returns:
        The separator; the number of bytes before the first row: a byte-order mark and a header; and
        the header as a rejected row, unless it is OwnThink's.

    Raises:
        InputError: The header names the columns in another order.
    """
    mark = len(_BOM) if start.startswith(_BOM) else 0
    end = start.index(b"\n") + 1
    first = start[mark:end].decode("utf-8", "replace").strip("\r\n")
    if first.strip() == CSV_HEADER:
        return COMMA, end, []
    for separator, character in ((TAB, "\t"), (COMMA, ",")):
        names = [field.strip().strip('"').lower() for field in first.split(character)]
        order = [next((c for c, known in _COLUMNS.items() if name in known), "") for name in names]
        if order == list(_COLUMNS):
            return separator, end, [Rejected(1, tsv.HEADER, first)]
        if sorted(order) == sorted(_COLUMNS):
            raise InputError(
                f"{path}: its columns are {', '.join(order)}; head, relation, tail are expected. "
                + _reorder(path, character, [order.index(column) + 1 for column in _COLUMNS])
            )
    return TAB, mark, []


def _reorder(path: Path, separator: str, columns: Sequence[int]) -> str:
    mark = "\\t" if separator == "\t" else separator
    fields = ", ".join(f"${column}" for column in columns)
    return f"Reorder them: awk -F '{mark}' -v OFS='{mark}' '{{print {fields}}}' {path}."


def _chunk_of(data: bytes, base: int, number: int, separator: int, *, final: bool) -> Chunk:
    """Return a chunk of these whole lines, less those of a record that may continue after them."""
    if separator == TAB or b'"' not in data:
        return Chunk(data, base, number, separator)
    lines = Lines.cut(data)
    records, rejected, skip, stop = _parse_quoted(lines, number, final)
    used = int(lines.begin[stop]) if stop < len(lines.begin) else len(data)
    return Chunk(data[:used], base, number, separator, skip[:stop], records, rejected)


class Lines(NamedTuple):
    """A chunk split at its line breaks; line i is `data[begin[i]:end[i]]`, without its break."""

    data: bytes
    begin: Ints
    end: Ints

    @classmethod
    def cut(cls, data: bytes) -> "Lines":
        """Split whole lines."""
        buffer = np.frombuffer(data, np.uint8)
        end = np.flatnonzero(buffer == NEWLINE)
        begin = np.concatenate([[0], end[:-1] + 1])
        returned = (end > begin) & (buffer[end - 1] == ord("\r"))
        return cls(data, begin, end - returned)

    def raw(self, i: int) -> bytes:
        """Return the bytes of line i."""
        return self.data[int(self.begin[i]) : int(self.end[i])]

    def with_byte(self, byte: int) -> list[int]:
        """Return the lines that contain a byte, ascending."""
        places = np.flatnonzero(np.frombuffer(self.data, np.uint8) == byte)
        line = np.searchsorted(self.begin, places, "right") - 1
        found: list[int] = np.unique(line).tolist()
        return found


def _parse_quoted(
    lines: Lines, number: int, final: bool
) -> tuple[list[tuple[int, int, list[str]]], list[Rejected], Bytes, int]:
    """Parse the CSV records with quotes (RFC 4180), one at a time.

    Returns:
        records: Line, offset and fields of each.
        rejected: Records that are not rows.
        skip: uint8 `[lines]`, 1 for the lines of both.
        stop: The first line of a record that may continue in the next chunk.
    """
    skip = np.zeros(len(lines.begin), np.uint8)
    records: list[tuple[int, int, list[str]]] = []
    rejected: list[Rejected] = []
    for i in lines.with_byte(ord('"')):
        if skip[i]:
            continue
        last = min(i + _LONGEST_RECORD, len(lines.begin))
        record, used = csv_record(lines, i, last)
        if record is None and used and last == len(lines.begin) and not final:
            return records, rejected, skip, i
        if record is None:
            if is_utf8(lines.raw(i)):  # else `row_scanner` rejects the line
                skip[i] = 1
                reason = SkipReason("unbalanced quote")
                rejected.append(Rejected(number + i, reason, lines.raw(i).decode()))
            continue
        skip[i : i + used] = 1
        if any(c in f for f in record for c in "\n\t\0"):
            rejected.append(Rejected(number + i, REASONS[TAB_IN_FIELD], ",".join(record)))
        elif len(record) != 3:
            reason = wrong_column_count(len(record), "3")
            rejected.append(Rejected(number + i, reason, ",".join(record)))
        else:
            records.append((number + i, int(lines.begin[i]), record))
    return records, rejected, skip, len(lines.begin)


def csv_record(lines: Lines, first: int, last: int) -> tuple[list[str] | None, int]:
    """Parse one record from line `first` on; return its fields and its number of lines.

    None, 0: the record is malformed, or line `first` is not UTF-8. None and a positive number: it
    does not end before line `last`, or before a line that is not UTF-8.
    """
    seen = 0

    def texts() -> Iterator[str]:
        nonlocal seen
        for i in range(first, last):
            seen += 1
            try:
                yield lines.raw(i).decode() + "\n"
            except UnicodeDecodeError:
                return

    limit = csv.field_size_limit(_LONGEST_ROW)
    try:
        record = next(csv.reader(texts(), strict=True), None)
    except csv.Error as error:
        return None, seen if "end of data" in str(error) else 0
    finally:
        csv.field_size_limit(limit)
    return record, 0 if record is None else seen
