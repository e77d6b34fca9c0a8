"""Corpus files to a folder of tables, one per file; an interrupted run can be resumed.

A shard is `<stem>.parquet`, `<stem>.rejects.tsv` if rows were rejected, and `<stem>_stats.json`,
which is written last and marks the shard as finished: its corpus file, counts and sha256. The
folder is `<out>.partial` until all shards are finished. A later run with more files reuses the
finished shards.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq

from data.encoding import unicode_path
from data.errors import ArtefactError, ConfigError, InputError
from data.quoted_rows import QuotedRows
from data.runs import sha256, write_json
from data.schema import table_files
from data.tsv import Rejects
from lattice.building.caption_reader import read_chunks
from lattice.building.chunks import MAX_TRACKED, ChunkProcessor, num_duplicates, write_results
from lattice.matching.string_column import hash_strings

_SUFFIXES = (".gz", ".tsv", ".txt")
_SUMMED = ("rows_in", "rows", "undecided", "entities", "captions_with_entity", "tokens", "rejected")


@dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        corpus: The caption file.
        folder: The folder of the shards.
        stem: The name of the shard.
    """

    corpus: Path
    folder: Path
    stem: str

    def __str__(self) -> str:
        return str(self.corpus)

    @property
    def table(self) -> Path:
        """The Parquet file."""
        return self.folder / f"{self.stem}.parquet"

    @property
    def stats(self) -> Path:
        """The file that marks the shard as finished."""
        return self.folder / f"{self.stem}_stats.json"

    @property
    def rejects(self) -> Path:
        """The rejected rows; exists only if there are any."""
        return self.folder / f"{self.stem}.rejects.tsv"

    def run(self, processor: ChunkProcessor) -> dict[str, Any]:
        """Write the shard and return its stats."""
        corpus = file_stamp(self.corpus)
        mine = f".{uuid4().hex[:12]}.partial"  # a cluster may run a task on two workers
        work, rejected, stats_file = (
            path.with_name(path.name + mine) for path in (self.table, self.rejects, self.stats)
        )
        rejects = Rejects(rejected)
        results = map(processor, read_chunks(self.corpus, processor.format.columns))
        counts = write_results(results, work, processor.format, rejects)
        corpus["sha256"] = sha256(self.corpus)
        stats = {"corpus": corpus, **counts, "table_sha256": sha256(work)}
        with work.open("rb") as file:
            os.fsync(file.fileno())
        self.stats.unlink(missing_ok=True)
        if rejects.count:
            rejected.replace(self.rejects)
        else:
            self.rejects.unlink(missing_ok=True)
        work.replace(self.table)
        write_json(stats_file, stats)
        stats_file.replace(self.stats)
        return stats

    def finished(self, overwrite: bool, verify: bool = True) -> dict[str, Any] | None:
        """Return the stats of the finished shard, or None if it must be written.

        Args:
            overwrite: Rewrite the shard if its corpus file has changed.
            verify: Whether the sha256 is checked.

        Raises:
            ArtefactError: The corpus file has changed.
        """
        try:
            stats: dict[str, Any] = json.loads(self.stats.read_text(encoding="utf-8"))
            if verify and sha256(self.table) != stats["table_sha256"]:
                return None
        except (OSError, ValueError, KeyError):
            return None
        then, now = stats["corpus"], file_stamp(self.corpus)
        if any(then[key] != now[key] for key in now) and then["sha256"] != sha256(self.corpus):
            if overwrite:
                return None
            raise ArtefactError(
                f"{self.corpus} has changed since {self.table.name} was written. Pass "
                "--overwrite to rewrite the shards of changed files."
            )
        return stats


def file_stamp(path: Path) -> dict[str, Any]:
    """Return what identifies an unchanged file without reading it."""
    about = path.stat()
    return {"name": path.name, "bytes": about.st_size, "changed": about.st_mtime_ns}


def shard_tasks(files: Sequence[Path], folder: Path) -> list[ShardTask]:
    """Return a task per corpus file, named after it.

    Raises:
        ConfigError: Two files have the same name.
    """
    tasks: dict[str, ShardTask] = {}
    for file in files:
        stem = file.name
        for suffix in _SUFFIXES:
            stem = stem.removesuffix(suffix)
        if stem in tasks:
            raise ConfigError(
                f"{tasks[stem].corpus} and {file} would both become {stem}.parquet; rename one."
            )
        tasks[stem] = ShardTask(file, folder, stem)
    return list(tasks.values())


def check_same_corpus(folder: Path, tasks: Sequence[ShardTask]) -> None:
    """Check that a finished folder contains shards of this corpus only.

    Raises:
        ArtefactError: A shard belongs to none of the tasks.
    """
    stems = {task.stem for task in tasks}
    for path in table_files(folder):
        if path.stem not in stems:
            raise ArtefactError(
                f"{folder} contains {path.name}, whose file is not in this corpus. Pass all "
                "files, choose another --out, or pass --overwrite."
            )


def link_finished(old: Path, tasks: Sequence[ShardTask]) -> None:
    """Link the finished shards of folder `old` into the folder of the tasks."""
    for task in tasks:
        for path in (task.rejects, task.table, task.stats):  # the stats last
            if (old / path.name).exists() and not path.exists():
                os.link(old / path.name, path)


def total_counts(tasks: Sequence[ShardTask], stats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of all shards together.

    Args:
        tasks: In the order of the corpus.
        stats: The stats of each shard.

    Raises:
        InputError: No shard has a row.
    """
    reasons: Counter[str] = Counter()
    first = ""
    quoted = QuotedRows()
    for task, counts in zip(tasks, stats, strict=True):
        reasons.update(counts["reasons"])
        quoted.merge(QuotedRows.of(counts))
        if counts["first_reject"]:
            first = first or f"{task.corpus.name}, {counts['first_reject']}"
    total: dict[str, Any] = {key: sum(counts[key] for counts in stats) for key in _SUMMED}
    total["unknown_tokens"] = sum(counts.get("unknown_tokens", 0) for counts in stats)
    if not total["rows"]:
        raise InputError(
            f"none of the {total['rows_in']} rows of {len(tasks)} files can be used; the first is "
            f"{first or 'missing'}. A row is idx<TAB>text or idx<TAB>text<TAB>imgbase64."
        )
    hashes = [np.empty(0, np.uint64), *_hashes(tasks)]
    checked = np.concatenate(hashes)
    return {
        **total,
        "reasons": dict(reasons),
        "first_reject": first,
        **quoted.counts(),
        "duplicate_idx": num_duplicates(checked),
        "duplicate_idx_checked_rows": len(checked),
        "shards": len(tasks),
        "shards_without_rows": sum(not counts["rows"] for counts in stats),
    }


def _hashes(tasks: Sequence[ShardTask]) -> Iterator[np.ndarray[Any, np.dtype[np.uint64]]]:
    left = MAX_TRACKED
    for task in tasks:
        with unicode_path(task.table) as plain, pq.ParquetFile(plain) as file:
            if file.metadata.num_rows > left:
                return
            left -= file.metadata.num_rows
            for batch in file.iter_batches(columns=["idx"]):
                yield hash_strings(batch.column("idx"))
