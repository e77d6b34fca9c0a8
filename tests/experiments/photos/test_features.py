"""Simple features: each block shows what it is for."""

import numpy as np
import pytest

from experiments.photos.features import GRID, NUM_FEATURES, image_features

LAYOUT, TEXTURE, HISTOGRAM, EDGES = (
    slice(0, 48),
    slice(48, 96),
    slice(96, 160),
    slice(160, NUM_FEATURES),
)


def flat(colour, size=32):
    return np.full((1, size, size, 3), colour, np.uint8)


def test_a_flat_image_has_its_colour_everywhere_and_neither_texture_nor_edges():
    (found,) = image_features(flat((255, 0, 0)))
    assert found.shape == (NUM_FEATURES,)
    np.testing.assert_allclose(found[LAYOUT].reshape(16, 3), [[1 / 3, 1, 0.5]] * 16, atol=1e-6)
    np.testing.assert_allclose(found[TEXTURE], 0, atol=1e-6)
    np.testing.assert_allclose(found[EDGES], 0, atol=1e-6)
    assert found[HISTOGRAM].max() == 1
    assert found[HISTOGRAM].argmax() == 3 * 16  # red 192..255, green and blue 0..63


@pytest.mark.parametrize("size", [16, 64])
def test_the_layout_holds_the_mean_of_each_cell(size):
    image = np.zeros((1, size, size, 3), np.uint8)
    image[0, : size // GRID, -size // GRID :] = 255  # the upper right cell
    layout = image_features(image)[0][LAYOUT].reshape(GRID, GRID, 3)
    want = np.zeros((GRID, GRID))
    want[0, -1] = 1
    np.testing.assert_allclose(layout[..., 0], want, atol=1e-6)


def test_the_shares_of_the_histogram_sum_to_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose((image_features(images)[:, HISTOGRAM] ** 2).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "slope"), [(0, (0, 1)), (1, (1, 1)), (2, (1, 0)), (3, (1, -1))]
)
def test_a_ramp_has_edges_in_its_direction_only(direction, slope):
    down, right = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    ramp = 120 + 3 * (slope[0] * down + slope[1] * right)
    image = np.repeat(ramp[None, :, :, None], 3, axis=3).astype(np.uint8)
    edges = image_features(image)[0][EDGES].reshape(GRID, GRID, 4)
    assert (edges[..., direction] > 0.05).all()
    np.testing.assert_allclose(np.delete(edges, direction, axis=2), 0, atol=1e-6)


def test_many_images_have_the_features_of_each_alone():
    images = np.random.default_rng(1).integers(0, 256, (600, 8, 8, 3), dtype=np.uint8)
    alone = image_features(images[555:556])
    np.testing.assert_array_equal(image_features(images)[555:556], alone)
    assert image_features(images[:0]).shape == (0, NUM_FEATURES)
