"""Encoded images to pixels, within a policy that bounds what a bad file can cost.

An image is rejected before it is decoded when its header announces more than `MAX_PIXELS`.
Rotation in EXIF is applied, transparency is laid over white, 16-bit and CMYK files become plain
RGB, and of an animation the first frame is taken. A truncated file is an error, never a grey half.
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
# What people and cameras save. Pillow knows more, some of them by calling other programs (EPS).
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
    b"<svg": "SVG, a drawing; render it to PNG first",
    b"%pdf": "a PDF document",
    b"%!ps": "PostScript; render it to PNG first",
    b"{": "JSON, perhaps a server's error",
}
# Warnings are switched off for all threads at once, and on again by whoever did it: one at a time.
_quiet = threading.Lock()


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text: standard or url-safe alphabet, a `data:` URI allowed, strict.

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


def split_pictures(cell: str) -> list[str]:
    """The base64 texts of a cell `gen_imgbase64`: one, a JSON list, or EasyNLP's Python list.

    Raises:
        RowError: It begins like a list and is none.
    """
    if not cell.startswith("["):
        return [cell]
    try:
        found = json.loads(cell.replace("'", '"'))  # base64 holds no quotes
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RowError("not a list of pictures", "begins with " + repr(cell[:12]))
    return found


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """The image behind its header, not yet decoded; refused if it is too large."""
    if not content:
        raise RowError("empty image")
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own bound below is stricter than Pillow's warning
            image = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        raise RowError("image too large", str(error)) from None
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RowError("not an image", _what_it_is(content, error)) from None
    if image.width * image.height > max_pixels:
        raise RowError(
            "image too large", f"{image.width}x{image.height} is over {max_pixels:,} pixels"
        )
    return image


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _what_it_is(content: bytes, error: Exception) -> str:
    """A guess at what somebody took for an image."""
    head = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<?xml"):
        head = head[max(head.find(b"<svg"), 0) :]
    for start, name in _NOT_PIXELS.items():
        if head.startswith(start):
            return name
    said = "" if isinstance(error, OSError) else f" ({type(error).__name__}: {error})"
    return f"begins with {content[:12].decode('latin-1')!r}{said}"


class Header(NamedTuple):
    """What an image says of itself before it is decoded: its size, and its format's name."""

    width: int
    height: int
    format: str


def read_header(content: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of an encoded image.

    Raises:
        RowError: It is no image, or larger than `max_pixels`.
    """
    image = _open(content, max_pixels)
    return Header(image.width, image.height, image.format or "?")


def check_image(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an encoded image, read from its header.

    Raises:
        RowError: It is no image, or larger than `max_pixels`.
    """
    return read_header(content, max_pixels)[:2]


def decode_image(
    content: bytes, max_pixels: int = MAX_PIXELS, enough: int | None = None
) -> Image.Image:
    """An RGB image, upright, over white.

    Args:
        content: The encoded bytes.
        max_pixels: A larger image is refused.
        enough: A JPEG may come smaller, with sides of at least so many pixels; that is quicker.

    Raises:
        RowError: It is no image, truncated, too large, or of a kind without a fixed range.
    """
    image = _open(content, max_pixels)
    try:
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        turn = _turn(image)
        image = _plain(image)
        return image.transpose(turn) if turn is not None else image
    except RowError:
        raise
    except Exception as error:  # whatever a decoder makes of a stranger's bytes
        raise RowError("damaged image", str(error) or type(error).__name__) from None


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How EXIF says the image must be turned; EXIF that cannot be read says nothing."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a camera's or an editor's broken note; the pixels are sound
        return None


def _plain(image: Image.Image) -> Image.Image:
    """RGB of any mode."""
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
    """Grey of 8 bits; what the file calls transparent is white."""
    wide = np.asarray(image)
    grey = np.empty(wide.shape, dtype=np.uint8)
    np.floor_divide(wide, 257, out=grey, casting="unsafe")
    if isinstance(clear := image.info.get("transparency"), int):
        grey[wide == clear] = 255
    return Image.fromarray(grey)


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


def encode_webp(
    pixels: NDArray[np.uint8], text: dict[str, str] | None = None, quality: int = 90
) -> bytes:
    """A WebP of pixels `(H, W, 3)`, with `text` as properties of its XMP metadata.

    Characters that XML cannot hold are left out of the metadata.
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
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4, xmp=xmp.encode())
    return buffer.getvalue()
