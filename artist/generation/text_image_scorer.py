"""The contract of models that compare texts with images, used by re-ranking and evaluation.

A new scorer implements `TextImageScorer` and gets a line in `TEXT_IMAGE_SCORERS`.
"""

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import InputError

# `model_type` in `config.json` -> module and class. Names, not imports: rooms above add theirs.
TEXT_IMAGE_SCORERS = {"chinese_clip": ("artist.generation.chinese_clip", "ChineseCLIP")}


class TextImageScorer(Protocol):
    """Texts and images to unit vectors of one space: their dot product is the cosine."""

    @property
    def fingerprint(self) -> str:
        """Digest of the scorer's files."""

    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Return unit vectors (N, E) of texts, float32, on the CPU."""

    def images(self, images: Iterable[NDArray[np.uint8]], batch_size: int = 32) -> Tensor:
        """Return unit vectors (N, E) of images (H, W, 3), float32, on the CPU."""


def load_text_image_scorer(folder: Path, device: str | torch.device = "cpu") -> TextImageScorer:
    """Load the scorer of a folder, by the `model_type` in its `config.json`.

    Raises:
        InputError: The folder does not contain a supported scorer.
    """
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in TEXT_IMAGE_SCORERS:
        raise InputError(
            f"{folder} is a {model_type!r} model; a Chinese CLIP is required, such as "
            "OFA-Sys/chinese-clip-vit-base-patch16 saved by transformers. Supported model types: "
            f"{', '.join(TEXT_IMAGE_SCORERS)}."
        )
    module, name = TEXT_IMAGE_SCORERS[model_type]
    family: Any = getattr(import_module(module), name)
    scorer: TextImageScorer = family(folder, device)
    return scorer


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of settings.

    Raises:
        InputError: The file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a CLIP folder: {path.name} is missing.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object.")
    return content
