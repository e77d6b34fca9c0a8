"""Open an image-text dataset as it is distributed.

A dataset is captions and images, matched by name, or files that hold both. `open_dataset` detects
the format unless it is given. docs/data.md describes the formats and their sources.
"""

from collections.abc import Callable
from pathlib import Path

from data.datasets.caption_files import (
    find_folder,
    find_json,
    find_keyed,
    find_paired,
    open_caption_file,
)
from data.datasets.config import SetOptions
from data.datasets.file_names import listing
from data.datasets.parquet_rows import find_parquet
from data.datasets.samples import ImageTextDataset
from data.datasets.tsv_rows import find_tsv
from data.errors import InputError
from data.schema import is_parquet

_KEYED = ("flickr8k-cn", "flickr30k-cn", "coco-cn")


def open_dataset(
    source: Path, options: SetOptions, images: Path | None = None, ids: Path | None = None
) -> ImageTextDataset:
    """Return the dataset at `source`, of the given or the detected format.

    Args:
        source: A caption file, a file of captions and images, or a folder.
        options: How it is read.
        images: A folder or TSV of its images, if they are not found from `source`.
        ids: A file of the names of images to keep, one per line.

    Raises:
        InputError: No dataset is found, or several candidates for a file.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist.")
    kinds = _kinds(source, options, images)
    for kind in kinds:
        found = _FINDERS[kind](source, options, images, ids)
        if found is not None:
            return found
    raise InputError(
        f"{source}: no dataset of the format {options.format} with split {options.split} found "
        f"(the folder holds {listing(source)}). Name the caption file itself, with --images FOLDER "
        "or --images FILE.tsv; see docs/data.md."
        if source.is_dir()
        else f"{source} is not of the format {options.format}; see docs/data.md."
    )


def _kinds(source: Path, options: SetOptions, images: Path | None) -> list[str]:
    """Return the finders to try, in order."""
    if options.format != "auto":
        return ["keyed" if options.format in _KEYED else options.format]
    if source.is_dir():
        return ["parquet", "chinese-clip", "muge", "keyed", "folder", "json", "tsv"]
    if is_parquet(source):
        return ["parquet"]
    if not options.with_images or images is not None:
        return ["captions"]
    return ["tsv", "captions"]


# Each returns None where it finds no dataset of its format.
_FINDERS: dict[str, Callable[..., "ImageTextDataset | None"]] = {
    "tsv": find_tsv,
    "captions": open_caption_file,
    "muge": find_paired,
    "chinese-clip": find_paired,
    "keyed": find_keyed,
    "folder": find_folder,
    "json": find_json,
    "parquet": find_parquet,
}
