"""Unusual and broken images in one file: all commands must decode and reject the same rows.

The pixels of decoded images are checked in test_images.py.
"""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.datasets.config import ImageOptions
from data.datasets.convert import convert_dataset
from data.datasets.validate import validate_table
from data.images import decode_base64, decode_image
from lattice.building.build import build_lattice
from tests.data.encoded import b64, encoded
from tests.data.test_images import flat_81_megapixels, flat_png, photograph


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photograph(), "JPEG", exif=exif)


def animated() -> bytes:
    frames = [photograph(), Image.new("RGB", (40, 30), "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


JPEG = encoded(photograph((200, 200)), "JPEG")
SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>"
SIXTEEN = encoded(Image.fromarray(np.full((30, 40), 0x8080, dtype=np.uint16)))
TRANSPARENT = encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 0)))

# The image column, and the reason of its rejection; None if it must be decoded.
ZOO: dict[str, tuple[str, str | None]] = {
    "empty": ("", "empty image"),
    "invalid base64": ("not base64!", "invalid base64"),
    "standard alphabet": (b64(JPEG), None),
    "url-safe alphabet": (base64.urlsafe_b64encode(JPEG).decode(), None),
    "data URI": ("data:image/jpeg;base64," + b64(JPEG), None),
    "HTML error page": (b64(b"<!DOCTYPE html><h1>404 Not Found</h1>"), "not an image"),
    "HTML as it is": ("<html>404</html>", "invalid base64"),
    "truncated JPEG": (b64(JPEG[: len(JPEG) // 2]), "damaged image"),
    "20,000 x 20,000 header": (b64(flat_png(20_000, 20_000)), "image too large"),
    "81 megapixels, flat": (b64(flat_81_megapixels()), "image too large"),
    "CMYK": (b64(encoded(photograph().convert("CMYK"), "JPEG")), None),
    "palette": (b64(encoded(photograph().quantize(16))), None),
    "16 bits": (b64(SIXTEEN), None),
    "transparent": (b64(TRANSPARENT), None),
    "EXIF-rotated": (b64(rotated()), None),
    "animated": (b64(animated()), None),
    "SVG": (b64(SVG), "not an image"),
    "1 x 1": (b64(encoded(Image.new("RGB", (1, 1)))), None),
    "10,000 x 1": (b64(encoded(photograph((10_000, 1)))), None),
    "32-bit numbers": (b64(encoded(Image.new("F", (9, 9)), "TIFF")), "unsupported image"),
}
WRONG = {n: reason for n, (_, reason) in enumerate(ZOO.values(), 1) if reason is not None}
GOOD = [name for name, (_, reason) in ZOO.items() if reason is None]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write all of them to one TSV; the line of a row is its position in `ZOO`, from 1."""
    path = tmp_path_factory.mktemp("zoo") / "zoo.tsv"
    rows = [f"{name}\t第{n}只老虎\t{cell}\n" for n, (name, (cell, _)) in enumerate(ZOO.items(), 1)]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def rejected(path: Path) -> dict[int, str]:
    """Return lines and reasons of a file of rejected rows."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    return {int(line): said.partition(":")[0] for line, said, _ in rows}


@pytest.mark.parametrize("size", [None, 16])
def test_data_convert_keeps_valid_images_and_rejects_the_others(zoo, tmp_path, size):
    out = tmp_path / "out.tsv"
    report = convert_dataset(zoo, out, image_options=ImageOptions(size=size))
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()]
    assert [row[0] for row in rows] == GOOD
    assert rejected(tmp_path / "out.tsv.rejects.tsv") == WRONG
    assert report.counts["rejected"] == len(WRONG)
    sizes = {name: decode_image(decode_base64(cell)).size for name, _, cell in rows}
    if size is None:
        assert sizes["EXIF-rotated"] == (30, 40)
        assert sizes["10,000 x 1"] == (10_000, 1)
    else:
        assert sizes["EXIF-rotated"] == (16, 21)
        assert sizes["1 x 1"] == (1, 1)  # never enlarged


def test_reduced_images_are_close_to_the_originals(zoo, tmp_path):
    out = tmp_path / "out.tsv"
    convert_dataset(zoo, out, image_options=ImageOptions(size=16))
    before = dict(line.split("\t")[::2] for line in zoo.read_text("utf-8").splitlines())
    for name, _, cell in (line.split("\t") for line in out.read_text("utf-8").splitlines()):
        small = decode_image(decode_base64(cell))
        whole = decode_image(decode_base64(before[name])).resize(small.size, Image.Resampling.BOX)
        apart = np.abs(np.asarray(small, dtype=int) - np.asarray(whole, dtype=int)).mean()
        assert apart < 12, name


def test_data_validate_counts_the_same_rows(zoo):
    report = validate_table(zoo, show=20)
    found = {
        one.line: finding.code.replace("-", " ")
        for finding in report.problems
        for one in finding.first
    }
    assert found == WRONG
    assert report.summary["usable_rows"] == len(GOOD)


def test_lattice_build_rejects_the_same_rows(zoo, tmp_path):
    names = tmp_path / "entity2id.txt"
    names.write_text("1\n老虎\t0\n", encoding="utf-8")
    out = tmp_path / "zoo.parquet"
    build_lattice(zoo, out, names=names)
    assert rejected(tmp_path / "zoo.parquet.rejects.tsv") == WRONG
