"""The stage: dumps of triples in, a KG folder out.

Read, hold out, train, measure, save. What a step finished lies in the run's folder, so a killed run
goes on where it was.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.device import choose_device
from data.errors import InputError
from data.kg_folder import (
    ENTITY_NAMES,
    RELATION_NAMES,
    kg_fingerprint,
    open_names,
    write_names,
)
from data.runs import Run, fingerprint, write_json
from data.seeds import stream
from data.tsv import Rejects
from kg.config import CHECKPOINTS, KGConfig
from kg.kg_store import (
    HELD_OUT_FILE,
    METRICS,
    TRIPLES_FILE,
    ids_in,
    load_vectors,
    read_named_triples,
    read_triples_table,
    save_vectors,
    write_triples,
)
from kg.reading.triples import Triples, normal_names, read_triples
from kg.relations import describe_relations

if TYPE_CHECKING:
    from kg.training.fit import Known, Measure

Ids = NDArray[np.int32]

_READ = "read.json"  # written when the dump has been read into the run's folder
_TRAIN, _VALID = "train.parquet", "valid.parquet"  # the splits, until the run is finished
_AFTER = "all"  # folder of the checkpoints of the run on all triples
# With more triples than this, those held out are less than 0.2 % and not worth a second run.
_LEARN_HELD_OUT_UP_TO = 1_000_000
_TO_MEASURE = 500  # held-out triples that early stopping goes by
_TOO_FEW_TO_STOP = 100  # by fewer it would go by chance: 24 ended a training after 6 of 60 epochs
_CANDIDATES = 5000  # and among how many entities it ranks them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KGReport:
    """What `kg train` made.

    Attributes:
        out: The KG folder.
        counts: What was read, kept, dropped, rejected, and how training went.
        metrics: The content of `metrics.json`.
        finished_before: The folder was complete already and nothing was done.
    """

    out: Path
    counts: dict[str, Any]
    metrics: dict[str, Any]
    finished_before: bool = False

    def __str__(self) -> str:
        c = self.counts
        said = [
            f"{self.out}: {c['entities']} entities, {c['relations']} relations, "
            f"{c['triples']} triples" + (" (was complete already)" if self.finished_before else ""),
            f"{c.get('format', '?')}, rows: {c['rows_read']} read, {c['rows_rejected']} rejected, "
            f"{c.get('literals_dropped', 0)} literals and {c['duplicates_dropped']} duplicates "
            "dropped",
            f"trained in {c['train_seconds']} s; epoch {self.metrics['best_epoch']} was best",
        ]
        if kept := {how for how in ("kept", "begun_with") if f"entity_{how}" in c}:
            (how,) = kept
            said.append(
                f"{how.replace('_', ' ')} from before: {c[f'entity_{how}']} entities, "
                f"{c[f'relation_{how}']} relations"
            )
        return "\n".join([*said, describe(self.metrics)])


def describe(metrics: dict[str, Any]) -> str:
    """The metrics in one line."""
    if "both" not in metrics:
        return "not measured: no triples were held out"
    kind = "given" if "in_graph" in metrics else "held-out"
    since = "; they were learned afterwards" if metrics.get("learned_since") else ""
    if metrics.get("in_graph"):
        since = f"; {metrics['in_graph']} of them are in the graph and may have been learned"
    both = metrics["both"]
    pool = metrics["candidates"]
    among = "all entities" if pool == "all" else f"{pool} sampled entities"
    return (
        f"filtered, among {among}, {metrics['num_triples']} {kind} triples: "
        f"MRR {both['mrr']:.3f}, "
        + ", ".join(f"Hits@{k} {both[f'hits@{k}']:.3f}" for k in (1, 3, 10))
        + since
    )


def train_kg(
    triples: Path | Sequence[Path],
    out: Path,
    *,
    config: KGConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
    start: Path | None = None,
    finish_now: bool = False,
) -> KGReport:
    """Train entity vectors for one graph and write them as a KG folder.

    Args:
        triples: A dump, several dumps of one graph, or an OpenKE folder; see `kg.reading.triples`.
        out: The KG folder.
        config: The settings; None: the defaults.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace what is at `out`.
        start: A KG folder whose vectors are kept for the names that both graphs have.
        finish_now: Do not train further: measure and write what an unfinished run has.

    Raises:
        ToolkitError: The dumps, the settings or the folder cannot be used; see the message.
    """
    config = config or KGConfig()
    paths = [triples] if isinstance(triples, Path) else list(triples)
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
    inputs = {f"{i}:{path.name}": fingerprint(path) for i, path in enumerate(paths)}
    if start is not None:
        inputs["from"] = kg_fingerprint(start)
    with Run.open(
        out, kind="kg", settings=config.to_dict(), inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished is not None:
            metrics = json.loads((out / METRICS).read_text(encoding="utf-8"))
            return KGReport(out, run.finished.counts, metrics, finished_before=True)
        if run.resumed:
            logger.info("resuming %s", run.work)
        splits, counts = _read(paths, run.work, config)
        known = None if start is None else find_known(start, run.work, config)
        if known is not None:
            counts |= {
                f"{name}_{'kept' if config.freeze_known else 'begun_with'}": len(ids)
                for name, ids in known.new_ids.items()
            }
        counts, metrics = _train(splits, counts, run.work, config, device, known, finish_now)
        for name in (_READ, _TRAIN, _VALID, *CHECKPOINTS):
            (run.work / name).unlink(missing_ok=True)
        shutil.rmtree(run.work / _AFTER, ignore_errors=True)
        run.finish(counts)
    return KGReport(out, counts, metrics)


@dataclass(frozen=True)
class _Splits:
    train: Ids
    valid: Ids  # early stopping goes by these
    test: Ids  # and these are reported

    @property
    def all(self) -> list[Ids]:
        return [self.train, self.valid, self.test]


def _read(paths: list[Path], work: Path, config: KGConfig) -> tuple[_Splits, dict[str, Any]]:
    """The graph in the run's folder: read now, or by the run that is resumed."""
    if not (work / _READ).exists():
        rejects = Rejects(work / "rejects.tsv")
        graph = read_triples(paths, min_tail_count=config.min_tail_count, rejects=rejects)
        _write_graph(graph, work, config)
    counts = json.loads((work / _READ).read_text(encoding="utf-8"))
    train, valid, test = (
        read_triples_table(work / name) for name in (_TRAIN, _VALID, HELD_OUT_FILE)
    )
    return _Splits(train, valid, test), counts


