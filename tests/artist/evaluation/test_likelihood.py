"""Likelihood under controls: intervals that hold, controls that do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artist.evaluation.confidence_intervals import group_of_rows, interval, widened
from artist.evaluation.controls import (
    OtherIds,
    another_image,
    has_unseen,
    shuffled_vectors,
    without_entities,
)
from artist.evaluation.likelihood import OtherGraph, measure_likelihood
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Rows

SIZES = {"n_layer": 1, "n_head": 1, "n_embd": 8, "text_len": 3, "image_len": 4, "entity_dim": 5}
CONFIG = GPTConfig(text_vocab_size=20, image_vocab_size=7, **SIZES)
VECTORS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def make_rows(entities: list[list[int]], codes: list[int], texts: list[int] | None = None) -> Rows:
    """Captions of three tokens whose first token is `texts`; every entity covers all of it."""
    flat = np.array([e for row in entities for e in row], dtype=np.int64)
    first = np.cumsum([0, *map(len, entities)])
    ids = np.array([[t, 2, 3] for t in (texts or range(len(codes)))], dtype=np.int64)
    return Rows(
        idx=[str(n) for n in range(len(codes))],
        texts=[str(n) for n in range(len(codes))],
        bert_ids=ids,
        codes=np.repeat(np.array(codes, dtype=np.uint16)[:, None], 4, 1),
        first_entity=first,
        entity_ids=flat,
        starts=np.zeros(len(flat), dtype=np.int64),
        ends=np.full(len(flat), 3),
        metadata={},
    )


def gpt(fusion: str = "lattice") -> GPT:
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, fusion=fusion))
    for p in model.parameters():  # GPT-2's small weights would hide what the entities do
        torch.nn.init.normal_(p, std=0.5)
    return model.eval()


def test_the_interval_covers_the_true_mean_95_percent_although_captions_share_images():
    rng = np.random.default_rng(0)
    held = held_without = 0
    for _ in range(400):
        sizes = rng.integers(1, 6, size=100)
        groups = np.repeat(np.arange(100), sizes)
        values = rng.normal(size=100)[groups] + 0.5 * rng.normal(size=len(groups))
        held += abs(interval(values, groups).mean) < interval(values, groups).half_width
        held_without += abs(values.mean()) < interval(values).half_width
    assert 0.92 < held / 400 < 0.98
    assert held_without / 400 < 0.85


def test_the_interval_is_the_bootstraps_over_images():
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(300), rng.integers(1, 5, size=300)))
    values = rng.exponential(size=300)[groups] + rng.normal(size=len(groups))
    members = [np.flatnonzero(groups == g) for g in range(300)]
    means = []
    for _ in range(1000):
        chosen = np.concatenate([members[g] for g in rng.integers(0, 300, 300)])
        means.append(values[chosen].mean())
    found = interval(values, groups)
    assert found.half_width == pytest.approx(1.96 * np.std(means), rel=0.08)


def test_without_groups_the_interval_is_that_of_independent_values():
    values = np.array([1.0, 2.0, 4.0])
    found = interval(values)
    assert found.mean == pytest.approx(7 / 3)
    assert found.half_width == pytest.approx(4.302653 * values.std(ddof=1) / np.sqrt(3))  # t, 2
    assert interval(values, np.array([7, 3, 5])) == pytest.approx(found)
    assert np.isnan(interval(values[:1]).half_width)


def test_equal_rows_of_codes_are_one_image():
    codes = np.array([[1, 2], [1, 3], [1, 2], [1, 3], [0, 0]], dtype=np.uint16)
    groups = group_of_rows(codes)
    assert groups[0] == groups[2]
    assert groups[1] == groups[3]
    assert len(set(groups.tolist())) == 3


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 3))
def test_another_image_is_a_permutation_to_other_images(labels, seed):
    images = np.unique(labels, return_inverse=True)[1]
    source = another_image(images, seed)
    assert sorted(source.tolist()) == list(range(len(labels)))
    if 2 * np.bincount(images).max() <= len(labels):
        assert (images[source] != images).all()


def test_no_entity_keeps_its_vector_when_shuffled_and_the_others_stay():
    rows = make_rows([[1], [2, 4], []], [0, 1, 2])
    mixed = shuffled_vectors(rows, VECTORS, seed=0)
    assert sorted(map(tuple, mixed.tolist())) == sorted(map(tuple, VECTORS.tolist()))
    assert (mixed[[1, 2, 4]] != VECTORS[[1, 2, 4]]).any(1).all()
    assert (mixed[[0, 3, 5]] == VECTORS[[0, 3, 5]]).all()


def test_another_graph_gives_the_same_names_its_own_ids_and_drops_those_it_lacks():
    rows = make_rows([[0, 1], [2], [1]], [0, 1, 2])
    ids = OtherIds(rows, ["虎", "象", "花"], ["象", "车", "虎"])
    found = ids.rows(rows)
    assert found.entity_ids.tolist() == [2, 0, 0]
    assert found.first_entity.tolist() == [0, 2, 2, 3]
    assert len(found.starts) == len(found.ends) == 3
    assert rows.entity_ids.tolist() == [0, 1, 2, 1]
    assert ids.entities(np.array([1, 2, 99])).tolist() == [0]


def test_a_caption_is_unseen_when_one_of_its_entities_is():
    rows = make_rows([[0, 1], [2], [], [1]], [0, 1, 2, 3])
    assert has_unseen(rows, np.array([0, 1])).tolist() == [False, True, False, False]


def test_each_control_changes_only_its_own_input():
    rows = make_rows([[0], [1, 2], [], [3], [4]], [0, 1, 2, 3, 3])
    found = measure_likelihood(gpt(), rows, VECTORS, shuffles=2, seen=np.array([0, 3]))
    given_, none = found.rows["given"], found.rows["none"]
    assert none[2] == pytest.approx(given_[2])  # it never had an entity
    assert (abs(none - given_)[[0, 1, 3, 4]] > 1e-3).all()
    bare = measure_likelihood(gpt(), without_entities(rows), VECTORS)
    np.testing.assert_allclose(bare.rows["given"], none, rtol=1e-5)
    assert set(bare.rows) == {"given", "caption"}
    groups = {name: (g.captions, g.pictures) for name, g in found.groups.items()}
    assert groups == {
        "all": (5, 4),
        "with entity": (4, 3),
        "unseen entity": (2, 2),
        "seen entities only": (2, 2),
        "without entity": (1, 1),
    }
    cost = found.groups["unseen entity"].costs["none"]
    assert cost.mean == pytest.approx((none - given_)[[1, 4]].mean())
    assert found.shuffle_spread is not None
    assert found.positions.mean() == pytest.approx(given_.mean())


def test_the_loss_under_another_caption_is_that_of_the_images_own_codes():
    rows = make_rows([[], []], [5, 6])
    found = measure_likelihood(gpt("none"), rows, VECTORS)
    swapped = replace(rows, bert_ids=rows.bert_ids[::-1].copy())
    other = measure_likelihood(gpt("none"), swapped, VECTORS)
    np.testing.assert_allclose(found.rows["caption"], other.rows["given"], rtol=1e-5)


def test_another_graph_with_the_same_vectors_under_other_ids_changes_nothing():
    rows = make_rows([[0], [1], [2]], [0, 1, 2])
    order = [3, 0, 5, 1, 2, 4]
    names = list("甲乙丙丁戊己")
    other = OtherGraph(
        names=names, other_names=[names[n] for n in order], vectors=VECTORS[order].copy()
    )
    found = measure_likelihood(gpt(), rows, VECTORS, other=other)
    np.testing.assert_allclose(found.rows["other_kg"], found.rows["given"], rtol=1e-6)
    assert found.other_kg_known == 1.0
    some = replace(other, other_names=["甲", *"子丑寅卯辰"])
    found = measure_likelihood(gpt(), rows, VECTORS, other=some)
    assert found.other_kg_known == pytest.approx(1 / 3)


def test_a_model_without_fusion_has_no_controls_of_knowledge():
    found = measure_likelihood(gpt("none"), make_rows([[0], [1]], [0, 1]), VECTORS)
    assert set(found.rows) == {"given", "caption"}


def test_the_same_seed_gives_the_same_figures_and_another_seed_others():
    rows = make_rows([[n] for n in range(6)], [0, 1, 2, 3, 4, 5])
    first, again, other = (
        measure_likelihood(gpt(), rows, VECTORS, seed=seed).rows["shuffled"] for seed in (0, 0, 9)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_the_interval_of_shuffled_includes_the_variance_between_shuffles():
    # One entity in every caption: each shuffle changes all captions together.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        luck = rng.normal(size=5)  # of each shuffling
        values = luck.mean() + 0.01 * rng.normal(size=50)
        found = widened(interval(values), luck)
        held += abs(found.mean) < found.half_width
        assert interval(values).half_width < 0.01
    assert 0.92 < held / 300 < 0.98
    alone = interval(np.array([1.0, 2.0]))
    assert widened(alone, np.array([1.5])) == alone
