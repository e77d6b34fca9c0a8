"""Every image is decoded correctly or rejected with a reason, with bounded memory."""

import base64
import contextlib
import io
import struct
import tracemalloc
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.errors import InputError
from data.images import check_image, decode_base64, decode_image, encode_png, encode_webp, square
from tests.data.encoded import encoded


def photograph(size=(40, 30)) -> Image.Image:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x * 6, y * 8, x + y], -1).astype(np.uint8))


def chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(header: bytes, pixels: bytes, more: bytes = b"") -> bytes:
    """Return a PNG with the given header and compressed pixels."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def flat_png(width: int, height: int) -> bytes:
    """Return a small PNG whose header announces any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return png(header, zlib.compress(b"\0" * 1000))


def flat_81_megapixels() -> bytes:
    """Return a small PNG of 9,000 x 9,000 equal pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\x80" * 9_000
    body = b"".join(packer.compress(row) for _ in range(9_000)) + packer.flush()
    return png(struct.pack(">IIBBBBB", 9_000, 9_000, 8, 0, 0, 0, 0), body)


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


NOT_IMAGES = {
    "nothing": (b"", "empty image"),
    "HTML page": (b"\n<!DOCTYPE html><title>404</title>", "not an image: an HTML page"),
    "HTML without a type": (b"<html>404</html>", "not an image: an HTML page"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image: SVG"),
    "SVG behind a declaration": (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "not an image: SVG"),
    "JSON": (b'{"error": 403}', "not an image: JSON"),
    "PDF": (b"%PDF-1.7", "not an image: a PDF"),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not an image: PostScript",
    ),
    "text": ("一只老虎".encode(), "not an image: begins with"),
    "start of a JPEG": (b"\xff\xd8\xff", "not an image: begins with"),
    "start of a GIF": (b"GIF89a", "not an image: begins with"),
}


@pytest.mark.parametrize(("content", "said"), NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_other_content_is_rejected_with_a_guess_at_its_kind(content, said):
    for look in (check_image, decode_image):
        with pytest.raises(InputError) as error:
            look(content)
        assert str(error.value).startswith(said)


def test_a_truncated_jpeg_is_rejected():
    content = encoded(photograph((200, 200)), "JPEG")
    with pytest.raises(InputError, match="damaged image"):
        decode_image(content[: len(content) // 2])


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (9_000, 9_000), (60_000, 60_000)])
def test_a_huge_image_is_rejected_by_its_header(width, height):
    with pytest.raises(InputError, match="too large"):
        check_image(flat_png(width, height))
    with pytest.raises(InputError, match="too large"):
        decode_image(flat_png(width, height))


def test_a_flat_png_of_81_megapixels_is_rejected_in_little_memory():
    content = flat_81_megapixels()
    assert len(content) < 1_000_000
    tracemalloc.start()
    with pytest.raises(InputError, match="9000x9000 is over 50,000,000 pixels"):
        decode_image(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode_image(encoded(image)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    content = encoded(palette, transparency=0)
    assert decode_image(content).getpixel((0, 0)) == (255, 255, 255)


def test_transparency_of_every_mode_is_laid_over_white():
    for mode, clear in [("LA", (9, 0)), ("PA", (0, 0)), ("RGBA", (9, 9, 9, 0))]:
        image = Image.new(mode, (4, 4), clear)
        assert decode_image(encoded(image, "TIFF" if mode == "PA" else "PNG")).getpixel((0, 0)) == (
            255, 255, 255
        )  # fmt: skip
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode_image(encoded(half)).getpixel((0, 0)) == (127, 127, 127)
    for mode, key in [("RGB", (1, 2, 3)), ("L", 7)]:  # one colour is declared transparent
        content = encoded(Image.new(mode, (4, 4), key), transparency=key)
        assert decode_image(content).getpixel((0, 0)) == (255, 255, 255)


SIXTEEN = [(0, 0), (0x0101, 1), (0x8080, 128), (0xFFFF, 255)]


@pytest.mark.parametrize(("value", "byte"), SIXTEEN)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight_and_are_not_clipped(value, byte, kind):
    wide = Image.fromarray(np.full((4, 4), value, dtype=np.uint16))
    assert decode_image(encoded(wide, kind)).getpixel((0, 0)) == (byte, byte, byte)


def test_sixteen_bits_a_channel_and_sixteen_transparent_ones_are_read():
    colour = png(struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0),
                 zlib.compress(b"\0" + struct.pack(">HHH", 0x8080, 0xFFFF, 0)))  # fmt: skip
    assert decode_image(colour).getpixel((0, 0)) == (128, 255, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HH", 1000, 0x8080))
    key = chunk(b"tRNS", struct.pack(">H", 1000))
    grey = png(struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0), pixels, key)
    found = decode_image(grey)
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (128, 128, 128)]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_range_are_rejected_rather_than_guessed(mode):
    with pytest.raises(InputError, match=f"unsupported image: mode {mode}"):
        decode_image(encoded(Image.new(mode, (4, 4)), "TIFF"))


def test_cmyk_and_grey_become_rgb():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red, green, blue = decode_image(encoded(cmyk, "JPEG")).getpixel((0, 0))
    assert red > 200 > 100 > max(green, blue)
    assert decode_image(encoded(Image.new("L", (4, 4), 77))).getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_rotation_in_exif_is_applied_once(turn, kind):
    image = Image.new("RGB", (40, 24), "white")
    image.paste((0, 0, 0), (0, 0, 16, 8))  # the upper left corner of the stored pixels
    exif = Image.Exif()
    exif[0x0112] = turn
    found = decode_image(encoded(image, kind, exif=exif))
    assert found.size == ((24, 40) if turn >= 5 else (40, 24))
    corners = {(0, 0): (1, 5), (1, 0): (2, 6), (1, 1): (3, 7), (0, 1): (4, 8)}
    for (right, low), turns in corners.items():
        at = (right * (found.width - 1), low * (found.height - 1))
        assert (sum(found.getpixel(at)) < 200) == (turn in turns), (at, turn)


def test_an_image_with_broken_exif_is_decoded():
    content = encoded(photograph(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert decode_image(content).size == (40, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = decode_image(content).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


def test_palettes_and_single_bits_become_rgb():
    palette = photograph().quantize(8)
    assert decode_image(encoded(palette)).mode == "RGB"
    near = np.asarray(decode_image(encoded(palette)), int) - np.asarray(palette.convert("RGB"), int)
    assert not near.any()
    bits = Image.new("1", (4, 4), 1)
    assert decode_image(encoded(bits)).getpixel((0, 0)) == (255, 255, 255)


def test_a_jpeg_is_decoded_smaller_if_that_is_enough():
    content = encoded(photograph((640, 480)), "JPEG")
    assert decode_image(content).size == (640, 480)
    small = decode_image(content, enough=32)
    assert 32 <= min(small.size) < 100
    with pytest.raises(InputError, match="damaged image"):
        decode_image(content[: len(content) // 2], enough=32)


@pytest.fixture(scope="module")
def sound() -> list[bytes]:
    """A small image in every format that is read."""
    image = photograph((24, 16))
    kinds = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO"]
    return [encoded(image, kind) for kind in kinds if kind in Image.SAVE]


@settings(max_examples=300)
@given(data=st.data())
def test_changed_bytes_give_an_image_or_one_clear_error(sound, data):
    content = bytearray(data.draw(st.sampled_from(sound)))
    changes = st.lists(
        st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=8
    )
    for place, value in data.draw(changes):
        content[place] = value
    del content[data.draw(st.integers(1, len(content))) :]
    with contextlib.suppress(InputError):
        assert decode_image(bytes(content), max_pixels=1_000_000).mode == "RGB"


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


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_webp_keeps_its_prompt(prompt):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.open(io.BytesIO(encode_webp(pixels, {"prompt": prompt, "seed": "7"})))
    assert (image.format, image.size) == ("WEBP", (16, 16))
    description = ElementTree.fromstring(image.info["xmp"])[0][0]
    name = "{urn:artist-toolkit}"
    assert description.attrib[f"{name}seed"] == "7"
    kept = "".join(c for c in prompt if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
    assert description.attrib[f"{name}prompt"] == kept
