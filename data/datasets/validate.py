"""A look at a TSV or lattice table before hours are spent on it: what is broken, double or leaking.

One pass keeps a few numbers and hashes of each row, never its text or image: 70 bytes, and three
times that while they are compared. Findings are *problems*, which cost rows or mislead figures, or
*remarks*, which are often as they should be. Each names its first offenders by line.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.datasets.captions import EMPTY_CAPTION
from data.datasets.image_hash import difference_hash, is_flat, nearest_earlier
from data.errors import ConfigError, InputError, RowError, SkipReason
from data.images import decode_base64, decode_image, read_header
from data.read_ahead import map_ahead
from data.schema import IMAGE, LATTICE, is_parquet, open_shards
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows

_TASK, _TEXT_TASK = 32, 1024  # rows that a thread looks at together, with and without images
_PARQUET_ROWS = 64
_LONG_SIDES = 3.0  # of such an image a centre square loses two thirds


class Row(NamedTuple):
    """One row as it is read: its line, what it says, and a way to its image and tokens."""

    line: int
    idx: str
    text: str
    image: Callable[[], bytes] | None
    tokens: int  # -1 where nobody counted


class Look(NamedTuple):
    """What one row came to; if it cannot be used, `fault` is why and the rest is empty."""

    fault: SkipReason | None = None
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    sha: int = 0
    hash: bytes = bytes(16)


class Offender(NamedTuple):
    """A line, what it does, and the line that it does it to (0 if none)."""

    line: int
    does: str = ""
    to: int = 0

    def __str__(self) -> str:
        if not self.to:
            return f"line {self.line}: {self.does}" if self.does else f"line {self.line}"
        return f"line {self.line} {self.does} line {self.to}"


class Faults(Rejects):
    """Rows that cannot be used: counted by reason, the first of each kept."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep
        self.examples: dict[str, list[Offender]] = {}

    def add(self, line: int, reason: SkipReason, row: str) -> None:
        """See `Rejects.add`."""
        super().add(line, reason, row)
        known = self.examples.setdefault(reason.kind, [])
        if len(known) < self.keep:
            known.append(Offender(line, reason.detail or row[:60]))


