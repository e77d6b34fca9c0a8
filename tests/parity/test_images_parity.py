"""EasyNLP's image preprocessing against golden vectors (OpenCV's resize, see golden/README.md)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from data.opencv_resize import opencv_resize, opencv_square

NAMES = ("big", "landscape", "odd", "portrait", "upscale")


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_that_easynlp_trains_on(golden, name):
    vectors = load_file(golden / "image_preprocess.safetensors")
    wanted = vectors[f"out_{name}"]
    if wanted.dtype == np.float32:
        ours = opencv_square(vectors[f"in_{name}"], wanted.shape[0])
        np.testing.assert_allclose(ours / np.float32(127.5) - 1, wanted, atol=1e-6)
    else:
        assert np.array_equal(opencv_square(vectors[f"in_{name}"], wanted.shape[0]), wanted)


sides = st.integers(1, 40)


@given(height=sides, width=sides, size=sides, value=st.integers(0, 255))
def test_any_size_becomes_a_square_and_a_flat_image_stays_flat(height, width, size, value):
    flat = np.full((height, width, 3), value, np.uint8)
    assert np.array_equal(opencv_square(flat, size), np.full((size, size, 3), value, np.uint8))


def test_an_image_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert np.array_equal(opencv_resize(pixels, 16, 16), pixels)
    assert np.array_equal(opencv_square(pixels, 16), pixels)
