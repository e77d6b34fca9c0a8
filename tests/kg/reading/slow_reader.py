"""The rule of reading in plain Python: what `kg.reading.read_triples` must return.

1. A byte-order mark at the start is dropped. A line ends at LF; CR before it is dropped.
2. If the first line is `实体,属性,值`, the file is CSV and that line is its header; else TSV. Other
   headers are not generated.
3. A CSV line with a quote begins a record of RFC 4180, as `csv` parses it. If it is malformed, the
   line is rejected alone; so is a record with a line break, tab or NUL in a field.
4. Every other line must be UTF-8 without NUL, not blank, with three fields.
5. Names are normalised; a row with an empty name is rejected.
6. Triples of a name with itself are dropped, and duplicates. An entity is a head, or the tail of at
   least `min_tail_count` distinct triples; triples with another tail are dropped.
7. Ids are by descending number of triples, then by name.
"""

import csv
import unicodedata
from collections import Counter, defaultdict
from typing import NamedTuple

CSV_HEADER = "实体,属性,值"
Fields = list[str]


class SlowGraph(NamedTuple):
    """Names by id, triples of ids, what was dropped, and the rejected lines with their reasons."""

    entities: list[str]
    relations: list[str]
    triples: list[list[int]]
    counts: dict[str, int]
    rejected: list[tuple[int, str]]


def slow_read(data: bytes, min_tail_count: int) -> SlowGraph:
    """Read a dump."""
    rows, rejected = split_rows(data)
    named = [[normalise(field) for field in row] for row in rows]
    triples = {tuple(row) for row in named if row[0] != row[2]}
    heads, tail_count = {h for h, _, _ in triples}, Counter(t for _, _, t in triples)
    literals = {t for t in tail_count if t not in heads and tail_count[t] < min_tail_count}
    kept = {row for row in triples if row[2] not in literals}

    degree = Counter(name for h, _, t in kept for name in (h, t))
    uses = Counter(r for _, r, _ in kept)
    entities = sorted(degree, key=lambda name: (-degree[name], name))
    relations = sorted(uses, key=lambda name: (-uses[name], name))
    entity_id, relation_id = (
        {n: i for i, n in enumerate(names)} for names in (entities, relations)
    )
    ids = sorted([entity_id[h], relation_id[r], entity_id[t]] for h, r, t in kept)

    spellings = defaultdict(set)
    for raw, names in zip(rows, named, strict=True):
        spellings[names[0]].add(raw[0])
        spellings[names[2]].add(raw[2])
    loops = sum(h == t for h, _, t in named)
    counts = {
        "rows_read": len(rows) + len(rejected),
        "rows_rejected": len(rejected),
        "self_loops_dropped": loops,
        "duplicates_dropped": len(named) - loops - len(triples),
        "literals_dropped": len(triples) - len(kept),
        "literals_distinct": len(literals),
        "entities_without_triples": len((heads | set(tail_count)) - literals - set(degree)),
        "names_merged": sum(len(spellings[name]) - 1 for name in entities),
        "triples": len(kept),
        "entities": len(entities),
        "relations": len(relations),
    }
    return SlowGraph(entities, relations, ids, counts, sorted(rejected))


def normalise(name: str) -> str:
    """Return the normal form of a name."""
    return unicodedata.normalize("NFKC", name).strip()


def split_rows(data: bytes) -> tuple[list[Fields], list[tuple[int, str]]]:
    """Return the fields of the usable rows as written, and line and reason of the others."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")]
    first = data.partition(b"\n")[0].strip().decode("utf-8", "replace")
    is_csv = first == CSV_HEADER and b"\n" in data
    rows: list[Fields] = []
    rejected = []
    at = int(is_csv)
    while at < len(lines):
        record, used, reason = None, 1, ""
        if is_csv and b'"' in lines[at] and is_utf8(lines[at]):
            record, used, reason = quoted_record(lines[at:])
        else:
            record, reason = plain_record(lines[at], "," if is_csv else "\t")
        if not reason and (empty := [n for n in range(3) if not normalise(record[n])]):
            reason = f"empty {('head', 'relation', 'tail')[empty[0]]}"
        if reason:
            rejected.append((at + 1, reason))
        else:
            rows.append(record)
        at += used
    return rows, rejected


def is_utf8(line: bytes) -> bool:
    return line == line.decode("utf-8", "ignore").encode()


def plain_record(line: bytes, separator: str) -> tuple[Fields, str]:
    """Return the fields of a line without quotes, and why it is rejected."""
    if b"\0" in line:
        return [], "NUL character"
    if not is_utf8(line):
        return [], "not UTF-8"
    fields = line.decode().split(separator)
    if len(fields) != 3:
        blank = not line.decode().strip()
        reason = "blank line" if blank else f"wrong column count: {len(fields)}, expected 3"
        return fields, reason
    if separator == "," and b"\t" in line:
        return fields, "line break, tab or NUL in a field"
    return fields, ""


def quoted_record(lines: list[bytes]) -> tuple[Fields, int, str]:
    """Return the fields of the record that begins here, its lines, and why it is rejected."""
    texts = []
    for line in lines[:1000]:
        if not is_utf8(line):
            break
        texts.append(line.decode() + "\n")
    reader = csv.reader(texts, strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return [], 1, "unbalanced quote"
    reason = ""
    if any(c in field for field in fields for c in "\n\t\0"):
        reason = "line break, tab or NUL in a field"
    elif len(fields) != 3:
        reason = f"wrong column count: {len(fields)}, expected 3"
    return fields, reader.line_num, reason
