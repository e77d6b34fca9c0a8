"""Perceptual distance by VGG16 features (Zhang et al. 2018, LPIPS without learned weights).

    B images   H x W pixels   C channels of a layer

The weights are torchvision's VGG16 of ImageNet (`vgg16-397923af.pth`), given as a file: nothing is
downloaded, and no other network is substituted. Features of five layers, the last before each
pooling, are scaled to length 1 at each position; their squared difference is the distance.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels 0..1
LEAST_RESOLUTION = 16  # before the last layer images are halved four times


class VGGFeatures(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2015, configuration D), frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for widths in _WIDTHS:
            for width in widths:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Iterator[Tensor]:
        """Yield features (B, C, h, w) of images (B, 3, H, W) in [-1, 1], before each pooling."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = ((images + 1) / 2 - self.mean) / self.std
        for layer in list(self.features)[:-1]:  # the last pooling is not used
            if isinstance(layer, nn.MaxPool2d):
                yield x
            x = layer(x)
        yield x

    def distance(self, images: Tensor, originals: Tensor) -> Tensor:
        """Return the mean over positions, layers and images, 0 to 4; originals get no gradient."""
        with torch.no_grad():
            wanted = [F.normalize(f.float(), dim=1) for f in self(originals)]
        total = images.new_zeros(())
        for found, want in zip(self(images), wanted, strict=True):
            total = total + (F.normalize(found.float(), dim=1) - want).square().sum(1).mean()
        return total / len(wanted)
