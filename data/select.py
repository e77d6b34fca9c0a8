"""Select the entities of a caption if it has too many.

Used both for the table that stores entities and for the model that reads them. The input is spans,
arrays of numbers without texts and names.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def select(
    row: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    limit: int,
    policy: str,
) -> NDArray[np.int64]:
    """Return the positions of at most `limit` entities of each row, ascending.

    `first` prefers entities that begin first, then those that end first (EasyNLP). `longest`
    prefers those that cover most tokens, then those that begin first. `leftmost-longest` scans the
    caption from the left, takes the longest entity at each position and continues behind it; these
    are preferred, then the others as in `longest`.

    Args:
        row: Row of each entity, ascending.
        start: Its first token; ascending within a row.
        end: One past its last token; ascending within equal starts.
        limit: Entities kept per row.
        policy: One of `data.constants.POLICIES`.
    """
    count = len(row)
    if policy == "first":
        order = np.arange(count)
    else:
        length = end - start
        keys: tuple[NDArray[Any], ...] = (-length, row)  # lexsort is stable: text order decides
        if policy == "leftmost-longest":
            on_path = _compiled()(row, start, end)
            keys = (np.where(on_path, 0, -length), ~on_path, row)
        order = np.lexsort(keys)
    sorted_row = row[order]
    row_begin = np.searchsorted(sorted_row, sorted_row)
    chosen: NDArray[np.int64] = np.sort(order[np.arange(count) - row_begin < limit])
    return chosen


@cache
def _compiled() -> Callable[..., NDArray[np.bool_]]:
    from data.jit import jit  # numba is heavy; `POLICIES` is imported without it

    return jit(_leftmost_longest)


def _leftmost_longest(
    row: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which entities the left-to-right scan takes, including all on the same tokens."""
    on_path = np.zeros(len(row), np.bool_)
    n = 0
    this_row, free = -1, 0  # the first token of the row that is not covered yet
    while n < len(row):
        if row[n] != this_row:
            this_row, free = row[n], 0
        last = n  # the longest entity that begins where n does
        while last + 1 < len(row) and row[last + 1] == row[n] and start[last + 1] == start[n]:
            last += 1
        if start[n] >= free:
            for k in range(n, last + 1):
                on_path[k] = end[k] == end[last]
            free = end[last]
        n = last + 1
    return on_path
