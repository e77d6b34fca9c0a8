"""Read triples from dumps of any size: cleaned, numbered and columnar.

Two passes over the bytes. The first (`kg.reading.row_scanner`) computes three 64-bit hashes per row
and no strings; a hash table numbers them (`kg.reading.graph_index`), which gives duplicates,
counts, entities and literals. The second (`kg.reading.names`) cuts out the names of the entities
only, so that a literal of a megabyte costs nothing. Memory: about 20 bytes per line, 30 per
distinct name or literal, and the names of the entities.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from data.errors import InputError, SkipReason
from data.read_ahead import map_ahead
from data.tsv import Rejected, Rejects, compression, wrong_column_count
from kg.arrays import Bytes, Hashes, Ids, Ints
from kg.reading.dumps import CSV_HEADER, REASONS, Chunk, read_chunks
from kg.reading.graph import Graph
from kg.reading.graph_index import StringIndex, drop_literals, group, order_names, renumber
from kg.reading.names import ChunkPosition, gather_names, names_at
from kg.reading.openke import read_openke
from kg.reading.row_scanner import (
    BLANK,
    COLUMNS,
    COMMA,
    NOT_UTF8,
    hash_spans,
    normal_forms,
    normalise,
    scan_rows,
)
from kg.reading.source_format import DESCRIPTIONS, TSV, detect_format

_log = logging.getLogger(__name__)

_MANY_UNDECODABLE = 20  # rows before any usable one: the file has another encoding
_MAX_THREADS = 4  # more would wait for the hash table


def read_triples(
    paths: Sequence[Path],
    *,
    min_tail_count: int = 2,
    rejects: Rejects | None = None,
    threads: int | None = None,
) -> Graph:
    """Read one graph from one or several dumps, or from one OpenKE folder.

    Files are tab-separated (`head<TAB>relation<TAB>tail`: CN-DBpedia, K-BERT's `.spo`) or CSV with
    the header `实体,属性,值` (OwnThink), plain or gzip; the format is detected from the content.

    Names are NFKC-normalised and stripped. An entity is a string that heads a triple, or is the
    tail of at least `min_tail_count` distinct triples, and that has a triple left when those with
    other tails (literals) are dropped. Ids are by descending number of triples, then by name, so
    they do not depend on the order of lines.

    Args:
        paths: The dumps.
        min_tail_count: See above. The names and ids of an OpenKE folder are used as they are.
        rejects: Collects unusable rows.
        threads: Threads that scan; None: one per core, up to 4. The result does not depend on it.

    Raises:
        InputError: A file is missing, empty, damaged or in another encoding, or no triple is left.
    """
    if any(p.is_dir() for p in paths):
        if len(paths) > 1:
            raise InputError("An OpenKE folder cannot be joined with other dumps; give it alone.")
        return read_openke(paths[0])
    for path in paths:
        _check_format(path)
    sink = rejects if rejects is not None else Rejects()
    cores = len(os.sched_getaffinity(0))
    scanned = _scan_dumps(paths, sink, threads or min(cores, _MAX_THREADS))
    return _number(scanned, paths, min_tail_count)


def _check_format(path: Path) -> None:
    """Refuse a file of a graph that `kg convert` reads, and name the command."""
    kind = detect_format(path)
    command = f"`kg convert {path} --out triples.tsv --mentions mentions.tsv`"
    if kind == "wikidata5m":
        _log.warning("%s: the names are ids of Wikidata; %s gives names.", path, command)
    elif kind not in ("", TSV, "ownthink"):
        raise InputError(
            f"{path} is {DESCRIPTIONS[kind]}, not a TSV of triples. Convert it first: {command}, "
            "together with the other files of the graph, such as its labels."
        )


# ---- First pass: hashes


class _Scanned(NamedTuple):
    """The rows of a chunk."""

    hashes: Hashes  # [rows, 3], of the normalised names
    raw_hashes: Hashes  # [rows, 2], of head and tail as written in the file
    begin: Ints  # [rows], offset in all dumps, concatenated
    rejected: list[Rejected]


def _scan(chunk: Chunk) -> _Scanned:
    data = np.frombuffer(chunk.data, np.uint8)
    hashes, raw_hashes, begin, line, empty, unusable, deferred = scan_rows(
        data, chunk.data.count(b"\n"), chunk.separator, chunk.skip, *normal_forms()
    )
    if len(deferred):
        texts = [chunk.data[first:end].decode() for _, _, first, end in deferred.tolist()]
        names = [normalise(text).encode() for text in texts]
        row, column = deferred[:, 0], deferred[:, 1]
        hashes[row, column] = hash_spans(*_concatenate(names))
        blank = np.array([not name for name in names], np.uint8) << column.astype(np.uint8)
        np.bitwise_or.at(empty, row, blank)
    rejected = [*chunk.rejected, *_rejected(chunk, unusable)]
    if chunk.records:
        fields = [[normalise(f).encode() for f in fields] for _, _, fields in chunk.records]
        hashes = np.concatenate([hashes, _hash_all(fields)])
        raw = [[head.encode(), tail.encode()] for _, _, (head, _, tail) in chunk.records]
        raw_hashes = np.concatenate([raw_hashes, _hash_all(raw)])
        begin = np.concatenate([begin, [offset for _, offset, _ in chunk.records]])
        line = np.concatenate([line, [number - chunk.line for number, _, _ in chunk.records]])
        bits = [sum((not f) << c for c, f in enumerate(names)) for names in fields]
        empty = np.concatenate([empty, np.array(bits, np.uint8)])
    if empty.any():
        rejected += _with_empty_field(chunk, begin, line, empty)
        full = empty == 0
        hashes, raw_hashes, begin = hashes[full], raw_hashes[full], begin[full]
    return _Scanned(hashes, raw_hashes, begin + chunk.base, sorted(rejected))


def _rejected(chunk: Chunk, unusable: Ints) -> Iterator[Rejected]:
    """Describe the lines that `scan_rows` rejected."""
    for i, first, end, reason, fields in unusable.tolist():
        text = chunk.data[first:end].decode("utf-8", "replace")
        why = REASONS[BLANK if reason == COLUMNS else reason]
        if reason == COLUMNS and text.strip():
            why = wrong_column_count(fields, "3")
        yield Rejected(chunk.line + i, why, text)


def _with_empty_field(chunk: Chunk, begin: Ints, line: Ints, empty: Bytes) -> Iterator[Rejected]:
    """Describe the rows with an empty field; the first one is reported."""
    for i in np.flatnonzero(empty).tolist():
        column = next(c for c in range(3) if empty[i] >> c & 1)
        first = int(begin[i])
        end = chunk.data.index(b"\n", first)
        text = chunk.data[first:end].removesuffix(b"\r").decode()
        reason = SkipReason(f"empty {('head', 'relation', 'tail')[column]}")
        yield Rejected(chunk.line + int(line[i]), reason, text)


def _hash_all(rows: list[list[bytes]]) -> Hashes:
    """Return the hashes of a table of names."""
    found: Hashes = hash_spans(*_concatenate([name for row in rows for name in row]))
    return found.reshape(len(rows), -1)


def _concatenate(names: list[bytes]) -> tuple[Bytes, Ints, Ints]:
    """Return the names in one buffer, and the begin and end of each."""
    end = np.cumsum([len(name) for name in names], dtype=np.int64)
    begin = np.concatenate([[0], end[:-1]])
    # The newline keeps the buffer from being empty, which numpy refuses.
    return np.frombuffer(b"".join(names) + b"\n", np.uint8), begin, end


@dataclass
class _FirstPass:
    """What the first pass keeps of all rows."""

    rows: list[Ids]  # blocks [n, 3] of string ids
    strings: StringIndex
    chunks: list[ChunkPosition]
    counts: dict[str, int | str]


def _scan_dumps(paths: Sequence[Path], rejects: Rejects, threads: int) -> _FirstPass:
    found = _FirstPass([], StringIndex(), [], {})
    base = good = 0
    for path in paths:
        in_file = Rejects()
        in_file.path = rejects.path
        good_before, base_of_file = good, base
        bar = tqdm(desc=f"reading {path.name}", unit=" triples", unit_scale=True, disable=None)
        with bar:
            for chunk, scanned in map_ahead(_scan, read_chunks(path, base), threads):
                in_file.add_all(scanned.rejected)
                if chunk.separator != COMMA:
                    in_file.quoted.add_lines(chunk.data, chunk.line)
                good += len(scanned.begin)
                _check_encoding(path, good - good_before, in_file)
                found.rows.append(
                    found.strings.add(scanned.hashes, scanned.raw_hashes, scanned.begin)
                )
                size = len(chunk.data)
                offset = chunk.base - base_of_file
                found.chunks.append(ChunkPosition(path, offset, size, chunk.base, chunk.separator))
                base = chunk.base + size
                bar.update(len(scanned.begin))
        _check_encoding(path, good - good_before, in_file, least=1)
        rejects.reasons.update(in_file.reasons)
        rejects.first = rejects.first or in_file.first
        rejects.quoted.merge(in_file.quoted)
    if not good:
        first = f" ({rejects.first})" if rejects.first else ""
        raise InputError(
            f"{', '.join(map(str, paths))}: no row holds head, relation and tail{first}. Expected "
            f"`head<TAB>relation<TAB>tail`, or CSV with the header `{CSV_HEADER}` or "
            "`head,relation,tail`."
        )
    formats = {(chunk.path, chunk.separator) for chunk in found.chunks}
    found.counts = {
        "format": " + ".join(sorted({_format(*kind) for kind in formats})),
        "rows_read": good + rejects.count,
        "rows_rejected": rejects.count,
        **{f"rejected: {reason}": n for reason, n in sorted(rejects.reasons.items())},
        **rejects.quoted.counts(),
    }
    return found


def _format(path: Path, separator: int) -> str:
    """Return the detected format of a dump, in words."""
    packed = compression(path)
    return ("CSV" if separator == COMMA else "TSV") + (f" in {packed}" if packed else "")


def _check_encoding(
    path: Path, good: int, rejects: Rejects, least: int = _MANY_UNDECODABLE
) -> None:
    if not good and rejects.reasons[REASONS[NOT_UTF8].kind] >= least:
        raise InputError(
            f"{path} is not UTF-8 ({rejects.first}). If it is GBK: "
            f"iconv -f GB18030 -t UTF-8 {path}."
        )


# ---- Entities, literals, ids


def _number(scanned: _FirstPass, paths: Sequence[Path], min_tail_count: int) -> Graph:
    counts, strings = scanned.counts, scanned.strings
    spellings = strings.finish()
    triples, duplicates, loops = group(scanned.rows, strings.count)
    kept = drop_literals(triples, min_tail_count)
    counts["duplicates_dropped"] = duplicates
    counts["self_loops_dropped"] = loops
    counts["literals_dropped"] = kept.literals
    counts["literals_distinct"] = kept.distinct_literals
    if not len(triples):
        raise InputError(f"{', '.join(map(str, paths))}: {_nothing_left(counts, min_tail_count)}")
    counts["entities_without_triples"] = kept.isolated
    entities, relations = np.flatnonzero(kept.degree), np.flatnonzero(kept.uses)
    counts["names_merged"] = int(spellings[entities].sum())
    positions = strings.position[np.concatenate([entities, relations])]
    strings.position = np.empty(0, np.int64)
    names, span = names_at(scanned.chunks, positions)
    first = len(entities)
    entity_names, order = _rank(names, span[:first], kept.degree[entities])
    head_of = entities[order]
    relation_names, order = _rank(names, span[first:], kept.uses[relations])
    relation_of = relations[order]
    del names, span
    new_ids = (_inverse(old, strings.count) for old in (head_of, relation_of))
    train: Ids = renumber(triples.keys, triples.end, head_of, *new_ids)
    counts |= {"triples": len(train), "entities": first, "relations": len(relations)}
    return Graph(entity_names, relation_names, train, counts=counts)


def _nothing_left(counts: Mapping[str, int | str], min_tail_count: int) -> str:
    """Return why no triple is left, and what to try."""
    literals, loops = counts["literals_dropped"], counts["self_loops_dropped"]
    why = [f"{loops} name the same entity as head and tail"] if loops else []
    if literals:
        why.append(f"{literals} have a tail with fewer than {min_tail_count} triples")
    advice = (
        "Try --min-tail-count 1"
        if literals
        else "Triples of an entity with itself are not learned; give others"
    )
    return f"no triple is left; {' and '.join(why)}. {advice}."


def _inverse(chosen: Ints, size: int) -> Ids:
    """Return the index in `chosen` of each of 0..size - 1; -1: not in it."""
    places = np.full(size, -1, np.int32)
    places[chosen] = np.arange(len(chosen), dtype=np.int32)
    return places


def _rank(names: Bytes, span: Ints, counts: Ids) -> tuple[pa.LargeStringArray, Ints]:
    """Return the names by descending count, then by name; and their order."""
    order = order_names(names, span, counts)
    return gather_names(names, span, order), order
