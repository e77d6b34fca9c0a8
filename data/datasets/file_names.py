"""Which files a folder holds, and which split a file belongs to by its name."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data.datasets.captions import is_image_name, stem
from data.datasets.config import SetOptions
from data.errors import InputError
from data.folders import walk

SPLITS = {
    "train": ("train", "training", "trn", "restval"),  # restval: Karpathy's, of COCO
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}


def list_files(folder: Path, depth: int, entered: set[Path] | None = None) -> list[Path]:
    """Return the files of a folder and of its subfolders down to `depth`, without hidden ones.

    Folders of images are not entered, nor those `entered` before through a link.
    """
    entered = set() if entered is None else entered
    if not folder.is_dir() or folder.resolve() in entered:
        return []
    entered.add(folder.resolve())
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            found.append(path)
        elif path.is_dir() and depth and not is_image_folder(path):
            found += list_files(path, depth - 1, entered)
    return found


def has_images(folder: Path, options: SetOptions, images: Path | None) -> bool:
    """Return whether a folder has images, or the options do not ask for them to be found in it."""
    if images is not None or not options.with_images or options.format != "auto":
        return True
    return next(image_files(folder), None) is not None


def image_files(folder: Path) -> Iterator[str]:
    """Yield the paths of the image files below a folder, from it, also through links."""
    for below, names in walk(folder):
        # macOS leaves `._name` files in archives; they are not images.
        yield from (f"{below}{n}" for n in names if is_image_name(n) and not n.startswith("."))


def is_image_folder(folder: Path) -> bool:
    """Return whether a folder holds images only, judged by its first hundred entries."""
    head = list(islice(folder.iterdir(), 100))
    return len(head) == 100 and all(stem(p.name) != p.name for p in head)


def name_words(path: Path) -> list[str]:
    """Return the words of a file name, without those of its folders."""
    return [word for word in re.split(r"[^a-z0-9]+", path.name.lower()) if word]


def split_words(split: str) -> tuple[str, ...]:
    """Return the names under which a split is known."""
    return SPLITS.get(split, (split.lower(),))


def files_of_split(files: list[Path], split: str) -> list[Path]:
    """Return the files whose name contains the split as a word.

    A word begins and ends at the name's ends, at anything but a letter, or where capitals begin
    (`cocoTrain`); after a digit it may also end a run of letters (`flickr7ktrain`,
    `flickr30kzhbbosontrain`). So `retrieval_train` is not of `val`, nor `train_latest` of `test`.
    """
    names = "|".join(re.escape(name) for name in split_words(split))
    word = re.compile(rf"(?:(?<![a-z])|[0-9][a-z]*)(?:{names})(?![a-z])")
    return [
        file
        for file in files
        if word.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", file.name).lower())
    ]


def only_one(files: list[Path], what: str, option: str) -> Path:
    """Return the only candidate.

    Raises:
        InputError: None or several are found.
    """
    if len(files) == 1:
        return files[0]
    raise InputError(
        f"there are {len(files)} candidates for the {what}: "
        f"{', '.join(str(f) for f in files[:6])}. Name one as {option}."
    )


def listing(folder: Path) -> str:
    """Return the first names of a folder, for a message."""
    names = sorted(p.name for p in islice(folder.iterdir(), 200))
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") if names else "nothing"
