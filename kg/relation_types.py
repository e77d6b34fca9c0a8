"""Relation types, 1-1 to N-N, and ranking metrics for each type. NumPy only.

Bordes et al. 2013, section 4.2: a relation is 1-N if a head has 1.5 tails or more on average and a
tail fewer than 1.5 heads, and so on. TransE predicts one point for all tails of a head, so the type
determines how well it can rank: the tails of a 1-N relation are hard and its heads are easy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kg.arrays import Doubles, Ids, Ints

TYPES = ("1-1", "1-N", "N-1", "N-N")  # heads per tail - tails per head
_MANY = 1.5  # from this average on, a side is N
Summary = Callable[[Doubles], dict[str, float]]


class Relations(NamedTuple):
    """Statistics of each relation of a graph, by id.

    Attributes:
        uses: int64 `[num_relations]`: triples with the relation.
        tails_per_head: float64 `[num_relations]`: mean number of tails; 0 without triples.
        heads_per_tail: float64 `[num_relations]`: mean number of heads; 0 without triples.
        type: int64 `[num_relations]`: index into `TYPES`.
    """

    uses: Ints
    tails_per_head: Doubles
    heads_per_tail: Doubles
    type: Ints


def describe_relations(triples: Ids, num_relations: int) -> Relations:
    """Compute the type of each relation.

    Args:
        triples: `[n, 3]`, distinct.
        num_relations: The number of relations.
    """
    head, relation, tail = triples.T
    uses = np.bincount(relation, minlength=num_relations)
    tails_per_head, heads_per_tail = (
        uses / np.maximum(1, _distinct(side, relation, num_relations)) for side in (head, tail)
    )
    type_ = 2 * (heads_per_tail >= _MANY) + (tails_per_head >= _MANY)
    return Relations(uses, tails_per_head, heads_per_tail, type_)


def _distinct(entity: Ids, relation: Ids, num_relations: int) -> Ints:
    """Return the number of distinct entities of each relation on one side."""
    key = relation.astype(np.uint64) << np.uint64(32) | entity.astype(np.uint64)
    key.sort()
    first = np.concatenate([[True], key[1:] != key[:-1]])
    return np.bincount((key[first] >> np.uint64(32)).astype(np.int64), minlength=num_relations)


def by_relation_type(
    ranks: Doubles, relation: Ints, types: Ints, summarise: Summary
) -> dict[str, Any]:
    """Return the metrics of each type that occurs: of both sides, and of each.

    Args:
        ranks: `[2 n]`, of the tails and then of the heads, as from `kg.training.ranking.rank`.
        relation: `[2 n]`, the relation of each rank.
        types: The type of each relation, as in `Relations`.
        summarise: Ranks -> metrics.
    """
    half, type_ = len(ranks) // 2, types[relation]
    found: dict[str, Any] = {}
    for number, name in enumerate(TYPES):
        chosen = type_ == number
        tail, head = ranks[:half][chosen[:half]], ranks[half:][chosen[half:]]
        if len(tail):
            found[name] = {
                "relations": len(np.unique(relation[chosen])),
                "num_triples": len(tail),
                "both": summarise(ranks[chosen]),
                "tail": summarise(tail),
                "head": summarise(head),
            }
    return found