@dataclass
class Scan:
    """Numbers and hashes of a table's usable rows, each an array as long as they are many."""

    path: Path
    faults: Faults
    line: NDArray[np.int64]
    idx: NDArray[np.uint64]
    text: NDArray[np.uint64]
    characters: NDArray[np.int32]
    tokens: NDArray[np.int32]
    chinese: NDArray[np.bool_]
    num_bytes: NDArray[np.int64]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    sha: NDArray[np.uint64]
    hash: NDArray[np.uint8]
    formats: Counter[str]
    unknown_tokens: int = 0

    def __len__(self) -> int:
        return len(self.line)

    @property
    def has_image(self) -> NDArray[np.bool_]:
        """Which rows have an image."""
        return self.num_bytes > 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was found: how often, what, and the first offenders."""

    code: str
    problem: bool
    count: int
    what: str
    first: list[Offender] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [f"  {self.what}: {self.count:,}", *(f"      {one}" for one in self.first)]
        )


@dataclass(frozen=True, kw_only=True)
class ValidateReport:
    """What a table holds, and what was found in it."""

    table: Path
    against: Path | None
    summary: dict[str, Any]
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """Findings that cost rows or mislead figures."""
        return [f for f in self.findings if f.problem]

    @property
    def remarks(self) -> list[Finding]:
        """The other findings."""
        return [f for f in self.findings if not f.problem]

    def __str__(self) -> str:
        lines = _describe(self.table, self.summary)
        for title, found in (("Problems", self.problems), ("Remarks", self.remarks)):
            if found:
                lines += [f"{title}:", *map(str, found)]
        if not self.problems:
            lines.append("No problems.")
        return "\n".join(lines)

    def json(self) -> str:
        """All of it for a script."""
        found = {
            name: [
                {
                    "code": finding.code,
                    "count": finding.count,
                    "what": finding.what,
                    "first": [one._asdict() for one in finding.first],
                }
                for finding in findings
            ]
            for name, findings in (("problems", self.problems), ("remarks", self.remarks))
        }
        against = str(self.against) if self.against else None
        head = {"table": str(self.table), "against": against, **self.summary}
        return json.dumps({**head, **found}, ensure_ascii=False, indent=1)


def validate(
    table: Path,
    *,
    against: Path | None = None,
    tokenizer: Path | None = None,
    text_len: int = 32,
    check_images: str = "full",
    workers: int | None = None,
    show: int = 3,
) -> ValidateReport:
    """Look through a table, and for what it shares with another one.

    Args:
        table: A TSV (`idx, text[, imgbase64]`), or a lattice table in one file or a folder of them.
        against: Another one, such as the training captions of a test set.
        tokenizer: A `vocab.txt` or a folder with one, to count tokens of a TSV.
        text_len: Tokens that a model reads.
        check_images: `full` decodes every image; `header` reads sizes, and finds no damage and no
            near duplicates.
        workers: Threads that decode images; all cores if None.
        show: How many offenders of each kind are named.

    Raises:
        InputError: A file is missing, empty, or not of these kinds.
    """
    if check_images not in ("full", "header"):
        raise ConfigError(f"--check-images {check_images}: use full or header.")
    if against is not None and against.exists() and table.exists() and against.samefile(table):
        raise ConfigError(f"--against {against} is the table itself.")
    words = Tokenizer.load(tokenizer) if tokenizer is not None else None
    looker = _Looker(words, check_images, workers or os.cpu_count() or 1, show)
    found = looker.scan(table)
    if not len(found) and not found.faults.count:
        raise InputError(f"{table} has no rows.")
    findings = _own_findings(found, text_len, show)
    if against is not None:
        findings += _shared_findings(found, looker.scan(against), show)
    return ValidateReport(
        table=table,
        against=against,
        summary=_summary(found, text_len),
        findings=[f for f in findings if f.count],
    )


# --- reading -------------------------------------------------------------------------------------
def _rows(path: Path, faults: Faults) -> Iterator[Row]:
    """The rows of a TSV or of a lattice table."""
    if path.is_dir() or is_parquet(path):
        yield from _table_rows(path)
        return
    for line, fields in read_rows(path, (2, 3), faults):
        image = _decoder(fields[2]) if len(fields) == 3 else None
        yield Row(line, fields[0], fields[1], image, -1)


def _decoder(encoded: str) -> Callable[[], bytes]:
    return lambda: decode_base64(encoded)


def _table_rows(path: Path) -> Iterator[Row]:
    table = open_shards(path, LATTICE, optional=(IMAGE,))
    wanted = ["idx", "text", "seq_len", IMAGE.name]
    names = [n for n in wanted if n in table.schema_arrow.names]
    number = 0
    for batch in table.iter_batches(_PARQUET_ROWS, names):
        for row in batch.to_pylist():
            number += 1
            image = _cell(row[IMAGE.name]) if IMAGE.name in row else None
            yield Row(number, row["idx"], row["text"], image, row["seq_len"])


def _cell(cell: dict[str, Any] | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if cell is None or cell["bytes"] is None:
            raise RowError("no image")
        return bytes(cell["bytes"])

    return read


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows in groups that one thread checks at once."""
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == (_TEXT_TASK if row.image is None else _TASK):
            yield group
            group = []
    if group:
        yield group


