"""Many corpus files to a folder of tables, one for each; it can be stopped and gone on with.

A shard is `<stem>.parquet`, perhaps `<stem>.rejects.tsv`, and last of all `<stem>_stats.json`,
which marks it as finished: its corpus file, its counts, its sha256. The folder is `<out>.partial`
until all shards are there. A later run with more files takes over the finished shards.
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

from data.errors import ArtefactError, ConfigError, InputError
from data.runs import sha256, write_json
from data.schema import table_files
from data.tsv import Rejects
from lattice.building.caption_reader import hash_strings, read_chunks
from lattice.building.chunks import MAX_TRACKED, PartMaker, num_duplicates, write_parts

_SUFFIXES = (".gz", ".tsv", ".txt")
_SUMMED = ("rows_in", "rows", "undecided", "entities", "captions_with_entity", "tokens", "rejected")


@dataclass(frozen=True)
class ShardTask:
    """One shard to be made.

    Attributes:
        corpus: Its captions.
        folder: Where it goes.
        stem: Its name.
    """

    corpus: Path
    folder: Path
    stem: str

    def __str__(self) -> str:
        return str(self.corpus)

    @property
    def table(self) -> Path:
        """The shard itself."""
        return self.folder / f"{self.stem}.parquet"

    @property
    def stats(self) -> Path:
        """The mark that it is finished."""
        return self.folder / f"{self.stem}_stats.json"

    @property
    def rejects(self) -> Path:
        """The rows that were left out, if any."""
        return self.folder / f"{self.stem}.rejects.tsv"

    def run(self, maker: PartMaker) -> dict[str, Any]:
        """Make it; what its stats say."""
        corpus = corpus_mark(self.corpus)
        mine = f".{uuid4().hex[:12]}.partial"  # a cluster may give a task to two workers
        work, rejected, stats_file = (
            path.with_name(path.name + mine) for path in (self.table, self.rejects, self.stats)
        )
        rejects = Rejects(rejected)
        parts = map(maker, read_chunks(self.corpus, maker.columns))
        counts = write_parts(parts, work, maker, rejects)
        digests = {"table_sha256": sha256(work)}
        stats = {"corpus": {**corpus, "sha256": sha256(self.corpus)}, **counts, **digests}
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
        """What the stats of the finished shard say; None if it must be made.

        Args:
            overwrite: Make it again if its corpus file has changed since.
            verify: Whether its sha256 is checked.

        Raises:
            ArtefactError: Its corpus file has changed since.
        """
        try:
            stats: dict[str, Any] = json.loads(self.stats.read_text(encoding="utf-8"))
            if verify and sha256(self.table) != stats["table_sha256"]:
                return None
        except (OSError, ValueError, KeyError):
            return None
        made_of, now = stats["corpus"], corpus_mark(self.corpus)
        if any(made_of[key] != now[key] for key in now) and made_of["sha256"] != sha256(
            self.corpus
        ):
            if overwrite:
                return None
            raise ArtefactError(
                f"{self.corpus} has changed since {self.table.name} was made of it. Pass "
                "--overwrite to make all shards again."
            )
        return stats


def corpus_mark(path: Path) -> dict[str, Any]:
    """By what a file is known again without reading it."""
    about = path.stat()
    return {"name": path.name, "bytes": about.st_size, "changed": about.st_mtime_ns}


def shard_tasks(files: Sequence[Path], folder: Path) -> list[ShardTask]:
    """A task for each corpus file, named after it.

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


def refuse_strangers(folder: Path, tasks: Sequence[ShardTask]) -> None:
    """Check that a finished folder holds shards of this corpus only.

    Raises:
        ArtefactError: A shard is of none of the tasks.
    """
    stems = {task.stem for task in tasks}
    for path in table_files(folder):
        if path.stem not in stems:
            raise ArtefactError(
                f"{folder} holds {path.name}, made of a file that is not in this corpus. Give all "
                "files, choose another --out, or pass --overwrite."
            )


def take_over(old: Path, tasks: Sequence[ShardTask]) -> None:
    """Link the finished shards of another folder into that of the tasks."""
    for task in tasks:
        for path in (task.rejects, task.table, task.stats):  # the mark last
            if (old / path.name).exists() and not path.exists():
                os.link(old / path.name, path)


def summed(tasks: Sequence[ShardTask], stats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all shards together, in the order of the corpus.

    Raises:
        InputError: No shard has a row.
    """
    reasons: Counter[str] = Counter()
    first = ""
    for task, counts in zip(tasks, stats, strict=True):
        reasons.update(counts["reasons"])
        if counts["first_reject"]:
            first = first or f"{task.corpus.name}, {counts['first_reject']}"
    total: dict[str, Any] = {key: sum(counts[key] for counts in stats) for key in _SUMMED}
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
        "duplicate_idx": num_duplicates(checked),
        "duplicate_idx_checked_rows": len(checked),
        "shards": len(tasks),
        "shards_without_rows": sum(not counts["rows"] for counts in stats),
    }


def _hashes(tasks: Sequence[ShardTask]) -> Iterator[np.ndarray[Any, np.dtype[np.uint64]]]:
    left = MAX_TRACKED
    for task in tasks:
        with pq.ParquetFile(task.table) as file:
            if file.metadata.num_rows > left:
                return
            left -= file.metadata.num_rows
            for batch in file.iter_batches(columns=["idx"]):
                yield hash_strings(batch.column("idx"))
