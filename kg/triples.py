"""Triples read from dumps: cleaned, numbered and columnar, however large the dump is.

Two passes over the bytes. The first finds the fields of each chunk of lines with numpy and keeps
three 64-bit hashes a triple, no strings. From the hashes follow duplicates, counts, what is an
entity and what a literal. The second pass cuts out the names of the entities only, so a literal of
a megabyte costs nothing. Memory: about 30 bytes a line and the distinct entity names.

Two names share a hash with a probability of n**2 / 2**65: 1e-5 for 20 million distinct names.

Knows the file formats and the rules for names; knows nothing of vectors.
"""

import csv
import gzip
import logging
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, read_names
from data.tsv import Rejects, open_bytes

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
_T = TypeVar("_T", bound=np.generic)

_BLOCK = 1 << 20  # bytes read at a time; its hashes fit the cache
_LONGEST_ROW = 1 << 26  # a row that has not ended after so many bytes is not a row
_LONGEST_RECORD = 1000  # lines that a quoted CSV field may span
_ALL_BAD = 20  # this many undecodable rows and not one good: the whole file has another encoding
_CSV_HEADER = "实体,属性,值"
_NEWLINE, _TAB, _COMMA, _QUOTE, _RETURN, _BLANK = (ord(c) for c in '\n\t,"\r ')

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Triples:
    """A numbered graph.

    Attributes:
        entities: Names of the entities, a string array; an entity's place is its id.
        relations: Names of the relations.
        train: `[num_triples, 3]` int32: head, relation, tail; each triple once, in ascending order.
        valid: Triples set apart by the dump itself (OpenKE's `valid2id.txt`), or none.
        test: The same for `test2id.txt`.
        counts: What was read, kept, dropped and rejected.
    """

    entities: pa.StringArray
    relations: pa.StringArray
    train: Ids
    valid: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    test: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    counts: dict[str, int | str] = field(default_factory=dict)


def read_triples(
    paths: Sequence[Path], *, min_tail_count: int = 2, rejects: Rejects | None = None
) -> Triples:
    """Read one graph from one or several dumps, or from one OpenKE folder.

    Files are tab-separated (`head<TAB>relation<TAB>tail`: CN-DBpedia, K-BERT's `.spo`) or CSV with
    the header `实体,属性,值` (OwnThink), plain or gzip; which one is told by their content.

    Names are NFKC-normalised and stripped. An entity is a string that heads a triple, or is the
    tail of at least `min_tail_count` different triples, and that has a triple left when those with
    other tails (literals) are dropped. Ids go by falling number of triples, then by name, so they
    do not depend on the order of lines.

    Args:
        paths: The dumps.
        min_tail_count: See above. The names and ids of an OpenKE folder are taken as they are.
        rejects: Where unusable rows go.

    Raises:
        InputError: A file is missing, empty, damaged or in another encoding, or no triple is left.
    """
    if any(p.is_dir() for p in paths):
        if len(paths) > 1:
            raise InputError("An OpenKE folder cannot be joined with other dumps; give it alone.")
        return _read_openke(paths[0])
    sink = rejects if rejects is not None else Rejects()
    return _number(_hash_dumps(paths, sink), paths, min_tail_count)


# ---- Chunks of lines -> fields


class _Rows(NamedTuple):
    """Rows of one chunk: `buffer[start[i, c]:end[i, c]]` is field c of row i, on line `line[i]`."""

    buffer: Bytes
    start: Ints
    end: Ints
    line: Ints

    def text(self, row: int, column: int) -> str:
        piece = self.buffer[self.start[row, column] : self.end[row, column]]
        return piece.tobytes().decode()


class _Lines(NamedTuple):
    """A chunk cut at its line breaks; line i is `buffer[begin[i]:end[i]]`, without its break."""

    data: bytes
    buffer: Bytes
    begin: Ints
    end: Ints

    def raw(self, i: int) -> bytes:
        return self.data[int(self.begin[i]) : int(self.end[i])]


def _cut(data: bytes) -> _Lines:
    buffer = np.frombuffer(data, np.uint8)
    end = np.flatnonzero(buffer == _NEWLINE)
    begin = np.concatenate([[0], end[:-1] + 1])
    returned = (end > begin) & (buffer[end - 1] == _RETURN)
    return _Lines(data, buffer, begin, end - returned)


