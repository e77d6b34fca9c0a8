"""A folder of photographs in classes, with names, a graph, and folds of held-out classes.

    FOLDER/classes.tsv        class, Chinese name and, optionally, superclass; no header
    FOLDER/kg.tsv             the graph, `head<TAB>relation<TAB>tail`, with the classes' names
    FOLDER/train/<class>/*    photographs to train on, one folder per class
    FOLDER/val/<class>/*      photographs to test on; without it, a sixth of each class of train/
    FOLDER/folds.tsv          optional: class first, its fold last; `-` for a class never held out
    FOLDER/opaque_names.tsv   optional: class first, its opaque name last
    FOLDER/groups.tsv         optional: superclass, coarse group

Instead of the two folders, `train.parquet` and `val.parquet` may contain the photographs: columns
`id`, `class` and `image` (struct of bytes and path).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.errors import InputError, RowError, did_you_mean
from data.images import decode_image, square
from data.runs import fingerprint
from data.seeds import stream
from data.tsv import Rejects, read_rows

NEVER = "-"  # the fold of classes that are never held out
TRAIN, VAL = "train", "val"
_FOLDS = (NEVER, "0", "1", "2", "3", "4")
_VAL_SHARE = 6  # without val/, one photograph in six
_GROUPS = Path(__file__).with_name("groups.tsv")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


class PhotoClass(NamedTuple):
    """A class: its folder's name, its names, and where it belongs."""

    label: str
    natural: str
    opaque: str
    superclass: str
    group: str
    fold: str

    def name(self, kind: str) -> str:
        """Return the `opaque` or the `natural` name."""
        return self.opaque if kind == "opaque" else self.natural