def _write_graph(graph: Triples, work: Path, config: KGConfig) -> None:
    train, valid, test = graph.train, graph.valid, graph.test
    if not len(valid) and not len(test) and config.valid_fraction:
        count = min(int(len(train) * config.valid_fraction), config.max_valid)
        train, held_out = hold_out(train, count, config.seed)
        valid, test = held_out[::2], held_out[1::2]
        if len(valid) < _TOO_FEW_TO_STOP:
            valid, test = held_out[:0], held_out
    elif not len(test):
        valid, test = valid[::2], valid[1::2]
    write_names(work / ENTITY_NAMES, graph.entities)
    write_names(work / RELATION_NAMES, graph.relations)
    write_triples(work / TRIPLES_FILE, np.concatenate([train, valid, test]))
    write_triples(work / _TRAIN, train)
    write_triples(work / _VALID, valid)
    write_triples(work / HELD_OUT_FILE, test)
    held = {
        "split": "given" if len(graph.valid) + len(graph.test) else "random",
        "triples_for_stopping": len(valid),
        "triples_held_out": len(test),
    }
    write_json(work / _READ, graph.counts | held)


def hold_out(triples: Ids, count: int, seed: int) -> tuple[Ids, Ids]:
    """The triples without `count` random ones, and those; no entity or relation loses its last.

    Fewer are held out where the graph does not allow so many.
    """
    degree = _count(triples, 0) + _count(triples, 2)
    uses = _count(triples, 1)
    generator = np.random.default_rng(stream(seed, "hold out"))
    chosen: list[int] = []
    for i in generator.choice(len(triples), min(len(triples), 20 * count), replace=False):
        if len(chosen) == count:
            break
        head, relation, tail = triples[i]
        needed = 1 + (head == tail)
        if degree[head] > needed and degree[tail] > needed and uses[relation] > 1:
            degree[head] -= 1
            degree[tail] -= 1
            uses[relation] -= 1
            chosen.append(int(i))
    mask = np.zeros(len(triples), bool)
    mask[chosen] = True
    return triples[~mask], triples[mask]


