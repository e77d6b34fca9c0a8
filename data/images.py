"""Encoded images to pixels, within a policy that bounds what a bad file can cost.

An image is rejected before it is decoded when its header announces more than `MAX_PIXELS`.
Rotation in EXIF is applied, transparency is laid over white, 16-bit and CMYK files become plain
RGB, and of an animation the first frame is taken. A truncated file is an error, never a grey half.
"""

import base64
import binascii
import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data.errors import InputError

MAX_PIXELS = 50_000_000
_TO_STANDARD = str.maketrans("-_", "+/")


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text: standard or url-safe alphabet, a `data:` URI allowed, strict.

    Raises:
        InputError: The text is empty or not base64.
    """
    text = text.strip()
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if not text:
        raise InputError("empty image")
    text = text.translate(_TO_STANDARD)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"invalid base64: {error}") from None


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """The image behind its header, not yet decoded; refused if it is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own bound below is stricter than Pillow's warning
            image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise InputError(f"image too large: {error}") from None
    except (OSError, ValueError, SyntaxError) as error:
        start = content[:12].decode("latin-1")
        raise InputError(f"not an image (begins with {start!r}): {type(error).__name__}") from None
    if image.width * image.height > max_pixels:
        raise InputError(f"image too large: {image.width}x{image.height}")
    return image


def check_image(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an encoded image, read from its header.

    Raises:
        InputError: It is no image, or larger than `max_pixels`.
    """
    return _open(content, max_pixels).size


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB image, upright, over white.

    Raises:
        InputError: It is no image, truncated, or larger than `max_pixels`.
    """
    image = _open(content, max_pixels)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"damaged image: {error}") from None
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        wide = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(wide / 257.0, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Pixels `(size, size, 3)`: the centre square, resampled with antialiasing."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        image = image.crop(box)
    return np.asarray(image, dtype=np.uint8)


def encode_png(pixels: NDArray[np.uint8], text: dict[str, str] | None = None) -> bytes:
    """A PNG of pixels `(H, W, 3)`, with `text` (prompt, seed ...) in its metadata."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()
