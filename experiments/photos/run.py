"""Train on photographs of some classes and draw the classes that no caption contains.

For each fold, its classes have no photograph and no caption in the training data; their names are
in the graph only. Three models are trained alike by `artist.evaluation.ablation`: with the graph's
vectors, without knowledge, and with vectors assigned to the wrong names. They are compared by
the likelihood of real photographs, and by images of the unseen classes, which are judged against
real photographs (`experiments.photos.judge`).

The VQGAN is trained once, on classes that no fold holds out, and the judge once, on all classes.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artist.evaluation.ablation import ablate
from artist.formats.predictions import IMAGES
from artist.generation.config import PredictConfig, SamplingConfig
from artist.generation.predict import predict
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError
from data.images import decode_image, square
from data.runs import write_json
from data.tokenizer import tokenizer_folder
from experiments.photos.config import PhotosConfig
from experiments.photos.judge import Judge, Pixels, train_judge
from experiments.photos.measures import Estimate, Measure, Resamples
from experiments.photos.nats import (
    ARMS,
    LATTICE_ARM,
    FoldLosses,
    compare_losses,
    mean_losses,
    read_losses,
)
from experiments.photos.photo_folder import (
    NEVER,
    VAL,
    PhotoFolder,
    decode_photographs,
    read_photo_folder,
)
from experiments.photos.report import (
    GRID,
    PHOTOGRAPHS,
    RESULTS,
    TABLE,
    VQGAN,
    DrawnClass,
    PhotosReport,
    group_results,
    write_grid,
    write_photos_page,
)
from experiments.photos.tables import write_tables
from experiments.stages import StageOptions, arm_graph, build_tables, reconstruct
from kg.training.train import train_kg
from lattice.building.build import match_texts

log = logging.getLogger(__name__)

_BATCH = 64  # images generated at once
_SHOWN = 4  # images per class and row of the page and the grid
Measures = dict[str, Measure]


class _Fold(NamedTuple):
    """What was measured for a fold.

    Attributes:
        unseen: Numbers of its classes.
        real: Measures of test photographs: as they are, and through the VQGAN.
        drawn: Measures of the images of each arm, by seed.
        losses: Nats per code.
        shown: The first seed's images, for the page.
    """

    unseen: NDArray[np.int64]
    real: dict[str, Measures]
    drawn: dict[str, list[Measures]]
    losses: FoldLosses
    shown: list[DrawnClass]


def run_photos(
    data: Path,
    out: Path,
    *,
    folds: Sequence[str] = ("0",),
    seeds: Sequence[int] = (0,),
    config: PhotosConfig | None = None,
    groups: Path | None = None,
    judge: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> PhotosReport:
    """Run every stage on a folder of photographs, and judge the images of the unseen classes.

    Args:
        data: See `experiments.photos.photo_folder`.
        out: The folder for all outputs; finished stages are not run again.
        folds: The folds to hold out, one after the other.
        seeds: Seeds of the trainings.
        config: How much work to do.
        groups: `superclass<TAB>group`, as for `read_photo_folder`.
        judge: Folder of the judge, which runs with other settings can share; by default in `out`.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Run all stages again and replace their outputs.

    Raises:
        ConfigError: Folds or seeds are missing or repeated.
        ToolkitError: `data` cannot be used, or `out` contains another run's output.
    """
    for values, what in ((folds, "fold"), (seeds, "seed")):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"give one {what} or more, each once.")
    if NEVER in folds:
        raise ConfigError(f"the classes of fold {NEVER!r} are never held out.")
    config, stage = config or PhotosConfig(), StageOptions(device=device, overwrite=overwrite)
    photos = read_photo_folder(data, groups)
    log.info("%s", photos)
    for fold in folds:
        photos.unseen(fold)  # raises before the first training
    minutes: dict[str, float] = {}
    home, judge = out / config.names, judge or out / "judge"
    with _timed(minutes, "judge: train a CNN on all classes"):
        log.info("%s", train_judge(photos, judge, config=config, **stage))
    vqgan = out / "vqgan"
    with _timed(minutes, "vqgan: train it on the classes that are never held out"):
        named = replace(config, names="natural")  # one VQGAN for both kinds of names
        tables = write_tables(out / "vqgan-tables", photos, NEVER, named, overwrite)
        log.info(
            "%s",
            train_vqgan(tables.train, vqgan, config=config.vqgan(), valid=tables.valid, **stage),
        )
    with _timed(minutes, "graph: one vector per entity"):
        first = home / f"fold-{folds[0]}" / "tables"
        tables = write_tables(first, photos, folds[0], config, overwrite)
        log.info("%s", train_kg(tables.triples, home / "kg", config=config.kg(), **stage))
    judging = Judge(judge, photos, config)
    found = [_run_fold(photos, judging, out, fold, seeds, config, stage, minutes) for fold in folds]
    report = _report(photos, found, out, folds, seeds, config, minutes)
    write_json(home / RESULTS, {"config": asdict(config), **report.as_json()})
    (home / TABLE).write_text(report.markdown(), encoding="utf-8")
    write_grid(home / GRID, found[0].shown)
    shown = {fold: one.shown for fold, one in zip(folds, found, strict=True)}
    write_photos_page(home, report, shown)
    return report


def _run_fold(
    photos: PhotoFolder,
    judge: Judge,
    out: Path,
    fold: str,
    seeds: Sequence[int],
    config: PhotosConfig,
    stage: StageOptions,
    minutes: dict[str, float],
) -> _Fold:
    """Train all arms on a fold, draw its classes, and judge them."""
    home, vqgan = out / config.names, out / "vqgan"
    folder, kg, unseen = home / f"fold-{fold}", home / "kg", photos.unseen(fold)
    tables = write_tables(folder / "tables", photos, fold, config, stage["overwrite"])
    with _timed(minutes, "train: lattice tables, codes and all arms"):
        train, valid = build_tables(tables, folder, kg, stage["overwrite"])
        trained = ablate(
            train, valid=valid, kg=kg, vqgan=vqgan, out=folder / "models", arms=ARMS,
            seeds=seeds, config=config.train(tables.text_len), **stage
        )  # fmt: skip
        log.info("%s", trained)
    real = {PHOTOGRAPHS: judge.measure_photographs(unseen, config.num_images)}
    pixels, labels = _test_photographs(photos, unseen, config)
    with _timed(minutes, "draw: images of the unseen classes"):
        again = reconstruct(vqgan, pixels)
        real[VQGAN] = judge.measure(again, labels)
        images = {PHOTOGRAPHS: (pixels, labels), VQGAN: (again, labels)}
        drawn: dict[str, list[Measures]] = {arm: [] for arm in ARMS}
        for seed in seeds:
            for arm in ARMS:
                one = _draw(photos, unseen, folder, train, kg, arm, seed, config, stage)
                drawn[arm].append(judge.measure(*one))
                images.setdefault(arm, one)
    shown = [
        DrawnClass(
            photos.classes[number],
            photos.classes[number].name(config.names),
            {row: list(px[lb == number][:_SHOWN]) for row, (px, lb) in images.items()},
        )
        for number in unseen.tolist()
    ]
    return _Fold(unseen, real, drawn, read_losses(folder / "models", seeds, unseen), shown)


def _test_photographs(
    photos: PhotoFolder, classes: NDArray[np.int64], config: PhotosConfig
) -> tuple[Pixels, NDArray[np.int64]]:
    """Return up to `num_images` test photographs per class, and their class numbers."""
    count = min(config.num_images, config.test_photographs)
    found = {number: photos.photographs(VAL)[number][:count] for number in classes.tolist()}
    pixels = decode_photographs((p for one in found.values() for p in one), config.resolution)
    return pixels, np.repeat([*found], [len(one) for one in found.values()])


def _draw(
    photos: PhotoFolder,
    unseen: NDArray[np.int64],
    folder: Path,
    train: Path,
    kg: Path,
    arm: str,
    seed: int,
    config: PhotosConfig,
    stage: StageOptions,
) -> tuple[Pixels, NDArray[np.int64]]:
    """Generate images of the unseen classes' bare names; return pixels and class numbers."""
    models = folder / "models" / f"seed-{seed}"
    graph, out = arm_graph(arm, models, kg), folder / "images" / f"seed-{seed}" / arm
    names = [photos.classes[number].name(config.names) for number in unseen]
    prompts = match_texts(names, names=graph, tokenizer=tokenizer_folder(train))
    prompts = prompts.set_column(0, "idx", pa.array([f"{number:04d}" for number in unseen]))
    report = predict(
        prompts,
        model=models / arm,
        kg=graph,
        out=out,
        sampling=SamplingConfig(cfg_scale=config.cfg_scale),
        config=PredictConfig(num_images=config.num_images, batch_size=_BATCH, seed=seed),
        **stage,
    )
    log.info("%s", report)
    files = sorted((out / IMAGES).glob("*.png"))  # by prompt: names begin with its number
    pixels = [square(decode_image(file.read_bytes()), config.resolution) for file in files]
    return np.stack(pixels), np.repeat(unseen, config.num_images)


