"""Near images are found, others are not, and the search agrees with comparing all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.datasets.image_hash import NEAR, difference_hash, is_flat, nearest_earlier


def noise_image(seed: int, size: int = 96) -> Image.Image:
    """Return smooth noise, a different image for each seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


def hashes(images) -> np.ndarray:
    return np.frombuffer(b"".join(map(difference_hash, images)), np.uint8).reshape(-1, 16)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
        lambda image: image.resize((200, 200), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: value * 0.8 + 20),
        lambda image: image.convert("L"),
    ],
)
def test_another_size_or_brightness_is_near(change):
    for seed in range(20):
        one, other = hashes([noise_image(seed), change(noise_image(seed))])
        assert apart(one, other) <= NEAR


def test_other_images_are_far():
    found = hashes([noise_image(seed) for seed in range(60)])
    assert min(apart(a, b) for n, a in enumerate(found) for b in found[:n]) > 2 * NEAR
    assert (nearest_earlier(found)[0] == -1).all()


def test_blank_images_are_flat_and_others_are_not():
    plain = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black", "red")]
    assert is_flat(hashes(plain)).all()
    assert not is_flat(hashes([noise_image(1), noise_image(2)])).any()


@given(
    changed=st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.integers(0, 127), max_size=14)), max_size=24
    ),
    grouped=st.booleans(),
)
def test_the_search_agrees_with_comparing_all_pairs(changed, grouped):
    base = np.random.default_rng(0).integers(0, 2, (4, 128), dtype=np.uint8)
    bits = [base[which].copy() for which, _ in changed]
    for row, (_, flips) in zip(bits, changed, strict=True):
        row[list(flips)] ^= 1
    found = np.packbits(np.array(bits, np.uint8).reshape(-1, 128), axis=1)
    groups = np.arange(len(found), dtype=np.int8) % 2 if grouped else None
    first, complete = nearest_earlier(found, groups)
    assert complete
    for n in range(len(found)):
        others = [m for m in range(n) if groups is None or groups[m] != groups[n]]
        distances = {m: apart(found[n], found[m]) for m in others}
        sure = [m for m in others if distances[m] <= 7]
        if first[n] >= 0:
            assert distances[int(first[n])] <= NEAR
            assert not sure or first[n] <= sure[0]
        else:
            assert not sure


def test_the_search_among_many_equal_images_is_bounded(monkeypatch):
    monkeypatch.setattr("data.datasets.image_hash._MOST_COMPARISONS", 10_000)
    same = np.tile(hashes([noise_image(1)]), (1000, 1))
    first, complete = nearest_earlier(same)
    assert not complete
    assert (first[1:10] == 0).all()
