"""Means with 95 % confidence intervals for captions in groups, such as images and classes.

    N values (captions)   G groups (images, classes)

Captions of one image are not independent: their likelihood depends mostly on the image. Treated as
independent, five captions per image can halve the width of an interval. The variance is therefore
taken between groups, over each group's summed deviations from the mean (the ratio estimator of
survey sampling; Cochran 1977, chapter 9A). Captions can be grouped in two ways that do not contain
each other, as by class and by image; the variance is then that of two-way clustering (Cameron,
Gelbach and Miller 2011, Journal of Business & Economic Statistics 29, equation 2.11).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % interval."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.half_width:.4f}"

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.half_width


def interval(values: NDArray[np.float64], groups: NDArray[np.int64] | None = None) -> Interval:
    """Return the mean of values (N,) with its 95 % interval.

    The half-width is that of Student's t with G - 1 degrees of freedom; of two ways of grouping, G
    is the smaller one, and the variance is never below that of either way alone.

    Args:
        values: At least one; with a single group the half-width is NaN.
        groups: The group of each value (N,), any integers, or its groups in one or two ways (N, 1)
            or (N, 2); by default each value is its own group.
    """
    mean = float(values.mean())
    deviations: NDArray[np.float64] = values - mean
    if groups is None:
        groups = np.arange(len(values))
    ways = [np.unique(way, return_inverse=True)[1] for way in np.atleast_2d(groups.T)]
    G = min(int(way.max()) + 1 for way in ways)
    if G < 2:
        return Interval(mean, float("nan"))
    variances = [_variance(deviations, way) for way in ways]
    if len(ways) == 2:
        both = np.unique(ways[0] * (ways[1].max() + 1) + ways[1], return_inverse=True)[1]
        variances.append(sum(variances) - _variance(deviations, both))
    return Interval(mean, _quantile(G - 1) * float(np.sqrt(max(variances))))


def _variance(deviations: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    """Return the variance of the mean between groups, numbered from 0 to G - 1."""
    sums = np.bincount(group, weights=deviations)
    G = len(sums)
    return float(G / (G - 1) * (sums**2).sum() / len(deviations) ** 2)


def _quantile(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t: with few groups 1.96 would be far too small."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def widened(value: Interval, repeats: NDArray[np.float64]) -> Interval:
    """Return the interval of a mean over random repeats, widened by their variance.

    Args:
        value: The mean of all repeats, with its interval over groups.
        repeats: The mean of each repeat (Student's t); a single repeat leaves `value` unchanged.
    """
    k = len(repeats)
    if k < 2:
        return value
    half_width = _quantile(k - 1) * float(repeats.std(ddof=1) / np.sqrt(k))
    return Interval(value.mean, float(np.hypot(value.half_width, half_width)))


def group_of_rows(rows: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the group number (N,) of each of the rows (N, L); equal rows are one group."""
    if not rows.shape[1]:
        return np.arange(len(rows))
    flat = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
    found: NDArray[np.int64] = np.unique(flat.ravel(), return_inverse=True)[1]
    return found.astype(np.int64)
