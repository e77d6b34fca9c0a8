"""`kg train`: read dumps of triples, hold some out, train, evaluate, and write a KG folder.

The result of each step is saved in the run's folder, so that a killed run is resumed.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.kg_folder import kg_fingerprint
from data.quoted_rows import quoted_note
from data.runs import Run, StageReport, fingerprint, write_json
from data.seeds import stream
from kg.config import CHECKPOINTS, KGConfig
from kg.kg_store import METRICS, save_vectors
from kg.training.splits import READ_COUNTS, TRAIN_FILE, VALID_FILE, Splits, read_splits

if TYPE_CHECKING:
    from kg.training.trainer import Measure
    from kg.training.warm_start import KnownVectors

_ALL_TRIPLES = "all"  # folder of the checkpoints of the run on all triples
# With more triples than this, those held out are less than 0.2 % and not worth a second run.
_RETRAIN_UP_TO = 1_000_000
_NUM_VALID = 500  # validation triples ranked for early stopping
_CANDIDATES = 5000  # and the entities among which they are ranked

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class KGReport(StageReport):
    """The result of `kg train`.

    Attributes:
        counts: Rows and triples read, kept, dropped and rejected; duration and epochs of training.
        metrics: The content of `metrics.json`.
    """

    counts: dict[str, Any]
    metrics: dict[str, Any]

    def __str__(self) -> str:
        c = self.counts
        lines = [
            f"{self.outcome()}: {c['entities']} entities, {c['relations']} relations, "
            f"{c['triples']} triples",
            f"{c.get('format', '?')}, rows: {c['rows_read']} read, {c['rows_rejected']} rejected, "
            f"{c.get('literals_dropped', 0)} literals and {c['duplicates_dropped']} duplicates "
            "dropped",
            f"trained in {c['train_seconds']} s; epoch {self.metrics['best_epoch']} was best",
        ]
        lines += [
            f"{how.replace('_', ' ')} from the older folder: {c[f'entity_{how}']} entities, "
            f"{c[f'relation_{how}']} relations"
            for how in ("kept", "begun_with")
            if f"entity_{how}" in c
        ]
        lines += [note] if (note := quoted_note(c)) else []
        return "\n".join([*lines, describe(self.metrics)])


def describe(metrics: dict[str, Any]) -> str:
    """Return the metrics in one line."""
    if "both" not in metrics:
        return "not measured: no triples were held out"
    kind = "given" if "in_graph" in metrics else "held-out"
    since = "; they were trained on afterwards" if metrics.get("learned_since") else ""
    if metrics.get("in_graph"):
        since = f"; {metrics['in_graph']} of them are in the graph and may have been trained on"
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
        start: An older KG folder; names that both graphs have keep its vectors.
        finish_now: Evaluate and write the best vectors of an unfinished run without training on.

    Raises:
        ToolkitError: The dumps, the settings or the folder cannot be used.
    """
    config = config or KGConfig()
    paths = [triples] if isinstance(triples, Path) else list(triples)
    inputs = {f"{i}:{path.name}": fingerprint(path) for i, path in enumerate(paths)}
    if start is not None:
        inputs["from"] = kg_fingerprint(start)
    with Run.open(
        out, kind="kg", settings=asdict(config), inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished is not None:
            metrics = json.loads((out / METRICS).read_text(encoding="utf-8"))
            return KGReport(
                out=out, counts=run.finished.counts, metrics=metrics, already_finished=True
            )
        if run.resumed:
            logger.info("resuming %s", run.work)
        splits, counts = read_splits(paths, run.work, config)
        known = None
        if start is not None:
            from kg.training.warm_start import find_known

            known = find_known(start, run.work, config)
            counts |= {
                f"{name}_{'kept' if config.freeze_known else 'begun_with'}": len(ids)
                for name, ids in known.new_ids.items()
            }
        counts, metrics = _train(splits, counts, run.work, config, device, known, finish_now)
        for name in (READ_COUNTS, TRAIN_FILE, VALID_FILE, *CHECKPOINTS):
            (run.work / name).unlink(missing_ok=True)
        shutil.rmtree(run.work / _ALL_TRIPLES, ignore_errors=True)
        run.finish(counts)
    return KGReport(out=out, counts=counts, metrics=metrics)


def _measure(splits: Splits, config: KGConfig) -> "Measure | None":
    """Return the score for early stopping: the MRR of some validation triples among a sample."""
    from kg.training.ranking import evaluate, make_queries

    if not len(splits.valid):
        return None
    order = np.random.default_rng(stream(config.seed, "measure")).permutation(len(splits.valid))
    queries = make_queries(splits.valid[np.sort(order[:_NUM_VALID])], splits.all)

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
    splits: Splits,
    counts: dict[str, Any],
    work: Path,
    config: KGConfig,
    device: str,
    known: "KnownVectors | None",
    finish_now: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, evaluate, train on the held-out triples, save; return the counts and the metrics."""
    from kg.training.ranking import evaluate, make_queries
    from kg.training.trainer import train_transe

    sizes = counts["entities"], counts["relations"]
    trained = train_transe(
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
        and counts["triples"] <= _RETRAIN_UP_TO
        and not finish_now
    )
    if finish_now or not (work / METRICS).exists():  # else a killed run has evaluated before
        metrics: dict[str, Any] = {"num_triples": 0}
        # The older run may have been trained on the others.
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
        logger.info("evaluated; training again on all triples, including those held out")
        (work / _ALL_TRIPLES).mkdir(exist_ok=True)
        trained = train_transe(
            np.concatenate(splits.all),
            *sizes,
            replace(config, epochs=max(1, trained.best_epoch)),
            device=device,
            work=work / _ALL_TRIPLES,
            known=known,
        )
        seconds += trained.seconds
    save_vectors(work, trained.entity, trained.relation)
    metrics = json.loads((work / METRICS).read_text(encoding="utf-8"))
    about = {"train_seconds": round(seconds, 1), "epochs_trained": len(trained.losses)}
    return counts | about | ({"finished_early": True} if finish_now else {}), metrics
