"""Generated images for tests."""

import base64
import io

import numpy as np
from PIL import Image


def image_bytes(
    size: int = 16, cut: int | None = None, format: str = "JPEG", seed: int = 0
) -> bytes:
    """Return an encoded image of noise, truncated to `cut` bytes."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()[:cut]


def encoded(size: int = 16, cut: int | None = None, format: str = "JPEG", seed: int = 0) -> str:
    """Return the same in base64."""
    return base64.b64encode(image_bytes(size, cut, format, seed)).decode()