def _lines_at(lines: _Lines, places: Ints) -> list[int]:
    """The lines that hold these places of the buffer, ascending, each once."""
    line = np.searchsorted(lines.begin, places, "right") - 1
    at: list[int] = (
        line[np.concatenate([[True], line[1:] != line[:-1]])].tolist() if len(line) else []
    )
    return at


def _usable(
    lines: _Lines, number: int, rejects: Rejects, skip: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Which lines hold text; the others are rejected, but for those to skip.

    `number` is that of the first line.
    """
    good = np.ones(len(lines.begin), bool) if skip is None else ~skip

    def reject(i: int, reason: str) -> None:
        if good[i]:
            good[i] = False
            rejects.add(number + i, reason, lines.raw(i).decode("utf-8", "replace"))

    if b"\0" in lines.data:
        zeros = np.flatnonzero(lines.buffer == 0)
        for i in _lines_at(lines, zeros):
            reject(i, "NUL character")
    try:
        lines.data.decode()
    except UnicodeDecodeError:
        high = np.flatnonzero(lines.buffer >= 0x80)
        for i in _lines_at(lines, high):
            if not _is_utf8(lines.raw(i)):
                reject(i, "not UTF-8")
    for i in map(int, np.flatnonzero(good & (lines.end == lines.begin))):
        reject(i, "blank line")
    return good


def _split(
    lines: _Lines, good: NDArray[np.bool_], separator: int, number: int, rejects: Rejects
) -> _Rows:
    """The lines that have exactly three fields."""
    at = np.flatnonzero(lines.buffer == separator)
    first = np.searchsorted(at, lines.begin)
    found = np.searchsorted(at, lines.end) - first
    for i in map(int, np.flatnonzero(good & (found != 2))):
        text = lines.raw(i).decode()
        blank = not text.strip()
        rejects.add(
            number + i,
            "blank line" if blank else "wrong column count",
            text,
            "" if blank else f"{found[i] + 1}, expected 3",
        )
    rows = np.flatnonzero(good & (found == 2))
    left, right = at[first[rows]], at[first[rows] + 1]
    start = np.stack([lines.begin[rows], left + 1, right + 1], axis=1)
    end = np.stack([left, right, lines.end[rows]], axis=1)
    return _Rows(lines.buffer, start, end, number + rows)


def _parse_tsv(data: bytes, number: int, final: bool, rejects: Rejects) -> tuple[_Rows, int]:
    lines = _cut(data)
    return _split(lines, _usable(lines, number, rejects), _TAB, number, rejects), len(data)


def _parse_csv(data: bytes, number: int, final: bool, rejects: Rejects) -> tuple[_Rows, int]:
    """RFC 4180: lines without a quote are split at once, the others one record at a time."""
    lines = _cut(data)
    skip = np.zeros(len(lines.begin), bool)  # lines that the plain path must leave alone
    stop = len(lines.begin)
    records: list[tuple[int, list[str]]] = []
    for i in _lines_at(lines, np.flatnonzero(lines.buffer == _QUOTE)):
        if skip[i]:
            continue
        last = min(i + _LONGEST_RECORD, len(lines.begin))
        record, used = _csv_record(lines, i, last)
        if record is None and used and last == len(lines.begin) and not final:
            stop = i  # it may go on in the next chunk
            break
        if record is None:
            if _is_utf8(lines.raw(i)):  # else the plain path reports it
                skip[i] = True
                rejects.add(number + i, "unbalanced quote", lines.raw(i).decode())
            continue
        skip[i : i + used] = True
        if any(c in f for f in record for c in "\n\t\0"):
            rejects.add(number + i, "line break, tab or NUL in a field", ",".join(record))
        elif len(record) != 3:
            detail = f"{len(record)}, expected 3"
            rejects.add(number + i, "wrong column count", ",".join(record), detail)
        else:
            records.append((i, record))
    begin, end, skip = lines.begin[:stop], lines.end[:stop], skip[:stop]
    consumed = int(lines.begin[stop]) if stop < len(lines.begin) else len(data)
    lines = _Lines(data[:consumed], lines.buffer[:consumed], begin, end)
    good = _usable(lines, number, rejects, skip)
    for i in _lines_at(lines, np.flatnonzero(lines.buffer == _TAB)):
        if good[i]:
            good[i] = False
            rejects.add(number + i, "line break, tab or NUL in a field", lines.raw(i).decode())
    return _with_records(_split(lines, good, _COMMA, number, rejects), records, number), consumed


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv_record(lines: _Lines, first: int, last: int) -> tuple[list[str] | None, int]:
    """One quoted record from line `first` on, and how many lines it takes.

    None, 0 if it is malformed; None and a positive number if it has not ended before line `last`.
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
        record = next(csv.reader(texts(), strict=True))
    except csv.Error as error:
        return None, seen if "end of data" in str(error) else 0
    finally:
        csv.field_size_limit(limit)
    return record, seen


def _with_records(rows: _Rows, records: list[tuple[int, list[str]]], number: int) -> _Rows:
    """The rows with the quoted records put in where their lines stood."""
    if not records:
        return rows
    pieces = [f.encode() for _, record in records for f in record]
    buffer, start, end = _append(rows.buffer, pieces)
    line = np.concatenate([rows.line, [number + i for i, _ in records]])
    order = np.argsort(line, kind="stable")
    return _Rows(
        buffer,
        np.concatenate([rows.start, start.reshape(-1, 3)])[order],
        np.concatenate([rows.end, end.reshape(-1, 3)])[order],
        line[order],
    )


def _append(buffer: Bytes, pieces: list[bytes]) -> tuple[Bytes, Ints, Ints]:
    """The buffer with pieces at its end, and where they begin and end there."""
    end = len(buffer) + np.cumsum([len(p) for p in pieces], dtype=np.int64)
    start = np.concatenate([[len(buffer)], end[:-1]])
    return np.concatenate([buffer, np.frombuffer(b"".join(pieces), np.uint8)]), start, end


_Parser = Callable[[bytes, int, bool, Rejects], tuple[_Rows, int]]


def _read_chunks(path: Path, rejects: Rejects) -> Iterator[_Rows]:
    """Rows of a dump, chunk by chunk; always the same chunks for the same file."""
    number = 1
    rest = b""
    parse: _Parser | None = None
    good = 0
    with open_bytes(path) as file:
        try:
            while block := file.read(_BLOCK):
                rest += block
                cut = rest.rfind(b"\n") + 1
                if parse is None and cut:
                    rest = rest.removeprefix(b"\xef\xbb\xbf")
                    parse, header = _detect(rest)
                    rest, number = rest[header:], number + (header > 0)
                    cut = rest.rfind(b"\n") + 1
                if not cut and len(rest) > _LONGEST_ROW:
                    raise InputError(
                        f"{path}:{number}: a row of more than {_LONGEST_ROW >> 20} MB. Is this a "
                        "text file of triples?"
                    )
                if cut:
                    assert parse is not None
                    rows, used = parse(rest[:cut], number, False, rejects)
                    good += len(rows.line)
                    _check_encoding(path, good, rejects)
                    yield rows
                    number += rest.count(b"\n", 0, used)
                    rest = rest[used:]
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path} is a damaged gzip file after line {number}: {error}. Fetch it again."
            ) from None
    if parse is None and not rest:
        raise InputError(f"{path} is empty.")
    if parse is None:  # one line that does not end
        parse, rest = _parse_tsv, rest.removeprefix(b"\xef\xbb\xbf")
    if rest:
        rows, _ = parse(rest if rest.endswith(b"\n") else rest + b"\n", number, True, rejects)
        good += len(rows.line)
        yield rows
    _check_encoding(path, good, rejects, least=1)


