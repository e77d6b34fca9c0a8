"""The forward pass and the codebook loss of taming-transformers' VQGAN training."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from artist.models.vqgan import VQGAN


class CodebookPass(NamedTuple):
    """One forward pass; gradients skip the codebook."""

    reconstruction: Tensor  # (B, 3, H, W)
    latents: Tensor  # (B, D, h, w)
    quantised: Tensor  # (B, D, h, w), the nearest codes


def through_codebook(model: VQGAN, images: Tensor) -> CodebookPass:
    """Reconstruct images with the straight-through estimator."""
    latents = model.latents(images)
    grid = (latents.shape[2], latents.shape[3])
    quantised = model.lookup(model.quantise(latents.detach()), grid)
    straight_through = latents + (quantised - latents).detach()
    return CodebookPass(model.decode_latents(straight_through), latents, quantised)


def codebook_loss(latents: Tensor, quantised: Tensor, commitment: float = 0.25) -> Tensor:
    """Move codes to latents and, weaker, latents to codes (van den Oord et al. 2017, eq. 3)."""
    codes_follow = F.mse_loss(quantised.float(), latents.detach().float())
    latents_stay = F.mse_loss(latents.float(), quantised.detach().float())
    return codes_follow + commitment * latents_stay
