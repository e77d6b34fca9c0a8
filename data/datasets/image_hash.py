"""Near-duplicate images: a difference hash (dHash) of 128 bits, and all pairs a few bits apart.

A bit is set if a cell of a 9x9 grid is darker than its neighbour (64 to the right, 64 below). The
hash is robust to size, quality and brightness, but not to cropping. Hashes that differ in at most
`NEAR` bits are near; docs/data.md gives the measured recall.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 10  # bits of 128
_GRID = 9
_BANDS = 8  # of 16 bits: hashes up to 7 bits apart share at least one, those 10 apart nearly always
_MOST_COMPARISONS = 300_000_000
# Neighbouring bits are equal on a flat background; permuted, every band is informative.
_PERMUTATION = np.random.default_rng(0).permutation(128)


def difference_hash(image: Image.Image) -> bytes:
    """Return the hash of an image, 16 bytes."""
    small = image.convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    right = grey[:-1, 1:] > grey[:-1, :-1]
    below = grey[1:, :-1] > grey[:-1, :-1]
    bits = np.concatenate([right.ravel(), below.ravel()])[_PERMUTATION]
    return np.packbits(bits).tobytes()


def is_flat(hashes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of `(N, 16)` hashes are of blank or evenly coloured images; bool `(N,)`."""
    ones = np.bitwise_count(hashes).sum(axis=1, dtype=np.int64)
    flat: NDArray[np.bool_] = (ones < 4) | (ones > 124)
    return flat


def nearest_earlier(
    hashes: NDArray[np.uint8], groups: NDArray[np.int8] | None = None
) -> tuple[NDArray[np.int64], bool]:
    """Return for each hash the first earlier one near it, or -1; and whether all were compared.

    Args:
        hashes: `(N, 16)`.
        groups: `(N,)`; if given, only pairs of different groups are compared.

    The cost grows with the number of pairs that share a band; it is bounded for the case that
    thousands of images share one.
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
