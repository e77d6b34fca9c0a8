"""Run a build: one corpus file to one table, or many files to a folder of shards.

The missing outputs are determined, written in this process, in local workers or on a cluster, and
renamed into place when complete.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from tqdm import tqdm

from data.errors import InputError
from data.quoted_rows import quoted_note
from data.runs import Manifest, Run, fingerprint, sha256
from data.tokenizer import Tokenizer
from data.tsv import Rejects
from lattice.building import reports, shards
from lattice.building.caption_reader import Chunk, num_columns, read_chunks
from lattice.building.chunks import (
    ChunkProcessor,
    ChunkResult,
    ProcessorSpec,
    TableFormat,
    write_results,
)
from lattice.building.workers import run_tasks
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import names_file
from lattice.matching.segment import segmenter
from lattice.matching.vocabulary import is_compiled, kg_fingerprint_of, load_vocabulary


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The checked arguments of `lattice.building.build.build_lattice`; see there."""

    files: list[Path]
    out: Path
    names: Path
    mentions: Path | None
    tokenizer: Tokenizer
    config: LatticeConfig
    tsv: bool
    check_images: str
    backend: str
    workers: int
    cluster: str | None
    overwrite: bool

    @property
    def settings(self) -> dict[str, Any]:
        """Every option that determines the table."""
        format_ = {"format": "tsv" if self.tsv else "parquet", "check_images": self.check_images}
        return {**self.config.settings(), **format_}

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of the inputs other than the corpus."""
        return {
            "names": sha256(names_file(self.names)),
            "kg": kg_fingerprint_of(self.names),  # the same names with other vectors are another KG
            "tokenizer": self.tokenizer.fingerprint,
        }

    @property
    def scratch(self) -> Path:
        """A folder for files that processes exchange."""
        return self.out.with_name(self.out.name + ".scratch.partial")


class _Processors(NamedTuple):
    """The processor of this process, and the spec for other processes, if they are used."""

    local: ChunkProcessor
    spec: ProcessorSpec | None
    lexicon_counts: dict[str, int]


class ChunkTask(NamedTuple):
    """A chunk for a worker, and the file for its rows."""

    chunk: Chunk
    spilled: Path

    def __str__(self) -> str:
        return f"the captions from line {self.chunk.line} on"

    def run(self, processor: ChunkProcessor) -> ChunkResult:
        """Process the chunk; its rows are in a file."""
        result = processor(self.chunk)
        result.spill(self.spilled)
        return result


def make_table(plan: BuildPlan) -> tuple[Manifest, bool]:
    """Build one table from one file; return its manifest, and whether it was up to date.

    Raises:
        ToolkitError: An input is unusable, or the output belongs to another run.
    """
    [corpus] = plan.files
    with Run.open(
        plan.out,
        kind="lattice",
        settings=plan.settings,
        inputs={"corpus": fingerprint(corpus), **plan.inputs},
        folder=False,
        overwrite=plan.overwrite,
    ) as run:
        if run.finished is not None:
            reports.save_tokenizer(plan.tokenizer, plan.out)
            return run.finished, True
        with reports.writing(plan.out):
            rejects = reports.rejects_of(run)
            counts = _write_table(plan, corpus, run.work, rejects)
            reports.save_tokenizer(plan.tokenizer, plan.out)
        return reports.finish_table(run, counts, rejects), False


def _write_table(plan: BuildPlan, corpus: Path, work: Path, rejects: Rejects) -> dict[str, Any]:
    with _processors(plan, num_columns(corpus)) as (processor, spec, lexicon_counts):
        began = perf_counter()
        chunks = read_chunks(corpus, processor.format.columns)
        results: Iterable[ChunkResult] = map(processor, chunks)
        if spec is not None:
            tasks = (ChunkTask(c, plan.scratch / f"{n}.arrow") for n, c in enumerate(chunks))
            results = run_tasks(spec, tasks, plan.workers, processor)
        with tqdm(desc="lattice", unit=" captions", disable=None) as bar:
            counts = write_results(results, work, processor.format, rejects, bar.update)
    if not counts["rows"]:
        if not rejects.count:
            raise InputError(f"{corpus} is empty.")
        raise InputError(
            f"{corpus}: none of its {rejects.count} rows can be used; the first is "
            f"{rejects.first}. A row is idx<TAB>text or idx<TAB>text<TAB>imgbase64. "
            f"{quoted_note(rejects.quoted.counts())}".rstrip()
        )
    return {**counts, **_run_counts(plan, lexicon_counts, began)}


def make_shards(plan: BuildPlan) -> tuple[Manifest, bool]:
    """Build a folder of shards; as `make_table`. Finished shards are kept.

    Raises:
        ToolkitError: An input is unusable, or the output belongs to another run.
    """
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_open_shards(plan, plan.overwrite))
        old = None
        if run.finished is not None:
            if _is_complete(plan, run.finished):
                reports.save_tokenizer(plan.tokenizer, plan.out)
                return run.finished, True
            old = plan.out
            run = stack.enter_context(_open_shards(plan, overwrite=True))
        with reports.writing(plan.out):
            tasks = shards.shard_tasks(plan.files, run.work)
            if old is not None:
                shards.link_finished(old, tasks)
            counts = _write_missing(plan, tasks)
            reports.save_tokenizer(plan.tokenizer, plan.out)
        for left in run.work.glob("*.partial"):  # of interrupted shards that were rewritten
            left.unlink()
        return run.finish(counts), False


def _open_shards(plan: BuildPlan, overwrite: bool) -> Run:
    return Run.open(
        plan.out, kind="lattice", settings=plan.settings, inputs=plan.inputs, overwrite=overwrite
    )


def _is_complete(plan: BuildPlan, manifest: Manifest) -> bool:
    """Return whether the finished folder has a shard of each file, and no file has changed."""
    tasks = shards.shard_tasks(plan.files, plan.out)
    shards.check_same_corpus(plan.out, tasks)
    # `Run` has verified them.
    found = [task.finished(plan.overwrite, verify=False) for task in tasks]
    return all(found) and manifest.counts.get("shards") == len(tasks)


def _write_missing(plan: BuildPlan, tasks: list[shards.ShardTask]) -> dict[str, Any]:
    """Write the shards that are not finished; return the counts of all."""
    stats = {task.stem: task.finished(plan.overwrite) for task in tasks}
    missing = [task for task in tasks if stats[task.stem] is None]
    with _processors(plan, num_columns(plan.files[0])) as (processor, spec, lexicon_counts):
        began = perf_counter()
        written: Iterable[dict[str, Any]] = (task.run(processor) for task in missing)
        if plan.cluster is not None and spec is not None:
            from lattice.building.cluster import run_on_cluster

            written = run_on_cluster(spec, missing, plan.cluster)
        elif spec is not None:
            written = run_tasks(spec, missing, plan.workers, processor, queued=1)
        progress = tqdm(total=len(tasks), desc="lattice", unit=" shards", disable=None)
        with progress as bar:
            bar.update(len(tasks) - len(missing))
            for task, counts in zip(missing, written, strict=True):
                stats[task.stem] = counts
                bar.update()
    counts = shards.total_counts(tasks, [counts for counts in stats.values() if counts is not None])
    return {**counts, **_run_counts(plan, lexicon_counts, began), "shards_made": len(missing)}


@contextlib.contextmanager
def _processors(plan: BuildPlan, columns: int) -> Iterator[_Processors]:
    """Yield the processors; for other processes the vocabulary is saved in a folder."""
    vocabulary = load_vocabulary(
        plan.names, plan.tokenizer, plan.config, plan.mentions, plan.backend
    )
    metadata = reports.lattice_metadata(kg_fingerprint_of(plan.names), plan.tokenizer, plan.config)
    format_ = TableFormat(columns, plan.check_images, plan.tsv, metadata)
    kernel = LatticeKernel(plan.tokenizer, vocabulary, plan.config)
    spec = None
    shutil.rmtree(plan.scratch, ignore_errors=True)
    try:
        if plan.workers > 1 or plan.cluster is not None:
            plan.scratch.mkdir()
            folder = plan.names
            if not is_compiled(plan.names):
                folder = plan.scratch
                vocabulary.save(folder)
            spec = ProcessorSpec(plan.tokenizer, folder.absolute(), plan.config, format_)
        with ThreadPoolExecutor(thread_name_prefix="images") as pool:
            yield _Processors(ChunkProcessor(kernel, format_, pool), spec, vocabulary.counts)
    finally:
        shutil.rmtree(plan.scratch, ignore_errors=True)


def _run_counts(plan: BuildPlan, lexicon_counts: dict[str, int], began: float) -> dict[str, Any]:
    """Return the counts of the run, in addition to those of its rows."""
    by = {"segmenter": segmenter().name} if plan.config.segment != "none" else {}
    return {"lexicon": lexicon_counts, **by, "seconds": round(perf_counter() - began, 3)}