class _Looker:
    """Scans tables: reads rows in order, looks at their images in threads."""

    def __init__(
        self, tokenizer: Tokenizer | None, check_images: str, workers: int, show: int
    ) -> None:
        self.tokenizer, self.check, self.workers, self.show = tokenizer, check_images, workers, show

    def scan(self, path: Path) -> Scan:
        """Numbers and hashes of all rows."""
        faults = Faults(self.show)
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
        formats: Counter[str] = Counter()
        unknown = 0
        bar = tqdm(desc=path.name, unit=" rows", disable=None)
        groups = _groups(_rows(path, faults))
        for rows, looks in map_ahead(self._look, groups, self.workers):
            tokens = self._tokens(rows)
            kept = [n for n, look in enumerate(looks) if not look.fault]
            for row, look in zip(rows, looks, strict=True):
                if look.fault:
                    faults.add(row.line, look.fault, f"{row.idx}\t{row.text}")
            _append(columns, [rows[n] for n in kept], [looks[n] for n in kept],
                    [tokens[n][0] for n in kept])  # fmt: skip
            unknown += sum(tokens[n][1] for n in kept)
            formats.update(looks[n].format for n in kept if looks[n].format)
            bar.update(len(rows))
        bar.close()
        arrays = {
            name: np.concatenate(parts)
            if parts
            else np.empty((0, 16)[: 1 + (name == "hash")], kind)
            for (name, kind), parts in zip(_COLUMNS.items(), columns.values(), strict=True)
        }
        return Scan(path=path, faults=faults, formats=formats, unknown_tokens=unknown, **arrays)

    def _look(self, rows: list[Row]) -> list[Look]:
        known: dict[int, Look] = {}  # further captions of an image follow it
        return [self._look_at(row, known) for row in rows]

    def _look_at(self, row: Row, known: dict[int, Look]) -> Look:
        if not row.text.strip():
            return Look(EMPTY_CAPTION)
        if row.image is None:
            return Look()
        try:
            content = row.image()
            sha = _hash(content)
            if sha in known:
                return known[sha]
            header = read_header(content)
            digest = bytes(16)
            if self.check == "full":
                digest = difference_hash(decode_image(content, enough=64))
        except RowError as error:
            return Look(error.reason)
        known[sha] = Look(None, len(content), *header, sha, digest)
        return known[sha]

    def _tokens(self, rows: list[Row]) -> list[tuple[int, int]]:
        """How many tokens each row has, and how many of them are unknown."""
        if self.tokenizer is None or rows[0].tokens >= 0:
            return [(row.tokens, 0) for row in rows]
        unknown = self.tokenizer.vocab["[UNK]"]
        found = self.tokenizer.encode([row.text for row in rows])
        return [(len(t.ids), t.ids.count(unknown)) for t in found]


_COLUMNS: dict[str, Any] = {
    "line": np.int64,
    "idx": np.uint64,
    "text": np.uint64,
    "characters": np.int32,
    "chinese": np.bool_,
    "tokens": np.int32,
    "num_bytes": np.int64,
    "width": np.int32,
    "height": np.int32,
    "sha": np.uint64,
    "hash": np.uint8,
}


def _append(
    columns: dict[str, list[NDArray[Any]]], rows: list[Row], looks: list[Look], tokens: list[int]
) -> None:
    """Add a group's numbers; `_COLUMNS` says in which form."""
    if not rows:
        return
    values: dict[str, list[Any]] = {
        "line": [row.line for row in rows],
        "idx": [_hash(row.idx.encode("utf-8", "surrogatepass")) for row in rows],
        "text": [_hash("".join(row.text.split()).encode("utf-8", "surrogatepass")) for row in rows],
        "characters": [len(row.text) for row in rows],
        "chinese": [any("\u3400" <= c <= "\u9fff" for c in row.text) for row in rows],
        "tokens": tokens,
        "num_bytes": [look.num_bytes for look in looks],
        "width": [look.width for look in looks],
        "height": [look.height for look in looks],
        "sha": [look.sha for look in looks],
    }
    for name, found in values.items():
        columns[name].append(np.array(found, dtype=_COLUMNS[name]))
    digests = b"".join(look.hash for look in looks)
    columns["hash"].append(np.frombuffer(digests, np.uint8).reshape(-1, 16))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


# --- judging -------------------------------------------------------------------------------------
_PARTLY = " (not all pairs were compared: very many look alike)"


