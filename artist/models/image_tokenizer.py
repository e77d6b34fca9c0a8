"""The contract of image tokenizers: images to a square grid of codes and back.

Encoding, previews, reconstruction, dry runs, model folders and export use this contract only. A new
tokenizer subclasses `ImageTokenizer` and gets a line in `artist.formats.image_tokenizer_folder`.

Shapes: B images, H x W pixels (H = W = resolution), L = grid_size^2 codes per image.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn


class ImageTokenizerConfig(Protocol):
    """Sizes of an image tokenizer; a dataclass with a default for every field."""

    @property
    def resolution(self) -> int:
        """Side of the (square) images, in pixels."""

    @property
    def codebook_size(self) -> int:
        """Number of codes."""

    @property
    def grid_size(self) -> int:
        """Codes per side of an image."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the config with these values; raise ConfigError for an unknown key."""

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""


class ImageTokenizer(nn.Module, ABC):
    """Encode images to codes and decode codes to images.

    Attributes:
        model_type: Name of the class in `config.json`.
        config_class: The class of `config`.
        resolution: Side of the (square) images, in pixels.
        codebook_size: Number of codes.
        grid_size: Codes per side of an image.
        image_len: Codes per image, L.
    """

    model_type: ClassVar[str]
    config_class: ClassVar[type[ImageTokenizerConfig]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.resolution: int = config.resolution
        self.codebook_size: int = config.codebook_size
        self.grid_size: int = config.grid_size
        self.image_len = self.grid_size**2

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (B, L), row by row, of images (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return images (B, 3, H, W), float32, about [-1, 1], of codes (B, L)."""

    def decoding_in(self, dtype: torch.dtype) -> Self:
        """Return a tokenizer that decodes in `dtype`, if possible faster; this one is unchanged."""
        return self

    def fingerprint(self) -> str:
        """Return a digest of what this tokenizer computes: its model type, sizes and weights.

        A copy in a model folder has the same digest. Settings at their default are left out, so a
        setting that a later version adds changes no digest.
        """
        defaults = self.config_class().to_dict()
        special = {k: v for k, v in self.config.to_dict().items() if v != defaults[k]}
        if self.model_type != "vqgan":  # digests of the first version exclude the model type
            special["model_type"] = self.model_type
        digest = hashlib.sha256(json.dumps(special, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def to_uint8(images: Tensor) -> Tensor:
    """Return pixels 0..255 of images in [-1, 1], clipped and truncated as in the reference."""
    return ((images.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """Return images in [-1, 1] of pixels 0..255, any shape."""
    return pixels.float() / 127.5 - 1


def channels_last(module: nn.Module) -> None:
    """Change the layout of convolution weights to the fastest one; values are unchanged."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
