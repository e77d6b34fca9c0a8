"""Pictures for tests, made on the spot."""

import base64
import io

import numpy as np
from PIL import Image


def picture(size: int = 16, cut: int | None = None, format: str = "JPEG", seed: int = 0) -> bytes:
    """An encoded image of noise, perhaps cut off."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()[:cut]


def encoded(size: int = 16, cut: int | None = None, format: str = "JPEG", seed: int = 0) -> str:
    """The same in base64."""
    return base64.b64encode(picture(size, cut, format, seed)).decode()
