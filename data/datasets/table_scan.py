"""Read a table once; keep numbers and hashes of each row (70 bytes), not its text or image."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.datasets.captions import EMPTY_CAPTION
from data.datasets.image_hash import difference_hash
from data.errors import RowError, SkipReason
from data.images import decode_base64, decode_image, read_header
from data.read_ahead import map_ahead
from data.schema import IMAGE, LATTICE, is_parquet, open_shards
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows

_TASK, _TEXT_TASK = 32, 1024  # rows per task of a thread, with and without images
_PARQUET_ROWS = 64


class Row(NamedTuple):
    """One row: its line, idx and text, a reader of its image, and its number of tokens."""

    line: int
    idx: str
    text: str
    image: Callable[[], bytes] | None
    tokens: int  # -1 if unknown


class RowCheck(NamedTuple):
    """Measurements of one row; if it is unusable, `fault` is the reason and the rest is empty."""

    fault: SkipReason | None = None
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    sha: int = 0
    hash: bytes = bytes(16)


class Offender(NamedTuple):
    """A line, what is wrong with it, and the other line concerned (0 if none)."""

    line: int
    does: str = ""
    to: int = 0

    def __str__(self) -> str:
        if not self.to:
            return f"line {self.line}: {self.does}" if self.does else f"line {self.line}"
        return f"line {self.line} {self.does} line {self.to}"


class TableRejects(Rejects):
    """Unusable rows: counted by reason, with the first lines of each reason."""

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
class TableScan:
    """Numbers and hashes of the N usable rows of a table: arrays `(N,)`; `hash` is `(N, 16)`."""

    path: Path
    faults: TableRejects
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
        """Return which rows have an image."""
        return self.num_bytes > 0


def _rows(path: Path, faults: TableRejects) -> Iterator[Row]:
    """Yield the rows of a TSV or of a lattice table."""
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
    """Yield the rows in groups, one task of a thread each."""
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == (_TEXT_TASK if row.image is None else _TASK):
            yield group
            group = []
    if group:
        yield group


class TableScanner:
    """Scans tables: reads the rows in order and checks their images in threads.

    Args:
        tokenizer: Counts the tokens of a TSV; None leaves them unknown.
        check_images: `full` or `header`; see `validate_table`.
        workers: Threads.
        show: Examples kept of each reason for rejection.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, check_images: str, workers: int, show: int
    ) -> None:
        self.tokenizer, self.check, self.workers, self.show = tokenizer, check_images, workers, show

    def scan(self, path: Path) -> TableScan:
        """Return numbers and hashes of all rows."""
        faults = TableRejects(self.show)
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
        formats: Counter[str] = Counter()
        unknown = 0
        bar = tqdm(desc=path.name, unit=" rows", disable=None)
        groups = _groups(_rows(path, faults))
        for rows, checks in map_ahead(self._check_rows, groups, self.workers):
            tokens = self._tokens(rows)
            kept = [n for n, check in enumerate(checks) if not check.fault]
            for row, check in zip(rows, checks, strict=True):
                if check.fault:
                    faults.add(row.line, check.fault, f"{row.idx}\t{row.text}")
            _append(columns, [rows[n] for n in kept], [checks[n] for n in kept],
                    [tokens[n][0] for n in kept])  # fmt: skip
            unknown += sum(tokens[n][1] for n in kept)
            formats.update(checks[n].format for n in kept if checks[n].format)
            bar.update(len(rows))
        bar.close()
        arrays = {
            name: np.concatenate(parts)
            if parts
            else np.empty((0, 16)[: 1 + (name == "hash")], kind)
            for (name, kind), parts in zip(_COLUMNS.items(), columns.values(), strict=True)
        }
        return TableScan(
            path=path, faults=faults, formats=formats, unknown_tokens=unknown, **arrays
        )

    def _check_rows(self, rows: list[Row]) -> list[RowCheck]:
        known: dict[int, RowCheck] = {}  # captions of one image are consecutive
        return [self._check_row(row, known) for row in rows]

    def _check_row(self, row: Row, known: dict[int, RowCheck]) -> RowCheck:
        if not row.text.strip():
            return RowCheck(EMPTY_CAPTION)
        if row.image is None:
            return RowCheck()
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
            return RowCheck(error.reason)
        known[sha] = RowCheck(None, len(content), *header, sha, digest)
        return known[sha]

    def _tokens(self, rows: list[Row]) -> list[tuple[int, int]]:
        """Return the number of tokens of each row, and of unknown ones."""
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
    columns: dict[str, list[NDArray[Any]]],
    rows: list[Row],
    checks: list[RowCheck],
    tokens: list[int],
) -> None:
    """Append the numbers of a group of rows, of the types in `_COLUMNS`."""
    if not rows:
        return
    values: dict[str, list[Any]] = {
        "line": [row.line for row in rows],
        "idx": [_hash(row.idx.encode("utf-8", "surrogatepass")) for row in rows],
        "text": [_hash("".join(row.text.split()).encode("utf-8", "surrogatepass")) for row in rows],
        "characters": [len(row.text) for row in rows],
        "chinese": [any("\u3400" <= c <= "\u9fff" for c in row.text) for row in rows],
        "tokens": tokens,
        "num_bytes": [check.num_bytes for check in checks],
        "width": [check.width for check in checks],
        "height": [check.height for check in checks],
        "sha": [check.sha for check in checks],
    }
    for name, found in values.items():
        columns[name].append(np.array(found, dtype=_COLUMNS[name]))
    digests = b"".join(check.hash for check in checks)
    columns["hash"].append(np.frombuffer(digests, np.uint8).reshape(-1, 16))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
