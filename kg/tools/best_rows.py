"""The rows of a large table of vectors that are nearest to a point, exactly, from a memory map.

Each row is read once, by a compiled loop that computes its cosine, or its distance, in one pass;
on a core this is limited by the memory. The rows that come into question are then compared in
double precision.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from data.jit import jit
from kg.arrays import Doubles, Floats, Ints

_BLOCK = 1 << 12  # rows compared at a time: they fit the cache
_SHARE = 1 << 19  # rows per task of a thread
_SPARE = 64  # rows kept in addition, since single precision may order near ones differently
# Sums in any order, as vector instructions need; NaN remains NaN.
_jit = partial(jit, fastmath={"reassoc", "contract", "arcp", "nsz"})

Kernel = Callable[[Floats, Floats, Floats], None]


def nearest_by_cosine(vectors: Floats, query: Floats, count: int) -> tuple[Ints, Doubles]:
    """Return ids and cosines of the `count` rows with the highest cosine with `query`.

    Highest first; of equal ones the lowest ids. Rows with NaN come first, with the cosine NaN.

    Args:
        vectors: float32 `[n, dim]`.
        query: float32 `[dim]`.
        count: The number of rows.
    """
    unit = query.astype(np.float64)
    unit /= max(float(np.linalg.norm(unit)), 1e-12)

    def exactly(rows: Doubles) -> Doubles:
        cosines: Doubles = rows @ unit / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
        return cosines

    return _best_rows(vectors, unit, count, _cosines, exactly)


def nearest_by_distance(
    vectors: Floats, point: Floats, count: int, p_norm: int
) -> tuple[Ints, Doubles]:
    """Return ids and distances of the `count` rows nearest to `point`, nearest first.

    Of equal ones the lowest ids; rows with NaN come first.

    Args:
        vectors: float32 `[n, dim]`.
        point: float32 `[dim]`.
        count: The number of rows.
        p_norm: 1 or 2.
    """
    kernel = _closeness_l1 if p_norm == 1 else _closeness_l2

    def exactly(rows: Doubles) -> Doubles:
        closeness: Doubles = -np.linalg.norm(rows - point.astype(float), ord=p_norm, axis=1)
        return closeness

    ids, closeness = _best_rows(vectors, point, count, kernel, exactly)
    return ids, -closeness


def _best_rows(
    vectors: Floats,
    query: Floats | Doubles,
    count: int,
    kernel: Kernel,
    exactly: Callable[[Doubles], Doubles],
) -> tuple[Ints, Doubles]:
    """Return ids and scores of the rows with the highest scores.

    Args:
        vectors: float32 `[n, dim]`.
        query: float32 `[dim]`.
        count: The number of rows.
        kernel: Writes the score of each row of a block.
        exactly: Returns the scores of rows in double precision.
    """
    query = np.ascontiguousarray(query, np.float32)
    kept = count + _SPARE

    def best(begin: int) -> tuple[Ints, Doubles]:
        ids: Ints = np.empty(0, np.int64)
        scores: Doubles = np.empty(0)
        buffer = np.empty(_BLOCK, np.float32)
        for at in range(begin, min(begin + _SHARE, len(vectors)), _BLOCK):
            block = np.asarray(vectors[at : min(at + _BLOCK, begin + _SHARE)])
            score = buffer[: len(block)]
            kernel(block, query, score)
            if len(scores) == kept:
                chosen = np.flatnonzero(~(score <= scores[-1]))  # NaN is chosen
                if not len(chosen):
                    continue
            else:
                chosen = np.arange(len(score))
            ids, scores = _best(
                np.concatenate([ids, chosen + at]), np.concatenate([scores, score[chosen]]), kept
            )
        return ids, scores

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(best, range(0, len(vectors), _SHARE)))
    ids, scores = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    ids, _ = _best(ids, scores, kept)
    return _best(ids, exactly(vectors[ids].astype(np.float64)), count)


def _best(ids: Ints, scores: Doubles, count: int) -> tuple[Ints, Doubles]:
    """Return the `count` highest scores, highest first; of equal ones the lowest ids."""
    # Sorting puts NaN last, where it would be cut off.
    order = np.lexsort((ids, -np.where(np.isnan(scores), np.inf, scores)))[:count]
    return ids[order], scores[order]


@_jit
def _cosines(block: Floats, unit: Floats, score: Floats) -> None:
    """Write the cosine of each row with a unit vector.

    Args:
        block: float32 `[n, dim]`.
        unit: float32 `[dim]`.
        score: float32 `[n]`.
    """
    for n in range(len(block)):
        product = squares = np.float32(0)
        for d in range(block.shape[1]):
            product += block[n, d] * unit[d]
            squares += block[n, d] * block[n, d]
        score[n] = product / max(np.sqrt(squares), np.float32(1e-12))


@_jit
def _closeness_l1(block: Floats, point: Floats, score: Floats) -> None:
    """Write minus the L1 distance of each row from a point; arguments as in `_cosines`."""
    for n in range(len(block)):
        total = np.float32(0)
        for d in range(block.shape[1]):
            total += np.abs(block[n, d] - point[d])
        score[n] = -total


@_jit
def _closeness_l2(block: Floats, point: Floats, score: Floats) -> None:
    """Write minus the L2 distance of each row from a point; arguments as in `_cosines`."""
    for n in range(len(block)):
        total = np.float32(0)
        for d in range(block.shape[1]):
            total += (block[n, d] - point[d]) * (block[n, d] - point[d])
        score[n] = -np.sqrt(total)
