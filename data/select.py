"""Which entities a caption keeps where it has too many.

One function for the table that stores them and for the model that reads them. It knows spans only:
rows of numbers, no texts and no names.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError, did_you_mean

POLICIES = ("first", "longest", "leftmost-longest")


def check_policy(name: str, policy: str) -> None:
    """Check the choice of a policy.

    Raises:
        ConfigError: It is not one of `POLICIES`.
    """
    if policy not in POLICIES:
        near = did_you_mean(policy, POLICIES) or "."
        raise ConfigError(f"{name}={policy!r} is not one of {', '.join(POLICIES)}{near}")


def select(
    row: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    limit: int,
    policy: str,
) -> NDArray[np.int64]:
    """Positions of at most `limit` entities of each row, ascending.

    `first` prefers what begins first, then what ends first (EasyNLP's way). `longest` prefers what
    covers most tokens, then what begins first. `leftmost-longest` reads the caption from the left,
    takes the longest entity at each place and goes on behind it; these come first, as far as they
    go, and then the others as in `longest`.

    Args:
        row: Of each entity, ascending.
        start: Its first token; ascending within a row.
        end: One past its last token; ascending within equal starts.
        limit: How many a row keeps.
        policy: One of `POLICIES`.
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
    from data.jit import jit  # here, for the names of the policies are read where numba is not

    return jit(_leftmost_longest)


def _leftmost_longest(
    row: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Marks the entities of the reading; several on the same tokens are all marked."""
    on_path = np.zeros(len(row), np.bool_)
    n = 0
    this_row, free = -1, 0  # the first token of the row that is not read yet
    while n < len(row):
        if row[n] != this_row:
            this_row, free = row[n], 0
        last = n  # the last of those that begin where n does: the longest
        while last + 1 < len(row) and row[last + 1] == row[n] and start[last + 1] == start[n]:
            last += 1
        if start[n] >= free:
            for k in range(n, last + 1):
                on_path[k] = end[k] == end[last]
            free = end[last]
        n = last + 1
    return on_path
