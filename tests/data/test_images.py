"""Every image is decoded rightly or rejected with a reason; nothing unbounded is allocated."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from data.images import check_image, decode_base64, decode_image, encode_png, square


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(size=(40, 30)) -> Image.Image:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x * 6, y * 8, x + y], -1).astype(np.uint8))


def flat_png(width: int, height: int) -> bytes:
    """A PNG whose header announces any size, with hardly any bytes behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("padding", [True, False])
def test_both_alphabets_are_read_with_and_without_padding_and_header(alphabet, before, padding):
    content = bytes(range(256)) + b"\xfb\xff"
    text = alphabet(content).decode()
    assert decode_base64(before + (text if padding else text.rstrip("="))) == content


@pytest.mark.parametrize(
    "text", ["", "   ", "not base64!", "<html>", "abcde", "data:image/png;base64,"]
)
def test_text_that_is_not_base64_is_rejected(text):
    with pytest.raises(InputError, match=r"base64|empty"):
        decode_base64(text)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_usual_formats_are_decoded(kind):
    content = encoded(photograph(), kind)
    assert check_image(content) == (40, 30)
    assert decode_image(content).size == (40, 30)
    assert decode_image(content).mode == "RGB"


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"<svg/>", b"\xff\xd8\xff", b"GIF89a"]
)
def test_what_is_no_image_is_rejected_with_its_beginning(content):
    with pytest.raises(InputError, match=r"not an image|damaged"):
        decode_image(content)


def test_a_truncated_jpeg_is_rejected_rather_than_half_grey():
    content = encoded(photograph((200, 200)), "JPEG")
    with pytest.raises(InputError, match="damaged image"):
        decode_image(content[: len(content) // 2])


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (9_000, 9_000), (60_000, 60_000)])
def test_a_huge_picture_is_rejected_by_its_header(width, height):
    with pytest.raises(InputError, match="too large"):
        check_image(flat_png(width, height))
    with pytest.raises(InputError, match="too large"):
        decode_image(flat_png(width, height))


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode_image(encoded(image)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    content = encoded(palette, transparency=0)
    assert decode_image(content).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_become_eight_and_not_white():
    wide = Image.fromarray(np.full((4, 4), 0x8080, dtype=np.uint16))
    assert decode_image(encoded(wide)).getpixel((0, 0)) == (128, 128, 128)


def test_cmyk_and_grey_become_rgb():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red, green, blue = decode_image(encoded(cmyk, "JPEG")).getpixel((0, 0))
    assert red > 200 > 100 > max(green, blue)
    assert decode_image(encoded(Image.new("L", (4, 4), 77))).getpixel((0, 0)) == (77, 77, 77)


def test_rotation_in_exif_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert decode_image(encoded(photograph(), "JPEG", exif=exif)).size == (30, 40)


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (33, 64), (64, 64)])
def test_the_centre_square_has_the_size_asked_for(size):
    pixels = square(Image.new("RGB", size, (9, 8, 7)), 16)
    assert pixels.shape == (16, 16, 3)
    assert (pixels == [9, 8, 7]).all()


def test_the_centre_is_kept_and_the_sides_are_cut():
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    assert (square(image, 10) == [0, 255, 0]).all()


def test_a_png_carries_its_pixels_and_its_text():
    pixels = np.asarray(photograph())
    image = Image.open(io.BytesIO(encode_png(pixels, {"prompt": "一颗花椰菜"})))
    assert np.array_equal(np.asarray(image), pixels)
    assert image.info["prompt"] == "一颗花椰菜"
