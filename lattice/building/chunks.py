"""Process a corpus in chunks; the results are written to one table.

    Chunk           a few megabytes of lines
    ChunkResult     the rows, rejected lines and counts of a chunk
    TableFormat     the form of the captions and of the table
    ChunkProcessor  chunks to results, with the kernel
    ProcessorSpec   the picklable arguments of a processor, for other processes

Results do not depend on each other, so the table is the same for any number of processes.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import SkipReason, ToolkitError
from data.quoted_rows import QuotedRows
from data.schema import IMAGE, LATTICE, table_writer, with_metadata
from data.tokenizer import Tokenizer
from data.tsv import Rejected, Rejects
from lattice.building.caption_reader import Batch, Chunk, batches
from lattice.building.easynlp_tsv import tsv_lines
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.string_column import hash_strings
from lattice.matching.vocabulary import Vocabulary

_IMAGE_ROW_GROUP = 500  # rows; with images, training reads row groups at random
_TEXT_ROW_GROUP = 65_536
MAX_TRACKED = 16_000_000  # rows whose idx is hashed (8 bytes each) to count duplicates


@dataclass
class ChunkResult:
    """The result of a chunk.

    Attributes:
        rows: Rows of the table; empty for a TSV.
        lines: The rows as EasyNLP's TSV.
        rejected: The rejected rows.
        quoted: The rows that look quoted.
        counts: Rows, tokens, entities and others.
        hashes: The hash of each row's idx.
        spilled: The file of `rows`, on the way between processes.
    """

    rows: list[pa.RecordBatch] = field(default_factory=list)
    lines: bytes = b""
    rejected: list[Rejected] = field(default_factory=list)
    quoted: QuotedRows = field(default_factory=QuotedRows)
    counts: Counter[str] = field(default_factory=Counter)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    spilled: Path | None = None

    def spill(self, path: Path) -> None:
        """Move the rows into a file, which is cheaper than sending them through a pipe."""
        if self.rows:
            schema = self.rows[0].schema
            with (
                pa.OSFile(os.fsencode(path), "wb") as file,
                pa.ipc.new_file(file, schema) as writer,
            ):
                for batch in self.rows:
                    writer.write_batch(batch)
            self.rows, self.spilled = [], path

    def load(self) -> None:
        """Map the file that `spill` wrote, and unlink it."""
        if self.spilled is not None:
            file = pa.ipc.open_file(pa.memory_map(os.fsencode(self.spilled)))
            self.rows = [file.get_batch(n) for n in range(file.num_record_batches)]
            self.spilled.unlink()
            self.spilled = None


class _DeferredRejects(Rejects):
    """Collects rejected rows, to be reported later in the order of the corpus."""

    def __init__(self, kept: list[Rejected]) -> None:
        super().__init__()
        self.kept = kept

    def add(self, line: int, reason: SkipReason, row: str) -> None:
        """Collect a rejected row."""
        self.kept.append(Rejected(line, reason, row[:200]))


@dataclass(frozen=True)
class TableFormat:
    """The form of the captions and of the table.

    Attributes:
        columns: The number of columns of a usable row: 2, or 3 with images.
        check_images: See `lattice.building.caption_reader.batches`.
        tsv: Whether the table is EasyNLP's TSV.
        metadata: The table's metadata.
    """

    columns: int
    check_images: str
    tsv: bool
    metadata: dict[str, Any]

    @property
    def schema(self) -> pa.Schema:
        """The schema of the table."""
        schema = LATTICE.append(IMAGE) if self.columns == 3 else LATTICE
        return with_metadata(schema, self.metadata)


@dataclass(frozen=True)
class ProcessorSpec:
    """The arguments of a `ChunkProcessor`; small and picklable.

    Attributes:
        tokenizer: Tokenizes captions.
        vocabulary: A folder to be mapped; see `Vocabulary.save`.
        config: What is matched and stored.
        format: The form of the captions and of the table.
    """

    tokenizer: Tokenizer
    vocabulary: Path
    config: LatticeConfig
    format: TableFormat

    def open(self) -> "ChunkProcessor":
        """Return the processor, with the vocabulary mapped into this process."""
        vocabulary = Vocabulary.open(self.vocabulary)
        kernel = LatticeKernel(self.tokenizer, vocabulary, self.config)
        return ChunkProcessor(kernel, self.format)


class ChunkProcessor:
    """Maps chunks to results.

    Args:
        kernel: Matches captions.
        format: The form of the captions and of the table.
        pool: Threads that check images.
    """

    def __init__(
        self, kernel: LatticeKernel, format: TableFormat, pool: ThreadPoolExecutor | None = None
    ) -> None:
        self.format, self._kernel, self._pool = format, kernel, pool
        self._unk_id = kernel.unk_id
        self._stopped = False

    def stop(self) -> None:
        """Refuse all further chunks, so that another thread that processes them ends."""
        self._stopped = True

    def __call__(self, chunk: Chunk) -> ChunkResult:
        """Return the result of a chunk.

        Raises:
            ToolkitError: `stop` was called.
        """
        if self._stopped:
            raise ToolkitError("the run was stopped.")
        result = ChunkResult()
        result.quoted.add_lines(chunk.content, chunk.line)
        rejects = _DeferredRejects(result.rejected)
        columns, check_images = self.format.columns, self.format.check_images
        for batch in batches(chunk, columns, rejects, check_images, self._pool):
            table, undecided = self._kernel.run(batch.captions)
            table, encoded = _drop_tokenless(table, batch, rejects)
            if not table.num_rows:
                continue
            if self.format.tsv:
                images = None if encoded is None else [str(image, "utf-8") for image in encoded]
                result.lines += "".join(tsv_lines(table, images)).encode("utf-8")
            else:
                result.rows.append(table)
            entities = np.diff(table.column("lex_ids").offsets.to_numpy())
            result.counts["rows"] += table.num_rows
            result.counts["undecided"] += undecided
            result.counts["entities"] += int(entities.sum())
            result.counts["captions_with_entity"] += int((entities > 0).sum())
            result.counts["tokens"] += int(np.sum(table.column("seq_len").to_numpy()))
            ids = table.column("input_ids").flatten().to_numpy()
            result.counts["unknown_tokens"] += int((ids == self._unk_id).sum())
            result.hashes.append(hash_strings(table.column("idx")))
        return result


def write_results(
    results: Iterable[ChunkResult],
    work: Path,
    format: TableFormat,
    rejects: Rejects,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Write the table to `work` and return its counts.

    Args:
        results: In the order of the corpus.
        work: The file to write.
        format: The form of the table.
        rejects: Receives the rejected rows.
        advance: Called with the number of rows written.
    """
    counts: Counter[str] = Counter(
        rows=0, undecided=0, entities=0, captions_with_entity=0, tokens=0, unknown_tokens=0
    )
    hashes = [np.empty(0, np.uint64)]
    sink = _TsvWriter(work) if format.tsv else _ParquetWriter(work, format.schema)
    try:
        for result in results:
            result.load()
            sink.write(result)
            rejects.add_all(result.rejected)
            rejects.quoted.merge(result.quoted)
            counts.update(result.counts)
            if counts["rows"] <= MAX_TRACKED:
                hashes += result.hashes
            advance(result.counts["rows"])
    finally:
        sink.close()
    checked = np.concatenate(hashes)
    return {
        "rows_in": counts["rows"] + rejects.count,
        **counts,
        "rejected": rejects.count,
        "reasons": dict(rejects.reasons),
        "first_reject": rejects.first,
        **rejects.quoted.counts(),
        "duplicate_idx": num_duplicates(checked),
        "duplicate_idx_checked_rows": len(checked),
    }