def _own_findings(scan: Scan, text_len: int, show: int) -> list[Finding]:
    """What is found in a table alone."""
    found = [
        Finding(
            code=reason.replace(" ", "-"),
            problem=True,
            count=count,
            what=f"rows that cannot be used, {reason}",
            first=scan.faults.examples[reason],
        )
        for reason, count in scan.faults.reasons.items()
    ]
    mark = _Marker(scan, show)
    pictured = scan.has_image
    found.append(mark.repeats("duplicate-idx", "rows that repeat an earlier idx", scan.idx, True))
    if pictured.any():
        what = "rows without an image where others have one"
        found.append(mark.rows("no-image", what, ~pictured, True))
        pair = scan.text ^ (scan.sha * np.uint64(0x9E3779B97F4A7C15))
        what = "rows that repeat an earlier image with the same caption"
        found.append(mark.repeats("duplicate-row", what, pair, False, pictured))
        what = "rows that repeat an earlier image, byte for byte, as further captions do"
        found.append(mark.repeats("duplicate-image", what, scan.sha, False, pictured))
        found.append(mark.alike())
        long = np.maximum(scan.width, scan.height) > _LONG_SIDES * np.minimum(
            scan.width, scan.height
        )
        what = (
            f"images over {_LONG_SIDES:g} times as long as wide (training sees the centre square)"
        )
        found.append(mark.rows("long-image", what, long, False))
    what = "rows that repeat an earlier caption"
    found.append(mark.repeats("duplicate-caption", what, scan.text, False))
    what = f"captions of more than {text_len} tokens (the model reads their beginning)"
    found.append(mark.rows("cut-caption", what, scan.tokens > text_len, False))
    what = "captions without a Chinese character"
    found.append(mark.rows("not-chinese", what, ~scan.chinese, False))
    return found


class _Marker:
    """Makes findings about a table's rows."""

    def __init__(self, scan: Scan, show: int) -> None:
        self.scan, self.show = scan, show

    def rows(self, code: str, what: str, where: NDArray[np.bool_], problem: bool) -> Finding:
        """Single rows."""
        first = [Offender(int(line)) for line in self.scan.line[np.flatnonzero(where)[: self.show]]]
        return Finding(code=code, problem=problem, count=int(where.sum()), what=what, first=first)

    def repeats(
        self,
        code: str,
        what: str,
        key: NDArray[np.uint64],
        problem: bool,
        among: NDArray[np.bool_] | None = None,
    ) -> Finding:
        """Rows whose key an earlier row has."""
        rows = np.flatnonzero(among) if among is not None else np.arange(len(key))
        _, first, of = np.unique(key[rows], return_index=True, return_inverse=True)
        again = np.flatnonzero(first[of] != np.arange(len(rows)))
        line = self.scan.line[rows]
        pairs = [
            Offender(int(line[n]), "repeats", int(line[first[of[n]]])) for n in again[: self.show]
        ]
        return Finding(code=code, problem=problem, count=len(again), what=what, first=pairs)

    def alike(self) -> Finding:
        """Different images that look the same."""
        rows = _distinct(self.scan)
        earlier, complete = nearest_earlier(self.scan.hash[rows])
        near, line = np.flatnonzero(earlier >= 0), self.scan.line[rows]
        pairs = [
            Offender(int(line[n]), "looks like", int(line[earlier[n]])) for n in near[: self.show]
        ]
        what = "images that look like an earlier one" + _PARTLY * (not complete)
        return Finding(code="near-image", problem=False, count=len(near), what=what, first=pairs)

    def shared(self, other: Scan, code: str, what: str, column: str, problem: bool) -> Finding:
        """Rows whose value in a column stands in another table too."""
        mine: NDArray[np.uint64] = getattr(self.scan, column)
        theirs: NDArray[np.uint64] = getattr(other, column)
        values, first = np.unique(theirs, return_index=True)
        place = np.minimum(np.searchsorted(values, mine), max(len(values) - 1, 0))
        same = values[place] == mine if len(values) else np.zeros(len(mine), bool)
        if column == "sha":
            same &= self.scan.has_image
        pairs = [
            Offender(int(self.scan.line[n]), "is its", int(other.line[first[place[n]]]))
            for n in np.flatnonzero(same)[: self.show]
        ]
        return Finding(code=code, problem=problem, count=int(same.sum()), what=what, first=pairs)

    def shared_alike(self, other: Scan, what: str) -> Finding:
        """Images that look like one of another table without being the same bytes."""
        mine, theirs = _distinct(self.scan), _distinct(other)
        mine = mine[~np.isin(self.scan.sha[mine], other.sha[theirs])]
        hashes = np.concatenate([other.hash[theirs], self.scan.hash[mine]])
        groups = np.repeat(np.array([0, 1], np.int8), [len(theirs), len(mine)])
        earlier, complete = nearest_earlier(hashes, groups)
        earlier = earlier[len(theirs) :]
        near = np.flatnonzero(earlier >= 0)
        pairs = [
            Offender(
                int(self.scan.line[mine[n]]), "looks like its", int(other.line[theirs[earlier[n]]])
            )
            for n in near[: self.show]
        ]
        what += _PARTLY * (not complete)
        return Finding(
            code="shared-near-image", problem=True, count=len(near), what=what, first=pairs
        )


