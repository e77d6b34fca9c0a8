"""Reconstruction by the image tokenizer: an upper bound for the quality of generated images.

P images   L codes per image   V codebook_size
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from artist.evaluation.confidence_intervals import Interval, interval
from artist.models.image_tokenizer import ImageTokenizer, to_uint8
from artist.models.psnr_ssim import psnr, ssim

SSIM_SIDE = 11  # pixels; the SSIM window does not fit into smaller images


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Reconstruction quality and use of the codebook. Field names are JSON keys.

    Attributes:
        pictures: Number of images, each counted once.
        side: Their side in pixels.
        psnr: In dB, mean over images.
        ssim: Wang et al. 2004, mean over channels and images; None where images are too small.
        codebook_size: Size of the codebook.
        codes_used: Number of different codes in these images.
        perplexity: Exp of the entropy of the code frequencies.
        codes: Number of codes counted; fewer than `codebook_size` cannot use all.
        psnr_of: PSNR of each image (P,).
        ssim_of: SSIM of each image (P,), or empty.
        counts: Frequency of each code (V,).
    """

    pictures: int
    side: int
    psnr: Interval
    ssim: Interval | None
    codebook_size: int
    codes_used: int
    perplexity: float
    codes: int
    psnr_of: NDArray[np.float64] = field(repr=False)
    ssim_of: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)


@torch.inference_mode()
def decoded(
    image_tokenizer: ImageTokenizer, codes: NDArray[np.uint16], batch_size: int = 32
) -> Iterator[NDArray[np.uint8]]:
    """Yield the image (H, W, 3) of each row of codes (P, L)."""
    device = next(image_tokenizer.parameters()).device
    for begin in range(0, len(codes), batch_size):
        part = torch.from_numpy(codes[begin : begin + batch_size].astype(np.int64)).to(device)
        yield from to_uint8(image_tokenizer.decode(part)).permute(0, 2, 3, 1).cpu().numpy()


def measure_reconstruction(
    image_tokenizer: ImageTokenizer,
    codes: NDArray[np.uint16],
    originals: Iterable[NDArray[np.uint8]],
    batch_size: int = 32,
    clusters: NDArray[np.int64] | None = None,
) -> Reconstruction:
    """Compare the images decoded from codes (P, L) with their originals (H, W, 3).

    `clusters` (P,) are those of the intervals; by default each image is its own.
    """
    psnrs: list[float] = []
    ssims: list[float] = []
    side = image_tokenizer.resolution
    for pair in zip(decoded(image_tokenizer, codes, batch_size), originals, strict=True):
        image, original = (torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] for p in pair)
        psnrs.append(float(psnr(image, original)))
        if side >= SSIM_SIDE:
            ssims.append(float(ssim(image, original)))
    counts = np.bincount(codes.ravel(), minlength=image_tokenizer.codebook_size)
    shares = counts[counts > 0] / counts.sum()
    return Reconstruction(
        pictures=len(psnrs),
        side=side,
        psnr=interval(np.array(psnrs), clusters),
        ssim=interval(np.array(ssims), clusters) if ssims else None,
        codebook_size=len(counts),
        codes_used=int((counts > 0).sum()),
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
        codes=int(counts.sum()),
        psnr_of=np.array(psnrs),
        ssim_of=np.array(ssims),
        counts=counts,
    )
