"""Datasets whose captions and images are in different places, matched by the images' names.

MUGE, Chinese-CLIP, Flickr8k-CN, Flickr30k-CN, COCO-CN, and folders of image files.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.datasets.captions import (
    EMPTY_CAPTION,
    Caption,
    first_line,
    is_keyed,
    join_words,
    read_captions,
    read_ids,
    stem,
)
from data.datasets.config import SetOptions
from data.datasets.file_names import (
    SPLITS,
    files_of_split,
    has_images,
    is_image_folder,
    list_files,
    name_words,
    only_one,
    split_words,
)
from data.datasets.image_stores import FolderStore, ImageStore, TsvStore
from data.datasets.samples import ImageTextDataset, Sample, numbered
from data.errors import InputError, SkipReason
from data.folders import walk
from data.runs import sha256
from data.tsv import Rejects

# Preferred among several caption files: written by people, in Chinese.
_BEST_CAPTIONS = ("imageid.human-written-caption.txt", "flickr8kzhc.caption.txt")


@dataclass
class CaptionFileDataset(ImageTextDataset):
    """Captions of one file and images of a store, matched by the names of the images."""

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
        self.description = f"{self.format}: captions of {self.caption_file}"
        if self.join:
            self.description += " (words joined)"
        if self.ids_file is not None:
            self.description += f", only those in {self.ids_file}"
        self.description += (
            f"; {self.store.description}" if self.store is not None else "; no images"
        )

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextDataset`."""
        store = self.store
        taken: Any = Counter() if store is None else np.zeros(len(store), np.int32)
        for line, own, image, text, _ in self._captions(rejects):
            name, number, read = own, None, None
            if store is not None:
                name, number = image, store.find(image)
                if number is None:
                    rejects.add(line, SkipReason("no such image", image), f"{image}\t{text}")
                    continue
                read = partial(store.read, number)
            key = own if number is None else number
            n = int(taken[key])  # captions of this image so far
            taken[key] += 1
            if n == 0 or self.options.captions == "all":
                yield Sample(line, numbered(name, n), text, read, number)
        if store is not None:
            self.counts["images"] = int((taken > 0).sum())
            self.counts["images_without_caption"] = len(store) - self.counts["images"]
            self.counts["ambiguous_image_names"] = store.duplicates

    def _captions(self, rejects: Rejects) -> Iterator[Caption]:
        """Yield the captions of the images to keep, words joined; empty ones are rejected."""
        wanted = read_ids(self.ids_file) if self.ids_file is not None else None
        outside = others = 0
        read = read_captions(
            self.caption_file, self.options.columns, rejects, self.store is not None
        )
        splits = split_words(self.options.split)
        for caption in read:
            if caption.split and caption.split.lower() not in splits:
                others += 1
            elif wanted is not None and stem(caption.image) not in wanted:
                outside += 1
            elif not caption.text.strip():
                rejects.add(caption.line, EMPTY_CAPTION, caption.image)
            elif self.join:
                yield caption._replace(text=join_words(caption.text))
            else:
                yield caption
        if others:
            self.counts["rows_of_other_splits"] = others
        if wanted is not None:
            self.counts["captions_of_other_images"] = outside

    def inputs(self) -> dict[str, str]:
        """See `ImageTextDataset`."""
        found = {"captions": sha256(self.caption_file)}
        if self.ids_file is not None:
            found["ids"] = sha256(self.ids_file)
        if self.store is not None:
            found["images"] = self.store.fingerprint()
        return found

    def close(self) -> None:
        """See `ImageTextDataset`."""
        if self.store is not None:
            self.store.close()


def _joined(
    kind: str, caption_file: Path, images: Path | None, options: SetOptions, ids: Path | None
) -> CaptionFileDataset:
    """Return the captions of a file with the images at `images`.

    Raises:
        InputError: No images are found.
    """
    if not options.with_images:
        return CaptionFileDataset(kind, caption_file, None, options, ids)
    if images is None:
        raise InputError(
            f"{caption_file} names images; give their place as --images FOLDER or --images "
            "FILE.tsv, or pass --no-images for prompts."
        )
    if not images.exists():
        raise InputError(f"{images} does not exist.")
    store = FolderStore(images) if images.is_dir() else TsvStore(images)
    if not len(store):
        raise InputError(
            f"{images} contains no images{_other_files(images)}. Give their folder as --images."
        )
    return CaptionFileDataset(kind, caption_file, store, options, ids)


def _other_files(folder: Path) -> str:
    """Return the endings of the files of a folder without images, for a message."""
    endings = Counter(Path(name).suffix.lower() for _, names in walk(folder) for name in names)
    listed = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in endings.most_common(4))
    return f" in a known format (files: {listed})" if listed else ""


