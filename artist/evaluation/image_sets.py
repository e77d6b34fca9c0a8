"""Sets of images to measure: a folder, a TSV with base64 images, or a lattice table.

Unreadable images are rejected and counted.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from artist.formats.predictions import PREDICTIONS
from data.datasets.file_names import image_files
from data.encoding import readable, unicode_path
from data.errors import InputError, RowError, SchemaError, SkipReason
from data.images import decode_base64, decode_image, split_images, square
from data.opencv_resize import opencv_square
from data.runs import fingerprint
from data.schema import IMAGE, is_parquet
from data.tsv import Rejects, read_rows


class CaptionedImage(NamedTuple):
    """An image: its row's idx, its caption (None if the set has none), and pixels (H, W, 3)."""

    idx: str
    text: str | None
    pixels: NDArray[np.uint8]


class _Encoded(NamedTuple):
    """The file content of an image, and its line or row in the set, from 1."""

    place: int
    idx: str
    text: str | None
    content: bytes


@dataclass(kw_only=True)
class ImageSet:
    """Images on disk, read again at each pass.

    Attributes:
        path: A folder of image files, what `artist predict` wrote, a TSV whose last column is an
            image in base64 (or a JSON list of them), or a Parquet table with an `image` column, in
            one file or a folder of them.
        side: Crop the centre square and resize it to this many pixels, as for a model; None keeps
            the whole image.
        resize: How the square is resized; see `artist.tables.encode.encode_table`.
        rejects: Images that could not be read in the last pass.
    """

    path: Path
    side: int | None = None
    resize: str = "antialias"
    rejects: Rejects = field(default_factory=Rejects)

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist.")
        if self.path.is_dir() and (self.path / PREDICTIONS).is_file():
            self.path = self.path / PREDICTIONS

    @property
    def fingerprint(self) -> str:
        """A hash of the files' content and of the crop."""
        return hashlib.sha256(f"{fingerprint(self.path)} {self.side}".encode()).hexdigest()

    @property
    def crop(self) -> str:
        """A description of how images are cropped before they are measured."""
        return f"centre square at {self.side} pixels" if self.side else "whole image"

    def __iter__(self) -> Iterator[CaptionedImage]:
        self.rejects = Rejects()
        found = False
        for encoded in self._contents():
            try:
                image = decode_image(encoded.content)
            except RowError as error:
                self.rejects.add(encoded.place, error.reason, encoded.idx)
                continue
            found = True
            yield CaptionedImage(encoded.idx, encoded.text, self._pixels(image))
        if not found:
            reason = self.rejects.first or "no image files such as *.png and *.jpg"
            raise InputError(f"{self.path} has no readable image ({reason}).")

    def _pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        pixels = np.asarray(image, dtype=np.uint8)
        if self.side is None:
            return pixels
        if self.resize == "easynlp":
            return opencv_square(pixels, self.side)
        return square(image, self.side)

    def _contents(self) -> Iterator[_Encoded]:
        if self.path.is_dir():
            shards = sorted(self.path.glob("*.parquet"))
            return self._of_table(shards) if shards else self._of_folder()
        return self._of_table([self.path]) if is_parquet(self.path) else self._of_tsv()

    def _of_folder(self) -> Iterator[_Encoded]:
        files = sorted(self.path / name for name in image_files(self.path))
        for number, path in enumerate((p for p in files if p.is_file()), 1):
            yield _Encoded(number, readable(path.stem), None, path.read_bytes())

    def _of_tsv(self) -> Iterator[_Encoded]:
        for row in read_rows(self.path, {2, 3}, self.rejects):
            idx, *text, cell = row.fields
            try:
                for one in split_images(cell):
                    content = decode_base64(one)
                    yield _Encoded(row.line, idx, text[0] if text else None, content)
            except RowError as error:
                self.rejects.add(row.line, error.reason, idx)

    def _of_table(self, shards: Sequence[Path]) -> Iterator[_Encoded]:
        number = 0
        for path in shards:
            try:
                with unicode_path(path) as plain:
                    file = pq.ParquetFile(plain, pre_buffer=False)
            except (pa.ArrowInvalid, OSError) as error:
                reason = str(error).splitlines()[0]
                raise SchemaError(f"{path} is not a readable Parquet file: {reason}") from None
            names = file.schema_arrow.names
            if IMAGE.name not in names:
                raise SchemaError(f"{path} has no column {IMAGE.name} (found {', '.join(names)}).")
            columns = [name for name in ("idx", "text", IMAGE.name) if name in names]
            for batch in file.iter_batches(64, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    content = (row[IMAGE.name] or {}).get("bytes")
                    idx = str(row.get("idx", number))
                    if content is None:
                        self.rejects.add(number, SkipReason("no image"), idx)
                    else:
                        yield _Encoded(number, idx, row.get("text"), content)
