"""Filtered ranking: the rank of the true head or tail of a triple among all entities.

For each triple and each side, all entities (in a large graph, a random sample) are ranked by
||h + r - t||, except those that would give another known triple (Bordes et al. 2013, "filtered").
Ties get the mean of the best and the worst rank (pykeen's "realistic"). With all candidates the
figures equal those of pykeen's RankBasedEvaluator; ranks among a sample are smaller and must not be
compared with those of full rankings.

Files and names are handled elsewhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kg.arrays import Doubles, Floats, Ids, Ints
from kg.relation_types import by_relation_type
from kg.training.batch_loss import pairwise_distance

HITS = (1, 3, 10)
FULL_RANKING_UP_TO = 200_000  # entities; above, candidates are sampled
NUM_SAMPLED = 10_000
_BLOCK_FLOATS = 1 << 25  # distances computed at a time


@dataclass(frozen=True)
class Queries:
    """Triples to rank, both sides of each, with their known answers.

    Query i asks for the tail of triple i, query n + i for its head.
    """

    source: Ints  # [2 n]: the given entity
    relation: Ints  # [2 n]
    target: Ints  # [2 n]: the requested entity
    sign: Floats  # [2 n]: +1 for the tail, -1 for the head
    answer_query: Ints  # [m]: query, ascending
    answer: Ints  # [m]: an entity that answers it

    def __len__(self) -> int:
        return len(self.source)


def make_queries(triples: Ids, known: list[Ids]) -> Queries:
    """Return queries for both sides of `triples`; `known` are all true triples, these included."""
    head, relation, tail = triples.astype(np.int64).T
    relations = 1 + max(int(k[:, 1].max(initial=0)) for k in [triples, *known])
    parts = []
    for side, (given, asked) in enumerate(((0, 2), (2, 0))):
        keys = triples[:, given].astype(np.int64) * relations + relation
        for query, answer in _matches(keys, known, given, asked, relations):
            parts.append((query + side * len(triples), answer))
    answer_query = np.concatenate([q for q, _ in parts])
    answer = np.concatenate([a for _, a in parts])
    order = np.argsort(answer_query, kind="stable")
    return Queries(
        source=np.concatenate([head, tail]),
        relation=np.concatenate([relation, relation]),
        target=np.concatenate([tail, head]),
        sign=np.repeat(np.array([1, -1], np.float32), len(triples)),
        answer_query=answer_query[order],
        answer=answer[order],
    )


def num_in(triples: Ids, graph: Ids) -> int:
    """Return the number of `triples` that are in `graph`."""
    head, relation, tail = triples.astype(np.int64).T
    relations = 1 + max(int(t[:, 1].max(initial=0)) for t in (triples, graph))
    pairs = _matches(head * relations + relation, [graph], 0, 2, relations)
    return sum(len(np.unique(query[answer == tail[query]])) for query, answer in pairs)


def _matches(
    keys: Ints, known: list[Ids], given: int, asked: int, relations: int
) -> list[tuple[Ints, Ints]]:
    """Return pairs of a query and a known answer, in one pass over the known triples."""
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    distinct, first, count = np.unique(ascending, return_index=True, return_counts=True)
    found = []
    for triples in known:
        for begin in range(0, len(triples), 1 << 22):
            block = triples[begin : begin + (1 << 22)]
            key = block[:, given].astype(np.int64) * relations + block[:, 1]
            place = np.minimum(np.searchsorted(distinct, key), len(distinct) - 1)
            hit = np.flatnonzero(distinct[place] == key)
            place = place[hit]
            # Several queries may have the same key.
            times = count[place]
            offset = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
            query = order[np.repeat(first[place], times) + offset]
            found.append((query, np.repeat(block[hit, asked].astype(np.int64), times)))
    return found


def rank(
    queries: Queries,
    entity: Tensor,
    relation: Tensor,
    p_norm: int,
    *,
    candidates: Tensor | None = None,
) -> Doubles:
    """Return the filtered, realistic rank of the target of each query, `[2 n]`.

    Args:
        queries: See `make_queries`.
        entity: Entity vectors `[num_entities, dim]`.
        relation: Relation vectors `[num_relations, dim]`.
        p_norm: 1 or 2.
        candidates: Ids among which the target is ranked; None: all.
    """
    device = entity.device
    pool = entity if candidates is None else entity[candidates]
    column = torch.full((len(entity),), -1, device=device)
    column[slice(None) if candidates is None else candidates] = torch.arange(
        len(pool), device=device
    )
    ranks = np.empty(len(queries))
    block = max(1, min(1024, _BLOCK_FLOATS // len(pool)))
    for begin in range(0, len(queries), block):
        stop = min(begin + block, len(queries))
        source, target, kind, sign = (
            torch.from_numpy(column[begin:stop]).to(device)
            for column in (queries.source, queries.target, queries.relation, queries.sign)
        )
        query = entity[source] + sign.unsqueeze(1) * relation[kind]
        distance = pairwise_distance(query[None], pool[None], p_norm)[0]  # [b, pool]
        if candidates is None:
            true = distance.gather(1, target.unsqueeze(1))
        else:
            # The same arithmetic as for the pool, so that equal vectors have equal distances.
            true = pairwise_distance(query.unsqueeze(1), entity[target].unsqueeze(1), p_norm)[:, 0]
        first, last = np.searchsorted(queries.answer_query, [begin, stop])
        row = torch.from_numpy(queries.answer_query[first:last] - begin).to(device)
        where = column[torch.from_numpy(queries.answer[first:last]).to(device)]
        distance[row[where >= 0], where[where >= 0]] = torch.inf
        better = (distance < true).sum(1)
        equal = (distance == true).sum(1)
        ranks[begin:stop] = (better + equal / 2 + 1).cpu().numpy()
    return ranks


def evaluate(
    queries: Queries,
    entity: Tensor,
    relation: Tensor,
    p_norm: int,
    *,
    num_candidates: int | None = None,
    seed: int = 0,
    types: Ints | None = None,
) -> dict[str, Any]:
    """Return filtered MRR, mean rank and Hits@k, of both sides and of each.

    Args:
        queries: See `make_queries`.
        entity: Entity vectors.
        relation: Relation vectors.
        p_norm: 1 or 2.
        num_candidates: Rank among this many random entities; None: among all in graphs of up to
            200,000 entities, else among 10,000.
        seed: Of the sample.
        types: The type of each relation, from `kg.relation_types`, to report each type as well.
    """
    if num_candidates is None and len(entity) > FULL_RANKING_UP_TO:
        num_candidates = NUM_SAMPLED
    candidates = None
    if num_candidates is not None and num_candidates < len(entity):
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randperm(len(entity), generator=generator)[:num_candidates]
        candidates = draw.to(entity.device)
    ranks = rank(queries, entity, relation, p_norm, candidates=candidates)
    half = len(ranks) // 2
    metrics = {
        "num_triples": half,
        "candidates": "all" if candidates is None else len(candidates),
        "both": summarise(ranks),
        "tail": summarise(ranks[:half]),
        "head": summarise(ranks[half:]),
    }
    if types is not None:
        metrics["by_relation_type"] = by_relation_type(ranks, queries.relation, types, summarise)
    return metrics


def summarise(ranks: Doubles) -> dict[str, float]:
    """Return MRR, mean rank and Hits@k."""
    return {
        "mrr": float((1 / ranks).mean()),
        "mean_rank": float(ranks.mean()),
        **{f"hits@{k}": float((ranks <= k).mean()) for k in HITS},
    }
