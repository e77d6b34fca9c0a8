"""What a VQGAN is trained by, besides its codebook: differences of pixels and edges; a judge."""

import torch.nn.functional as F
from torch import Tensor, nn


def reconstruction_loss(pictures: Tensor, originals: Tensor) -> Tensor:
    """Absolute and squared differences of pixels, and absolute differences of their gradients.

    The gradient term is what makes edges sharp: blurred, they cost little in pixels but much there.
    """
    pixels = F.l1_loss(pictures, originals) + F.mse_loss(pictures, originals)
    edges = [F.l1_loss(pictures.diff(dim=axis), originals.diff(dim=axis)) for axis in (-1, -2)]
    return pixels + edges[0] + edges[1]


class PatchDiscriminator(nn.Module):
    """Tells pictures from originals, by overlapping patches (Isola et al. 2017, section 3.2.2).

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
        """Scores: above 0 for what looks original."""
        scores: Tensor = self.layers(images)
        return scores


def discriminator_loss(of_originals: Tensor, of_pictures: Tensor) -> Tensor:
    """The hinge loss of the judge: originals should score above 1, pictures below -1."""
    return (F.relu(1 - of_originals.float()) + F.relu(1 + of_pictures.float())).mean()
