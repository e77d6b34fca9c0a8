"""What is left of pictures that go through the VQGAN's codes: the ceiling for all that is drawn.

P pictures   L codes a picture   V codebook_size
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from artist.evaluation.intervals import Interval, interval
from artist.models.image_tokenizer import ImageTokenizer, to_uint8
from artist.models.psnr_ssim import psnr, ssim

SSIM_SIDE = 11  # pixels; SSIM's window does not fit into smaller pictures


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How near pictures come back from their codes, and how the codebook is used.

    Attributes:
        pictures: How many, each counted once.
        side: Their side in pixels.
        psnr: In dB, mean over pictures.
        ssim: Wang et al. 2004, mean over colours and pictures; None where they are too small.
        codebook_size: Codes that there are.
        codes_used: Codes that these pictures use.
        perplexity: Exp of the entropy of their frequencies: so many equally used codes would say as
            much.
        codes: How many codes were counted; fewer than `codebook_size` cannot use all.
        psnr_of: PSNR of each picture (P,).
        ssim_of: SSIM of each picture (P,), or empty.
        counts: How often each code is used (V,).
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
    """The picture (H, W, 3) of each row of codes (P, L)."""
    device = next(image_tokenizer.parameters()).device
    for begin in range(0, len(codes), batch_size):
        part = torch.from_numpy(codes[begin : begin + batch_size].astype(np.int64)).to(device)
        yield from to_uint8(image_tokenizer.decode(part)).permute(0, 2, 3, 1).cpu().numpy()


def measure_reconstruction(
    image_tokenizer: ImageTokenizer,
    codes: NDArray[np.uint16],
    originals: Iterable[NDArray[np.uint8]],
    batch_size: int = 32,
) -> Reconstruction:
    """Pictures of codes (P, L) against the pictures (H, W, 3) that the codes were made from."""
    near: list[float] = []
    alike: list[float] = []
    side = image_tokenizer.resolution
    for picture, original in zip(
        decoded(image_tokenizer, codes, batch_size), originals, strict=True
    ):
        both = [torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] for p in (picture, original)]
        near.append(float(psnr(both[0], both[1])))
        if side >= SSIM_SIDE:
            alike.append(float(ssim(both[0], both[1])))
    counts = np.bincount(codes.ravel(), minlength=image_tokenizer.codebook_size)
    shares = counts[counts > 0] / counts.sum()
    return Reconstruction(
        pictures=len(near),
        side=side,
        psnr=interval(np.array(near)),
        ssim=interval(np.array(alike)) if alike else None,
        codebook_size=len(counts),
        codes_used=int((counts > 0).sum()),
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
        codes=int(counts.sum()),
        psnr_of=np.array(near),
        ssim_of=np.array(alike),
        counts=counts,
    )
