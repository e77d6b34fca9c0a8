"""Image-text sets as they are distributed: which kind stands at a path, and its samples.

A set is captions and images, matched by name, or a file that holds both. `open_set` tells the kind
by what lies there, or takes the word of the user; the set then says what it found and gives its
samples one by one. Formats and their sources are described in docs/data.md.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.datasets.captions import (
    EMPTY_CAPTION,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    TEXT_COLUMNS,
    Caption,
    Columns,
    choose,
    first_line,
    is_image_name,
    is_keyed,
    join_words,
    read_captions,
    read_ids,
    stem,
)
from data.datasets.image_stores import MAX_BYTES, FolderStore, ImageStore, TsvStore
from data.errors import ConfigError, InputError, RowError, SkipReason
from data.images import decode_base64
from data.runs import sha256
from data.schema import is_parquet
from data.tsv import Rejects, read_rows

FORMATS = ("tsv", "muge", "chinese-clip", "flickr8k-cn", "flickr30k-cn", "coco-cn", "folder",
           "parquet")  # fmt: skip
_KEYED = ("flickr8k-cn", "flickr30k-cn", "coco-cn")
_SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
# Of several caption files, the ones written by people in Chinese.
_BEST_CAPTIONS = ("imageid.human-written-caption.txt", "flickr8kzhc.caption.txt")
_PARQUET_ROWS = 64  # read at once: their images are all in memory


class Sample(NamedTuple):
    """One caption with its image.

    Attributes:
        line: Where it stands, for a message.
        idx: The id of the row to write.
        text: The caption as given.
        image: Reads the encoded bytes (may be called in another thread); None without images.
        image_key: Equal for samples of the same image.
    """

    line: int
    idx: str
    text: str
    image: Callable[[], bytes] | None
    image_key: object


class ImageTextSet(Protocol):
    """What `open_set` gives.

    Attributes:
        format: One of `FORMATS`.
        said: What was found, for the user.
        counts: What was counted while reading.
    """

    format: str
    said: str
    counts: dict[str, int]

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """All samples in the order of the captions; what cannot be used goes to `rejects`."""

    def inputs(self) -> dict[str, str]:
        """What it reads, by name, with fingerprints."""

    def close(self) -> None:
        """Let go of open files."""


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """How a set is read.

    Attributes:
        format: One of `FORMATS`, or `auto`.
        split: Which part of a set that has several: `train`, `val`, `test`, or any word in the
            files' names.
        captions: `all`, or `first`: one for each image.
        join_words: Put captions together that were cut into words; None does so for files that say
            of themselves that they are segmented.
        text_column: Where captions are, in files with named columns; None looks for usual names.
        image_column: The same for images or their names.
        id_column: The same for rows' ids.
        with_images: False gives captions only: prompts.
    """

    format: str = "auto"
    split: str = "train"
    captions: str = "all"
    join_words: bool | None = None
    text_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    with_images: bool = True

    def __post_init__(self) -> None:
        if self.format not in ("auto", *FORMATS):
            raise ConfigError(f"--format {self.format}: use auto or one of {', '.join(FORMATS)}.")
        if self.captions not in ("all", "first"):
            raise ConfigError(f"--captions {self.captions}: use all or first.")

    @property
    def columns(self) -> Columns:
        """The names of columns that were given."""
        return Columns(self.text_column, self.image_column, self.id_column)


def open_set(
    source: Path, options: SetOptions, images: Path | None = None, ids: Path | None = None
) -> ImageTextSet:
    """The set at `source`, of the format that was asked for or that is found there.

    Args:
        source: A caption file, a file of captions and images, or a folder.
        options: How it is read.
        images: Where its images are, if they are not found from `source`: a folder, or a TSV.
        ids: A list of the images to take, one name a line.

    Raises:
        InputError: There is no such set, or several that could be meant.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist.")
    kinds = _kinds(source, options, images)
    for kind in kinds:
        found = _FINDERS[kind](source, options, images, ids)
        if found is not None:
            return found
    raise InputError(
        f"{source}: no set of the format {options.format} with split {options.split} is found "
        f"there (it holds {_listing(source)}). Name the caption file itself, with --images FOLDER "
        "or --images FILE.tsv; see docs/data.md."
        if source.is_dir()
        else f"{source} is not of the format {options.format}; see docs/data.md."
    )


