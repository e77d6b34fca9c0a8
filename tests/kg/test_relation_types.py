"""Relation types 1-1, 1-N, N-1 and N-N, and ranking metrics by type."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kg.relation_types import TYPES, by_relation_type, describe_relations
from kg.training.ranking import summarise


def types_of(triples: list[tuple[int, int, int]], num_relations: int) -> list[str]:
    found = describe_relations(np.array(triples, np.int32), num_relations)
    return [TYPES[k] if uses else "" for k, uses in zip(found.type, found.uses, strict=True)]


def test_a_type_is_heads_per_tail_and_tails_per_head():
    capital = [(0, 0, 10), (1, 0, 11)]
    has_part = [(0, 1, 10), (0, 1, 11), (1, 1, 12), (1, 1, 13)]
    lies_in = [(head, 2, tail) for tail, _, head in has_part]
    likes = [(head, 3, tail) for head in (0, 1) for tail in (10, 11)]
    assert types_of([*capital, *has_part, *lies_in, *likes], 5) == ["1-1", "1-N", "N-1", "N-N", ""]


def test_one_and_a_half_is_many():
    three_tails_of_two_heads = [(0, 0, 10), (0, 0, 11), (1, 0, 12)]
    assert types_of(three_tails_of_two_heads, 1) == ["1-N"]
    five_of_four = [(0, 0, 10), (0, 0, 11), (1, 0, 12), (2, 0, 13), (3, 0, 14)]
    assert types_of(five_of_four, 1) == ["1-1"]


TRIPLES = st.sets(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 5)), min_size=2, max_size=60
)


@given(triples=TRIPLES)
def test_the_types_equal_those_of_a_slow_count(triples):
    found = describe_relations(np.array(sorted(triples), np.int32), 4)
    for relation in range(4):
        mine = [(h, t) for h, r, t in triples if r == relation]
        if not mine:
            assert found.uses[relation] == 0
            continue
        tails_of_head = len(mine) / len({h for h, _ in mine})
        heads_of_tail = len(mine) / len({t for _, t in mine})
        left, right = ("N" if x >= 1.5 else "1" for x in (heads_of_tail, tails_of_head))
        assert TYPES[found.type[relation]] == f"{left}-{right}"


def test_each_rank_is_counted_for_its_type_and_side():
    relation = np.array([0, 1, 1, 0, 1, 1])  # three triples, tails and then heads
    ranks = np.array([1.0, 2.0, 4.0, 10.0, 20.0, 40.0])
    found = by_relation_type(ranks, relation, np.array([0, 3]), summarise)
    assert list(found) == ["1-1", "N-N"]
    assert found["N-N"]["num_triples"] == 2
    assert found["N-N"]["tail"]["mean_rank"] == 3
    assert found["N-N"]["head"]["mean_rank"] == 30
    assert found["1-1"]["both"]["mean_rank"] == 5.5
