"""FID, KID and IS against known Gaussians, scipy and slow loops."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from artist.evaluation.config import FID_LIKE
from artist.evaluation.fid_kid_is import (
    Settings,
    Statistics,
    compare,
    frechet_distance,
    inception_score,
    kernel_distance,
    load_statistics,
    measure_images,
    prepare,
    save_statistics,
    statistics,
)
from artist.evaluation.image_sets import CaptionedImage
from artist.evaluation.inception import Features, Loaded
from data.errors import ConfigError, InputError

MADE = Settings(weights="0" * 64, like="pytorch-fid", crop="whole image")


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Statistics:
    D = len(mean)
    empty = np.zeros((0, D), dtype=np.float32)
    return Statistics(
        n=5000, mean=mean, covariance=covariance, features=empty, logits=empty, settings=MADE
    )


def sampled(seed: int, n: int = 60, D: int = 6, shift: float = 0.0) -> Statistics:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(n, D)) @ rng.normal(size=(D, D)) + shift).astype(np.float32)
    return statistics(features, rng.normal(size=(n, 9)).astype(np.float32), MADE)


def test_fid_of_known_gaussians():
    D = 5
    a = gaussian(np.zeros(D), np.eye(D))
    b = gaussian(np.full(D, 3.0), 4 * np.eye(D))
    assert frechet_distance(a, b) == pytest.approx(9 * D + D * (1 - 2) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    line = gaussian(np.zeros(D), np.diag([1.0, 0, 0, 0, 0]))  # fewer images than dimensions
    assert frechet_distance(a, line) == pytest.approx(D - 1)


@given(st.integers(0, 10_000), st.sampled_from([4, 40]))
@settings(max_examples=25)
def test_fid_equals_scipys_matrix_root(seed, n):
    a, b = sampled(seed, n=n), sampled(seed + 1, n=n, shift=0.3)
    root = sqrtm(a.covariance @ b.covariance + 1e-14 * np.eye(6)).real
    want = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-4, abs=1e-4)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (8, 5), (12, 7)])
def test_fid_of_few_images_is_the_same_from_features_and_from_covariances(n, m):
    a, b = sampled(0, n=n, D=20), sampled(1, n=m, D=20, shift=0.2)
    none = np.zeros((0, 20), np.float32)
    want = frechet_distance(replace(a, features=none), replace(b, features=none))
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-5)
    assert frechet_distance(a, replace(b, features=none)) == pytest.approx(want, rel=1e-5)


def test_kid_equals_a_slow_sum_when_the_subset_is_everything():
    x, y = sampled(0, n=7).features, sampled(1, n=7).features
    kernel = lambda a, b: (float(np.dot(a.astype(float), b.astype(float))) / 6 + 1) ** 3  # noqa: E731
    pairs = list(product(range(7), repeat=2))
    within = [kernel(s[i], s[j]) for s in (x, y) for i, j in pairs if i != j]
    across = [kernel(x[i], y[j]) for i, j in pairs]
    want = sum(within) / 42 - 2 * sum(across) / 49
    found = kernel_distance(x, y, subsets=3)
    assert found.mean == pytest.approx(want)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_kid_is_unbiased_and_depends_on_its_seed_alone():
    rng = np.random.default_rng(0)
    one, two, far = (
        rng.normal(loc=shift, size=(2000, 8)).astype(np.float32) for shift in (0, 0, 0.5)
    )
    same = kernel_distance(one, two, subsets=200, subset_size=50)
    assert abs(same.mean) < 4 * same.std / np.sqrt(200)
    assert kernel_distance(one, far, subsets=20, subset_size=50).mean > 10 * abs(same.mean)
    a, b, c = (kernel_distance(one, far, subsets=5, subset_size=50, seed=s) for s in (0, 0, 1))
    assert a == b
    assert a != c


def test_the_inception_score_is_the_number_of_certain_classes_and_one_without_information():
    sure = np.tile(1000 * np.eye(8, dtype=np.float32), (50, 1))
    assert inception_score(sure, splits=1).mean == pytest.approx(8)
    assert inception_score(np.zeros((40, 8), np.float32)).mean == pytest.approx(1)
    assert inception_score(np.tile(sure[:1], (40, 1))).mean == pytest.approx(1)


def test_the_inception_score_equals_a_plain_computation_over_its_splits():
    logits = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) * 3
    p = np.exp(logits.astype(float))
    p /= p.sum(1, keepdims=True)
    want = np.exp((p * np.log(p / p.mean(0))).sum(1).mean())
    assert inception_score(logits, splits=1).mean == pytest.approx(want)
    ten = inception_score(logits, splits=10)
    assert ten.std > 0
    assert ten.mean < want  # three images a split: the score depends on the splits


def corners(x: np.ndarray, row: int, column: int) -> float:
    """One pixel of TensorFlow 1's bilinear resizing."""
    r, c = row * x.shape[0] / 299, column * x.shape[1] / 299
    r0, c0 = int(r), int(c)
    r1, c1 = min(r0 + 1, x.shape[0] - 1), min(c0 + 1, x.shape[1] - 1)
    top = x[r0, c0] * (1 - (c - c0)) + x[r0, c1] * (c - c0)
    low = x[r1, c0] * (1 - (c - c0)) + x[r1, c1] * (c - c0)
    return top * (1 - (r - r0)) + low * (r - r0)