def _detect(head: bytes) -> tuple[_Parser, int]:
    """The parser that fits the first bytes of a file, and the length of its header line."""
    first = head.split(b"\n", 1)[0]
    if first.strip().decode("utf-8", "replace") == _CSV_HEADER:
        return _parse_csv, min(len(first) + 1, len(head))
    return _parse_tsv, 0


def _check_encoding(path: Path, good: int, rejects: Rejects, least: int = _ALL_BAD) -> None:
    if not good and rejects.reasons["not UTF-8"] >= least:
        raise InputError(
            f"{path} is not UTF-8 ({rejects.first}). If it is GBK: "
            f"iconv -f GB18030 -t UTF-8 {path}."
        )


# ---- Names


def normalise(name: str) -> str:
    """The name as the graph holds it: NFKC, without white space around it."""
    return unicodedata.normalize("NFKC", name).strip()


_ASCII_SPACE = np.array([i < 128 and chr(i).isspace() for i in range(256)])
_STABLE, _COMPLEX = 0, 1  # what else stands in `_changes`: the one code point that it becomes


@cache
def _changes() -> NDArray[np.uint16]:
    """What `normalise` makes of each code point below 0x10000, wherever it stands.

    Most stay as they are, and many become one other (full-width letters); the rest becomes several,
    depends on its neighbours or is white space beyond ASCII.
    """

    def change(code: int) -> int:
        char = chr(code)
        normal = unicodedata.normalize("NFKC", char)
        kind = unicodedata.category(char)
        # Marks and Hangul letters compose with their neighbours.
        if kind[0] == "M" or kind == "Cs" or 0x1100 <= code < 0x1200:
            return _COMPLEX
        if normal == char:
            return _COMPLEX if char.isspace() and code > 127 else _STABLE
        single = len(normal) == 1 and normal < "\U00010000"
        single = single and (normal < "\x80" or change(ord(normal)) == _STABLE)
        return ord(normal) if single else _COMPLEX

    return np.array([change(code) for code in range(0x10000)], np.uint16)