def _report(
    photos: PhotoFolder,
    found: Sequence[_Fold],
    out: Path,
    folds: Sequence[str],
    seeds: Sequence[int],
    config: PhotosConfig,
    minutes: dict[str, float],
) -> PhotosReport:
    """Summarise all folds and seeds with intervals over classes and seeds."""
    resamples = Resamples([len(one.unseen) for one in found], len(seeds), config.resamples)
    rows = {row: [[one.real[row]] * len(seeds) for one in found] for row in (PHOTOGRAPHS, VQGAN)}
    rows |= {arm: [one.drawn[arm] for one in found] for arm in ARMS}
    measures = list(found[0].real[VQGAN])
    values = {
        row: {
            name: resamples.values([[one[name] for one in seeds] for seeds in by_fold])
            for name in measures
        }
        for row, by_fold in rows.items()
    }
    lattice = values[LATTICE_ARM]
    differences = {
        other: {name: Estimate.of(lattice[name] - values[other][name]) for name in measures}
        for other in ARMS[1:]
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = {name: Estimate.of(lattice[name] / values[VQGAN][name]) for name in measures}
    groups = [one.group for one in photos.classes]
    return PhotosReport(
        out=out / config.names,
        names=config.names,
        folds=tuple(folds),
        seeds=tuple(seeds),
        num_unseen=sum(len(one.unseen) for one in found),
        images={
            row: {name: Estimate.of(found) for name, found in by_name.items()}
            for row, by_name in values.items()
        },
        differences=differences,
        reached=reached,
        chance=_chance(photos, [one.unseen for one in found]),
        losses=mean_losses([one.losses for one in found]),
        nats=compare_losses([one.losses for one in found], groups),
        groups=group_results(groups, [(one.unseen, one.drawn) for one in found]),
        cpu_minutes={name: round(value, 2) for name, value in minutes.items()},
    )


def _chance(photos: PhotoFolder, folds: Sequence[NDArray[np.int64]]) -> dict[str, float]:
    """Return the accuracy of images of a random unseen class of the same fold, by level."""

    def of(levels: list[str]) -> float:
        shares = np.unique(levels, return_counts=True)[1] / len(levels)
        return float((shares**2).sum())

    sizes = [len(unseen) for unseen in folds]
    return {
        level: float(
            np.average(
                [of([getattr(photos.classes[n], level) for n in unseen]) for unseen in folds],
                weights=sizes,
            )
        )
        for level in ("group", "superclass")
    }


@contextmanager
def _timed(minutes: dict[str, float], stage: str) -> Iterator[None]:
    """Log a stage and add the CPU time of this process to its minutes."""
    log.info("== %s", stage)
    began, name = time.process_time(), stage.partition(":")[0]
    yield
    spent = (time.process_time() - began) / 60
    minutes[name] = minutes.get(name, 0.0) + spent
    log.info("== %s took %.1f CPU minutes", name, spent)