def _distinct(scan: Scan) -> NDArray[np.int64]:
    """The first row of every different image that shows something."""
    rows = np.flatnonzero(scan.has_image & ~is_flat(scan.hash))
    _, first = np.unique(scan.sha[rows], return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(first)]
    return kept


def _shared_findings(scan: Scan, other: Scan, show: int) -> list[Finding]:
    """What is found in both tables: leakage, if one tests what was trained on the other."""
    mark, name = _Marker(scan, show), other.path
    return [
        mark.shared(other, "shared-image", f"rows with an image of {name}", "sha", True),
        mark.shared_alike(other, f"images that look like one of {name}, of other bytes"),
        mark.shared(other, "shared-idx", f"rows with an idx of {name}", "idx", False),
        mark.shared(other, "shared-caption", f"rows with a caption of {name}", "text", False),
    ]


# --- describing ----------------------------------------------------------------------------------
def _spread(values: NDArray[Any]) -> dict[str, float]:
    """Least, median, 95 % and greatest."""
    found = np.quantile(values, [0, 0.5, 0.95, 1])
    return {
        k: round(float(v), 3) for k, v in zip(("min", "median", "p95", "max"), found, strict=True)
    }


def _summary(scan: Scan, text_len: int) -> dict[str, Any]:
    """What the table holds, in numbers."""
    pictured = scan.has_image
    found: dict[str, Any] = {
        "rows": len(scan) + scan.faults.count,
        "usable_rows": len(scan),
        "captions": {"different": len(np.unique(scan.text))},
        "images": {"rows": int(pictured.sum())},
    }
    if len(scan):
        found["captions"]["characters"] = _spread(scan.characters)
    if (scan.tokens >= 0).any():
        found["captions"]["tokens"] = _spread(scan.tokens)
        found["captions"]["tokens_unknown"] = scan.unknown_tokens
        found["captions"][f"longer_than_{text_len}_tokens"] = int((scan.tokens > text_len).sum())
    if pictured.any():
        width, height = scan.width[pictured], scan.height[pictured]
        short, long = np.minimum(width, height), np.maximum(width, height)
        found["images"] |= {
            "different": len(np.unique(scan.sha[pictured])),
            "bytes": int(scan.num_bytes.sum()),
            "bytes_each": _spread(scan.num_bytes[pictured]),
            "formats": dict(scan.formats.most_common()),
            "shorter_side": _spread(short),
            "long_by_short": _spread(long / short),
        }
    return found


def _describe(table: Path, summary: dict[str, Any]) -> list[str]:
    """The summary in a few lines."""
    captions, images = summary["captions"], summary["images"]
    lines = [f"{table}: {summary['rows']:,} rows, {summary['usable_rows']:,} of them usable"]
    lines.append(f"  captions       {captions['different']:,} different")
    lines += [
        f"    {name:<13}{_said(captions[name])}"
        for name in ("characters", "tokens")
        if name in captions
    ]
    if "tokens_unknown" in captions:
        lines[-1] += f"; {captions['tokens_unknown']:,} unknown in all"
    if not images["rows"]:
        lines.append("  images         none")
        return lines
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in images["formats"].items())
    lines.append(
        f"  images         {images['rows']:,}, {images['different']:,} different, "
        f"{images['bytes'] / 1e6:,.1f} MB; {kinds}"
    )
    lines.append(f"    shorter side {_said(images['shorter_side'])} pixels")
    lines.append(f"    long : short {_said(images['long_by_short'])}")
    return lines


def _said(spread: dict[str, float]) -> str:
    return (
        f"{spread['min']:g} to {spread['max']:g}, median {spread['median']:g}, "
        f"95 % up to {spread['p95']:g}"
    )
