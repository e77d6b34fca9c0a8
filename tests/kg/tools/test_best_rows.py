"""The nearest rows are those that a full sort puts first."""

import numpy as np
import pytest

from kg.tools import best_rows
from kg.tools.best_rows import nearest_by_cosine, nearest_by_distance


@pytest.fixture
def table(monkeypatch):
    """Rows in several shares and blocks; some are equal to row 20."""
    monkeypatch.setattr(best_rows, "_BLOCK", 7)
    monkeypatch.setattr(best_rows, "_SHARE", 50)
    monkeypatch.setattr(best_rows, "_SPARE", 3)
    table = np.random.default_rng(0).standard_normal((333, 5)).astype(np.float32)
    table[100:110] = table[20]
    return table


def test_cosines_equal_a_full_sort(table):
    ids, cosines = nearest_by_cosine(table, table[20], 40)
    exact = table.astype(float)
    wanted = exact @ exact[20] / np.linalg.norm(exact, axis=1) / np.linalg.norm(exact[20])
    np.testing.assert_allclose(cosines, np.sort(wanted)[::-1][:40], rtol=1e-12)
    assert ids[:11].tolist() == [20, *range(100, 110)]
    assert set(ids) == set(np.argsort(-wanted)[:40])


@pytest.mark.parametrize("p_norm", [1, 2])
def test_distances_equal_a_full_sort(table, p_norm):
    point = table[20] + np.float32(0.1)
    ids, distances = nearest_by_distance(table, point, 40, p_norm)
    exact = table.astype(float) - point.astype(float)
    wanted = np.linalg.norm(exact, ord=p_norm, axis=1)
    np.testing.assert_allclose(distances, np.sort(wanted)[:40], rtol=1e-12)
    assert set(ids) == set(np.argsort(wanted)[:40])
    assert ids[ids >= 100].tolist() != []


def test_rows_that_single_precision_cannot_order_are_ordered(table):
    near = np.tile(np.float32([1, 1, 1, 1, 1]), (4, 1))
    near[:, 0] += np.float32([3e-7, 0, 2e-7, 1e-7])
    table[300:304] = near
    ids, _ = nearest_by_cosine(table, np.ones(5, np.float32), 4)
    assert ids.tolist()[0] == 301
    assert set(ids) == {300, 301, 302, 303}


def test_rows_with_nan_come_first(table):
    table[200, 3] = np.nan
    for ids, scores in (
        nearest_by_cosine(table, table[20], 3),
        nearest_by_distance(table, table[20], 3, 2),
    ):
        assert ids[0] == 200
        assert np.isnan(scores[0])


def test_fewer_rows_than_wanted_are_all_returned():
    ids, _ = nearest_by_cosine(np.eye(3, dtype=np.float32), np.ones(3, np.float32), 10)
    assert ids.tolist() == [0, 1, 2]