def open_caption_file(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> CaptionFileDataset:
    """Return the dataset of a caption file that was given itself."""
    name = source.name.lower().removesuffix(".gz")
    if images is not None and images.is_file():
        kind = "chinese-clip" if name.endswith("jsonl") else "muge"
        kind = "keyed" if is_keyed(first_line(source)) else kind
    else:
        kind = "keyed" if is_keyed(first_line(source)) else "folder"
    if images is None and kind == "folder" and options.with_images:
        images = source.parent
    return _joined(kind, source, images, options, ids)


def find_paired(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> CaptionFileDataset | None:
    """Return the pair of MUGE or Chinese-CLIP: a TSV of base64 images and a file of captions."""
    if source.is_file():
        return open_caption_file(source, options, images, ids)
    files = files_of_split(list_files(source, 2), options.split)
    stores = [f for f in files if f.suffix == ".tsv" and {"img", "imgs"} & {*name_words(f)}]
    texts = [f for f in files if f not in stores and name_words(f)[-1] in ("tsv", "jsonl")]
    named = [f for f in texts if {"text", "texts", "txt", "queries"} & {*name_words(f)}]
    if not stores and not named:  # the captioning task: IC_train.tsv and IC_train.jsonl
        stores = [f for f in texts if f.suffix == ".tsv" and f.with_suffix(".jsonl") in texts]
        named = [f.with_suffix(".jsonl") for f in stores]
    if not named or (is_image_folder(source) and not stores):
        return None
    if options.with_images and not stores and images is None:
        raise InputError(
            f"{named[0]} has no images next to it (a TSV of split {options.split} with img in its "
            "name). Give them as --images, or convert the captions to prompts with --no-images."
        )
    caption_file = only_one(named, "caption file", "SOURCE")
    if images is None and options.with_images:
        images = only_one(stores, "file of images", "--images")
    kind = "chinese-clip" if caption_file.name.endswith("_texts.jsonl") else "muge"
    return _joined(kind, caption_file, images, options, ids)


def find_keyed(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> CaptionFileDataset | None:
    """Return captions whose lines begin with an image name and a number, as in Flickr8k-CN."""
    if source.is_file():
        return open_caption_file(source, options, images, ids)
    texts = [f for f in list_files(source, 3) if f.suffix in (".txt", ".tsv", ".token")]
    captions = [f for f in texts if is_keyed(first_line(f))]
    if not captions or not has_images(source, options, images):
        return None
    best = [f for f in captions if f.name in _BEST_CAPTIONS]
    chosen = best or files_of_split(captions, options.split) or captions
    caption_file = only_one(chosen, "caption file", "SOURCE")
    if ids is None and not files_of_split([caption_file], options.split):
        lists = [
            f for f in files_of_split(texts, options.split) if f not in captions and _is_list(f)
        ]
        ids = only_one(lists, "list of the split's images", "--ids") if lists else None
    return _joined("keyed", caption_file, images or source, options, ids)


def _is_list(path: Path) -> bool:
    """Return whether a text file holds one name per line."""
    line = first_line(path)
    return bool(line) and "\t" not in line and " " not in line.strip() and not is_keyed(line)


def find_folder(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> CaptionFileDataset | None:
    """Return a folder of image files with a file of their names and captions."""
    if source.is_file():
        return _joined("folder", source, images or source.parent, options, ids)
    endings = (".csv", ".jsonl", ".tsv", ".txt")
    for folder in (source, *(source / name for name in SPLITS.get(options.split, ()))):
        files = [f for f in list_files(folder, 0) if f.suffix in endings]
        named = [f for f in files if f.stem in ("metadata", "captions")]
        chosen = named or files_of_split(files, options.split)
        if chosen and has_images(folder, options, images):
            caption_file = only_one(chosen, "caption file", "SOURCE")
            return _joined("folder", caption_file, images or folder, options, ids)
    return None


def find_json(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> CaptionFileDataset | None:
    """Return a JSON list of captions, as COCO, Karpathy and AI Challenger distribute them."""
    if source.is_file():
        return open_caption_file(source, options, images, ids)
    files = [f for f in list_files(source, 2) if f.suffix == ".json"]
    named = [f for f in files if {"caption", "captions"} & {*name_words(f)}]
    whole = [f for f in files if name_words(f)[0] == "dataset"]  # all splits in one
    chosen = files_of_split(named or files, options.split) or whole
    if not chosen or not has_images(source, options, images):
        return None
    return _joined(
        "json", only_one(chosen, "caption file", "SOURCE"), images or source, options, ids
    )
