"""Clusters of captions: captions whose losses are not independent of each other.

    N captions

Captions of one image have its codes in common, and captions of one class a name, an entity and a
kind of image. An interval that treats them as independent is too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artist.evaluation.confidence_intervals import group_of_rows
from artist.tables.lattice_rows import Rows, open_lattice
from data.errors import InputError, SchemaError, did_you_mean
from data.tsv import Rejects, read_rows

ENTITY, IMAGE = "entity", "image"
_FEW = 30  # below this the variance between clusters is a rough estimate


@dataclass(frozen=True)
class Clusters:
    """The cluster of each caption.

    Attributes:
        by: `image`, `entity`, or the name of a column or file.
        labels: The cluster of each caption (N,), for people and for other programs.
        groups: Numbers of the clusters and of the images (N, 2), or of the images alone (N, 1); see
            `artist.evaluation.confidence_intervals.interval`.
    """

    by: str
    labels: Sequence[str]
    groups: NDArray[np.int64]

    @classmethod
    def of_images(cls, images: NDArray[np.int64]) -> "Clusters":
        """Return the clusters of captions that are dependent only through a common image.

        Args:
            images: Image number of each caption (N,).
        """
        return cls(IMAGE, [f"image {number}" for number in images.tolist()], images[:, None])

    def __str__(self) -> str:
        """Return `clustered by entity (34) and image (1020)`."""
        ways = zip(self._names, self._counts, strict=True)
        return f"clustered by {' and '.join(f'{name} ({count})' for name, count in ways)}"

    @property
    def _counts(self) -> list[int]:
        return [len(np.unique(column)) for column in self.groups.T]

    @property
    def _names(self) -> list[str]:
        return [self.by, IMAGE][-self.groups.shape[1] :]

    @property
    def few(self) -> str:
        """Return a warning if an interval over so few clusters is rough, else an empty text."""
        count, name = min(zip(self._counts, self._names, strict=True))
        what = "images" if name == IMAGE else f"clusters by {name}"
        return f"only {count} {what}: the intervals are rough." if count < _FEW else ""

    def count(self, members: NDArray[np.bool_] | slice = slice(None)) -> int:
        """Return the number of clusters of some captions."""
        return len(np.unique(self.groups[members, 0]))


def find_clusters(
    rows: Rows, by: str = ENTITY, *, table: Path, names: Sequence[str] = ()
) -> Clusters:
    """Return the clusters of the rows of a table.

    Args:
        rows: The captions with codes; equal codes are one image.
        by: `image`; `entity`: captions with the same longest entity (the first, if several are
            longest) are one cluster; a column of the table, or a TSV of idx and class: captions
            with the same value are one. A caption without entity or value is in the cluster of its
            image.
        table: The table of the rows, for its columns.
        names: Entity names by id, for the labels.

    Raises:
        SchemaError: The table has no such column, or not one of text or integers.
        InputError: A line of the TSV is malformed, or it lacks a caption.
    """
    images = group_of_rows(rows.codes)
    of_images = Clusters.of_images(images)
    if by == IMAGE:
        return of_images
    if by == ENTITY:
        found = _longest_entities(rows, names)
    elif (file := class_file(by)) is not None:
        found, by = _classes(file, rows.idx), file.stem
    else:
        found = _column(table, by)
    labels = [of_images.labels[n] if label is None else label for n, label in enumerate(found)]
    numbers = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return Clusters(by, labels, np.stack([numbers, images], axis=1))


def class_file(by: str) -> Path | None:
    """Return the TSV of idx and class that `by` names, or None if it is not a file."""
    return Path(by) if by not in (ENTITY, IMAGE) and Path(by).is_file() else None


def _classes(path: Path, idx: Sequence[str]) -> list[str | None]:
    """Return the class of each caption (N,) by a TSV of idx and class."""
    rejects = Rejects()
    classes = dict(row.fields for row in read_rows(path, (2,), rejects))
    if rejects.count:
        raise InputError(f"{path}: {rejects.first}; expected `idx<TAB>class`.")
    missing = next((i for i in idx if i not in classes), None)
    if missing is not None:
        raise InputError(f"{path} has no class for the caption with idx {missing!r}.")
    return [classes[i] for i in idx]


def _column(table: Path, by: str) -> list[str | None]:
    """Return the values of a column as text (N,)."""
    shards = open_lattice(table)
    found = shards.schema_arrow
    usable = [f.name for f in found if pa.types.is_integer(f.type) or pa.types.is_string(f.type)]
    if by not in usable:
        near = did_you_mean(by, [ENTITY, IMAGE, *usable]) or "."
        what = "has lists or bytes" if by in found.names else "does not exist"
        raise SchemaError(
            f"{table}: column {by!r} {what}; cluster by {ENTITY}, {IMAGE}, a TSV of idx and class, "
            f"or one of the columns {', '.join(usable)}{near}"
        )
    values: list[str | None] = shards.read([by])[by].cast(pa.string()).to_pylist()
    return values


def _longest_entities(rows: Rows, names: Sequence[str]) -> list[str | None]:
    """Return the name of the longest entity of each row (N,), or None without entities."""
    counts = np.diff(rows.first_entity)
    row = np.repeat(np.arange(len(rows)), counts)
    lengths = np.asarray(rows.ends, dtype=np.int64) - rows.starts
    order = np.lexsort((-lengths, row))  # stable: the first of equally long ones comes first
    chosen = np.full(len(rows), -1, dtype=np.int64)
    with_entity = counts > 0
    first = np.asarray(rows.first_entity[:-1])[with_entity]
    chosen[with_entity] = np.asarray(rows.entity_ids)[order[first]]
    labels = {
        entity: names[entity] if entity < len(names) else f"entity {entity}"
        for entity in np.unique(chosen[with_entity]).tolist()
    }
    return [labels.get(entity) for entity in chosen.tolist()]
