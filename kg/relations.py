"""Kinds of relations, 1-1 to N-N, and how well each kind is ranked. NumPy only.

Bordes et al. 2013, section 4.2: a relation is 1-N where a head has 1.5 tails or more on average and
a tail fewer than 1.5 heads, and so on. TransE gives every tail of a head the same place, so it is
the kind, more than the relation, that tells what it can rank: "tail" of a 1-N relation is hard and
its "head" is easy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("1-1", "1-N", "N-1", "N-N")  # heads of a tail - tails of a head
_MANY = 1.5  # so many on average count as several
Ids = NDArray[np.int32]
Ints = NDArray[np.int64]
Summary = Callable[[NDArray[np.float64]], dict[str, float]]


class Relations(NamedTuple):
    """Each relation of a graph, by id.

    Attributes:
        uses: Triples that have it.
        tails_per_head: Mean number of tails that a head has by it; 0 where it has no triples.
        heads_per_tail: Mean number of heads that a tail has.
        kind: Index into `KINDS`.
    """

    uses: Ints
    tails_per_head: NDArray[np.float64]
    heads_per_tail: NDArray[np.float64]
    kind: Ints


def describe_relations(triples: Ids, num_relations: int) -> Relations:
    """How the relations of a graph join heads and tails.

    Args:
        triples: All of them, `[n, 3]`, each once.
        num_relations: How many relations there are.
    """
    head, relation, tail = triples.T
    uses = np.bincount(relation, minlength=num_relations)
    tails_per_head, heads_per_tail = (
        uses / np.maximum(1, _distinct(side, relation, num_relations)) for side in (head, tail)
    )
    kind = 2 * (heads_per_tail >= _MANY) + (tails_per_head >= _MANY)
    return Relations(uses, tails_per_head, heads_per_tail, kind)


def _distinct(entity: Ids, relation: Ids, num_relations: int) -> Ints:
    """How many different entities each relation has on one side."""
    key = relation.astype(np.uint64) << np.uint64(32) | entity.astype(np.uint64)
    key.sort()
    first = np.concatenate([[True], key[1:] != key[:-1]])
    return np.bincount((key[first] >> np.uint64(32)).astype(np.int64), minlength=num_relations)


def by_relation_type(
    ranks: NDArray[np.float64],
    relation: NDArray[np.int64],
    kinds: NDArray[np.int64],
    summarise: Summary,
) -> dict[str, Any]:
    """Metrics of each kind that occurs: of both sides, and of each.

    Args:
        ranks: `[2 n]`, of the tails and then of the heads, as from `kg.tools.evaluate.rank`.
        relation: `[2 n]`, the relation of each.
        kinds: The kind of each relation, as in `Relations`.
        summarise: Metrics of some ranks.
    """
    half, kind = len(ranks) // 2, kinds[relation]
    found: dict[str, Any] = {}
    for number, name in enumerate(KINDS):
        mine = kind == number
        tail, head = ranks[:half][mine[:half]], ranks[half:][mine[half:]]
        if len(tail):
            found[name] = {
                "relations": len(np.unique(relation[mine])),
                "num_triples": len(tail),
                "both": summarise(ranks[mine]),
                "tail": summarise(tail),
                "head": summarise(head),
            }
    return found
