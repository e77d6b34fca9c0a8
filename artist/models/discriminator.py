"""Reconstruction loss and discriminator of VQGAN training."""

import torch.nn.functional as F
from torch import Tensor, nn


def reconstruction_loss(images: Tensor, originals: Tensor) -> Tensor:
    """Return L1 and L2 loss of the pixels plus L1 loss of their horizontal and vertical gradients.

    The gradient term sharpens edges: blurring them costs little in pixels, but much in gradients.
    """
    pixels = F.l1_loss(images, originals) + F.mse_loss(images, originals)
    edges = [F.l1_loss(images.diff(dim=axis), originals.diff(dim=axis)) for axis in (-1, -2)]
    return pixels + edges[0] + edges[1]


class PatchDiscriminator(nn.Module):
    """Classify overlapping patches as original or generated (Isola et al. 2017, section 3.2.2).

    Shapes: (B, 3, H, W) -> (B, 1, H/4, W/4).
    """

    def __init__(self, ch: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, ch, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ch, 2 * ch, 4, stride=2, padding=1),
            nn.GroupNorm(2 * ch // 16, 2 * ch),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ch, 4 * ch, 3, padding=1),
            nn.GroupNorm(4 * ch // 16, 4 * ch),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * ch, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: above 0 for patches classified as original."""
        logits: Tensor = self.layers(images)
        return logits


def discriminator_loss(of_originals: Tensor, of_generated: Tensor) -> Tensor:
    """Return the hinge loss of the discriminator's logits."""
    return (F.relu(1 - of_originals.float()) + F.relu(1 + of_generated.float())).mean()
