"""Decode and encode images; the cost of a bad file is bounded.

An image of more than `MAX_PIXELS` is rejected by its header, before it is decoded. EXIF rotation is
applied, transparency is composited over white, 16-bit and CMYK images become 8-bit RGB, and the
first frame of an animation is used. A truncated file is an error, never half an image.
Errors are `RowError`s; their reason's kind is the same for all files with the same fault.
"""

import base64
import binascii
import io
import json
import re
import threading
import warnings
from functools import cache
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.errors import RowError

MAX_PIXELS = 50_000_000
# Pillow reads further formats, some of them by calling other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "ICO")
_TO_STANDARD = str.maketrans("-_", "+/")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NOT_PIXELS = {
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "SVG, vector graphics; render it to PNG first",
    b"%pdf": "a PDF document",
    b"%!ps": "PostScript; render it to PNG first",
    b"{": "JSON, maybe an error of a server",
}
# catch_warnings changes the filters of all threads: one thread at a time.
_quiet = threading.Lock()


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text, strictly: standard or url-safe alphabet, or a `data:` URI.

    Raises:
        RowError: The text is empty or not base64.
    """
    text = text.strip()
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if not text:
        raise RowError("empty image")
    text = text.translate(_TO_STANDARD)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError("invalid base64", f"{error}; begins with {text[:12]!r}") from None


def split_images(cell: str) -> list[str]:
    """Return the base64 texts of a cell `gen_imgbase64`: one, a JSON list, or EasyNLP's list.

    Raises:
        RowError: It begins like a list and is not one.
    """
    if not cell.startswith("["):
        return [cell]
    try:
        found = json.loads(cell.replace("'", '"'))  # base64 has no quotes
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RowError("not a list of images", "begins with " + repr(cell[:12]))
    return found


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """Return the image with its header read, not yet decoded; reject it if it is too large."""
    if not content:
        raise RowError("empty image")
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bound below is stricter than Pillow's warning
            image = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        raise RowError("image too large", str(error)) from None
    except Exception as error:  # parsers raise many kinds on bad bytes
        raise RowError("not an image", _content_kind(content, error)) from None
    if image.width * image.height > max_pixels:
        raise RowError(
            "image too large", f"{image.width}x{image.height} is over {max_pixels:,} pixels"
        )
    return image


@cache
def _formats() -> list[str]:
    """Return those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _content_kind(content: bytes, error: Exception) -> str:
    """Return a guess at the kind of content that is not an image."""
    head = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<?xml"):
        head = head[max(head.find(b"<svg"), 0) :]
    for start, name in _NOT_PIXELS.items():
        if head.startswith(start):
            return name
    said = "" if isinstance(error, OSError) else f" ({type(error).__name__}: {error})"
    return f"begins with {content[:12].decode('latin-1')!r}{said}"


class Header(NamedTuple):
    """The header of an image: size in pixels, and the name of the format."""

    width: int
    height: int
    format: str


def read_header(content: bytes) -> Header:
    """Return the header of an encoded image.

    Raises:
        RowError: It is not an image, or larger than `MAX_PIXELS`.
    """
    image = _open(content, MAX_PIXELS)
    return Header(image.width, image.height, image.format or "?")


def check_image(content: bytes) -> tuple[int, int]:
    """Return width and height of an encoded image, read from its header.

    Raises:
        RowError: It is not an image, or larger than `MAX_PIXELS`.
    """
    return read_header(content)[:2]


def decode_image(
    content: bytes, max_pixels: int = MAX_PIXELS, enough: int | None = None
) -> Image.Image:
    """Decode an image to RGB, upright, over white.

    Args:
        content: The encoded bytes.
        max_pixels: A larger image is rejected.
        enough: Decode a JPEG faster at a smaller size, with sides of at least this many pixels.

    Raises:
        RowError: It is not an image, truncated, too large, or has values without a fixed range.
    """
    image = _open(content, max_pixels)
    try:
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        orientation = _orientation(image)
        image = _to_rgb(image)
        return image.transpose(orientation) if orientation is not None else image
    except RowError:
        raise
    except Exception as error:  # decoders raise many kinds on bad bytes
        raise RowError("damaged image", str(error) or type(error).__name__) from None


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition of the EXIF orientation; None without or with broken EXIF."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF; the pixels are intact
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _sixteen_bits(image)
    elif image.mode in ("I", "F"):
        raise RowError(
            "unsupported image",
            f"mode {image.mode}, numbers without a fixed range; save it with 8 or 16 bits",
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey; the transparent value becomes white."""
    wide = np.asarray(image)
    grey = np.empty(wide.shape, dtype=np.uint8)
    np.floor_divide(wide, 257, out=grey, casting="unsafe")
    if isinstance(clear := image.info.get("transparency"), int):
        grey[wide == clear] = 255
    return Image.fromarray(grey)


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return pixels `(size, size, 3)`: the centre square, resampled with antialiasing."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        image = image.crop(box)
    return np.asarray(image, dtype=np.uint8)


def encode_png(pixels: NDArray[np.uint8], text: dict[str, str] | None = None) -> bytes:
    """Return a PNG of pixels `(H, W, 3)`, with `text` (prompt, seed ...) in its metadata."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def encode_webp(pixels: NDArray[np.uint8], text: dict[str, str] | None = None) -> bytes:
    """Return a WebP of pixels `(H, W, 3)`, with `text` as properties of its XMP metadata.

    Characters that XML does not allow are removed from the metadata.
    """
    properties = " ".join(
        f"artist:{key}={quoteattr(_NOT_XML.sub('', value))}" for key, value in (text or {}).items()
    )
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:artist="urn:artist-toolkit" {properties}/></rdf:RDF></x:xmpmeta>'
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=90, method=4, xmp=xmp.encode())
    return buffer.getvalue()
