"""Datasets of Parquet files that hold captions and images, or the names of image files."""

from collections.abc import Callable, Iterable, Iterator
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
    is_image_name,
    join_words,
    text_of,
)
from data.datasets.config import SetOptions
from data.datasets.file_names import SPLITS, files_of_split, list_files, split_words
from data.datasets.image_stores import MAX_BYTES, FolderStore
from data.datasets.samples import ImageTextDataset, Sample, numbered
from data.encoding import unicode_path
from data.errors import ConfigError, InputError, RowError, did_you_mean
from data.images import decode_base64
from data.runs import sha256
from data.tsv import Rejects

_PARQUET_ROWS = 64  # read at once: their images are all in memory
_KEY = "key"  # img2dataset's: the name of an image file without its ending
# img2dataset names the column of images after their format.
_IMAGE_BYTES = (*IMAGE_COLUMNS, "jpg", "jpeg", "png", "webp", "image_bytes", "imgbase64",
                "image_base64", "base64")  # fmt: skip


@dataclass
class ParquetDataset(ImageTextDataset):
    """Image-text Parquet: captions or lists of them, and images in one of these forms.

    A struct of bytes and path, as Hugging Face writes; bytes; base64; the name of a file, in the
    folder of the Parquet file or in `images`; or, for img2dataset's table of a folder of files, the
    key that names the file. Text may be dictionary-encoded or have any of Arrow's layouts.
    """

    paths: list[Path]
    options: SetOptions
    by_column: bool
    images: Path | None = None
    format: str = "parquet"
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema, first, asked = _schema(self.paths[0]), self.paths[0], self.options
        self._stores: dict[Path, FolderStore] = {}
        choose = partial(_choose, first, schema)
        self.text = choose(asked.text_column, TEXT_COLUMNS, _is_text, "--text-column", "captions")
        self.image = None
        if asked.with_images:
            known = [name for name in _IMAGE_BYTES if name != self.text.lower()]
            others = [f.name for f in schema if _is_image(f.type) and f.name != self.text]
            if (self.images or _folder_of(first)) and _KEY in schema.names:
                known.append(_KEY)
            self.image = choose(
                asked.image_column, [*others, *known], _may_be_image, "--image-column", "images"
            )
        scalars = [f.name for f in schema if _is_string(f.type) or pa.types.is_integer(f.type)]
        known_ids = [n for n in scalars if n.lower() in ID_COLUMNS]
        self.id = asked.id_column and choose(
            asked.id_column, (), lambda _: True, "--id-column", "ids"
        )
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
                texts = _texts(row[self.text])
                if not texts:
                    rejects.add(line, EMPTY_CAPTION, path.name)
                    continue
                yield from self._of_row(line, row, texts, path)

    def _of_row(
        self, line: int, row: dict[str, Any], texts: list[str], path: Path
    ) -> Iterator[Sample]:
        image = None
        if self.image is not None:
            image = self._reader(row[self.image], path)
            self._count("images")
        name = str(row[self.id]) if self.id and row[self.id] is not None else str(line)
        for n, text in enumerate(texts[:1] if self.options.captions == "first" else texts):
            joined = join_words(text) if self.options.join_words else text
            yield Sample(line, numbered(name, n), joined, image, line)

    def _reader(self, value: Any, path: Path) -> Callable[[], bytes]:
        """Return what reads the image of a cell."""
        cell = value if isinstance(value, dict) else {"bytes": value}
        content = cell.get("bytes")
        name = cell.get("path") if content is None else None
        if isinstance(content, str):
            content, name = (None, content) if self._is_name(content) else (content, None)
        if name:
            return partial(self._file, str(name), path)
        return partial(_content, content)

    def _is_name(self, text: str) -> bool:
        return self.image == _KEY or is_image_name(text[:1000])

    def _file(self, name: str, path: Path) -> bytes:
        """Return the content of an image file; never of one outside the folder of images."""
        if name.startswith(("http://", "https://")):
            raise RowError("image not downloaded", name[:200])
        folder = self.images or _folder_of(path)
        if self.image == _KEY and folder is not None:
            store = self._stores.setdefault(folder, FolderStore(folder))
            number = store.find(name)
            if number is None:
                raise RowError("no image", f"no file {name} in {folder}")
            return store.read(number)
        folder = self.images or path.parent
        file = folder.joinpath(name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise RowError("no image", f"{name[:200]} is outside {folder}")
        try:
            if file.stat().st_size > MAX_BYTES:
                raise RowError("image too large", f"{file.stat().st_size:,} bytes")
            return file.read_bytes()
        except OSError as error:
            raise RowError("no image", f"{name[:200]}: {error.strerror}") from None

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        names = {self.text, self.image, self.id, "split" if self.by_column else None} - {None}
        schema = _schema(path)
        missing = names - set(schema.names)
        if missing:
            raise InputError(
                f"{path} has no column {', '.join(map(str, sorted(missing, key=str)))}, which "
                f"{self.paths[0]} has (found {_listed(schema)})."
            )
        try:
            with unicode_path(path) as plain, pq.ParquetFile(plain, pre_buffer=False) as file:
                for batch in file.iter_batches(_PARQUET_ROWS, columns=sorted(names)):  # type: ignore[type-var]
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be read: {reason}") from None

    def inputs(self) -> dict[str, str]:
        """See `ImageTextDataset`."""
        found = {f"{n}:{path.name}": sha256(path) for n, path in enumerate(self.paths)}
        folder = self.images or (self.image == _KEY and _folder_of(self.paths[0]))
        return found | ({"images": FolderStore(folder).fingerprint()} if folder else {})


def _schema(path: Path) -> pa.Schema:
    try:
        with unicode_path(path) as plain:
            return pq.read_schema(plain)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from None


def _choose(
    path: Path,
    schema: pa.Schema,
    given: str | None,
    known: Iterable[str],
    fits: Callable[[pa.DataType], bool],
    option: str,
    what: str,
) -> str:
    """Return the given column, or the first of the known ones whose type fits.

    Raises:
        InputError: None is found, or the given one cannot hold `what`.
    """
    if given is not None and given not in schema.names:
        near = did_you_mean(given, schema.names)
        raise InputError(f"{path} has no column {given} (found {_listed(schema)}){near}.")
    if given is not None:
        if not fits(schema.field(given).type):
            raise InputError(
                f"{path}: column {given} is {schema.field(given).type}, which cannot hold {what}."
            )
        return given
    lowered: dict[str, str] = {
        f.name.lower(): f.name for f in reversed(list(schema)) if fits(f.type)
    }
    for name in known:
        if name.lower() in lowered:
            return lowered[name.lower()]
    more = ""
    if _KEY in schema.names and what == "images":
        archive = path.with_suffix(".tar").name
        more = f" (its images may be in {archive}: unpack it into a folder {path.stem})"
    raise InputError(
        f"{path}: none of its columns ({_listed(schema)}) is known to hold {what}{more}; pass "
        f"{option}."
    )


def _listed(schema: pa.Schema) -> str:
    """Return the columns with their types."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary-encoded column, else the type."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _item(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of the items of any kind of list; None for another type."""
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view,
             types.is_large_list_view)  # fmt: skip
    return kind.value_type if any(test(kind) for test in tests) else None


