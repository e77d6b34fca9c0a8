"""Loops over rows of vectors, compiled for the CPU, where torch has no fast operation.

They work on numpy views of contiguous CPU tensors, on begin..end of the first dimension; see
`in_torchs_threads`. Indices are not checked in compiled code: callers guarantee the shapes and
bounds in the docstrings.

Legend: G chunks, S triples and N negatives per chunk, D dim, M looked-up rows, U distinct ones
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from data.jit import in_threads, jit
from kg.arrays import Floats, Ints


def in_torchs_threads(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Run kernel(begin, end, ...) over 0..count, split over as many threads as torch uses."""
    in_threads(kernel, count, torch.get_num_threads(), *arguments)


# Like `data.jit.jit`, but sums may be reordered, which allows SIMD.
_jit = partial(jit, fastmath=True)


_TILE = 256


@_jit
def l1_distances(begin: int, end: int, query: Floats, point: Floats, out: Floats) -> None:
    """Compute out[g, i, j] = ||query[g, i] - point[g, j]||_1.

    Args:
        begin: The first of the G * S queries of this part.
        end: The end of this part, at most G * S, which bounds g below G.
        query: float32 `[G, S, D]`.
        point: float32 `[G, N, D]`.
        out: float32 `[G, S, N]`, overwritten.
    """
    size, num_points = query.shape[1], point.shape[1]
    while begin < end:
        g = begin // size
        stop = min(end, (g + 1) * size)
        for tile in range(0, num_points, _TILE):  # points that fit the cache
            for row in range(begin, stop):
                for j in range(tile, min(tile + _TILE, num_points)):
                    total = np.float32(0)
                    for k in range(query.shape[2]):
                        total += abs(query[g, row - g * size, k] - point[g, j, k])
                    out[g, row - g * size, j] = total
        begin = stop


@_jit
def l1_gradients(
    begin: int,
    end: int,
    query: Floats,
    point: Floats,
    slope: Floats,
    for_query: Floats,
    for_point: Floats,
) -> None:
    """Compute the gradients of sum(slope * distances).

    Args:
        begin: The first chunk of this part.
        end: The end of this part, at most G.
        query: float32 `[G, S, D]`.
        point: float32 `[G, N, D]`.
        slope: float32 `[G, S, N]`.
        for_query: float32 `[G, S, D]`, overwritten.
        for_point: float32 `[G, N, D]`, overwritten.
    """
    for g in range(begin, end):
        for_query[g] = 0
        for_point[g] = 0
        for i in range(query.shape[1]):
            for j in range(point.shape[1]):
                up = slope[g, i, j]
                down = -up
                for k in range(query.shape[2]):
                    pull = up if query[g, i, k] > point[g, j, k] else down
                    for_query[g, i, k] += pull
                    for_point[g, j, k] -= pull


FROZEN = float(np.finfo(np.float32).max)  # the accumulator of a row that is not updated


@_jit
def adagrad_rows(
    begin: int,
    end: int,
    weight: Floats,
    power: Floats,
    ids: Ints,
    first: Ints,
    origin: Ints,
    grad: Floats,
    rate: float,
    eps: float,
    length: float,
) -> None:
    """Make one step of row-wise AdaGrad on the rows `ids`.

    Args:
        begin: The first of the U rows of this part.
        end: The end of this part, at most U.
        weight: float32 `[n, D]`, changed in place.
        power: float32 `[n]`, the accumulators, changed in place; FROZEN: the row is not updated.
        ids: int64 `[U]`, distinct, below n.
        first: int64 `[U + 1]`, strictly ascending, the last is M. The gradient of row u is the sum
            of those at `origin[first[u]:first[u + 1]]`.
        origin: int64 `[M]`, a permutation of 0..M - 1.
        grad: float32 `[M, D]`, overwritten.
        rate: The learning rate.
        eps: Added to the root of the accumulator.
        length: Updated rows are scaled to this length; 0: they are not.
    """
    dim = weight.shape[1]
    for u in range(begin, end):
        if power[ids[u]] >= np.float32(FROZEN):
            continue
        row = weight[ids[u]]
        total = grad[origin[first[u]]]
        for m in range(first[u] + 1, first[u + 1]):
            other = grad[origin[m]]
            for k in range(dim):
                total[k] += other[k]
        square = np.float32(0)
        for k in range(dim):
            square += total[k] * total[k]
        power[ids[u]] += square / np.float32(dim)
        pace = np.float32(rate) / (np.sqrt(power[ids[u]]) + np.float32(eps))
        square = np.float32(0)
        for k in range(dim):
            row[k] -= pace * total[k]
            square += row[k] * row[k]
        if length > 0:
            shrink = np.float32(length) / max(np.sqrt(square), np.float32(1e-12))
            for k in range(dim):
                row[k] *= shrink
