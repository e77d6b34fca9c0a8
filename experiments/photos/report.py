"""The results of the experiment on photographs: JSON, Markdown, a grid of images, an HTML page."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from artist.evaluation.confidence_intervals import Interval
from artist.evaluation.examples import Part
from artist.evaluation.report import TEMPLATES
from artist.evaluation.tables import plus_minus
from artist.generation.gallery import (
    Card,
    ComparisonTable,
    GalleryImage,
    ImageRow,
    Note,
    card_sizes,
    gallery_environment,
)
from artist.generation.pages import write_page
from data.images import encode_png, encode_webp
from experiments.photos.judge import Pixels
from experiments.photos.measures import Estimate, Floats, Measure
from experiments.photos.nats import ARMS, LATTICE_ARM, NONE_ARM, TRAINED, UNSEEN, Nats
from experiments.photos.photo_folder import PhotoClass

RESULTS, TABLE, GRID, PAGE = "photos.json", "photos.md", "photos.png", "photos.html"
PHOTOGRAPHS, VQGAN = "photographs", "photographs through the VQGAN"
MEASURES = {  # name -> heading
    "auc_simple": "AUC, simple features",
    "auc_cnn": "AUC, CNN",
    "r2_simple": "R2, simple features",
    "group_cnn": "group, CNN",
    "superclass_cnn": "superclass, CNN",
    "group_ridge": "group, ridge",
}
_CHANCE_HALF = ("auc_simple", "auc_cnn")
_BY_GROUP = (*_CHANCE_HALF, "group_cnn")
_GAP = 6  # white pixels between two kinds of images of the grid


class DrawnClass(NamedTuple):
    """A class, its name in the prompt, and some of its images (H, W, 3) by row."""

    info: PhotoClass
    prompt: str
    rows: dict[str, list[Pixels]]


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """Measures of the unseen classes of a group. Field names are JSON keys.

    Attributes:
        group: The group.
        num_classes: Its unseen classes.
        measures: Measure -> arm -> mean over classes and seeds.
    """

    group: str
    num_classes: int
    measures: dict[str, dict[str, float]]


def group_results(
    groups: Sequence[str],
    folds: Sequence[tuple[NDArray[np.int64], Mapping[str, Sequence[Mapping[str, Measure]]]]],
) -> list[GroupResult]:
    """Return the results of each group.

    Args:
        groups: The group of each class.
        folds: Unseen classes of each fold, and the measures of each arm by seed.
    """
    classes = np.concatenate([unseen for unseen, _ in folds])
    of_class = np.array(groups)[classes]
    by_class = {
        name: {
            arm: np.concatenate([_over_seeds(drawn[arm], name) for _, drawn in folds])
            for arm in ARMS
        }
        for name in _BY_GROUP
    }
    return [
        GroupResult(
            group=group,
            num_classes=int((of_class == group).sum()),
            measures={
                name: {arm: float(values[of_class == group].mean()) for arm, values in arms.items()}
                for name, arms in by_class.items()
            },
        )
        for group in dict.fromkeys(of_class.tolist())
    ]


def _over_seeds(found: Sequence[Mapping[str, Measure]], name: str) -> Floats:
    """Return a measure by class, the mean over seeds."""
    return np.asarray(np.mean([one[name].by_class() for one in found], axis=0))


@dataclass(frozen=True, kw_only=True)
class PhotosReport:
    """The results of all folds and seeds. Field names are JSON keys.

    Attributes:
        out: Folder of the results.
        names: Kind of names: `opaque` or `natural`.
        folds: The folds that were held out.
        seeds: Seeds of the trainings.
        num_unseen: Number of unseen classes, over all folds.
        images: Row (photographs, the same through the VQGAN, each arm) -> measure -> estimate.
        by_seed: Arm -> measure -> its value with each seed.
        differences: Other arm -> measure -> `lattice` minus this arm, paired.
        reached: Measure -> `lattice` as a share of the photographs through the VQGAN.
        chance: Accuracy of images of a random unseen class: `group` and `superclass`.
        losses: Nats per code of each arm, on `unseen` and on `trained` classes.
        nats: Differences in nats per code.
        groups: Results by group of classes.
        cpu_minutes: CPU time of each stage in this run; finished stages take none.
    """

    out: Path
    names: str
    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    num_unseen: int
    images: dict[str, dict[str, Estimate]]
    by_seed: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, Estimate]]
    reached: dict[str, Estimate]
    chance: dict[str, float]
    losses: dict[str, dict[str, float]]
    nats: list[Nats]
    groups: list[GroupResult]
    cpu_minutes: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        content = asdict(self) | {
            "out": str(self.out),
            "images": {row: _plain(by_name) for row, by_name in self.images.items()},
            "differences": {arm: _plain(by_name) for arm, by_name in self.differences.items()},
            "reached": _plain(self.reached),
            "nats": [asdict(one) | {"cost": _finite(one.cost)} for one in self.nats],
        }
        parsed: dict[str, Any] = json.loads(json.dumps(content))
        return parsed

    def tables(self) -> list[ComparisonTable]:
        """Return the tables of images, likelihood and groups."""
        return [self._image_table(), self._nats_table(), self._group_table()]

    def markdown(self) -> str:
        """Return all tables."""
        return "\n".join(line for table in self.tables() for line in _markdown(table))

    def __str__(self) -> str:
        spent = ", ".join(f"{name} {value:.1f}" for name, value in self.cpu_minutes.items())
        return (
            f"{self.markdown()}\nCPU minutes of this run: {spent}.\n"
            f"Look at {self.out / PAGE} and {self.out / GRID}."
        )

    def _over(self) -> str:
        return "classes and seeds" if len(self.seeds) > 1 else "classes only"

    def _image_table(self) -> ComparisonTable:
        rows = [(row, *self._cells(found)) for row, found in self.images.items()]
        rows += [
            (f"{LATTICE_ARM} - {other}", *(_difference(found[name]) for name in MEASURES))
            for other, found in self.differences.items()
        ]
        shares = (str(self.reached[n]) if n not in _CHANCE_HALF else "" for n in MEASURES)
        rows.append((f"{LATTICE_ARM} / {VQGAN}", *shares))
        chance = self.chance
        by_seed = "; ".join(
            f"{arm} {' '.join(f'{value:.3f}' for value in found['auc_simple'])}"
            for arm, found in self.by_seed.items()
        )
        return ComparisonTable(
            title="Images of unseen classes",
            header=(f"{self.names} names", *MEASURES.values()),
            rows=rows,
            best=list(self.images).index(LATTICE_ARM),
            note=f"{self.num_unseen} unseen classes, folds {', '.join(self.folds)}, seeds "
            f"{', '.join(map(str, self.seeds))}; 95 % intervals by bootstrap over {self._over()}; "
            "* the interval of a difference excludes 0. Chance: AUC 0.5, group "
            f"{chance['group']:.3f}, superclass {chance['superclass']:.3f}. AUC of simple features "
            f"by seed: {by_seed}.",
        )

    def _cells(self, found: Mapping[str, Estimate]) -> Iterator[str]:
        return (str(found[name]) for name in MEASURES)

    def _nats_table(self) -> ComparisonTable:
        rows = []
        for one in (one for one in self.nats if one.classes in (UNSEEN, TRAINED)):
            mark = " *" if one.cost.clear else ""
            seeds = " ".join(f"{value:+.4f}" for value in one.by_seed)
            gaining = f"{one.gaining} of {one.num_classes}"
            rows.append(
                (
                    one.replaced_by,
                    one.classes,
                    f"{plus_minus(one.cost, 4, sign=True)}{mark}",
                    gaining,
                    seeds,
                )
            )
        means = "; ".join(
            f"{arm} {found[UNSEEN]:.4f} and {found[TRAINED]:.4f}"
            for arm, found in self.losses.items()
        )
        return ComparisonTable(
            title="Cost of replacing the knowledge of lattice, nats per code",
            header=("replaced by", "classes", "cost", "classes that gain", "by seed"),
            rows=rows,
            note="Real test photographs; above 0: knowledge helps; 95 % intervals over "
            f"{self._over()}; * the interval excludes 0. Mean on unseen and on trained classes: "
            f"{means}.",
        )

    def _group_table(self) -> ComparisonTable:
        arms = (LATTICE_ARM, NONE_ARM)
        header = [f"{MEASURES[name]}: {arm}" for name in _BY_GROUP for arm in arms]
        costs = {n.classes: n.cost for n in self.nats if n.replaced_by == NONE_ARM}
        return ComparisonTable(
            title="Images by group",
            header=("group", "classes", *header, "nats: none - lattice"),
            rows=[
                (
                    one.group,
                    str(one.num_classes),
                    *(f"{one.measures[name][arm]:.3f}" for name in _BY_GROUP for arm in arms),
                    plus_minus(costs[one.group], 4, sign=True),
                )
                for one in self.groups
            ],
            note="Means over classes and seeds; AUC of a class is over its pairs with all other "
            "unseen classes of its fold.",
        )


def _plain(found: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _finite(estimate) for name, estimate in found.items()}


def _finite(found: Estimate | Interval) -> dict[str, float | None]:
    """Return the fields by name; what could not be measured (NaN, infinity) is None in JSON."""
    return {k: v if math.isfinite(v) else None for k, v in found._asdict().items()}


def _difference(found: Estimate) -> str:
    mark = " *" if found.clear else ""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{mark}"


def _markdown(table: ComparisonTable) -> Iterator[str]:
    yield f"### {table.title}"
    yield ""
    for row in (table.header, ["---"] * len(table.header), *table.rows):
        yield f"| {' | '.join(row)} |"
    yield ""
    yield table.note
    yield ""


def write_grid(path: Path, shown: Sequence[DrawnClass]) -> None:
    """Write the images of a fold: a row per class; blocks of photographs, VQGAN and arms."""
    lines = []
    for one in shown:
        blocks: list[Pixels] = []
        for images in one.rows.values():
            gap = np.full((len(images[0]), _GAP, 3), 255, np.uint8)
            blocks += [*images, gap]
        lines.append(np.concatenate(blocks[:-1], axis=1))
    width = max(line.shape[1] for line in lines)
    padded = [
        np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255)
        for line in lines
    ]
    path.write_bytes(encode_png(np.concatenate(padded)))


def write_photos_page(
    folder: Path, report: PhotosReport, shown: Mapping[str, Sequence[DrawnClass]]
) -> None:
    """Write the HTML page: tables, then a card per unseen class, by fold."""
    parts = [
        Part(
            title=f"Fold {fold}, seed {report.seeds[0]}",
            note="No photograph and no caption of these classes was used to train the models.",
            cards=[_card(one) for one in classes],
        )
        for fold, classes in shown.items()
    ]
    write_page(
        folder / PAGE,
        gallery_environment(TEMPLATES),
        "report.html.j2",
        title="Photographs of things never seen",
        subtitle="A model draws classes whose names are in the knowledge graph only.",
        notes=[
            Note(
                title="What to look for",
                text="Colour, ground and layout of the real photographs in the row of lattice. The "
                "other arms have no graph, or one with vectors of the wrong names.",
            )
        ],
        warnings=[],
        tables=report.tables(),
        plots=[],
        report_parts=parts,
        not_measured=[],
        footer=f"All figures and settings are in {RESULTS}.",
        sizes=card_sizes([card for part in parts for card in part.cards]),
    )


def _card(one: DrawnClass) -> Card:
    info = one.info
    named = "" if one.prompt == info.natural else f"{info.natural}; "
    return Card(
        prompt=one.prompt,
        badges=["never seen in training"],
        note=f"{named}{info.superclass}, {info.group}",
        rows=[
            ImageRow(label=row, images=[GalleryImage(content=encode_webp(px)) for px in images])
            for row, images in one.rows.items()
        ],
    )