def _is_string(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a type holds captions: text, a list, or objects with a text."""
    kind = _item(kind) or kind
    if pa.types.is_struct(kind):
        return any(f.name in TEXT_COLUMNS and _is_text(f.type) for f in kind)
    return _is_string(kind)


def _is_image(kind: pa.DataType) -> bool:
    """Return whether a type holds encoded images, and no text."""
    if pa.types.is_struct(kind):
        return any(field.name in ("bytes", "path") for field in kind)
    kind = _plain(kind)
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _may_be_image(kind: pa.DataType) -> bool:
    return _is_image(kind) or _is_string(kind)


def _texts(value: Any) -> list[str]:
    """Return the captions of a cell."""
    if isinstance(value, dict):
        value = text_of(value)
    values = value if isinstance(value, list) else [value]
    texts = (text_of(one) if isinstance(one, dict) else one for one in values)
    return [str(text) for text in texts if text]


def _content(content: bytes | str | None) -> bytes:
    """Return the image in a cell: bytes, or base64."""
    if isinstance(content, str):
        return decode_base64(content)
    if not content:
        raise RowError("no image")
    if len(content) > MAX_BYTES:
        raise RowError("image too large", f"{len(content):,} bytes")
    return content


def _folder_of(path: Path) -> Path | None:
    """Return img2dataset's folder of files next to its table: `00000` next to `00000.parquet`."""
    folder = path.with_suffix("")
    return folder if folder.is_dir() else None


def find_parquet(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> ParquetDataset | None:
    """Return the Parquet file, or those of the split in a folder."""
    if source.is_dir() and (images is not None or ids is not None) and options.format == "auto":
        return None
    if ids is not None:
        raise ConfigError("--ids cannot be given with Parquet files.")
    if images is not None and not images.is_dir():
        raise ConfigError(f"--images {images} is not a folder of the files that a column names.")
    if source.is_file():
        return ParquetDataset([source], options, by_column=False, images=images)
    found = [f for f in list_files(source, 3) if f.suffix == ".parquet"]
    if not found:
        return None
    paths = _of_split(source, found, options.split)
    if paths:
        return ParquetDataset(_one_configuration(source, paths), options, False, images)
    if "split" in _schema(found[0]).names:
        return ParquetDataset(found, options, True, images)
    named = any(_of_split(source, found, split) for split in SPLITS)
    if options.split == "train" and not named:  # such as img2dataset's 00000.parquet
        return ParquetDataset(_one_configuration(source, found), options, False, images)
    raise InputError(
        f"{source}: no name of a Parquet file or of its folder contains {options.split}, and the "
        "files have no column split. Give the file itself, or another --split."
    )


def _of_split(source: Path, files: list[Path], split: str) -> list[Path]:
    """Return the files of a split, by their names, else by those of their folders.

    Hugging Face's conversions are `default/train/0000.parquet`.
    """
    if by_name := files_of_split(files, split):
        return by_name
    words = split_words(split)
    places = {file: [*file.relative_to(source).parts[:-1], source.name] for file in files}
    return [
        file
        for file, parts in places.items()
        if any(part.lower().removeprefix("partial-") in words for part in parts)
    ]


def _one_configuration(source: Path, files: list[Path]) -> list[Path]:
    """Return the files if they have the same columns.

    Raises:
        InputError: They are of several configurations, such as `zh/train` and `en/train`.
    """
    folders = {file.relative_to(source).parts[0] for file in files if file.parent != source}
    if len(folders) > 1 and any(file.parent.parent != source for file in files):
        raise InputError(
            f"{source} holds several configurations ({', '.join(sorted(folders)[:6])}). Give the "
            f"folder of one, such as {source / min(folders)}."
        )
    return files
