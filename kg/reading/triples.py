"""Triples read from dumps: cleaned, numbered and columnar, however large the dump is.

Two passes over the bytes. The first (`kg.reading.row_scanner`) makes three 64-bit hashes of each
row and no strings; a hash table turns them into numbers (`kg.reading.graph_index`), from which
follow duplicates, counts, what is an entity and what a literal. The second pass cuts out the names
of the entities only, so a literal of a megabyte costs nothing. Memory: some 20 bytes a line, 30 a
distinct name or literal, and the names of the entities.

Knows the file formats and the rules of a graph; knows nothing of vectors.
"""

import csv
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import InputError, SkipReason
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, read_names
from data.names import Names
from data.read_ahead import map_ahead
from data.tsv import Rejected, Rejects, is_gzip, is_utf8, open_bytes, wrong_column_count
from kg.reading.graph_index import (
    Strings,
    distinct,
    drop_literals,
    gather,
    group,
    order_names,
    renumber,
)
from kg.reading.row_scanner import (
    BLANK,
    COLUMNS,
    COMMA,
    NEWLINE,
    NOT_UTF8,
    NUL,
    TAB,
    TAB_IN_FIELD,
    cut_names,
    hash_spans,
    normal_forms,
    normalise,
    scan_rows,
)

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

_BLOCK = 1 << 22  # bytes read at a time
_LONGEST_ROW = 1 << 26  # a row that has not ended after so many bytes is not a row
_LONGEST_RECORD = 1000  # lines that a quoted CSV field may span
_ALL_BAD = 20  # this many undecodable rows and not one good: the whole file has another encoding
_MAX_THREADS = 4  # more would wait for the hash table
_CSV_HEADER = "实体,属性,值"
_BOM = b"\xef\xbb\xbf"
_REASONS = {
    NUL: "NUL character",
    NOT_UTF8: "not UTF-8",
    BLANK: "blank line",
    TAB_IN_FIELD: "line break, tab or NUL in a field",
}

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

    entities: pa.LargeStringArray
    relations: pa.LargeStringArray
    train: Ids
    valid: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    test: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    counts: dict[str, int | str] = field(default_factory=dict)


