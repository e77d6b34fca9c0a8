"""Read a table once; keep numbers and hashes of each row (70 bytes), not its text or image."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
        image = partial(decode_base64, fields[2]) if len(fields) == 3 else None
        yield Row(line, fields[0], fields[1], image, -1)


def _table_rows(path: Path) -> Iterator[Row]:
    table = open_shards(path, LATTICE, optional=(IMAGE,))
    wanted = ["idx", "text", "seq_len", IMAGE.name]
    names = [n for n in wanted if n in table.schema_arrow.names]
    number = 0
    for batch in table.iter_batches(_PARQUET_ROWS, names):
        for row in batch.to_pylist():
            number += 1
            image = partial(_bytes, row[IMAGE.name]) if IMAGE.name in row else None
            yield Row(number, row["idx"], row["text"], image, row["seq_len"])


def _bytes(cell: dict[str, Any] | None) -> bytes:
    if cell is None or cell["bytes"] is None:
        raise RowError("no image")
    return bytes(cell["bytes"])


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
        found: list[NDArray[np.void]] = [np.empty(0, _ROW)]
        formats: Counter[str] = Counter()
        unknown_tokens = 0
        bar = tqdm(desc=path.name, unit=" rows", disable=None)
        groups = _groups(_rows(path, faults))
        for rows, checks in map_ahead(self._check_rows, groups, self.workers):
            usable = []
            for row, check, (tokens, unknown) in zip(rows, checks, self._tokens(rows), strict=True):
                if check.fault:
                    faults.add(row.line, check.fault, f"{row.idx}\t{row.text}")
                    continue
                usable.append(_numbers(row, check, tokens))
                unknown_tokens += unknown
                formats.update([check.format] if check.format else [])
            found.append(np.array(usable, _ROW))
            bar.update(len(rows))
        bar.close()
        table = np.concatenate(found)
        columns = {name: np.ascontiguousarray(table[name]) for name in _ROW.names or ()}
        columns["hash"] = columns["hash"].view(np.uint8).reshape(-1, 16)
        return TableScan(
            path=path, faults=faults, formats=formats, unknown_tokens=unknown_tokens, **columns
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


_ROW = np.dtype(
    [
        ("line", np.int64),
        ("idx", np.uint64),
        ("text", np.uint64),
        ("characters", np.int32),
        ("chinese", np.bool_),
        ("tokens", np.int32),
        ("num_bytes", np.int64),
        ("width", np.int32),
        ("height", np.int32),
        ("sha", np.uint64),
        ("hash", "V16"),
    ]
)


def _numbers(row: Row, check: RowCheck, tokens: int) -> tuple[Any, ...]:
    """Return the numbers of a usable row, in the order of `_ROW`."""
    text = "".join(row.text.split())
    return (
        row.line,
        _hash(row.idx.encode("utf-8", "surrogatepass")),
        _hash(text.encode("utf-8", "surrogatepass")),
        len(row.text),
        any("\u3400" <= c <= "\u9fff" for c in row.text),
        tokens,
        check.num_bytes,
        check.width,
        check.height,
        check.sha,
        check.hash,
    )


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
