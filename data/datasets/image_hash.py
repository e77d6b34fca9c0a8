"""Pictures that look alike: a difference hash of 128 bits, and all pairs a few bits apart.

A bit says whether a cell of a 9x9 grid is brighter than its neighbour (64 to the right, 64 below).
So the hash survives another size, quality or brightness of a picture, but no other crop. Two hashes
that differ in at most `NEAR` bits are called near; docs/data.md says how often that is right.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 10  # bits of 128
_GRID = 9
_BANDS = 8  # of 16 bits: hashes up to 7 bits apart share one for sure, those 10 apart nearly so
_MOST_COMPARISONS = 300_000_000
# Neighbouring bits say the same of a flat background; dealt out, every band says something.
_DEAL = np.random.default_rng(0).permutation(128)


def difference_hash(image: Image.Image) -> bytes:
    """The 16 bytes of a picture's hash."""
    small = image.convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    right = grey[:-1, 1:] > grey[:-1, :-1]
    below = grey[1:, :-1] > grey[:-1, :-1]
    bits = np.concatenate([right.ravel(), below.ravel()])[_DEAL]
    return np.packbits(bits).tobytes()


def is_flat(hashes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `(N, 16)` hashes tell nothing: of empty or evenly coloured pictures."""
    ones = np.bitwise_count(hashes).sum(axis=1, dtype=np.int64)
    flat: NDArray[np.bool_] = (ones < 4) | (ones > 124)
    return flat


def nearest_earlier(
    hashes: NDArray[np.uint8], groups: NDArray[np.int8] | None = None
) -> tuple[NDArray[np.int64], bool]:
    """For each hash the first earlier one that is near it, or -1; and whether all were compared.

    Args:
        hashes: `(N, 16)`.
        groups: `(N,)`; if given, only pairs of different groups count.

    Work grows with the number of pairs that share a band, and stops at a bound where thousands of
    pictures share one (blank ones, say).
    """
    n = len(hashes)
    first = np.full(n, n, dtype=np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(n, 2)
    bands = np.ascontiguousarray(hashes).view(np.uint16).reshape(n, _BANDS)
    left = _MOST_COMPARISONS
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        value = bands[order, band]
        at = np.arange(n - 1)
        for step in range(1, n):
            at = at[at < n - step]
            at = at[value[at] == value[at + step]]
            left -= len(at)
            if not len(at) or left < 0:
                break
            one, other = order[at], order[at + step]  # stable: `one` comes earlier in the table
            apart = np.bitwise_count(words[one] ^ words[other]).sum(axis=1, dtype=np.int64)
            near = apart <= NEAR
            if groups is not None:
                near &= groups[one] != groups[other]
            np.minimum.at(first, other[near], one[near])
        if left < 0:
            break
    first[first == n] = -1
    return first, left >= 0
