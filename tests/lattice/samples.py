"""Generated images, and the rows and rejected rows of a table."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from data.runs import read_manifest


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


def rejects_of(table: Path) -> list[list[str]]:
    """Return line, reason and row of each reject; check the counts of the manifest."""
    file = table.with_name(table.name + ".rejects.tsv")
    found = []
    if file.exists():
        found = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    counts = read_manifest(table).counts
    assert counts["rejected"] == sum(counts["reasons"].values()) == len(found)
    assert counts["rows_in"] == counts["rows"] + counts["rejected"]
    return found