def _kinds(source: Path, options: SetOptions, images: Path | None) -> list[str]:
    """The finders to try, in order."""
    if options.format != "auto":
        return ["keyed" if options.format in _KEYED else options.format]
    if source.is_dir():
        return ["parquet", "chinese-clip", "muge", "keyed", "folder", "tsv"]
    if is_parquet(source):
        return ["parquet"]
    if not options.with_images or images is not None:
        return ["captions"]
    return ["tsv", "captions"]


# --- captions and images in different places -----------------------------------------------------
@dataclass
class JoinedSet:
    """Captions of one file and images of a store, matched by the images' names."""

    format: str
    caption_file: Path
    store: ImageStore | None
    options: SetOptions
    ids_file: Path | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        join = self.options.join_words
        name = self.caption_file.name
        self.join = join if join is not None else name.startswith("seg.") or "bosonseg" in name
        self.said = f"{self.format}: captions of {self.caption_file}"
        if self.join:
            self.said += " (words joined)"
        if self.ids_file is not None:
            self.said += f", those of {self.ids_file}"
        self.said += f"; {self.store.said}" if self.store is not None else "; no images"

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextSet`."""
        if self.store is None:
            return self._prompts(rejects)
        return self._pairs(self.store, rejects)

    def _captions(self, rejects: Rejects) -> Iterator[Caption]:
        """Captions of the images that are wanted, words joined, empty ones set aside."""
        wanted = read_ids(self.ids_file) if self.ids_file is not None else None
        outside = 0
        read = read_captions(
            self.caption_file, self.options.columns, rejects, self.store is not None
        )
        for caption in read:
            if wanted is not None and stem(caption.image) not in wanted:
                outside += 1
            elif not caption.text.strip():
                rejects.add(caption.line, EMPTY_CAPTION, caption.image)
            elif self.join:
                yield caption._replace(text=join_words(caption.text))
            else:
                yield caption
        if wanted is not None:
            self.counts["captions_of_other_images"] = outside

    def _prompts(self, rejects: Rejects) -> Iterator[Sample]:
        """Captions without images."""
        known: dict[str, int] = {}
        for line, own, _, text in self._captions(rejects):
            n = known[own] = known.get(own, -1) + 1
            if n == 0 or self.options.captions == "all":
                yield Sample(line, _numbered(own, n), text, None, None)

    def _pairs(self, store: ImageStore, rejects: Rejects) -> Iterator[Sample]:
        """Captions with their images."""
        taken = np.zeros(len(store), np.int32)  # captions of each image so far
        for line, _, image, text in self._captions(rejects):
            number = store.find(image)
            if number is None:
                rejects.add(line, SkipReason("no such image", image), f"{image}\t{text}")
                continue
            n, taken[number] = int(taken[number]), taken[number] + 1
            if n == 0 or self.options.captions == "all":
                yield Sample(line, _numbered(image, n), text, partial(store.read, number), number)
        self.counts["images"] = int((taken > 0).sum())
        self.counts["images_without_caption"] = len(store) - self.counts["images"]
        self.counts["ambiguous_image_names"] = store.duplicates

    def inputs(self) -> dict[str, str]:
        """See `ImageTextSet`."""
        found = {"captions": sha256(self.caption_file)}
        if self.ids_file is not None:
            found["ids"] = sha256(self.ids_file)
        if self.store is not None:
            found["images"] = self.store.fingerprint()
        return found

    def close(self) -> None:
        """See `ImageTextSet`."""
        if self.store is not None:
            self.store.close()


def _numbered(name: str, n: int) -> str:
    return f"{name}#{n}" if n else name


def _joined(
    kind: str, caption_file: Path, images: Path | None, options: SetOptions, ids: Path | None
) -> JoinedSet:
    """A caption file with the images at `images`.

    Raises:
        InputError: There are no images.
    """
    if not options.with_images:
        return JoinedSet(kind, caption_file, None, options, ids)
    if images is None:
        raise InputError(
            f"{caption_file} names images; say where they are: --images FOLDER or --images "
            "FILE.tsv (or --no-images for prompts)."
        )
    if not images.exists():
        raise InputError(f"{images} does not exist.")
    store = FolderStore(images) if images.is_dir() else TsvStore(images)
    if not len(store):
        raise InputError(f"{images} holds no images. Give their folder as --images.")
    return JoinedSet(kind, caption_file, store, options, ids)


def _from_captions(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> JoinedSet:
    """A caption file that was named itself."""
    name = source.name.lower().removesuffix(".gz")
    if images is not None and images.is_file():
        kind = "chinese-clip" if name.endswith("jsonl") else "muge"
        kind = "keyed" if is_keyed(first_line(source)) else kind
    else:
        kind = "keyed" if is_keyed(first_line(source)) else "folder"
    if images is None and kind == "folder" and options.with_images:
        images = source.parent
    return _joined(kind, source, images, options, ids)


def _paired(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> JoinedSet | None:
    """MUGE's and Chinese-CLIP's pairs: a TSV of base64 images beside a file of captions."""
    if source.is_file():
        return _from_captions(source, options, images, ids)
    files = _of_split(_files(source, 2), options.split)
    stores = [f for f in files if f.suffix == ".tsv" and {"img", "imgs"} & {*_tokens(f)}]
    texts = [f for f in files if f not in stores and _tokens(f)[-1] in ("tsv", "jsonl")]
    named = [f for f in texts if {"text", "texts", "txt", "queries"} & {*_tokens(f)}]
    if not stores and not named:  # the captioning task: IC_train.tsv beside IC_train.jsonl
        stores = [f for f in texts if f.suffix == ".tsv" and f.with_suffix(".jsonl") in texts]
        named = [f.with_suffix(".jsonl") for f in stores]
    if not named or (_full_of_pictures(source) and not stores):
        return None
    if options.with_images and not stores and images is None:
        raise InputError(
            f"{named[0]} has no images beside it (a TSV of split {options.split} with img in its "
            "name). Give them as --images, or take the captions as prompts with --no-images."
        )
    caption_file = _one(named, "caption file", "SOURCE")
    if images is None and options.with_images:
        images = _one(stores, "file of images", "--images")
    kind = "chinese-clip" if caption_file.name.endswith("_texts.jsonl") else "muge"
    return _joined(kind, caption_file, images, options, ids)


def _keyed(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> JoinedSet | None:
    """Captions whose lines begin with an image's name and a number: Flickr8k-CN and its kin."""
    if source.is_file():
        return _from_captions(source, options, images, ids)
    texts = [f for f in _files(source, 3) if f.suffix in (".txt", ".tsv", ".token")]
    captions = [f for f in texts if is_keyed(first_line(f))]
    if not captions or not _has_images(source, options, images):
        return None
    best = [f for f in captions if f.name in _BEST_CAPTIONS]
    chosen = best or _of_split(captions, options.split) or captions
    caption_file = _one(chosen, "caption file", "SOURCE")
    if ids is None and not _of_split([caption_file], options.split):
        lists = [f for f in _of_split(texts, options.split) if f not in captions and _is_list(f)]
        ids = _one(lists, "list of the split's images", "--ids") if lists else None
    return _joined("keyed", caption_file, images or source, options, ids)


def _is_list(path: Path) -> bool:
    """Whether a text file holds one name a line."""
    line = first_line(path)
    return bool(line) and "\t" not in line and " " not in line.strip() and not is_keyed(line)


def _folder(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> JoinedSet | None:
    """A folder of image files with a file that names them and their captions."""
    if source.is_file():
        return _joined("folder", source, images or source.parent, options, ids)
    endings = (".csv", ".jsonl", ".tsv", ".txt")
    for folder in (source, *(source / name for name in _SPLITS.get(options.split, ()))):
        files = [f for f in _files(folder, 0) if f.suffix in endings]
        named = [f for f in files if f.stem in ("metadata", "captions")]
        chosen = named or _of_split(files, options.split)
        if chosen and _has_images(folder, options, images):
            caption_file = _one(chosen, "caption file", "SOURCE")
            return _joined("folder", caption_file, images or folder, options, ids)
    return None


# --- captions and images in the same file --------------------------------------------------------
@dataclass
class TsvSet:
    """Rows of `idx<TAB>text<TAB>base64`: what this toolkit and EasyNLP read."""

    path: Path
    options: SetOptions
    format: str = "tsv"
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.said = f"tsv: rows of {self.path}"

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextSet`."""
        wide = (3,) if self.options.with_images else (2, 3)
        for line, fields in read_rows(self.path, wide, rejects):
            image = _decoder(fields[2]) if self.options.with_images else None
            text = join_words(fields[1]) if self.options.join_words else fields[1]
            yield Sample(line, fields[0], text, image, line)

    def inputs(self) -> dict[str, str]:
        """See `ImageTextSet`."""
        return {"rows": sha256(self.path)}

    def close(self) -> None:
        """See `ImageTextSet`."""


def _decoder(encoded: str) -> Callable[[], bytes]:
    return lambda: decode_base64(encoded)


def _tsv(source: Path, options: SetOptions, images: Path | None, ids: Path | None) -> TsvSet | None:
    if images is not None or ids is not None or options.captions == "first":
        return None
    if source.is_file():
        return TsvSet(source, options) if _columns(source) == 3 else None
    files = [f for f in _of_split(_files(source, 1), options.split) if f.suffix == ".tsv"]
    whole = [f for f in files if _columns(f) == 3]
    return TsvSet(_one(whole, "file of rows", "SOURCE"), options) if whole else None


def _columns(path: Path) -> int:
    """How many columns most of the first rows have."""
    try:
        head = [len(row.fields) for row in islice(read_rows(path, (1, 2, 3), Rejects()), 20)]
    except InputError:
        return 0
    return max(head, key=head.count, default=0)


@dataclass
class ParquetSet:
    """Hugging Face's image-text Parquet: a struct of bytes and path, and a caption or several."""

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
            pictures = [f.name for f in schema if _is_image(f.type)]
            known = [*IMAGE_COLUMNS, *(name.lower() for name in pictures)]
            self.image = choose(first, pictures, asked.image_column, known, "--image-column")
        scalars = [f.name for f in schema if _is_text(f.type) or pa.types.is_integer(f.type)]
        known_ids = [n for n in scalars if n.lower() in ID_COLUMNS]
        self.id = asked.id_column and choose(first, schema.names, asked.id_column, (), "")
        self.id = self.id or min(known_ids, key=lambda n: ID_COLUMNS.index(n.lower()), default=None)
        self.said = (
            f"parquet: {len(self.paths)} file{'s'[: len(self.paths) > 1]} ({self.paths[0]} ...), "
            f"captions in {self.text}, images in {self.image or 'no column'}, "
            f"ids in {self.id or 'no column: numbered'}"
        )
        if self.by_column:
            self.said += f", rows whose split is {self.options.split}"

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextSet`."""
        line = 0
        for path in self.paths:
            for row in self._rows(path):
                line += 1
                if self.by_column and str(row["split"]) not in _words(self.options.split):
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
            image = _embedded(row[self.image], path.parent)
            self._count("images")
        name = str(row[self.id]) if self.id and row[self.id] is not None else str(line)
        for n, text in enumerate(texts[:1] if self.options.captions == "first" else texts):
            joined = join_words(text) if self.options.join_words else text
            yield Sample(line, _numbered(name, n), joined, image, line)

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
        """See `ImageTextSet`."""
        return {f"{n}:{path.name}": sha256(path) for n, path in enumerate(self.paths)}

    def close(self) -> None:
        """See `ImageTextSet`."""


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


def _embedded(value: Any, folder: Path) -> Callable[[], bytes]:
    """Reads the image of a cell: its bytes, or the file that it names below `folder`."""

    def read() -> bytes:
        cell = value if isinstance(value, dict) else {"bytes": value}
        content: bytes | None = cell["bytes"]
        if content is None and cell.get("path"):
            path = folder.joinpath(str(cell["path"])).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise RowError("no image", f"{cell['path']} lies outside {folder}")
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                raise RowError("no image", f"{path} is missing or over {MAX_BYTES:,} bytes")
            return path.read_bytes()
        if content is None:
            raise RowError("no image")
        if len(content) > MAX_BYTES:
            raise RowError("image too large", f"{len(content):,} bytes")
        return content

    return read


def _parquet(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> ParquetSet | None:
    if (images is not None or ids is not None) and options.format == "auto":
        return None
    if images is not None or ids is not None:
        raise ConfigError(
            "Parquet files hold their images: --images and --ids do not go with them."
        )
    if source.is_file():
        paths, named = [source], True
    else:
        found = [f for f in _files(source, 3) if f.suffix == ".parquet"]
        paths = _of_split(found, options.split)
        named = bool(paths)
        paths = paths or found
    if not paths:
        return None
    by_column = not named and "split" in _schema(paths[0]).names
    if not named and not by_column:
        raise InputError(
            f"{source}: no Parquet file's name holds {options.split}, and none has a column "
            "split. Give the file itself, or another --split."
        )
    return ParquetSet(paths, options, by_column)


# --- names of files ------------------------------------------------------------------------------
def _files(folder: Path, depth: int) -> list[Path]:
    """The files of a folder, and of folders in it down to `depth`; hidden ones are left out."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            found.append(path)
        elif path.is_dir() and depth and not _full_of_pictures(path):
            found += _files(path, depth - 1)
    return found


def _has_images(folder: Path, options: SetOptions, images: Path | None) -> bool:
    """Whether there are images, or none are needed, or the user says that it is such a set."""
    if images is not None or not options.with_images or options.format != "auto":
        return True
    return any(
        is_image_name(name) and not name.startswith(".")
        for _, _, files in os.walk(folder)
        for name in files
    )


def _full_of_pictures(folder: Path) -> bool:
    """Whether a folder is one of images, as far as its first hundred entries tell."""
    head = list(islice(folder.iterdir(), 100))
    return len(head) == 100 and all(stem(p.name) != p.name for p in head)


def _tokens(path: Path) -> list[str]:
    """The words of a file's name, folder names not included."""
    return [word for word in re.split(r"[^a-z0-9]+", path.name.lower()) if word]


def _words(split: str) -> tuple[str, ...]:
    return _SPLITS.get(split, (split.lower(),))


def _of_split(files: list[Path], split: str) -> list[Path]:
    """Those whose name has a word that is the split's, or ends with it (`flickr7ktrain`)."""
    return [f for f in files if any(t.endswith(_words(split)) for t in _tokens(f))]


def _one(files: list[Path], what: str, option: str) -> Path:
    """The only one of several candidates.

    Raises:
        InputError: There are several.
    """
    if len(files) == 1:
        return files[0]
    raise InputError(
        f"there are {len(files)} candidates for the {what}: "
        f"{', '.join(str(f) for f in files[:6])}. Name one as {option}."
    )


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in islice(folder.iterdir(), 200))
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") if names else "nothing"


_FINDERS: dict[str, Callable[..., "ImageTextSet | None"]] = {
    "tsv": _tsv,
    "captions": _from_captions,
    "muge": _paired,
    "chinese-clip": _paired,
    "keyed": _keyed,
    "folder": _folder,
    "parquet": _parquet,
}
