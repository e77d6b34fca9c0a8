"""The drivers of the stage: one corpus file to one table, many files to a folder of shards.

Here the parts meet: what has to be made is found out, made in this process, in local ones or by a
cluster, and appears under its final name when it is whole.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from tqdm import tqdm

from data.errors import ArtefactError, InputError
from data.runs import Manifest, Run, fingerprint, sha256
from data.tokenizer import Tokenizer, tokenizer_folder
from data.tsv import Rejects
from lattice.building.caption_reader import Chunk, num_columns, read_chunks
from lattice.building.chunks import Part, PartMaker, Recipe, write_parts
from lattice.building.shards import ShardTask, refuse_strangers, shard_tasks, summed, take_over
from lattice.building.workers import run_tasks
from lattice.matching.kernel import LatticeConfig, LatticeKernel
from lattice.matching.lexicon import names_file
from lattice.matching.segment import segmenter
from lattice.matching.vocabulary import is_compiled, kg_of, load_vocabulary


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `lattice.building.build.build_lattice` was asked for, checked; see there."""

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
        """Every option that shapes the table."""
        written = {"format": "tsv" if self.tsv else "parquet", "check_images": self.check_images}
        return {**asdict(self.config), **written}

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of what is read besides the corpus."""
        return {
            "names": sha256(names_file(self.names)),
            "kg": kg_of(self.names),  # the same names with other vectors are another KG
            "tokenizer": self.tokenizer.fingerprint,
        }

    @property
    def scratch(self) -> Path:
        """A folder for what processes hand to each other."""
        return self.out.with_name(self.out.name + ".scratch.partial")


class _Makers(NamedTuple):
    """Who makes the parts: this process, or, with a recipe, others."""

    here: PartMaker
    recipe: Recipe | None
    lexicon_counts: dict[str, int]


class ChunkTask(NamedTuple):
    """A chunk for a worker, and the file for its rows."""

    chunk: Chunk
    spilled: Path

    def __str__(self) -> str:
        return f"the captions from line {self.chunk.line} on"

    def run(self, maker: PartMaker) -> Part:
        """What becomes of the chunk."""
        part = maker(self.chunk)
        part.spill(self.spilled)
        return part


def make_table(plan: Plan) -> tuple[Manifest, bool]:
    """One file to one table; its manifest, and whether it was there already.

    Raises:
        ToolkitError: An input is useless, or the output is in the way.
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
            _save_tokenizer(plan)
            return run.finished, True
        try:
            rejects = Rejects(run.beside(".rejects.tsv"))
            counts = _write_table(plan, corpus, run.work, rejects)
            _save_tokenizer(plan)
        except OSError as error:
            raise _unwritable(plan.out, error) from None
        manifest = run.finish(counts, companions=(".rejects.tsv",))
        if not rejects.count:  # what a replaced run had rejected
            plan.out.with_name(plan.out.name + ".rejects.tsv").unlink(missing_ok=True)
        return manifest, False


def _write_table(plan: Plan, corpus: Path, work: Path, rejects: Rejects) -> dict[str, Any]:
    with _makers(plan, num_columns(corpus)) as (maker, recipe, lexicon_counts):
        began = perf_counter()
        chunks = read_chunks(corpus, maker.columns)
        parts: Iterable[Part] = map(maker, chunks)
        if recipe is not None:
            tasks = (ChunkTask(c, plan.scratch / f"{n}.arrow") for n, c in enumerate(chunks))
            parts = run_tasks(recipe, tasks, plan.workers)
        with tqdm(desc="lattice", unit=" captions", disable=None) as bar:
            counts = write_parts(parts, work, maker, rejects, bar.update)
    if not counts["rows"]:
        if not rejects.count:
            raise InputError(f"{corpus} is empty.")
        raise InputError(
            f"{corpus}: none of its {rejects.count} rows can be used; the first is "
            f"{rejects.first}. A row is idx<TAB>text or idx<TAB>text<TAB>imgbase64."
        )
    return {**counts, **_how(plan, lexicon_counts, began)}


def make_shards(plan: Plan) -> tuple[Manifest, bool]:
    """Many files to a folder of shards; as `make_table`. What is there already is kept.

    Raises:
        ToolkitError: An input is useless, or the output is in the way.
    """
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_open_shards(plan, plan.overwrite))
        old = None
        if run.finished is not None:
            if _all_there(plan, run.finished):
                _save_tokenizer(plan)
                return run.finished, True
            old = plan.out
            run = stack.enter_context(_open_shards(plan, overwrite=True))
        try:
            tasks = shard_tasks(plan.files, run.work)
            if old is not None:
                take_over(old, tasks)
            counts = _make_missing(plan, tasks)
            _save_tokenizer(plan)
        except OSError as error:
            raise _unwritable(plan.out, error) from None
        for left in run.work.glob("*.partial"):  # of shards that were begun and made again
            left.unlink()
        return run.finish(counts), False