def centres(x: np.ndarray, row: int, column: int) -> float:
    """One pixel of bilinear resizing between pixel centres."""
    r = max((row + 0.5) * x.shape[0] / 299 - 0.5, 0)
    c = max((column + 0.5) * x.shape[1] / 299 - 0.5, 0)
    padded = np.pad(x, ((0, 1), (0, 1)), mode="edge")
    r0, c0 = int(r), int(c)
    block = padded[r0 : r0 + 2, c0 : c0 + 2].astype(float)
    return float([1 - (r - r0), r - r0] @ block @ [1 - (c - c0), c - c0])


@pytest.mark.parametrize("size", [(64, 64), (400, 310), (1, 7)])
def test_resizing_equals_that_of_the_named_tool(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    ours, theirs = (prepare(pixels, like) for like in ("pytorch-fid", "torch-fidelity"))
    assert ours.shape == theirs.shape == (3, 299, 299)
    for row, column in [(0, 0), (298, 298), (17, 250), (150, 3)]:
        x = pixels[..., 1].astype(float)
        want = centres(x, row, column) / 255 * 2 - 1
        assert float(ours[1, row, column]) == pytest.approx(want, abs=1e-4)
        want = (corners(x, row, column) - 128) / 128
        assert float(theirs[1, row, column]) == pytest.approx(want, abs=1e-4)


def test_an_image_of_the_networks_size_is_only_normalised():
    pixels = np.random.default_rng(0).integers(0, 256, (299, 299, 3)).astype(np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1).float()
    torch.testing.assert_close(prepare(pixels, "pytorch-fid"), x / 127.5 - 1)
    torch.testing.assert_close(prepare(pixels, "clean-fid"), (x - 128) / 128)
    torch.testing.assert_close(prepare(pixels, "torch-fidelity"), (x - 128) / 128)


def test_antialiasing_makes_fine_stripes_grey_where_the_others_alias():
    stripes = np.zeros((1495, 1495, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert prepare(stripes, "clean-fid").std() < 0.1
    assert prepare(stripes, "pytorch-fid").std() > 0.5


def test_an_unknown_resizing_is_refused():
    with pytest.raises(ConfigError, match="torch-fidelity"):
        prepare(np.zeros((2, 2, 3), np.uint8), "best")


class Means(torch.nn.Module):
    """Replaces the network: mean and standard deviation of each channel, which differ by set."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Features:
        found = torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)
        return Features(found, F.pad(found, (0, 2)))


def images(seed: int, n: int = 9) -> list[CaptionedImage]:
    rng = np.random.default_rng(seed)
    sides = rng.integers(8, 40, (n, 2))
    return [
        CaptionedImage(str(k), None, rng.integers(0, 256, (h, w, 3)).astype(np.uint8))
        for k, (h, w) in enumerate(sides)
    ]


def measured(seed: int, **changes: object) -> Statistics:
    loaded = Loaded(Means().eval(), "0" * 64)
    return measure_images(images(seed), loaded, **{"crop": MADE.crop, **changes})


@pytest.mark.parametrize("like", FID_LIKE)
def test_the_batch_size_does_not_change_statistics(like):
    a, b = (measured(0, batch_size=size, like=like) for size in (2, 32))
    assert a.n == b.n == 9
    np.testing.assert_allclose(a.features, b.features, rtol=1e-5)


def test_statistics_are_loaded_from_their_file_with_their_settings(tmp_path):
    found, other = measured(0), measured(1)
    save_statistics(tmp_path / "stats.npz", found)
    again = load_statistics(tmp_path / "stats.npz")
    assert again.settings == found.settings
    assert again.n == 9
    fresh, reused = (compare(other, s, published=False) for s in (found, again))
    assert fresh == reused
    assert fresh.small
    assert fresh.kid_subset_size == 9


def test_pytorch_fids_own_file_gives_fid_and_no_kid(tmp_path):
    found = measured(0)
    np.savez(tmp_path / "fid.npz", mu=found.mean, sigma=found.covariance)
    result = compare(measured(1), load_statistics(tmp_path / "fid.npz"), published=False)
    assert result.fid == pytest.approx(compare(measured(1), found, published=False).fid)
    assert result.kid is None
    assert result.n_reference == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"weights": "1" * 64}, "other Inception weights"), ({"like": "clean-fid"}, "other resizing")],
)
def test_statistics_with_other_weights_or_resizing_are_refused(tmp_path, change, message):
    path = tmp_path / "stats.npz"
    save_statistics(path, measured(0))
    with np.load(path) as file:
        content = dict(file)
    about = json.loads(str(content["about"])) | change
    np.savez(path, **{**content, "about": np.array(json.dumps(about))})
    with pytest.raises(InputError, match=message):
        compare(measured(1), load_statistics(path), published=False)


def test_a_file_without_statistics_is_refused_by_name(tmp_path):
    path = tmp_path / "stats.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputError, match=r"stats\.npz does not contain image statistics"):
        load_statistics(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"stats\.npz does not contain image statistics"):
        load_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(InputError, match="sigma must be finite and 3x3"):
        load_statistics(path)


def test_one_image_is_too_few():
    with pytest.raises(InputError, match="at least two"):
        statistics(np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32), MADE)
