"""Means with 95 % confidence intervals for captions grouped by image. NumPy only.

    N values (captions)   G groups (images)

Captions of one image are not independent: their likelihood depends mostly on the image. Treated as
independent, five captions per image can halve the width of an interval. The variance is therefore
taken between groups, over each group's summed deviations from the mean (the ratio estimator of
survey sampling; Cochran 1977, chapter 9A).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % interval (normal approximation)."""

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

    Args:
        values: At least one; with a single group the half-width is NaN.
        groups: The group of each value (N,), any integers; by default each value is its own group.
    """
    mean = float(values.mean())
    sums: NDArray[np.float64] = values - mean
    if groups is not None:
        place = np.unique(groups, return_inverse=True)[1]
        sums = np.bincount(place, weights=sums).astype(np.float64)
    G = len(sums)
    if G < 2:
        return Interval(mean, float("nan"))
    variance = G / (G - 1) * (sums**2).sum() / len(values) ** 2
    return Interval(mean, float(1.96 * np.sqrt(variance)))


def widened(value: Interval, repeats: NDArray[np.float64]) -> Interval:
    """Return the interval of a mean over random repeats, widened by their variance.

    Args:
        value: The mean of all repeats, with its interval over groups.
        repeats: The mean of each repeat (Student's t); a single repeat leaves `value` unchanged.
    """
    k = len(repeats)
    if k < 2:
        return value
    from scipy.stats import t  # with few repeats 1.96 would be far too small

    half_width = float(t.ppf(0.975, k - 1) * repeats.std(ddof=1) / np.sqrt(k))
    return Interval(value.mean, float(np.hypot(value.half_width, half_width)))


def group_of_rows(rows: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the group number (N,) of each of the rows (N, L); equal rows are one group."""
    if not rows.shape[1]:
        return np.arange(len(rows))
    flat = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
    found: NDArray[np.int64] = np.unique(flat.ravel(), return_inverse=True)[1]
    return found.astype(np.int64)
