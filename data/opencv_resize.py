"""EasyNLP's image preprocessing, bit for bit: OpenCV's bilinear resize, then a centre crop.

EasyNLP scales the shorter side to the size of the model with OpenCV's `INTER_LINEAR` and crops the
centre. This resize has no antialiasing, so fine detail becomes noise; `data.images.square` has. Use
this one for released models, which were trained on these pixels. The arithmetic is OpenCV's for
8-bit images: weights of 11 bits, rounded at the end.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int32]

_ONE = 1 << 11  # a weight of 1


def opencv_square(pixels: Pixels, size: int) -> Pixels:
    """Scale the shorter side to `size` and crop the centre: `(H, W, 3)` -> `(size, size, 3)`."""
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    target = round(height * scale), round(width * scale)
    scaled = pixels if target == (height, width) else opencv_resize(pixels, *target)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return scaled[top : top + size, left : left + size]


def opencv_resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return `cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)`."""
    across = _taps(pixels.shape[1], width)
    inside = (across.place >= 0) & (across.place < pixels.shape[1] - 1)
    # At the edge OpenCV uses a column once with full weight, but a row twice with both weights;
    # the sums round differently.
    left = np.where(inside, across.left, _ONE)[None, :, None]
    right = np.where(inside, across.right, 0)[None, :, None]
    first, second = _both(across.place, pixels.shape[1])
    wide = pixels.astype(np.int32)
    rows = wide[:, first] * left + wide[:, second] * right >> 4  # (H, width, 3)
    down = _taps(pixels.shape[0], height)
    first, second = _both(down.place, pixels.shape[0])
    above = rows[first] * down.left[:, None, None] >> 16
    below = rows[second] * down.right[:, None, None] >> 16
    scaled: Pixels = np.clip(above + below + 2 >> 2, 0, 255).astype(np.uint8)
    return scaled


class _Taps(NamedTuple):
    """For each output position: the input position before it, its weight and the next one's."""

    place: Ints
    left: Ints
    right: Ints


def _taps(before: int, after: int) -> _Taps:
    centre = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    place = np.floor(centre)
    share = centre - place
    left, right = (np.rint(part * _ONE).astype(np.int32) for part in (1 - share, share))
    return _Taps(place.astype(np.int32), left, right)


def _both(place: Ints, size: int) -> tuple[Ints, Ints]:
    return np.clip(place, 0, size - 1), np.clip(place + 1, 0, size - 1)
