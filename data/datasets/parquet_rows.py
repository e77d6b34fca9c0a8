"""Datasets of Parquet files that hold captions and images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.datasets.captions import (
    EMPTY_CAPTION,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    TEXT_COLUMNS,
    choose,
    join_words,
)
from data.datasets.config import SetOptions
from data.datasets.file_names import files_of_split, list_files, split_words
from data.datasets.image_stores import MAX_BYTES
from data.datasets.samples import ImageTextDataset, Sample, numbered
from data.errors import ConfigError, InputError, RowError
from data.runs import sha256
from data.tsv import Rejects

_PARQUET_ROWS = 64  # read at once: their images are all in memory


@dataclass
class ParquetDataset(ImageTextDataset):
    """Image-text Parquet of Hugging Face: a struct of bytes and path, and one or more captions."""

    paths: list[Path]
    options: SetOptions
    by_column: bool
    format: str = "parquet"
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema, first, asked = _schema(self.paths[0]), self.paths[0], self.options
        texts = [f.name for f in schema if _is_text(f.type)]
        self.text = choose(first, texts, asked.text_column, TEXT_COLUMNS, "--text-column")
        self.image = None
        if asked.with_images:
            images = [f.name for f in schema if _is_image(f.type)]
            known = [*IMAGE_COLUMNS, *(name.lower() for name in images)]
            self.image = choose(first, images, asked.image_column, known, "--image-column")
        scalars = [f.name for f in schema if _is_text(f.type) or pa.types.is_integer(f.type)]
        known_ids = [n for n in scalars if n.lower() in ID_COLUMNS]
        self.id = asked.id_column and choose(first, schema.names, asked.id_column, (), "")
        self.id = self.id or min(known_ids, key=lambda n: ID_COLUMNS.index(n.lower()), default=None)
        self.description = (
            f"parquet: {len(self.paths)} file{'s'[: len(self.paths) > 1]} ({self.paths[0]} ...), "
            f"captions in {self.text}, images in {self.image or 'no column'}, "
            f"ids in {self.id or 'no column: numbered'}"
        )
        if self.by_column:
            self.description += f", rows whose split is {self.options.split}"

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextDataset`."""
        line = 0
        for path in self.paths:
            for row in self._rows(path):
                line += 1
                if self.by_column and str(row["split"]) not in split_words(self.options.split):
                    self._count("rows_of_other_splits")
                    continue
                found = row[self.text]
                texts = [t for t in (found if isinstance(found, list) else [found]) if t]
                if not texts:
                    rejects.add(line, EMPTY_CAPTION, path.name)
                    continue
                yield from self._of_row(line, row, texts, path)

    def _of_row(
        self, line: int, row: dict[str, Any], texts: list[str], path: Path
    ) -> Iterator[Sample]:
        image = None
        if self.image is not None:
            image = partial(_embedded, row[self.image], path.parent)
            self._count("images")
        name = str(row[self.id]) if self.id and row[self.id] is not None else str(line)
        for n, text in enumerate(texts[:1] if self.options.captions == "first" else texts):
            joined = join_words(text) if self.options.join_words else text
            yield Sample(line, numbered(name, n), joined, image, line)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        names = {self.text, self.image, self.id, "split" if self.by_column else None} - {None}
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(_PARQUET_ROWS, columns=sorted(names)):  # type: ignore[type-var]
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be read: {reason}") from None

    def inputs(self) -> dict[str, str]:
        """See `ImageTextDataset`."""
        return {f"{n}:{path.name}": sha256(path) for n, path in enumerate(self.paths)}


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _embedded(value: Any, folder: Path) -> bytes:
    """Return the image of a cell: its bytes, or the content of the file below `folder` it names."""
    cell = value if isinstance(value, dict) else {"bytes": value}
    content: bytes | None = cell["bytes"]
    if content is None and cell.get("path"):
        path = folder.joinpath(str(cell["path"])).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise RowError("no image", f"{cell['path']} is outside {folder}")
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise RowError("no image", f"{path} is missing or over {MAX_BYTES:,} bytes")
        return path.read_bytes()
    if content is None:
        raise RowError("no image")
    if len(content) > MAX_BYTES:
        raise RowError("image too large", f"{len(content):,} bytes")
    return content


def find_parquet(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> ParquetDataset | None:
    """Return the Parquet file, or those of the split in a folder."""
    if (images is not None or ids is not None) and options.format == "auto":
        return None
    if images is not None or ids is not None:
        raise ConfigError("Parquet files contain their images: --images and --ids cannot be given.")
    if source.is_file():
        paths, named = [source], True
    else:
        found = [f for f in list_files(source, 3) if f.suffix == ".parquet"]
        paths = files_of_split(found, options.split)
        named = bool(paths)
        paths = paths or found
    if not paths:
        return None
    by_column = not named and "split" in _schema(paths[0]).names
    if not named and not by_column:
        raise InputError(
            f"{source}: no name of a Parquet file contains {options.split}, and the files have no "
            "column split. Give the file itself, or another --split."
        )
    return ParquetDataset(paths, options, by_column)