def _count(triples: Ids, column: int) -> NDArray[np.int64]:
    """How often each id stands in a column of `[n, 3]`, without a copy of the column."""
    length = 1 + max(int(triples[:, c].max(initial=-1)) for c in ((1,) if column == 1 else (0, 2)))
    count = np.zeros(length, np.int64)
    for begin in range(0, len(triples), 1 << 22):
        count += np.bincount(triples[begin : begin + (1 << 22), column], minlength=length)
    return count


def find_known(old: Path, work: Path, config: KGConfig) -> "Known":
    """Which names of the run at `work` have vectors in the KG folder `old`.

    Raises:
        InputError: There are none, or the vectors have another length or dimension.
    """
    from kg.training.fit import Known

    entity, relation = load_vectors(old)
    if entity.shape[1] != config.dim:
        raise InputError(
            f"{old} holds vectors of {entity.shape[1]} numbers, the run asks for {config.dim}. "
            f"Pass --dim {entity.shape[1]}."
        )
    length = float(entity[:1000].norm(dim=1).sub(1).abs().max())
    if config.scale and length > 1e-3:
        raise InputError(
            f"the entity vectors of {old} are not of length 1, as those of a run with --scale "
            f"{config.scale:g} are. Pass --scale 0."
        )
    vectors, new_ids, old_ids = {}, {}, {}
    for name, table, file in (
        ("entity", entity, ENTITY_NAMES),
        ("relation", relation, RELATION_NAMES),
    ):
        place = ids_in(old / file, normal_names(open_names(work / file)))
        new_ids[name] = np.flatnonzero(place >= 0)
        old_ids[name] = place[new_ids[name]]
        vectors[name] = table.numpy()
    if not len(new_ids["entity"]):
        raise InputError(f"{old} knows no entity of this graph; leave --from out.")
    return Known(vectors, new_ids, old_ids, config.freeze_known)


def _measure(splits: _Splits, config: KGConfig) -> "Measure | None":
    """The MRR of some held-out triples among some entities: what early stopping goes by."""
    from kg.tools.evaluate import evaluate, make_queries

    if not len(splits.valid):
        return None
    few = np.random.default_rng(stream(config.seed, "measure")).permutation(len(splits.valid))
    queries = make_queries(splits.valid[np.sort(few[:_TO_MEASURE])], splits.all)

    def measure(entity: Any, relation: Any) -> float:
        found = evaluate(
            queries,
            entity,
            relation,
            config.p_norm,
            num_candidates=_CANDIDATES,
            seed=stream(config.seed, "candidates"),
        )
        return float(found["both"]["mrr"])

    return measure


