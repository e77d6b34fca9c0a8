"""PSNR and SSIM against scipy, and the use of the codebook."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from artist.evaluation.reconstruction import decoded, measure_reconstruction
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.models.psnr_ssim import psnr, ssim
from artist.models.vqgan import VQGAN
from tests.artist.models.test_vqgan import TINY

RNG = np.random.default_rng(0)
VQ = replace(TINY, attn_resolutions=(), codebook_size=8)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 for one colour: scipy's Gaussian, 11 x 11, only where it fits."""
    blur = lambda a: gaussian_filter(a, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
    x, y = x.astype(float), y.astype(float)
    mx, my = blur(x), blur(y)
    vx, vy, both = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(
        ((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    )


@pytest.mark.parametrize("noise", [0, 5, 60])
def test_ssim_is_that_of_scipys_gaussian(noise):
    x = gaussian_filter(RNG.normal(128, 400, (3, 24, 31)), (0, 3, 3)).clip(0, 255)
    y = (x + RNG.normal(0, noise, x.shape)).clip(0, 255)
    a, b = (torch.from_numpy(v.astype(np.uint8))[None] for v in (x, y))
    want = np.mean([slow_ssim(a[0, c].numpy(), b[0, c].numpy()) for c in range(3)])
    assert float(ssim(a, b)) == pytest.approx(want, abs=2e-4)


def test_psnr_is_its_formula():
    a, b = (RNG.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8) for _ in range(2))
    error = ((a.astype(float) - b) ** 2).mean((1, 2, 3))
    found = psnr(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, 20 * np.log10(255) - 10 * np.log10(error), rtol=1e-5)


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(VQ).eval()


def test_decoded_images_do_not_depend_on_the_batch_size(vqgan):
    codes = RNG.integers(0, 8, (5, VQ.image_len)).astype(np.uint16)
    with torch.inference_mode():
        want = to_uint8(vqgan.decode(torch.from_numpy(codes.astype(np.int64))))
    for size in (2, 5):
        found = np.stack(list(decoded(vqgan, codes, size)))
        assert abs(found.astype(int) - want.permute(0, 2, 3, 1).numpy()).max() <= 1


def test_a_reconstruction_is_measured_image_by_image(vqgan):
    pixels = RNG.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    images = from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        codes = vqgan.encode(images)
        images = to_uint8(vqgan.decode(codes))
    found = measure_reconstruction(vqgan, codes.numpy().astype(np.uint16), list(pixels))
    originals = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found.psnr_of, psnr(images, originals), rtol=1e-3)
    assert found.psnr.mean == pytest.approx(found.psnr_of.mean())
    assert found.ssim is not None
    assert found.ssim.mean == pytest.approx(float(ssim(images, originals).mean()), abs=1e-3)
    assert found.codes_used == len(codes.unique())
    assert found.codes == codes.numel()


def test_perplexity_counts_equally_used_codes(vqgan):
    codes = np.tile(np.array([0, 1, 2, 2], np.uint16), (1, VQ.image_len // 4))
    found = measure_reconstruction(vqgan, codes, [np.zeros((16, 16, 3), np.uint8)])
    assert found.codes_used == 3
    assert found.perplexity == pytest.approx(np.exp(0.5 * np.log(4) + 0.5 * np.log(2)))
    assert found.counts.sum() == VQ.image_len