@cache
def _replacement() -> NDArray[np.uint32]:
    """The code point that each simple one becomes."""
    changes = _changes().astype(np.uint32)
    return np.where(changes > _COMPLEX, changes, np.arange(0x10000, dtype=np.uint32))


def _suspects(buffer: Bytes, start: Ints, end: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Spans that `normalise` might change (none is missed), and which of them hold complex code."""
    lead = np.zeros(256, bool)
    lead[0xC2:0xE4] = lead[0xEA:0xF5] = True  # E4-E9 are CJK ideographs, which are stable
    at = np.flatnonzero(lead[buffer])
    padded = np.concatenate([buffer, np.zeros(3, np.uint8)])
    b0, b1, b2 = (padded[at + k].astype(np.int32) & 0x3F for k in range(3))
    two, four = padded[at] < 0xE0, padded[at] >= 0xF0
    code = np.where(two, (b0 & 0x1F) << 6 | b1, (b0 & 0x0F) << 12 | b1 << 6 | b2)
    change = np.where(four, _COMPLEX, _changes()[code])
    at, change = at[change != _STABLE], change[change != _STABLE]
    if (start[1:] < start[:-1]).any():  # records with quotes stand at the end of the buffer
        order = np.argsort(start, kind="stable")
        place = order[np.maximum(np.searchsorted(start[order], at, "right") - 1, 0)]
    else:
        place = np.maximum(np.searchsorted(start, at, "right") - 1, 0)
    inside = (at >= start[place]) & (at < end[place])
    touched = np.zeros(len(start), bool)
    touched[place[inside]] = True
    filled = np.flatnonzero(end > start)
    touched[filled] |= _ASCII_SPACE[buffer[start[filled]]] | _ASCII_SPACE[buffer[end[filled] - 1]]
    hard = np.zeros(len(start), bool)
    hard[place[inside & (change == _COMPLEX)]] = True
    suspects = np.flatnonzero(touched)
    return suspects, hard[suspects]


def _normalise_spans(buffer: Bytes, start: Ints, end: Ints) -> tuple[Bytes, Ints, Ints, Ints]:
    """The spans with their normal forms at the end of the buffer; and which may have changed."""
    suspects, hard = _suspects(buffer, start, end) if len(start) else (start, start > 0)
    if not len(suspects):
        return buffer, start, end, suspects
    data = buffer.tobytes()
    spans = zip(start[suspects].tolist(), end[suspects].tolist(), strict=True)
    pieces = [data[a:b] for a, b in spans]
    for i in np.flatnonzero(hard).tolist():
        pieces[i] = normalise(pieces[i].decode()).encode()
    # All else changes code point by code point; and what is normal already does not change.
    text = b"\n".join(pieces).decode()
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    codes = np.where(codes < 0x10000, _replacement()[np.minimum(codes, 0xFFFF)], codes)
    text = codes.astype(np.uint32).tobytes().decode("utf-32-le")
    normal = np.frombuffer(text.encode() + b"\n", np.uint8)
    stop = np.flatnonzero(normal == _NEWLINE)
    begin = np.concatenate([[0], stop[:-1] + 1])
    while (blank := _ASCII_SPACE[normal[begin]] & (begin < stop)).any():
        begin = begin + blank
    while (blank := _ASCII_SPACE[normal[stop - 1]] & (begin < stop)).any():
        stop = stop - blank
    start, end = start.copy(), end.copy()
    start[suspects], end[suspects] = begin + len(buffer), stop + len(buffer)
    return np.concatenate([buffer, normal]), start, end, suspects


def _normalise_rows(rows: _Rows) -> tuple[_Rows, Ints]:
    """The rows with normalised fields, and the places of those that may have changed by it."""
    buffer, start, end, suspects = _normalise_spans(
        rows.buffer, rows.start.ravel(), rows.end.ravel()
    )
    return _Rows(buffer, start.reshape(-1, 3), end.reshape(-1, 3), rows.line), suspects


def _reject_empty(rows: _Rows, rejects: Rejects) -> NDArray[np.bool_]:
    """Which rows have no empty field; the others are rejected."""
    empty = rows.start == rows.end
    bad = empty.any(axis=1)
    for i in map(int, np.flatnonzero(bad)):
        reason = "empty " + ("head", "relation", "tail")[int(np.argmax(empty[i]))]
        rejects.add(int(rows.line[i]), reason, "\t".join(rows.text(i, c) for c in range(3)))
    whole: NDArray[np.bool_] = ~bad
    return whole


class _Hasher:
    """64-bit hashes of byte strings, the same in each run and on each machine.

    sum of byte_key[b_i] * base**i (mod 2**64) from prefix sums over the whole buffer, freed of the
    string's place by the inverse of base**start, then mixed. The keys of the bytes are random, so
    strings that differ share a sum with a probability near 2**-64, whatever they hold.
    """

    _BASE = 0x9E3779B97F4A7C15

    def __init__(self) -> None:
        keys = np.random.default_rng(20_200_101)  # fixed: hashes must not differ between the passes
        self._byte_key = keys.integers(1, 2**64, 256, dtype=np.uint64)
        self._power = self._inverse = np.ones(1, np.uint64)

    def _grow(self, size: int) -> None:
        if len(self._power) < size:
            size = 1 << (size - 1).bit_length()
            inverse = pow(self._BASE, -1, 2**64)
            self._power, self._inverse = _powers(self._BASE, size), _powers(inverse, size)

    def __call__(self, buffer: Bytes, *spans: tuple[Ints, Ints]) -> list[Hashes]:
        """The hashes of `buffer[start:end]` for each pair of arrays (start, end)."""
        self._grow(len(buffer) + 1)
        total = np.empty(len(buffer) + 1, np.uint64)
        total[0] = 0
        np.take(self._byte_key, buffer, out=total[1:], mode="clip")  # clip: no buffering
        total[1:] *= self._power[: len(buffer)]
        np.cumsum(total, out=total)
        return [_mix((total[end] - total[start]) * self._inverse[start]) for start, end in spans]


def _powers(base: int, size: int) -> Hashes:
    """base**0 .. base**(size - 1), mod 2**64."""
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    result: Hashes = np.cumprod(factors)
    return result


def _mix(value: Hashes) -> Hashes:
    """Spread the bits (the finaliser of splitmix64)."""
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)


# ---- First pass: hashes


@dataclass
class _Hashed:
    """What the first pass keeps of all rows: name hashes and which names were normalised."""

    names: Hashes  # [rows, 3], column-major, so that each column is contiguous
    changed: NDArray[np.bool_]  # [rows, 3]
    complete: NDArray[np.bool_]  # [rows]: no field is empty
    variants: Hashes  # [n, 2]: hash of a name as it stood, and of its normal form
    counts: dict[str, int | str]


def _hash_dumps(paths: Sequence[Path], rejects: Rejects) -> _Hashed:
    hasher = _Hasher()
    names: list[Hashes] = []
    changes: list[NDArray[np.bool_]] = []
    complete: list[NDArray[np.bool_]] = []
    variants: list[Hashes] = []
    for path in paths:
        mine = Rejects()
        mine.path = rejects.path
        with _bar(f"reading {path.name}", "triples") as bar:
            for raw in _read_chunks(path, mine):
                rows, suspects = _normalise_rows(raw)
                complete.append(_reject_empty(rows, mine))
                stood = raw.start.ravel()[suspects], raw.end.ravel()[suspects]
                hashes, before = hasher(rows.buffer, (rows.start, rows.end), stood)
                after = hashes.ravel()[suspects]
                changed = np.zeros(hashes.shape, bool)
                changed.ravel()[suspects] = before != after
                variants.append(_distinct_rows(before[before != after], after[before != after]))
                names.append(hashes)
                changes.append(changed)
                bar.update(len(rows.line))
        rejects.reasons.update(mine.reasons)
        rejects.first = rejects.first or mine.first
    whole = np.concatenate(complete) if complete else np.empty(0, bool)
    if not whole.any():
        said = f" ({rejects.first})" if rejects.first else ""
        raise InputError(
            f"{', '.join(map(str, paths))}: no row holds head, relation and tail{said}. Expected "
            f"`head<TAB>relation<TAB>tail`, or CSV with the header `{_CSV_HEADER}`."
        )
    counts: dict[str, int | str] = {
        "rows_read": int(whole.sum()) + rejects.count,
        "rows_rejected": rejects.count,
        **{f"rejected: {reason}": n for reason, n in sorted(rejects.reasons.items())},
    }
    both = np.concatenate(variants)
    return _Hashed(_stack(names), _stack(changes), whole, both, counts)


def _distinct_rows(before: Hashes, after: Hashes) -> Hashes:
    """Pairs (before, after), each `before` once, `[n, 2]`."""
    order = np.argsort(before)
    before, after = before[order], after[order]
    first = np.concatenate([[True], before[1:] != before[:-1]])[: len(before)]
    return np.stack([before[first], after[first]], axis=1)


def _stack(pieces: list[NDArray[_T]]) -> NDArray[_T]:
    """The pieces `[rows, 3]` under each other, column-major; each is freed once it is copied."""
    table = np.empty((sum(map(len, pieces)), 3), pieces[0].dtype, order="F")
    stop = len(table)
    while pieces:
        piece = pieces.pop()
        table[stop - len(piece) : stop] = piece
        stop -= len(piece)
    return table


# ---- Entities, literals, ids


def _distinct(values: Hashes) -> tuple[Hashes, Ints]:
    """Distinct values, ascending, and how often each stands there."""
    # np.unique goes through a hash table here, twenty times slower than a vectorised sort.
    values = np.sort(values)
    first = np.flatnonzero(np.concatenate([[len(values) > 0], values[1:] != values[:-1]]))
    counts = np.diff(np.concatenate([first, [len(values)]]))
    return values[first], counts


def _find(known: Hashes, values: Hashes) -> Ids:
    """The place of each value in the ascending array `known`, -1 where it is not there."""
    places = np.full(len(values), -1, np.int32)
    for begin in range(0, len(values) if len(known) else 0, 1 << 22):
        block = values[begin : begin + (1 << 22)]
        order = np.argsort(block)  # ascending look-ups stay in the cache
        place = np.searchsorted(known, block[order])
        place[place == len(known)] = 0
        place[known[place] != block[order]] = -1
        places[begin + order] = place
    return places


def _repeated(names: Hashes) -> Ints:
    """Rows that repeat another row, all but one of each."""
    key = _mix(names[:, 0] + np.uint64(1)) * np.uint64(3) ^ _mix(names[:, 1]) * np.uint64(5)
    key += _mix(names[:, 2])
    order = np.argsort(key)
    key = key[order]
    again = np.flatnonzero(key[1:] == key[:-1])
    later, earlier = order[again + 1], order[again]
    repeats: Ints = later[(names[later] == names[earlier]).all(axis=1)]
    return repeats


def _number(read: _Hashed, paths: Sequence[Path], min_tail_count: int) -> Triples:
    counts = read.counts
    heads, tails = read.names[:, 0], read.names[:, 2]
    kept = read.complete.copy()
    loops = kept & (heads == tails)
    kept[loops] = False
    repeats = _repeated(read.names)
    counts["duplicates_dropped"] = int(kept[repeats].sum())
    counts["self_loops_dropped"] = int(loops.sum())
    kept[repeats] = False

    head_names, _ = _distinct(heads[kept])
    tail_names, tail_counts = _distinct(tails[kept])
    frequent = tail_names[tail_counts >= min_tail_count]
    entities, _ = _distinct(np.concatenate([head_names, frequent]))
    head, tail = _find(entities, heads), _find(entities, tails)
    literal = kept & (tail < 0)
    counts["literals_dropped"] = int(literal.sum())
    counts["literals_distinct"] = len(_distinct(tails[literal])[0])
    kept &= tail >= 0
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise InputError(
            f"{', '.join(map(str, paths))}: no triple is left; {counts['literals_dropped']} tails "
            f"stand in fewer than {min_tail_count} triples. Try --min-tail-count 1."
        )
    relations, relation_counts = _distinct(read.names[rows, 1])
    relation = _find(relations, read.names[rows, 1])
    head, tail = head[rows], tail[rows]
    degree = np.bincount(head, minlength=len(entities)) + np.bincount(tail, minlength=len(entities))
    used = np.flatnonzero(degree)
    counts["entities_without_triples"] = len(entities) - len(used)
    counts["names_merged"] = _merged(read, entities[used])

    # Where the name of each entity and relation stands: any of its rows will do.
    place = np.zeros(len(entities), np.int64)
    place[tail] = rows * 3 + 2
    place[head] = rows * 3
    relation_place = np.zeros(len(relations), np.int64)
    relation_place[relation] = rows * 3 + 1
    del read, heads, tails, kept, literal, rows
    names = _names_at(paths, np.concatenate([place[used], relation_place]))
    entity_names, entity_id = _rank(names[: len(used)], degree[used])
    relation_names, relation_id = _rank(names[len(used) :], relation_counts)
    to_id = np.full(len(entities), -1, np.int32)
    to_id[used] = entity_id
    triples = _sorted(to_id[head], relation_id[relation], to_id[tail], len(used), len(relations))
    counts |= {"triples": len(triples), "entities": len(used), "relations": len(relations)}
    return Triples(entity_names, relation_names, triples, counts=counts)


def _merged(read: _Hashed, entities: Hashes) -> int:
    """How many spellings of entities vanished in another by normalisation."""
    if not len(read.variants):
        return 0
    place = _find(entities, _distinct_rows(*read.variants.T)[:, 1])
    spellings = np.bincount(place[place >= 0], minlength=len(entities))
    plain = np.zeros(len(entities), bool)
    for column in (0, 2):  # those that also stand there in their normal form
        touched = np.flatnonzero(spellings)
        own = read.names[~read.changed[:, column], column]
        own = own[_find(entities[touched], own) >= 0]
        plain[_find(entities, _distinct(own)[0])] = True
    return int(np.maximum(spellings + plain - 1, 0).sum())


def _names_at(paths: Sequence[Path], places: Ints) -> pa.StringArray:
    """Second pass: the names that stand at these places (row * 3 + column), in their order."""
    order = np.argsort(places)
    wanted = places[order]
    found: list[pa.StringArray] = []
    row = done = 0
    with _bar("naming", "names", len(places)) as bar:
        for path in paths:
            for rows in _read_chunks(path, Rejects()):
                stop = int(np.searchsorted(wanted, (row + len(rows.line)) * 3))
                mine = wanted[done:stop] - row * 3
                buffer, begin, end, _ = _normalise_spans(
                    rows.buffer, rows.start.ravel()[mine], rows.end.ravel()[mine]
                )
                data = buffer.tobytes()
                spans = zip(begin.tolist(), end.tolist(), strict=True)
                found.append(pa.array([data[a:b] for a, b in spans], pa.binary()).cast(pa.string()))
                row += len(rows.line)
                bar.update(stop - done)
                done = stop
    names = pa.chunked_array(found, pa.string()).combine_chunks()
    if isinstance(names, pa.ChunkedArray):
        raise InputError("More than 2 GB of names; raise --min-tail-count.")
    back = np.empty(len(places), np.int64)
    back[order] = np.arange(len(places))
    return names.take(pa.array(back))


def _rank(names: pa.StringArray, counts: Ints) -> tuple[pa.StringArray, Ids]:
    """The names by falling count, then by name; and the new id of each old place."""
    table = pa.table({"count": counts, "name": names})
    order = pc.sort_indices(table, [("count", "descending"), ("name", "ascending")]).to_numpy()
    ids = np.empty(len(order), np.int32)
    ids[order] = np.arange(len(order), dtype=np.int32)
    return names.take(pa.array(order)), ids


def _sorted(head: Ids, relation: Ids, tail: Ids, num_entities: int, num_relations: int) -> Ids:
    """Distinct triples in ascending order, `[n, 3]`."""
    entity_bits, relation_bits = num_entities.bit_length(), num_relations.bit_length()
    # A key of 64 bits where the ids fit; else one such sort for each value of the heads' top bits.
    spare = max(0, 2 * entity_bits + relation_bits - 64)
    low = entity_bits - spare
    parts = []
    for top in range(1 << spare):
        mine = slice(None) if not spare else np.flatnonzero(head >> low == top)
        key = (head[mine].astype(np.uint64) & np.uint64((1 << low) - 1)) << np.uint64(
            relation_bits + entity_bits
        )
        key |= relation[mine].astype(np.uint64) << np.uint64(entity_bits)
        key |= tail[mine].astype(np.uint64)
        if not len(key):
            continue
        key, _ = _distinct(key)
        part = np.empty((len(key), 3), np.int32)
        part[:, 0] = (key >> np.uint64(relation_bits + entity_bits)) | np.uint64(top << low)
        part[:, 1] = key >> np.uint64(entity_bits) & np.uint64((1 << relation_bits) - 1)
        part[:, 2] = key & np.uint64((1 << entity_bits) - 1)
        parts.append(part)
    return np.concatenate(parts)


# ---- OpenKE


def _read_openke(folder: Path) -> Triples:
    """An OpenKE folder, its ids as they are; `train2id.txt` holds `h t r`, by rule."""
    for name in (ENTITY_NAMES, RELATION_NAMES, "train2id.txt"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} is not an OpenKE folder: {name} is missing. Give the folder with "
                f"{ENTITY_NAMES}, {RELATION_NAMES} and train2id.txt, or a dump file."
            )
    entities, relations = read_names(folder / ENTITY_NAMES), read_names(folder / RELATION_NAMES)
    sizes = len(entities), len(relations)
    raw = {"train": _read_ids(folder / "train2id.txt")}
    for split in ("valid", "test"):
        path = folder / f"{split}2id.txt"
        raw[split] = _read_ids(path) if path.is_file() else np.empty((0, 3), np.int64)
    order = _column_order(folder / "train2id.txt", raw["train"], sizes)
    counts: dict[str, int | str] = {"rows_read": sum(map(len, raw.values())), "rows_rejected": 0}
    splits = {}
    for split, rows in raw.items():
        path = folder / f"{split}2id.txt"
        triples = rows[:, order]
        limits = np.array([sizes[0], sizes[1], sizes[0]])
        wrong = np.flatnonzero(((triples < 0) | (triples >= limits)).any(axis=1))
        if len(wrong):
            raise InputError(
                f"{path}:{wrong[0] + 2}: ids {rows[wrong[0]].tolist()} are out of range: there are "
                f"{sizes[0]} entities and {sizes[1]} relations."
            )
        head, relation, tail = triples.astype(np.int32).T
        splits[split] = _sorted(head, relation, tail, *sizes) if len(rows) else _no_triples()
    counts["column_order"] = "h t r" if order == [0, 2, 1] else "h r t"
    counts["duplicates_dropped"] = len(raw["train"]) - len(splits["train"])
    counts["self_loops_kept"] = int((splits["train"][:, 0] == splits["train"][:, 2]).sum())
    counts |= {"triples": len(splits["train"]), "entities": sizes[0], "relations": sizes[1]}
    return Triples(
        pa.array(entities, pa.string()), pa.array(relations, pa.string()), **splits, counts=counts
    )


def _no_triples() -> Ids:
    return np.empty((0, 3), np.int32)


def _read_ids(path: Path) -> Ints:
    """The rows of a `*2id.txt`: its first line is their count, then three ids a line."""
    with open_bytes(path) as file:
        first = file.readline().split()
        try:
            count = int(first[0]) if len(first) == 1 else -1
            rows: Ints = np.loadtxt(file, dtype=np.int64, ndmin=2, comments=None)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}: {error} (rows are counted after line 1).") from None
    if count < 0:
        raise InputError(f"{path}:1: expected the number of triples, as OpenKE writes it.")
    if len(rows) != count or rows.shape[1] != 3:
        raise InputError(
            f"{path} announces {count} triples on its first line but holds {len(rows)} rows of "
            f"{rows.shape[1]} ids."
        )
    return rows


def _column_order(path: Path, rows: Ints, sizes: tuple[int, int]) -> list[int]:
    """Which columns are head, relation and tail, told by the ranges of their ids."""
    num_entities, num_relations = sizes
    largest = rows.max(axis=0)
    if largest[2] < num_relations:
        return [0, 2, 1]
    if largest[1] < num_relations and largest[2] < num_entities:
        logger.warning(
            "%s: the third column reaches %d but there are %d relations; read as h r t, not as "
            "OpenKE's h t r.",
            path,
            largest[2],
            num_relations,
        )
        return [0, 1, 2]
    raise InputError(
        f"{path}: neither the third nor the second column can be relations: they reach "
        f"{largest[2]} and {largest[1]}, and there are {num_relations} relations."
    )


def _bar(what: str, unit: str, total: int | None = None) -> "tqdm[Any]":
    return tqdm(desc=what, unit=f" {unit}", unit_scale=True, total=total, disable=None)
