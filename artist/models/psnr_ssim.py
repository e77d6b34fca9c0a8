"""PSNR and SSIM of images against their originals, pixels 0..255."""

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5  # the Gaussian of Wang et al. 2004
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of each image: (B, C, H, W) twice -> (B,)."""
    error = (images.double() - originals.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / error.clamp(min=1e-10))).float()


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Return the structural similarity (B,) of each image (Wang et al. 2004), mean over channels.

    It is not defined for images smaller than the window of 11 pixels.
    """
    x, y = images.float(), originals.float()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    same = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    both = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return (same / both).mean((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Return means under a Gaussian window, without padding: (B, C, H, W) -> (B, C, H-10, W-10)."""
    place = torch.arange(_WINDOW, device=x.device, dtype=x.dtype) - _WINDOW // 2
    line = torch.exp(-(place**2) / (2 * _SIGMA**2))
    line = (line / line.sum()).expand(x.shape[1], 1, 1, _WINDOW)
    x = F.conv2d(x, line, groups=x.shape[1])
    return F.conv2d(x, line.mT, groups=x.shape[1])
