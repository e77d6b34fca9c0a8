"""Captions of photographs: which classes a fold trains on, and what a caption contains.

A caption is a class's name in a short template. Templates in which the graph has another entity,
for any class, are not used: 一张...的照片 would add the entity 照片 to every caption.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.runs import Run
from data.seeds import stream
from experiments.photos.config import PhotosConfig
from experiments.photos.photo_folder import NEVER, TRAIN, VAL, PhotoFolder, Photograph
from experiments.world import WorldFolder, write_tsv

TEMPLATES = (
    "{name}",
    "这是{name}",
    "那是{name}",
    "这里有{name}",
    "那里有{name}",
    "看见了{name}",
    "{name}在这里",
    "{name}就是这样的",
)
_SHORTEST = 2  # characters of the shortest name that is matched, `LexiconConfig.min_length`


@dataclass(frozen=True, kw_only=True)
class PhotoTables(WorldFolder):
    """Captions with photographs: `train.tsv` of the classes trained on, `valid.tsv` of all.

    The row ids are the class's number and the photograph's, such as `0017-003`.

    Attributes:
        folder: Contains `triples.tsv`, `train.tsv` and `valid.tsv`.
        text_len: Characters of the longest caption.
    """

    text_len: int


def class_of(idx: str) -> int:
    """Return the class's number of a row id."""
    return int(idx.partition("-")[0])


def write_tables(
    out: Path, photos: PhotoFolder, fold: str, config: PhotosConfig, overwrite: bool
) -> PhotoTables:
    """Write graph and captions of a fold; finished, unchanged ones are kept.

    Args:
        out: The output folder.
        photos: The photographs.
        fold: Its classes are left out of `train.tsv`. `NEVER`: both tables contain only the
            classes that no fold holds out, for the VQGAN.
        config: Names and photographs per class.
        overwrite: Replace other tables at `out`.
    """
    names = [one.name(config.names) for one in photos.classes]
    templates = usable_templates(names, {e for h, _, t in photos.triples for e in (h, t)})
    settings = {
        "fold": fold,
        "names": config.names,
        "photographs": config.photographs,
        "test_photographs": config.test_photographs,
    }
    inputs = {"photographs": photos.fingerprint}
    with Run.open(
        out, kind="photo tables", settings=settings, inputs=inputs, overwrite=overwrite
    ) as run:
        if run.finished is None:
            every, chosen = np.arange(len(names)), photos.unseen(fold)
            train = chosen if fold == NEVER else np.setdiff1d(every, chosen)
            valid = chosen if fold == NEVER else every
            renamed = dict(zip((c.natural for c in photos.classes), names, strict=True))
            write_tsv(
                run.work / "triples.tsv",
                ((renamed.get(h, h), r, renamed.get(t, t)) for h, r, t in photos.triples),
            )
            counts = {"train_classes": len(train), "unseen_classes": len(chosen)}
            for split, classes, count in (
                (TRAIN, train, config.photographs),
                (VAL, valid, config.test_photographs),
            ):
                path = run.work / ("train.tsv" if split == TRAIN else "valid.tsv")
                found = photos.photographs(split)
                write_tsv(path, _rows(found, classes, count, names, templates))
            run.finish(counts)
    longest = max(len(t.format(name=name)) for t in templates for name in names)
    return PhotoTables(folder=out, text_len=longest)


def usable_templates(names: Sequence[str], entities: set[str]) -> list[str]:
    """Return the templates in which each name is the only entity, apart from those inside it."""
    known = entities | set(names)

    def adds_an_entity(template: str, name: str) -> bool:
        text, start = template.format(name=name), template.index("{")
        inside = range(start, start + len(name))
        return any(
            text[i:j] in known
            for i in range(len(text))
            for j in range(i + _SHORTEST, len(text) + 1)
            if i not in inside or j - 1 not in inside
        )

    return [
        t for t in TEMPLATES if t == "{name}" or not any(adds_an_entity(t, name) for name in names)
    ]


def _rows(
    photographs: Sequence[Sequence[Photograph]],
    classes: NDArray[np.int64],
    count: int,
    names: Sequence[str],
    templates: Sequence[str],
) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of some classes, up to `count` photographs of each."""
    for number in classes.tolist():
        for n, one in enumerate(photographs[number][:count]):
            rng = np.random.default_rng(stream(0, "template", one.id))
            text = templates[int(rng.integers(len(templates)))].format(name=names[number])
            yield f"{number:04d}-{n:03d}", text, base64.b64encode(one.content).decode()
