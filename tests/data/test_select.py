"""The selection of entities equals a slow implementation of its rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.constants import POLICIES
from data.select import select

spans = st.tuples(st.integers(0, 6), st.integers(1, 4)).map(lambda s: (s[0], s[0] + s[1]))
rows = st.lists(st.lists(spans, max_size=8).map(sorted), max_size=5)


def kept(entities: list[list[tuple[int, int]]], limit: int, policy: str) -> list[list[int]]:
    """Return the positions of the kept entities of each row."""
    flat = [(r, *span) for r, row in enumerate(entities) for span in row]
    columns = np.array(flat, np.int64).reshape(-1, 3).T
    chosen = select(*(np.ascontiguousarray(c) for c in columns), limit, policy)
    begins = np.cumsum([0, *map(len, entities)])
    return [
        [int(n - begins[r]) for n in chosen if begins[r] <= n < begins[r + 1]]
        for r in range(len(entities))
    ]


def slowly(row: list[tuple[int, int]], limit: int, policy: str) -> list[int]:
    places = list(range(len(row)))
    if policy == "first":
        return places[:limit]
    by_length = sorted(places, key=lambda n: (row[n][0] - row[n][1], n))
    if policy == "longest":
        return sorted(by_length[:limit])
    path, at = [], 0
    while any(start >= at for start, _ in row):
        start = min(s for s, _ in row if s >= at)
        at = max(e for s, e in row if s == start)
        path += [n for n in places if row[n] == (start, at)]
    return sorted([*path, *(n for n in by_length if n not in path)][:limit])


@pytest.mark.parametrize("policy", POLICIES)
@given(entities=rows, limit=st.integers(1, 5))
def test_keeps_what_the_rule_selects(policy, entities, limit):
    assert kept(entities, limit, policy) == [slowly(row, limit, policy) for row in entities]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("first", [(0, 2), (0, 4)]),
        ("longest", [(0, 4), (2, 5)]),
        ("leftmost-longest", [(0, 4), (4, 6)]),
    ],
)
def test_the_three_policies_on_one_caption(policy, wanted):
    row = [(0, 2), (0, 4), (1, 3), (2, 5), (4, 6)]
    [places] = kept([row], 2, policy)
    assert [row[n] for n in places] == wanted
