"""Measures by classes and their bootstrap, against slow definitions."""

import numpy as np
import pytest

from experiments.photos.measures import ClassShares, Estimate, MeansR2, PairAUC, Resamples

RNG = np.random.default_rng(0)


def slow_auc(means, real):
    right = [
        float(own < other) + 0.5 * (own == other)
        for i in range(len(means))
        for j in range(len(means))
        if i != j
        for own, other in [
            (((means[i] - real[i]) ** 2).sum(), ((means[i] - real[j]) ** 2).sum()),
        ]
    ]
    return np.mean(right)


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_auc_is_the_share_of_pairs_that_a_slow_count_finds(noise):
    real = RNG.normal(size=(7, 4))
    means = real + noise * RNG.normal(size=real.shape)
    found = PairAUC.of_means(means + 50, real)  # what all images share does not count
    slow = slow_auc(means - means.mean(0), real - real.mean(0))
    assert found.values(np.ones((1, 7)))[0] == pytest.approx(slow)
    assert found.by_class().mean() == pytest.approx(slow)


def test_auc_is_one_for_the_real_means_and_one_half_for_equal_ones():
    real = RNG.normal(size=(5, 3))
    assert PairAUC.of_means(real, real).values(np.ones((1, 5)))[0] == 1
    same = np.zeros((5, 3))
    assert PairAUC.of_means(same, same).values(np.ones((1, 5)))[0] == 0.5


def test_auc_of_images_without_information_is_one_half_on_average():
    found = [
        PairAUC.of_means(RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4))).values(np.ones((1, 6)))
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)


def test_weights_of_auc_count_pairs_of_different_classes_as_often_as_drawn():
    real = RNG.normal(size=(4, 3))
    means = real + 2 * RNG.normal(size=real.shape)
    means, real = means - means.mean(0), real - real.mean(0)
    drawn = [0, 2, 2, 3]  # a resample: class 1 is left out, class 2 drawn twice
    pairs = [
        ((means[i] - real[i]) ** 2).sum() < ((means[i] - real[j]) ** 2).sum()
        for i in drawn
        for j in drawn
        if i != j
    ]
    weights = np.bincount(drawn, minlength=4)[None].astype(float)
    assert PairAUC.of_means(means, real).values(weights)[0] == pytest.approx(np.mean(pairs))


def test_r2_is_that_of_a_regression_through_the_centred_means():
    real = RNG.normal(size=(6, 5))
    means = 0.4 * real + RNG.normal(size=real.shape) + 3
    x, y = (values - values.mean(0) for values in (means, real))
    slope = (x * y).sum() / (x * x).sum()
    want = 1 - ((y - slope * x) ** 2).sum() / (y * y).sum()
    assert MeansR2(means, real).values(np.ones((1, 6)))[0] == pytest.approx(want)
    twice = np.bincount([0, 0, 1, 3, 4, 5], minlength=6)[None].astype(float)
    repeated = MeansR2(means[[0, 0, 1, 3, 4, 5]], real[[0, 0, 1, 3, 4, 5]])
    found = MeansR2(means, real).values(twice)
    assert found[0] == pytest.approx(repeated.values(np.ones((1, 6)))[0])


def test_r2_does_not_depend_on_contrast_and_is_zero_for_opposite_means():
    real = RNG.normal(size=(5, 4))
    assert MeansR2(0.1 * real + 7, real).values(np.ones((1, 5)))[0] == pytest.approx(1)
    assert MeansR2(-real, real).values(np.ones((1, 5)))[0] == 0


def test_a_bootstrap_over_classes_has_the_error_of_a_mean():
    shares = RNG.uniform(size=60)
    values = Resamples([60], 1, 4000).values([[ClassShares(shares)]])
    assert values[0] == pytest.approx(shares.mean())
    assert values[1:].std() == pytest.approx(shares.std() / np.sqrt(60), rel=0.1)
    found = Estimate.of(values)
    assert found.low < found.value < found.high


def test_seeds_widen_the_interval_and_folds_count_by_their_classes():
    def interval(found, sizes):
        values = Resamples(sizes, len(found[0]), 2000).values(found)
        return Estimate.of(values)

    low, high = (ClassShares(np.full(10, value)) for value in (0.2, 0.8))
    one = interval([[low, low]], [10])
    two = interval([[low, high]], [10])
    assert (one.low, one.high) == pytest.approx((0.2, 0.2))
    assert two.value == pytest.approx(0.5)
    assert (two.low, two.high) == pytest.approx((0.2, 0.8))
    small = ClassShares(np.full(30, 0.8))
    assert interval([[low], [small]], [10, 30]).value == pytest.approx(0.65)


def test_differences_of_two_arms_are_paired():
    shares = RNG.uniform(size=40)
    resamples = Resamples([40], 2, 500)
    first = resamples.values([[ClassShares(shares), ClassShares(shares + 0.3)]])
    second = resamples.values([[ClassShares(shares - 0.1), ClassShares(shares + 0.2)]])
    found = Estimate.of(first - second)
    assert found == pytest.approx((0.1, 0.1, 0.1))
    assert found.clear


def test_a_value_that_no_resample_has_is_reported_without_an_interval():
    found = Estimate.of(np.array([1.0, np.nan, np.inf]))
    assert (found.value, np.isnan(found.low), found.clear) == (1.0, True, False)
    assert Estimate.of(np.array([1.0, np.nan, 2.0, 2.0])).low == 2
