"""The network of FID, KID and IS: TensorFlow's Inception of 2015-12-05, as ported to PyTorch.

    B images   C channels   H, W sides of a feature map

The metrics are defined by this network and its weights. torchvision's Inception cannot replace it:
its weights and its pooling differ. Names and shapes are those of the file that pytorch-fid and
torch-fidelity publish (`...inception-2015-12-05-6726825d.pth`). The network is Szegedy et al.'s
Inception-v3 (arXiv 1512.00567) with the details of TensorFlow's version: average pooling excludes
the padding, the last block uses maximum pooling where the others average, and the classifier has
1008 outputs.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artist.formats.state_dict import misfit, read_state
from data.errors import InputError
from data.runs import sha256

SIDE = 299  # pixels of the network's input
WIDTH = 2048  # channels of its last pooling layer
PUBLISHED = "6726825d"  # start of the published file's sha256, as in its name
_COUNTER = "num_batches_tracked"  # used in training only; optional in files


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; attribute names are the file's."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padded: bool = False,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """Average pooling over 3x3 that excludes the padding: (B, C, H, W) -> the same."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    """Maximum pooling over 3x3: (B, C, H, W) -> the same."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


class Mixed35(nn.Module):
    """Block at 35x35: branches of 1x1, 5x5, 3x3 twice, and pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64)
        self.branch5x5_1 = Convolution(inputs, 48)
        self.branch5x5_2 = Convolution(48, 64, 5, padded=True)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padded=True)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padded=True)
        self.branch_pool = Convolution(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 35, 35) -> (B, 224 + pooled, 35, 35)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], 1)


class Reduce35(nn.Module):
    """Reduction from 35x35 to 17x17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padded=True)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 35, 35) -> (B, 480 + inputs, 17, 17)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class Mixed17(nn.Module):
    """Block at 17x17: 7x7 convolutions factorised into rows and columns."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = Convolution(inputs, 192)
        self.branch7x7_1 = Convolution(inputs, width)
        self.branch7x7_2 = Convolution(width, width, row, padded=True)
        self.branch7x7_3 = Convolution(width, 192, column, padded=True)
        self.branch7x7dbl_1 = Convolution(inputs, width)
        self.branch7x7dbl_2 = Convolution(width, width, column, padded=True)
        self.branch7x7dbl_3 = Convolution(width, width, row, padded=True)
        self.branch7x7dbl_4 = Convolution(width, width, column, padded=True)
        self.branch7x7dbl_5 = Convolution(width, 192, row, padded=True)
        self.branch_pool = Convolution(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 17, 17) -> (B, 768, 17, 17)."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(average(x))], 1)


class Reduce17(nn.Module):
    """Reduction from 17x17 to 8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(inputs, 192)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), padded=True)
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), padded=True)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 17, 17) -> (B, 512 + inputs, 8, 8)."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class Mixed8(nn.Module):
    """Block at 8x8: 3x3 convolutions split into a row and a column in parallel.

    Args:
        inputs: Channels.
        by_maximum: Pooling of the pool branch. The first of the two blocks uses the average, the
            second the maximum: an oddity of the original graph, and part of the metric.
    """

    def __init__(self, inputs: int, *, by_maximum: bool) -> None:
        super().__init__()
        self.pool = maximum if by_maximum else average
        self.branch1x1 = Convolution(inputs, 320)
        self.branch3x3_1 = Convolution(inputs, 384)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padded=True)
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padded=True)
        self.branch3x3dbl_1 = Convolution(inputs, 448)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padded=True)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padded=True)
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padded=True)
        self.branch_pool = Convolution(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 8, 8) -> (B, 2048, 8, 8)."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class Features(NamedTuple):
    """Pooled features for FID and KID (B, 2048), and class logits for IS (B, 1008)."""

    pooled: Tensor
    logits: Tensor


class Inception(nn.Module):
    """The whole network, in the order of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padded=True)
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = Mixed35(192, pooled=32)
        self.Mixed_5c = Mixed35(256, pooled=64)
        self.Mixed_5d = Mixed35(288, pooled=64)
        self.Mixed_6a = Reduce35(288)
        self.Mixed_6b = Mixed17(768, width=128)
        self.Mixed_6c = Mixed17(768, width=160)
        self.Mixed_6d = Mixed17(768, width=160)
        self.Mixed_6e = Mixed17(768, width=192)
        self.Mixed_7a = Reduce17(768)
        self.Mixed_7b = Mixed8(1280, by_maximum=False)
        self.Mixed_7c = Mixed8(2048, by_maximum=True)
        self.fc = nn.Linear(WIDTH, 1008)

    def forward(self, x: Tensor) -> Features:
        """Return the features of images (B, 3, 299, 299) in [-1, 1].

        The logits exclude the classifier's bias, as in the code that defined IS.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 64, 73, 73)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        pooled = x.mean((2, 3))
        return Features(pooled, F.linear(pooled, self.fc.weight))


class Loaded(NamedTuple):
    """The network in eval mode, and the sha256 of its weights file."""

    network: Inception
    sha256: str

    @property
    def published(self) -> bool:
        """Whether the weights are the published file, by hash."""
        return self.sha256.startswith(PUBLISHED)


def load_inception(path: Path) -> Loaded:
    """Load the network from a weights file (`.pth` or `.safetensors`), on the CPU.

    Raises:
        InputError: The file cannot be read, or its tensors do not fit this network; the message
            names missing and unexpected tensors and other shapes.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist. FID, KID and IS need the weights that pytorch-fid publishes "
            f"as pt_inception-2015-12-05-{PUBLISHED}.pth; fetch that file and give its path."
        )
    state = read_state(path, "cannot be read as weights", "Fetch pytorch-fid's file again.")
    state = {k: v for k, v in state.items() if not k.endswith(_COUNTER)}
    network = Inception()
    own = {k: v for k, v in network.state_dict().items() if not k.endswith(_COUNTER)}
    if wrong := misfit(own, state):
        raise InputError(
            f"{path} is not the Inception network of FID: {wrong}. Figures from another network "
            f"are not comparable; use pt_inception-2015-12-05-{PUBLISHED}.pth."
        )
    network.load_state_dict(state, strict=False)
    network.eval().requires_grad_(False)
    return Loaded(network, sha256(path))
