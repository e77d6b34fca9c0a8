"""Simple features of an image: the layout of colour and texture, a colour histogram, edges.

    N images   G = 4 cells per side of a grid

The 224 features of an image, in this order:

layout     48: mean of luminance, red-green and yellow-blue in each cell (G x G x 3)
texture    48: standard deviation of the same (G x G x 3)
histogram  64: square root of the share of pixels in each of 4 x 4 x 4 cubes of RGB
edges      64: square root of the mean gradient of luminance in four directions in each cell
           (G x G x 4)

They depend on no network, so nothing about them can have been fitted to any class.
"""

import numpy as np
from numpy.typing import NDArray

GRID = 4
NUM_FEATURES = GRID * GRID * (3 + 3 + 4) + 4**3
_BINS = 4  # of the histogram, per channel
_DIRECTIONS = 4  # 0, 45, 90 and 135 degrees
_CHUNK = 512
Floats = NDArray[np.float32]


def image_features(images: NDArray[np.uint8]) -> Floats:
    """Return the features (N, 224) of images (N, H, W, 3); H and W are multiples of 4."""
    parts = [_features(images[n : n + _CHUNK]) for n in range(0, len(images), _CHUNK)]
    return np.concatenate([np.zeros((0, NUM_FEATURES), np.float32), *parts])


def _features(images: NDArray[np.uint8]) -> Floats:
    values = images.astype(np.float32) / 255
    red, green, blue = np.moveaxis(values, 3, 0)
    luminance = (red + green + blue) / 3
    opponent = np.stack([luminance, red - green, (red + green) / 2 - blue], axis=3)
    cells = _cells(opponent)
    parts = [cells.mean(axis=(2, 4)), cells.std(axis=(2, 4)), _histogram(images), _edges(luminance)]
    return np.concatenate([part.reshape(len(images), -1) for part in parts], axis=1)


def _cells(values: Floats) -> Floats:
    """Split values (N, H, W, C) into cells: (N, G, H / G, G, W / G, C)."""
    N, H, W, C = values.shape
    return values.reshape(N, GRID, H // GRID, GRID, W // GRID, C)


def _histogram(images: NDArray[np.uint8]) -> Floats:
    """Return the square roots of the shares of the RGB cubes, (N, 64)."""
    level = images.astype(np.int64) // (256 // _BINS)
    cube = level @ np.array([_BINS**2, _BINS, 1])  # (N, H, W)
    first = _BINS**3 * np.arange(len(images))[:, None, None]
    counts = np.bincount((first + cube).ravel(), minlength=_BINS**3 * len(images))
    shares = counts.reshape(len(images), -1) / cube[0].size
    return np.asarray(np.sqrt(shares), dtype=np.float32)


def _edges(luminance: Floats) -> Floats:
    """Return the square roots of mean gradients by cell and direction, (N, G, G, 4)."""
    down, right = np.gradient(luminance, axis=(1, 2))
    strength = np.hypot(down, right)
    # An angle and its opposite are one direction; each direction covers 45 degrees around it.
    angle = np.arctan2(down, right) % np.pi
    direction = np.rint(angle / (np.pi / _DIRECTIONS)).astype(np.int64) % _DIRECTIONS
    by_direction = strength[..., None] * (direction[..., None] == np.arange(_DIRECTIONS))
    return np.asarray(np.sqrt(_cells(by_direction).mean(axis=(2, 4))), dtype=np.float32)