class Photograph(NamedTuple):
    """An encoded image and its id."""

    id: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """The content of a folder, as described above.

    Attributes:
        folder: The folder.
        classes: In the order of `classes.tsv`.
        triples: The graph, with the natural names.
    """

    folder: Path
    classes: tuple[PhotoClass, ...]
    triples: tuple[tuple[str, str, str], ...]

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of all files."""
        return fingerprint(self.folder)

    def unseen(self, fold: str) -> NDArray[np.int64]:
        """Return the numbers of the classes of a fold.

        Raises:
            InputError: No class is in this fold, or only one.
        """
        found = np.flatnonzero([c.fold == fold for c in self.classes])
        if len(found) < 2:
            known = sorted({c.fold for c in self.classes})
            raise InputError(
                f"{self.folder}: fold {fold!r} has {len(found)} classes; two or more are needed. "
                f"Its folds are {', '.join(known)}."
            )
        return found

    def photographs(self, split: str) -> list[list[Photograph]]:
        """Return the photographs of each class in `train` or `val`, by id.

        Raises:
            InputError: A class has none, or the photographs cannot be read.
        """
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[str, list[list[Photograph]]]:
        found = {TRAIN: _read_split(self.folder, TRAIN), VAL: _read_split(self.folder, VAL)}
        splits: dict[str, list[list[Photograph]]] = {TRAIN: [], VAL: []}
        for one in self.classes:
            train, val = (sorted(found[split].get(one.label, [])) for split in (TRAIN, VAL))
            if not found[VAL]:
                count = max(1, len(train) // _VAL_SHARE)
                train, val = train[:-count], train[-count:]
            if not train or not val:
                raise InputError(
                    f"{self.folder}: class {one.label} has {len(train)} photographs to train on "
                    f"and {len(val)} to test on; both are needed."
                )
            splits[TRAIN].append(train)
            splits[VAL].append(val)
        return splits

    def __str__(self) -> str:
        folds = Counter(c.fold for c in self.classes)
        listed = ", ".join(f"{count} in {fold}" for fold, count in sorted(folds.items()))
        return (
            f"{self.folder}: {len(self.classes)} classes (by fold: {listed}), "
            f"{len({c.superclass for c in self.classes})} superclasses, "
            f"{len({c.group for c in self.classes})} groups, {len(self.triples)} triples"
        )


def read_photo_folder(folder: Path, groups: Path | None = None) -> PhotoFolder:
    """Read classes, names, folds and graph of a folder; photographs are read when needed.

    Args:
        folder: See the module's description.
        groups: `superclass<TAB>group`; by default the folder's, or the groups of this package.

    Raises:
        InputError: A file is missing or does not have this layout, or the graph lacks a class.
    """
    rows = _rows(folder / "classes.tsv", {2, 3})
    labels = [row[0] for row in rows]
    names = {row[0]: row[1] for row in rows}
    superclasses = {row[0]: row[2] if len(row) == 3 else row[1] for row in rows}
    for values, what in ((labels, "class"), ([row[1] for row in rows], "name")):
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise InputError(f"{folder / 'classes.tsv'} repeats the {what} {repeated[0]!r}.")
    triples = tuple((row[0], row[1], row[2]) for row in _rows(folder / "kg.tsv", {3}))
    entities = {name for head, _, tail in triples for name in (head, tail)}
    missing = [name for name in names.values() if name not in entities]
    if missing:
        raise InputError(
            f"{folder / 'kg.tsv'} has no triple of {len(missing)} classes, such as {missing[0]!r}"
            f"{did_you_mean(missing[0], entities)}. Every class needs its name in the graph."
        )
    opaque = _assigned(folder / "opaque_names.tsv", labels) or _opaque_names(labels, entities)
    folds = _assigned(folder / "folds.tsv", labels) or _folds(superclasses)
    if NEVER not in folds.values():
        raise InputError(
            f"{folder / 'folds.tsv'} holds every class out; mark those of the VQGAN by {NEVER!r}."
        )
    coarse = _coarse_groups(folder, groups)
    return PhotoFolder(
        folder=folder,
        classes=tuple(
            PhotoClass(
                label=label,
                natural=names[label],
                opaque=opaque[label],
                superclass=superclasses[label],
                group=coarse.get(superclasses[label], superclasses[label]),
                fold=folds[label],
            )
            for label in labels
        ),
        triples=triples,
    )


def decode_photographs(photographs: Iterable[Photograph], size: int) -> NDArray[np.uint8]:
    """Return the pixels (N, size, size, 3) of the centre squares.

    Raises:
        InputError: One cannot be decoded.
    """
    pixels = []
    for one in photographs:
        try:
            pixels.append(square(decode_image(one.content), size))
        except RowError as error:
            raise InputError(f"photograph {one.id}: {error}.") from None
    return np.stack(pixels)


def _rows(path: Path, columns: set[int]) -> list[list[str]]:
    rejects = Rejects()
    rows = [row.fields for row in read_rows(path, columns, rejects)]
    if rejects.count or not rows:
        raise InputError(f"{path} cannot be used: {rejects.first or 'it is empty'}.")
    return rows


def _assigned(path: Path, labels: list[str]) -> dict[str, str]:
    """Return the last column by the first one; empty without the file."""
    if not path.exists():
        return {}
    found = {row[0]: row[-1] for row in _rows(path, {2, 3, 4})}
    missing = [label for label in labels if label not in found]
    if missing:
        raise InputError(f"{path} has no row for {len(missing)} classes, such as {missing[0]!r}.")
    return found


def _coarse_groups(folder: Path, groups: Path | None) -> dict[str, str]:
    own = folder / "groups.tsv"
    path = groups or (own if own.exists() else _GROUPS)
    return {row[0]: row[1] for row in _rows(path, {2})}


def _opaque_names(labels: list[str], entities: set[str]) -> dict[str, str]:
    """Return two random characters per class; no character is used twice, no name is an entity."""
    rng = np.random.default_rng(stream(0, "opaque names"))
    pool = iter(rng.permutation(np.arange(0x4E00, 0x9FA6)).tolist())
    found = {}
    for label in labels:
        name = f"{chr(next(pool))}{chr(next(pool))}"
        while name in entities:
            name = f"{chr(next(pool))}{chr(next(pool))}"
        found[label] = name
    return found


def _folds(superclasses: Mapping[str, str]) -> dict[str, str]:
    """Deal the classes to the folds, superclass by superclass, in a random order."""
    rng = np.random.default_rng(stream(0, "folds"))
    members = defaultdict(list)
    for label, superclass in superclasses.items():
        members[superclass].append(label)
    order = [label for s in members for label in rng.permutation(sorted(members[s])).tolist()]
    return {label: _FOLDS[n % len(_FOLDS)] for n, label in enumerate(order)}


def _read_split(folder: Path, split: str) -> dict[str, list[Photograph]]:
    """Return the photographs by class; empty if the split does not exist."""
    found: dict[str, list[Photograph]] = defaultdict(list)
    table = folder / f"{split}.parquet"
    if table.exists():
        try:
            read = pq.read_table(table, columns=["id", "class", "image"])
        except (KeyError, OSError, ValueError) as error:  # pyarrow's errors derive from these
            raise InputError(f"{table} cannot be read: {str(error).splitlines()[0]}.") from None
        contents = read["image"].combine_chunks().field("bytes").to_pylist()
        columns = (read["id"].to_pylist(), read["class"].to_pylist(), contents)
        for idx, label, content in zip(*columns, strict=True):
            found[label].append(Photograph(idx, content))
    elif (folder / split).is_dir():
        for path in sorted((folder / split).glob("*/*")):
            if path.suffix.lower() in _SUFFIXES:
                label = path.parent.name
                found[label].append(Photograph(f"{label}/{path.stem}", path.read_bytes()))
    elif split == TRAIN:
        raise InputError(
            f"{folder} contains neither {TRAIN}.parquet nor {TRAIN}/ with a folder per class."
        )
    return found
