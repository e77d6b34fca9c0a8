"""`kg eval`: rank the held-out triples of a KG folder, or other triples."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.device import choose_device
from data.errors import InputError
from data.kg_folder import TRIPLES_FILE
from data.runs import read_manifest
from kg.kg_store import HELD_OUT_FILE, METRICS, load_vectors, read_triples_table
from kg.reading.name_ids import read_named_triples
from kg.relation_types import describe_relations
from kg.training.ranking import evaluate, make_queries, num_in
from kg.training.train import describe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalReport:
    """The result of `kg eval`."""

    kg: Path
    metrics: dict[str, Any]

    def __str__(self) -> str:
        sides = [
            f"  {side}: " + ", ".join(f"{name} {value:.4g}" for name, value in m.items())
            for side in ("both", "tail", "head")
            if (m := self.metrics.get(side))
        ]
        types = self.metrics.get("by_relation_type", {})
        if types:
            sides.append("  by relation type (heads per tail - tails per head):")
        for name, found in types.items():
            tail, head = found["tail"], found["head"]
            sides.append(
                f"  {name}  {found['relations']} relations, {found['num_triples']} triples: "
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
    """Rank the held-out triples of a KG folder, or other triples.

    Args:
        kg: A folder from `train_kg`.
        triples: A TSV of triples in the graph's names; None: those held out.
        num_candidates: Rank among this many sampled entities; None: see `ranking.evaluate`.
        by_relation_type: Also report 1-1, 1-N, N-1 and N-N relations separately.
        device: `auto`, `cpu` or `cuda`.
        seed: Of the sample.

    Raises:
        InputError: The folder or the file cannot be used, no triple was held out, or no given
            triple has all its names in the graph.
    """

    manifest = read_manifest(kg)
    settings = manifest.settings
    entity, relation = load_vectors(kg)
    known = [read_triples_table(kg / TRIPLES_FILE), read_triples_table(kg / HELD_OUT_FILE)]
    asked = known[1] if triples is None else read_named_triples(kg, triples)
    if not len(asked):
        raise InputError(
            f"{kg} has no held-out triples (--valid-fraction 0). Pass triples with --triples."
            if triples is None
            else f"{triples} has no triple whose names are all in {kg}."
        )
    on = choose_device(device)
    queries = make_queries(asked, [*known, asked])
    metrics = evaluate(
        queries,
        entity.to(on),
        relation.to(on),
        settings["p_norm"],
        num_candidates=num_candidates,
        seed=seed,
        types=describe_relations(known[0], len(relation)).type if by_relation_type else None,
    )
    if triples is not None:
        metrics["in_graph"] = num_in(asked, known[0])
        return EvalReport(kg, metrics)
    if "from" in manifest.inputs:
        logger.warning(
            "%s keeps vectors of an older run, which may have been trained on these triples; %s "
            "has the figures of the triples with new names",
            kg,
            METRICS,
        )
    before = json.loads((kg / METRICS).read_text(encoding="utf-8"))
    if before["learned_since"]:
        logger.warning(
            "the held-out triples of %s were trained on after the evaluation; before: %s",
            kg,
            describe(before | {"learned_since": False}),
        )
    metrics["learned_since"] = before["learned_since"]
    return EvalReport(kg, metrics)
