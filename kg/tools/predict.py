"""`kg predict`: rank the entities that complete a triple, by exact search over a memory map."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import ConfigError
from data.kg_folder import RELATION_NAMES, map_names, map_vectors, not_finite, open_names
from data.runs import read_manifest
from kg.kg_store import known_answers, load_relation_vectors
from kg.tools.best_rows import nearest_by_distance
from kg.tools.nearest import find_entity


@dataclass(frozen=True)
class Candidate:
    """An entity that may complete the triple.

    Attributes:
        entity_id: The entity.
        name: Its name.
        score: Minus the distance ||h + r - t||, TransE's score.
        filtered_rank: Its rank among the entities that are not known answers; None for these.
    """

    entity_id: int
    name: str
    score: float
    filtered_rank: int | None

    @property
    def known(self) -> bool:
        """Whether the graph contains the triple."""
        return self.filtered_rank is None


@dataclass(frozen=True)
class Prediction:
    """The candidates for one side of a triple, best first; None is the side that is asked for."""

    head: str | None
    relation: str
    tail: str | None
    num_known: int
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        asked = f"({self.head or '?'}, {self.relation}, {self.tail or '?'})"
        lines = [f"{asked}: {self.num_known:,} answers in the graph, marked *"]
        for c in self.candidates:
            rank = "*" if c.known else str(c.filtered_rank)
            lines.append(f"{rank:>6}  {c.score:7.3f}  {c.name}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the prediction as JSON."""
        figures: dict[str, Any] = {
            "head": self.head,
            "relation": self.relation,
            "tail": self.tail,
            "num_known": self.num_known,
            "candidates": [
                {
                    "id": c.entity_id,
                    "name": c.name,
                    "score": round(c.score, 6),
                    "known": c.known,
                    "filtered_rank": c.filtered_rank,
                }
                for c in self.candidates
            ],
        }
        return json.dumps(figures, ensure_ascii=False, indent=1)


def predict(
    folder: Path,
    *,
    head: str | None = None,
    relation: str | None = None,
    tail: str | None = None,
    top: int = 10,
    new_only: bool = False,
) -> Prediction:
    """Rank all entities as the tail of `head` and `relation`, or as the head of `tail`.

    Ranks are filtered (Bordes et al. 2013): an answer that the graph contains has none.

    Args:
        folder: A KG folder of a TransE model.
        head: Name of the head, or `#` and its id; None to predict it.
        relation: Name of the relation, or `#` and its id.
        tail: Name of the tail, or `#` and its id; None to predict it.
        top: The number of candidates.
        new_only: Leave known answers out.

    Raises:
        ConfigError: Not exactly one of head and tail is given, or no relation.
        InputError: A name is unknown (similar ones are offered), or the folder has no relations.
    """
    if (head is None) == (tail is None) or relation is None:
        raise ConfigError("Give HEAD and RELATION, or --tail and --relation.")
    p_norm = read_manifest(folder).settings["p_norm"]
    moves = load_relation_vectors(folder).float().numpy()
    names, relations = map_names(folder), open_names(folder / RELATION_NAMES)
    relation_id = find_entity(relations, relation, "relation")
    given = head if head is not None else tail
    assert given is not None
    entity_id = find_entity(names, given)
    vectors = map_vectors(folder)
    side, sign = ("head_id", 1) if head is not None else ("tail_id", -1)
    point = (vectors[entity_id] + sign * moves[relation_id]).astype(np.float32)
    known = known_answers(folder, side, entity_id, relation_id)
    ids, distances = nearest_by_distance(vectors, point, top + len(known), p_norm)
    if np.isnan(distances).any():
        raise not_finite(folder)
    candidates: list[Candidate] = []
    rank = 0
    in_graph = np.isin(ids, known)
    for i, distance, answer in zip(ids.tolist(), distances.tolist(), in_graph, strict=True):
        rank += not answer
        if len(candidates) < top and not (new_only and answer):
            candidates.append(Candidate(i, names[i], 0.0 - distance, None if answer else rank))
    shown = names[entity_id]
    return Prediction(
        head=shown if head is not None else None,
        relation=relations[relation_id],
        tail=shown if tail is not None else None,
        num_known=len(known),
        candidates=tuple(candidates),
    )