def _train(
    splits: _Splits,
    counts: dict[str, Any],
    work: Path,
    config: KGConfig,
    device: str,
    known: "Known | None",
    finish_now: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, measure, learn what was held out, save; the counts and the metrics."""
    from kg.tools.evaluate import evaluate, make_queries
    from kg.training.fit import train

    sizes = counts["entities"], counts["relations"]
    trained = train(
        splits.train,
        *sizes,
        config,
        device=device,
        work=work,
        measure=_measure(splits, config),
        known=known,
        finish_now=finish_now,
    )
    seconds = trained.seconds
    learn = (
        config.learn_held_out
        and counts["split"] == "random"
        and len(splits.test) > 0
        and counts["triples"] <= _LEARN_HELD_OUT_UP_TO
        and not finish_now
    )
    if finish_now or not (work / METRICS).exists():  # else a killed run has measured already
        metrics: dict[str, Any] = {"num_triples": 0}
        # The older run may have learned the others.
        test = splits.test if known is None else known.unknown_in(splits.test, *sizes)
        if len(test):
            queries = make_queries(test, splits.all)
            metrics |= evaluate(queries, trained.entity, trained.relation, config.p_norm)
        metrics |= {
            "learned_since": learn,
            "loss": trained.losses[-1] if trained.losses else None,
            "best_epoch": trained.best_epoch,
            "valid_mrr": {str(epoch): score for epoch, score in trained.scores.items()},
        }
        write_json(work / METRICS, metrics)
    if learn:
        logger.info("measured; now again on all triples, those held out too")
        (work / _AFTER).mkdir(exist_ok=True)
        trained = train(
            np.concatenate(splits.all),
            *sizes,
            replace(config, epochs=max(1, trained.best_epoch)),
            device=device,
            work=work / _AFTER,
            known=known,
        )
        seconds += trained.seconds
    save_vectors(work, trained.entity, trained.relation)
    metrics = json.loads((work / METRICS).read_text(encoding="utf-8"))
    about = {"train_seconds": round(seconds, 1), "epochs_trained": len(trained.losses)}
    return counts | about | ({"finished_early": True} if finish_now else {}), metrics


@dataclass(frozen=True)
class EvalReport:
    """What `kg eval` measured."""

    kg: Path
    metrics: dict[str, Any]

    def __str__(self) -> str:
        sides = [
            f"  {side}: " + ", ".join(f"{name} {value:.4g}" for name, value in m.items())
            for side in ("both", "tail", "head")
            if (m := self.metrics.get(side))
        ]
        kinds = self.metrics.get("by_relation_type", {})
        if kinds:
            sides.append("  by kind of relation (heads of a tail - tails of a head):")
        for kind, found in kinds.items():
            tail, head = found["tail"], found["head"]
            sides.append(
                f"  {kind}  {found['relations']} relations, {found['num_triples']} triples: "
                f"tail MRR {tail['mrr']:.3f}, Hits@10 {tail['hits@10']:.3f}; "
                f"head MRR {head['mrr']:.3f}, Hits@10 {head['hits@10']:.3f}"
            )
        return "\n".join([f"{self.kg}: {describe(self.metrics)}", *sides])


def eval_kg(
    kg: Path,
    *,
    triples: Path | None = None,
    num_candidates: int | None = None,
    by_relation_type: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> EvalReport:
    """Measure a KG folder on its held-out triples, or on others.

    Args:
        kg: The folder, made by `train_kg`.
        triples: A TSV of triples in the graph's names; None: those held out.
        num_candidates: Rank among so many sampled entities; None: see `kg.tools.evaluate.evaluate`.
        by_relation_type: Measure 1-1, 1-N, N-1 and N-N relations of the graph alone as well.
        device: `auto`, `cpu` or `cuda`.
        seed: Of the sample.

    Raises:
        InputError: The folder or the file cannot be used, nothing was held out, or the graph knows
            none of the given triples' names.
    """
    from data.runs import read_manifest
    from kg.tools.evaluate import evaluate, make_queries, num_in

    manifest = read_manifest(kg)
    settings = manifest.settings
    entity, relation = load_vectors(kg)
    known = [read_triples_table(kg / TRIPLES_FILE), read_triples_table(kg / HELD_OUT_FILE)]
    asked = known[1] if triples is None else read_named_triples(kg, triples)
    if not len(asked):
        raise InputError(
            f"{kg} held nothing out (--valid-fraction 0). Give triples to measure with --triples."
            if triples is None
            else f"{triples} has no triple whose names {kg} all knows."
        )
    place = choose_device(device)
    queries = make_queries(asked, [*known, asked])
    metrics = evaluate(
        queries,
        entity.to(place),
        relation.to(place),
        settings["p_norm"],
        num_candidates=num_candidates,
        seed=seed,
        kinds=describe_relations(known[0], len(relation)).kind if by_relation_type else None,
    )
    if triples is not None:
        metrics["in_graph"] = num_in(asked, known[0])
    if triples is None and "from" in manifest.inputs:
        logger.warning(
            "%s kept vectors of an older folder, which may have learned these triples; %s holds "
            "the figures of those with new names",
            kg,
            METRICS,
        )
    if triples is None:
        before = json.loads((kg / METRICS).read_text(encoding="utf-8"))
        if before["learned_since"]:
            logger.warning(
                "the held-out triples of %s were learned after they were measured; before that: %s",
                kg,
                describe(before | {"learned_since": False}),
            )
        metrics["learned_since"] = before["learned_since"]
    return EvalReport(kg, metrics)