def read_triples(
    paths: Sequence[Path],
    *,
    min_tail_count: int = 2,
    rejects: Rejects | None = None,
    threads: int | None = None,
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
        threads: How many scan; None: as there are cores, up to 4. The result is the same.

    Raises:
        InputError: A file is missing, empty, damaged or in another encoding, or no triple is left.
    """
    if any(p.is_dir() for p in paths):
        if len(paths) > 1:
            raise InputError("An OpenKE folder cannot be joined with other dumps; give it alone.")
        return _read_openke(paths[0])
    sink = rejects if rejects is not None else Rejects()
    cores = len(os.sched_getaffinity(0))
    read = _read_dumps(paths, sink, threads or min(cores, _MAX_THREADS))
    return _number(read, paths, min_tail_count)


# ---- Dumps -> chunks of whole lines


class _Chunk(NamedTuple):
    """Whole lines of a dump, and the records with quotes (CSV) that were already taken from them.

    Attributes:
        data: The bytes; they end in a newline.
        base: Where they begin in the bytes of all dumps, one after the other.
        line: Number of the first line in its file.
        separator: Between fields.
        skip: 1 for each line that belongs to a record with quotes; empty if there is none.
        records: Line, place in `data` and fields of each such record.
        rejected: The records that are not rows.
    """

    data: bytes
    base: int
    line: int
    separator: int
    skip: Bytes = np.empty(0, np.uint8)
    records: Sequence[tuple[int, int, list[str]]] = ()
    rejected: Sequence[Rejected] = ()


def _read_chunks(path: Path, base: int) -> Iterator[_Chunk]:
    """A dump, chunk by chunk, whatever its format.

    Args:
        path: The dump.
        base: How many bytes the dumps before it have.

    Raises:
        InputError: It is empty, damaged, or has a row that does not end.
    """
    number = 1
    rest = b""
    separator = 0  # not known yet
    with open_bytes(path) as file:
        while block := file.read(_BLOCK):
            rest += block
            cut = rest.rfind(b"\n") + 1
            if not separator and cut:
                start = 3 if rest.startswith(_BOM) else 0
                separator, header = _detect(rest[start:cut])
                rest, base, number = (
                    rest[start + header :],
                    base + start + header,
                    number + (header > 0),
                )
                cut = rest.rfind(b"\n") + 1
            if not cut and len(rest) > _LONGEST_ROW:
                raise InputError(
                    f"{path}:{number}: a row of more than {_LONGEST_ROW >> 20} MB. Is this a "
                    "text file of triples?"
                )
            if cut:
                chunk, used = _take(rest[:cut], base, number, separator, final=False)
                yield chunk
                number += rest.count(b"\n", 0, used)
                rest, base = rest[used:], base + used
    if not separator and not rest:
        raise InputError(f"{path} is empty.")
    if not separator and rest.startswith(_BOM):  # one line that does not end
        rest, base = rest[3:], base + 3
    if rest:
        rest = rest if rest.endswith(b"\n") else rest + b"\n"
        yield _take(rest, base, number, separator or TAB, final=True)[0]


def _detect(head: bytes) -> tuple[int, int]:
    """The separator of a file, told by its first lines, and the length of its header line."""
    first = head[: head.index(b"\n") + 1]
    if first.strip().decode("utf-8", "replace") == _CSV_HEADER:
        return COMMA, len(first)
    return TAB, 0


def _take(
    data: bytes, base: int, number: int, separator: int, *, final: bool
) -> tuple[_Chunk, int]:
    """A chunk of these whole lines, and how many of their bytes it took."""
    if separator == TAB or b'"' not in data:
        return _Chunk(data, base, number, separator), len(data)
    lines = _Lines.cut(data)
    records, rejected, skip, stop = _quoted(lines, number, final)
    used = int(lines.begin[stop]) if stop < len(lines.begin) else len(data)
    skip = skip[:stop]
    return _Chunk(data[:used], base, number, separator, skip, records, rejected), used


class _Lines(NamedTuple):
    """A chunk cut at its line breaks; line i is `data[begin[i]:end[i]]`, without its break."""

    data: bytes
    begin: Ints
    end: Ints

    @classmethod
    def cut(cls, data: bytes) -> "_Lines":
        buffer = np.frombuffer(data, np.uint8)
        end = np.flatnonzero(buffer == NEWLINE)
        begin = np.concatenate([[0], end[:-1] + 1])
        returned = (end > begin) & (buffer[end - 1] == ord("\r"))
        return cls(data, begin, end - returned)

    def raw(self, i: int) -> bytes:
        return self.data[int(self.begin[i]) : int(self.end[i])]

    def with_byte(self, byte: int) -> list[int]:
        """The lines that hold a byte, ascending."""
        places = np.flatnonzero(np.frombuffer(self.data, np.uint8) == byte)
        line = np.searchsorted(self.begin, places, "right") - 1
        found: list[int] = np.unique(line).tolist()
        return found


def _quoted(
    lines: _Lines, number: int, final: bool
) -> tuple[list[tuple[int, int, list[str]]], list[Rejected], Bytes, int]:
    """The CSV records with quotes (RFC 4180), one at a time.

    Returns:
        records: Line, place and fields of each.
        rejected: Those that are no rows.
        skip: 1 for the lines of both.
        stop: From this line on a record may go on in the next chunk.
    """
    skip = np.zeros(len(lines.begin), np.uint8)
    records: list[tuple[int, int, list[str]]] = []
    rejected: list[Rejected] = []
    for i in lines.with_byte(ord('"')):
        if skip[i]:
            continue
        last = min(i + _LONGEST_RECORD, len(lines.begin))
        record, used = _csv_record(lines, i, last)
        if record is None and used and last == len(lines.begin) and not final:
            return records, rejected, skip, i
        if record is None:
            if is_utf8(lines.raw(i)):  # else the compiled scan reports it
                skip[i] = 1
                reason = SkipReason("unbalanced quote")
                rejected.append(Rejected(number + i, reason, lines.raw(i).decode()))
            continue
        skip[i : i + used] = 1
        if any(c in f for f in record for c in "\n\t\0"):
            reason = SkipReason(_REASONS[TAB_IN_FIELD])
            rejected.append(Rejected(number + i, reason, ",".join(record)))
        elif len(record) != 3:
            reason = wrong_column_count(len(record), "3")
            rejected.append(Rejected(number + i, reason, ",".join(record)))
        else:
            records.append((number + i, int(lines.begin[i]), record))
    return records, rejected, skip, len(lines.begin)


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


# ---- First pass: hashes


class _Scanned(NamedTuple):
    """The rows of a chunk: hashes of their names, and where they begin."""

    hashes: Hashes  # [rows, 3]
    stood: Hashes  # [rows, 2]: of head and tail as they stood in the file
    place: Ints  # [rows], in the bytes of all dumps
    rejected: list[Rejected]


def _scan(chunk: _Chunk) -> _Scanned:
    data = np.frombuffer(chunk.data, np.uint8)
    hashes, stood, begin, line, empty, bad, hard = scan_rows(
        data, chunk.data.count(b"\n"), chunk.separator, chunk.skip, *normal_forms()
    )
    rejected = list(chunk.rejected)
    if len(hard):
        texts = [chunk.data[first:end].decode() for _, _, first, end in hard.tolist()]
        names = [normalise(text).encode() for text in texts]
        row, column = hard[:, 0], hard[:, 1]
        hashes[row, column] = hash_spans(*_under_each_other(names))
        blank = np.array([not name for name in names], np.uint8) << column.astype(np.uint8)
        np.bitwise_or.at(empty, row, blank)
    for i, first, end, reason, fields in bad.tolist():
        text = chunk.data[first:end].decode("utf-8", "replace")
        why = SkipReason(_REASONS[BLANK if reason == COLUMNS else reason])
        if reason == COLUMNS and text.strip():
            why = wrong_column_count(fields, "3")
        rejected.append(Rejected(chunk.line + i, why, text))
    if chunk.records:
        added = [[normalise(f).encode() for f in fields] for _, _, fields in chunk.records]
        hashes = np.concatenate([hashes, _hash_all(added)])
        raw = [[head.encode(), tail.encode()] for _, _, (head, _, tail) in chunk.records]
        stood = np.concatenate([stood, _hash_all(raw)])
        begin = np.concatenate([begin, [place for _, place, _ in chunk.records]])
        line = np.concatenate([line, [number - chunk.line for number, _, _ in chunk.records]])
        bits = [sum((not f) << c for c, f in enumerate(fields)) for fields in added]
        empty = np.concatenate([empty, np.array(bits, np.uint8)])
    if empty.any():
        for i in np.flatnonzero(empty).tolist():
            empty_field = ("head", "relation", "tail")[_lowest_bit(int(empty[i]))]
            first = int(begin[i])
            end = chunk.data.index(b"\n", first)
            text = chunk.data[first:end].removesuffix(b"\r").decode()
            reason = SkipReason(f"empty {empty_field}")
            rejected.append(Rejected(chunk.line + int(line[i]), reason, text))
        full = empty == 0
        hashes, stood, begin = hashes[full], stood[full], begin[full]
    return _Scanned(hashes, stood, begin + chunk.base, sorted(rejected))


def _hash_all(rows: list[list[bytes]]) -> Hashes:
    """The hashes of a table of names."""
    found: Hashes = hash_spans(*_under_each_other([name for row in rows for name in row]))
    return found.reshape(len(rows), -1)


def _under_each_other(names: list[bytes]) -> tuple[Bytes, Ints, Ints]:
    """The names in one buffer, and where each begins and ends."""
    end = np.cumsum([len(name) for name in names], dtype=np.int64)
    begin = np.concatenate([[0], end[:-1]])
    # The newline is there because numpy refuses an empty buffer.
    return np.frombuffer(b"".join(names) + b"\n", np.uint8), begin, end


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


class _Part(NamedTuple):
    """Where a chunk lies, to be read again."""

    path: Path
    offset: int  # in the unpacked file
    size: int
    base: int
    separator: int


@dataclass
class _Read:
    """What the first pass keeps of all rows."""

    rows: list[Ids]  # blocks [n, 3] of numbers of `strings`
    strings: Strings
    parts: list[_Part]
    counts: dict[str, int | str]


def _read_dumps(paths: Sequence[Path], rejects: Rejects, threads: int) -> _Read:
    read = _Read([], Strings(), [], {})
    base = good = 0
    for path in paths:
        mine = Rejects()
        mine.path = rejects.path
        begun, base_of_file = good, base
        with _bar(f"reading {path.name}", "triples") as bar:
            for chunk, found in map_ahead(_scan, _read_chunks(path, base), threads):
                mine.add_all(found.rejected)
                good += len(found.place)
                _check_encoding(path, good - begun, mine)
                read.rows.append(read.strings.add(found.hashes, found.stood, found.place))
                size = len(chunk.data)
                offset = chunk.base - base_of_file
                read.parts.append(_Part(path, offset, size, chunk.base, chunk.separator))
                base = chunk.base + size
                bar.update(len(found.place))
        _check_encoding(path, good - begun, mine, least=1)
        rejects.reasons.update(mine.reasons)
        rejects.first = rejects.first or mine.first
    if not good:
        said = f" ({rejects.first})" if rejects.first else ""
        raise InputError(
            f"{', '.join(map(str, paths))}: no row holds head, relation and tail{said}. Expected "
            f"`head<TAB>relation<TAB>tail`, or CSV with the header `{_CSV_HEADER}`."
        )
    kinds = {(part.path, part.separator) for part in read.parts}
    read.counts = {
        "format": " + ".join(sorted({_format(*kind) for kind in kinds})),
        "rows_read": good + rejects.count,
        "rows_rejected": rejects.count,
        **{f"rejected: {reason}": n for reason, n in sorted(rejects.reasons.items())},
    }
    return read


def _format(path: Path, separator: int) -> str:
    """What a dump turned out to be, in words."""
    return ("CSV" if separator == COMMA else "TSV") + (" in gzip" if is_gzip(path) else "")


def _check_encoding(path: Path, good: int, rejects: Rejects, least: int = _ALL_BAD) -> None:
    if not good and rejects.reasons[_REASONS[NOT_UTF8]] >= least:
        raise InputError(
            f"{path} is not UTF-8 ({rejects.first}). If it is GBK: "
            f"iconv -f GB18030 -t UTF-8 {path}."
        )


# ---- Entities, literals, ids


def _number(read: _Read, paths: Sequence[Path], min_tail_count: int) -> Triples:
    counts, strings = read.counts, read.strings
    spellings = strings.finish()
    triples, repeated, loops = group(read.rows, strings.count)
    kept = drop_literals(triples, min_tail_count)
    counts["duplicates_dropped"] = repeated
    counts["self_loops_dropped"] = loops
    counts["literals_dropped"] = kept.literals
    counts["literals_distinct"] = kept.distinct_literals
    if not len(triples):
        raise InputError(
            f"{', '.join(map(str, paths))}: no triple is left; {counts['literals_dropped']} tails "
            f"stand in fewer than {min_tail_count} triples. Try --min-tail-count 1."
        )
    counts["entities_without_triples"] = kept.lone
    entities, relations = np.flatnonzero(kept.degree), np.flatnonzero(kept.uses)
    counts["names_merged"] = int(spellings[entities].sum())
    places = strings.place[np.concatenate([entities, relations])]
    strings.place = np.empty(0, np.int64)
    names, span = _names_at(read.parts, places)
    first = len(entities)
    entity_names, order = _rank(names, span[:first], kept.degree[entities])
    head_of = entities[order]
    relation_names, order = _rank(names, span[first:], kept.uses[relations])
    relation_of = relations[order]
    del names, span
    train = renumber(
        triples, head_of, _inverse(head_of, strings.count), _inverse(relation_of, strings.count)
    )
    counts |= {"triples": len(train), "entities": first, "relations": len(relations)}
    return Triples(entity_names, relation_names, train, counts=counts)


def _inverse(chosen: Ints, size: int) -> Ids:
    """The place of each number in `chosen`, -1 where it is not there."""
    places = np.full(size, -1, np.int32)
    places[chosen] = np.arange(len(chosen), dtype=np.int32)
    return places


def _rank(names: Bytes, span: Ints, counts: Ids) -> tuple[pa.LargeStringArray, Ints]:
    """The names by falling count, then by name; and their order."""
    order = order_names(names, span, counts)
    return _gathered(names, span, order), order


def _gathered(names: Bytes, span: Ints, order: Ints) -> pa.LargeStringArray:
    data, offsets = gather(names, span, order)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(order), buffers)


# ---- Second pass: names


def normal_names(names: Names) -> pa.LargeStringArray:
    """Names of an id file as a dump's are read: each as `row_scanner.normalise` gives it."""
    normal = []
    for lines, begin in names.blocks():
        cut = _cut(lines.tobytes(), TAB, begin, np.zeros_like(begin))
        normal.append(_gathered(*cut, np.arange(len(begin))))
    return pa.concat_arrays(normal)


def _names_at(parts: Iterable[_Part], places: Ints) -> tuple[Bytes, Ints]:
    """The names that stand at these places (byte of the row * 4 + column).

    Returns:
        names: Bytes.
        span: `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`.
    """
    order = np.argsort(places)
    wanted = places[order]
    pieces: list[Bytes] = []
    span = np.empty((len(places), 2), np.int64)
    used = done = 0
    with _bar("naming", "names", len(places)) as bar, ExitStack() as files:
        path, file = None, None
        for part in parts:
            stop = int(np.searchsorted(wanted, (part.base + part.size) * 4))
            if stop == done:
                continue
            if path != part.path:
                files.close()
                path, file = part.path, files.enter_context(open_bytes(part.path))
            assert file is not None
            data = _read_again(file, part)
            mine = wanted[done:stop]
            names, spans = _cut(data, part.separator, (mine >> 2) - part.base, mine & 3)
            span[order[done:stop]] = spans + used
            pieces.append(names)
            used += len(names)
            bar.update(stop - done)
            done = stop
    return np.concatenate(pieces), span


def _read_again(file: BinaryIO, part: _Part) -> bytes:
    file.seek(part.offset)
    data = file.read(part.size)
    data = data if data.endswith(b"\n") else data + b"\n"
    if len(data) != part.size:
        raise InputError(f"{part.path} changed while it was read. Start again.")
    return data


def _cut(data: bytes, separator: int, row: Ints, column: Ints) -> tuple[Bytes, Ints]:
    """The names of a chunk in these columns of the rows that begin there, as in `_names_at`."""
    names, span, hard = cut_names(
        np.frombuffer(data, np.uint8), row, column, separator, *normal_forms()
    )
    texts = {i: data[begin:end].decode() for i, begin, end in hard.tolist()}
    if separator == COMMA and b'"' in data:
        texts |= _cut_quoted(data, row, column)
    if not texts:
        return names, span
    more = [normalise(text).encode() for text in texts.values()]
    end = len(names) + np.cumsum([len(name) for name in more], dtype=np.int64)
    place = list(texts)
    span[place, 1] = end
    span[place, 0] = np.concatenate([[len(names)], end[:-1]])
    return np.concatenate([names, np.frombuffer(b"".join(more), np.uint8)]), span


def _cut_quoted(data: bytes, row: Ints, column: Ints) -> dict[int, str]:
    """Those of the names that stand in a record with quotes."""
    lines = _Lines.cut(data)
    line = np.searchsorted(lines.begin, row)
    quoted = np.isin(line, lines.with_byte(ord('"')))
    found = {}
    for i in np.flatnonzero(quoted).tolist():
        record, _ = _csv_record(lines, int(line[i]), len(lines.begin))
        assert record is not None
        found[i] = record[column[i]]
    return found


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
    counts: dict[str, int | str] = {
        "format": "OpenKE",
        "rows_read": sum(map(len, raw.values())),
        "rows_rejected": 0,
    }
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
        splits[split] = distinct(triples.astype(np.int32), *sizes)
    counts["column_order"] = "h t r" if order == [0, 2, 1] else "h r t"
    counts["duplicates_dropped"] = len(raw["train"]) - len(splits["train"])
    counts["self_loops_kept"] = int((splits["train"][:, 0] == splits["train"][:, 2]).sum())
    counts |= {"triples": len(splits["train"]), "entities": sizes[0], "relations": sizes[1]}
    return Triples(
        pa.array(entities, pa.large_string()),
        pa.array(relations, pa.large_string()),
        **splits,
        counts=counts,
    )


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