def num_duplicates(hashes: NDArray[np.uint64]) -> int:
    """Return the number of hashes that equal an earlier one."""
    ordered = np.sort(hashes)
    return int((ordered[1:] == ordered[:-1]).sum())


def _drop_tokenless(
    table: pa.RecordBatch, batch: Batch, rejects: Rejects
) -> tuple[pa.RecordBatch, list[memoryview] | None]:
    """Remove and reject captions without tokens (control characters, for example)."""
    kept = table.column("seq_len").to_numpy() > 0
    if kept.all():
        return table, batch.encoded
    for n in np.flatnonzero(~kept).tolist():
        idx, text = (table.column(name)[n].as_py() for name in ("idx", "text"))
        reason = "caption without a token" if text.strip() else "empty caption"
        rejects.add(int(batch.lines[n]), SkipReason(reason), f"{idx}\t{text}")
    encoded = batch.encoded and [e for e, k in zip(batch.encoded, kept, strict=True) if k]
    return table.take(pa.array(np.flatnonzero(kept))), encoded


class _ParquetWriter:
    """Writes row groups of a fixed number of rows, whatever the size of the chunks."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = table_writer(path, schema)
        self._held: list[pa.RecordBatch] = []
        self._group = _IMAGE_ROW_GROUP if IMAGE.name in schema.names else _TEXT_ROW_GROUP

    def write(self, result: ChunkResult) -> None:
        self._held += result.rows
        held = sum(batch.num_rows for batch in self._held)
        if held >= self._group:
            self._flush(held - held % self._group)

    def close(self) -> None:
        if self._held:
            self._flush(sum(batch.num_rows for batch in self._held))
        self._writer.close()

    def _flush(self, count: int) -> None:
        """Write the first `count` rows in whole row groups; keep the rest."""
        rows = pa.Table.from_batches(self._held).cast(self._schema)
        self._writer.write_table(rows.slice(0, count), row_group_size=self._group)
        self._held = rows.slice(count).to_batches()


class _TsvWriter:
    """Writes EasyNLP's preprocessed rows; see `lattice.building.easynlp_tsv`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, result: ChunkResult) -> None:
        self._file.write(result.lines)

    def close(self) -> None:
        self._file.close()