def _open_shards(plan: Plan, overwrite: bool) -> Run:
    return Run.open(
        plan.out, kind="lattice", settings=plan.settings, inputs=plan.inputs, overwrite=overwrite
    )


def _all_there(plan: Plan, manifest: Manifest) -> bool:
    """Whether the finished folder holds a shard of each file, and none has changed."""
    tasks = shard_tasks(plan.files, plan.out)
    refuse_strangers(plan.out, tasks)
    found = [task.finished(plan.overwrite, verify=False) for task in tasks]  # `Run` has
    return all(found) and manifest.counts.get("shards") == len(tasks)


def _make_missing(plan: Plan, tasks: list[ShardTask]) -> dict[str, Any]:
    """Make the shards that are not finished; the counts of all."""
    stats = {task.stem: task.finished(plan.overwrite) for task in tasks}
    missing = [task for task in tasks if stats[task.stem] is None]
    with _makers(plan, num_columns(plan.files[0])) as (maker, recipe, lexicon_counts):
        began = perf_counter()
        made: Iterable[dict[str, Any]] = (task.run(maker) for task in missing)
        if plan.cluster is not None and recipe is not None:
            from lattice.building.cluster import run_on_cluster

            made = run_on_cluster(recipe, missing, plan.cluster)
        elif recipe is not None:
            made = run_tasks(recipe, missing, plan.workers)
        progress = tqdm(total=len(tasks), desc="lattice", unit=" shards", disable=None)
        with progress as bar:
            bar.update(len(tasks) - len(missing))
            for task, counts in zip(missing, made, strict=True):
                stats[task.stem] = counts
                bar.update()
    counts = summed(tasks, [counts for counts in stats.values() if counts is not None])
    return {**counts, **_how(plan, lexicon_counts, began), "shards_made": len(missing)}


@contextlib.contextmanager
def _makers(plan: Plan, columns: int) -> Iterator[_Makers]:
    """Who makes the parts; for others, the vocabulary lies in a folder that they can map."""
    vocabulary = load_vocabulary(
        plan.names, plan.tokenizer, plan.config, plan.mentions, plan.backend
    )
    metadata = table_metadata(kg_of(plan.names), plan.tokenizer, plan.config)
    kernel = LatticeKernel(plan.tokenizer, vocabulary, plan.config)
    recipe = None
    shutil.rmtree(plan.scratch, ignore_errors=True)
    try:
        if plan.workers > 1 or plan.cluster is not None:
            plan.scratch.mkdir()
            folder = plan.names
            if not is_compiled(plan.names):
                folder = plan.scratch
                vocabulary.save(folder)
            recipe = Recipe(
                tokenizer=plan.tokenizer,
                vocabulary=folder.absolute(),
                config=plan.config,
                columns=columns,
                check_images=plan.check_images,
                tsv=plan.tsv,
                metadata=metadata,
            )
        with ThreadPoolExecutor(thread_name_prefix="images") as pool:
            maker = PartMaker(kernel, columns, plan.check_images, plan.tsv, metadata, pool)
            yield _Makers(maker, recipe, vocabulary.counts)
    finally:
        shutil.rmtree(plan.scratch, ignore_errors=True)


def _how(plan: Plan, lexicon_counts: dict[str, int], began: float) -> dict[str, Any]:
    """What else a manifest counts."""
    by = {"segmenter": segmenter().name} if plan.config.segment != "none" else {}
    return {"lexicon": lexicon_counts, **by, "seconds": round(perf_counter() - began, 3)}


def table_metadata(
    kg_fingerprint: str, tokenizer: Tokenizer, config: LatticeConfig
) -> dict[str, Any]:
    """What a lattice table says of its making.

    `tokenizer_fingerprint`, `kg_fingerprint` (empty where the names are in no KG folder), and
    `settings`: the `LatticeConfig` as JSON, which matches other texts alike.
    """
    return {
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "kg_fingerprint": kg_fingerprint,
        "settings": asdict(config),
    }


def _save_tokenizer(plan: Plan) -> None:
    folder = tokenizer_folder(plan.out)
    folder.mkdir(parents=True, exist_ok=True)
    plan.tokenizer.save(folder)


def _unwritable(out: Path, error: OSError) -> ArtefactError:
    return ArtefactError(f"{out} cannot be written: {error.strerror or error}.")
