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
from artist.tables.encode import encode_table
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError
from data.images import decode_image, square
from data.runs import save_text, write_json
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
from experiments.photos.tables import PhotoTables, write_tables
from experiments.stages import StageOptions, arm_graph, build_tables, reconstruct
from kg.training.train import train_kg
from lattice.building.build import match_texts

log = logging.getLogger(__name__)

_BATCH = 64  # images generated at once
_SHOWN = 4  # images per class and row of the page and the grid
Measures = dict[str, Measure]
LabelledPixels = tuple[Pixels, NDArray[np.int64]]  # (N, H, W, 3) and class numbers (N,)


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
    config = config or PhotosConfig()
    photos = read_photo_folder(data, groups)
    log.info("%s", photos)
    for fold in folds:
        photos.unseen(fold)  # raises before the first training
    stage = StageOptions(device=device, overwrite=overwrite)
    work = _Work(photos, out, config, tuple(seeds), stage, {})
    home, judging = work.home, work.prepare(folds[0], judge or out / "judge")
    found = [work.run_fold(fold, judging) for fold in folds]
    report = _report(work, folds, found)
    write_json(home / RESULTS, {"config": asdict(config), **report.as_json()})
    save_text(home / TABLE, report.markdown())
    write_grid(home / GRID, found[0].shown)
    shown = {fold: one.shown for fold, one in zip(folds, found, strict=True)}
    write_photos_page(home, report, shown)
    return report


class _Work(NamedTuple):
    """The stages of a run.

    Attributes:
        photos: The photographs.
        out: The folder for all outputs.
        config: How much work to do.
        seeds: Seeds of the trainings.
        stage: Device and overwriting.
        minutes: CPU minutes of each stage so far.
    """

    photos: PhotoFolder
    out: Path
    config: PhotosConfig
    seeds: tuple[int, ...]
    stage: StageOptions
    minutes: dict[str, float]

    @property
    def home(self) -> Path:
        """Folder of everything that depends on the kind of names."""
        return self.out / self.config.names

    @property
    def vqgan(self) -> Path:
        """Folder of the VQGAN."""
        return self.out / "vqgan"

    def tables(self, fold: str) -> PhotoTables:
        """Write the captions of a fold."""
        folder, overwrite = self.home / f"fold-{fold}" / "tables", self.stage["overwrite"]
        return write_tables(folder, self.photos, fold, self.config, overwrite)

    def prepare(self, fold: str, judge: Path) -> Judge:
        """Train what all folds and seeds share: judge, VQGAN, and the graph's vectors."""
        photos, config, stage = self.photos, self.config, self.stage
        with self.timed("judge: train a CNN on all classes"):
            log.info("%s", train_judge(photos, judge, config=config, **stage))
        with self.timed("vqgan: train it on the classes that are never held out"):
            named = replace(config, names="natural")  # one VQGAN for both kinds of names
            folder = self.out / "vqgan-tables"
            tables = write_tables(folder, photos, NEVER, named, stage["overwrite"])
            tokenizer = config.vqgan()
            trained = train_vqgan(
                tables.train, self.vqgan, config=tokenizer, valid=tables.valid, **stage
            )
            log.info("%s", trained)
        with self.timed("graph: one vector per entity"):
            triples = self.tables(fold).triples  # the same for all folds
            log.info("%s", train_kg(triples, self.home / "kg", config=config.kg(), **stage))
        return Judge(judge, photos, config)

    def run_fold(self, fold: str, judge: Judge) -> _Fold:
        """Train all arms on a fold, draw its classes, and judge them."""
        folder, kg, unseen = self.home / f"fold-{fold}", self.home / "kg", self.photos.unseen(fold)
        tables = self.tables(fold)
        with self.timed("train: lattice tables, codes and all arms"):
            built = build_tables(tables, folder, kg, self.stage["overwrite"])
            train, valid = map(self._encoded, built)
            trained = ablate(
                train, valid=valid, kg=kg, vqgan=self.vqgan, out=folder / "models", arms=ARMS,
                seeds=self.seeds, config=self.config.train(tables.text_len), **self.stage
            )  # fmt: skip
            log.info("%s", trained)
        with self.timed("draw: images of the unseen classes"):
            images = self._test_photographs(unseen)
            real = {
                PHOTOGRAPHS: judge.measure_photographs(unseen, self.config.num_images),
                VQGAN: judge.measure(*images[VQGAN]),
            }
            drawn: dict[str, list[Measures]] = {arm: [] for arm in ARMS}
            tokenizer = tokenizer_folder(train)
            for seed in self.seeds:
                for arm in ARMS:
                    one = self._draw(unseen, folder, tokenizer, arm, seed)
                    drawn[arm].append(judge.measure(*one))
                    images.setdefault(arm, one)  # the first seed's
        losses = read_losses(folder / "models", self.seeds, unseen)
        return _Fold(unseen, real, drawn, losses, self._shown(unseen, images))

    def _encoded(self, table: Path) -> Path:
        """Return the table with codes; photographs of several folds are encoded once."""
        out = table.with_name(f"{table.stem}-codes.parquet")
        report = encode_table(
            table, out, vqgan=self.vqgan, code_store=self.out / "codes", **self.stage
        )
        log.info("%s", report)
        return out

    def _test_photographs(self, classes: NDArray[np.int64]) -> dict[str, LabelledPixels]:
        """Return up to `num_images` test photographs per class, also through the VQGAN."""
        val = self.photos.photographs(VAL)
        found = {number: val[number][: self.config.num_images] for number in classes.tolist()}
        every = [photograph for photographs in found.values() for photograph in photographs]
        pixels = decode_photographs(every, self.config.resolution)
        labels = np.repeat([*found], [len(photographs) for photographs in found.values()])
        again = reconstruct(self.vqgan, pixels)
        return {PHOTOGRAPHS: (pixels, labels), VQGAN: (again, labels)}

    def _draw(
        self, unseen: NDArray[np.int64], folder: Path, tokenizer: Path, arm: str, seed: int
    ) -> LabelledPixels:
        """Generate images of the unseen classes from their bare names."""
        models, config = folder / "models" / f"seed-{seed}", self.config
        graph = arm_graph(arm, models, self.home / "kg")
        out = folder / "images" / f"seed-{seed}" / arm
        names = [self.photos.classes[number].name(config.names) for number in unseen]
        prompts = match_texts(names, names=graph, tokenizer=tokenizer)
        prompts = prompts.set_column(0, "idx", pa.array([f"{number:04d}" for number in unseen]))
        report = predict(
            prompts,
            model=models / arm,
            kg=graph,
            out=out,
            sampling=SamplingConfig(cfg_scale=config.cfg_scale),
            config=PredictConfig(num_images=config.num_images, batch_size=_BATCH, seed=seed),
            **self.stage,
        )
        log.info("%s", report)
        files = sorted((out / IMAGES).iterdir())  # by prompt: names begin with its number
        pixels = [square(decode_image(file.read_bytes()), config.resolution) for file in files]
        return np.stack(pixels), np.repeat(unseen, config.num_images)

    def _shown(
        self, unseen: NDArray[np.int64], images: dict[str, LabelledPixels]
    ) -> list[DrawnClass]:
        """Return some images of each class, for the page and the grid."""
        return [
            DrawnClass(
                self.photos.classes[number],
                self.photos.classes[number].name(self.config.names),
                {row: list(pixels[of == number][:_SHOWN]) for row, (pixels, of) in images.items()},
            )
            for number in unseen.tolist()
        ]

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Log a stage and add the CPU time of this process to its minutes."""
        log.info("== %s", stage)
        began, name = time.process_time(), stage.partition(":")[0]
        yield
        spent = (time.process_time() - began) / 60
        self.minutes[name] = self.minutes.get(name, 0.0) + spent
        log.info("== %s took %.1f CPU minutes", name, spent)


def _report(work: _Work, folds: Sequence[str], found: Sequence[_Fold]) -> PhotosReport:
    """Summarise all folds and seeds with intervals over classes and seeds."""
    photos, config, seeds = work.photos, work.config, work.seeds
    resamples = Resamples([len(one.unseen) for one in found], len(seeds), config.resamples)
    rows = {row: [[one.real[row]] * len(seeds) for one in found] for row in (PHOTOGRAPHS, VQGAN)}
    rows |= {arm: [one.drawn[arm] for one in found] for arm in ARMS}
    measures = list(found[0].real[VQGAN])
    values = {
        row: {
            name: resamples.values([[one[name] for one in by_seed] for by_seed in by_fold])
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
    single = Resamples([len(one.unseen) for one in found], 1, 0)
    by_seed = {
        arm: {
            name: [
                float(single.values([[one.drawn[arm][n][name]] for one in found])[0])
                for n in range(len(seeds))
            ]
            for name in measures
        }
        for arm in ARMS
    }
    groups = [one.group for one in photos.classes]
    return PhotosReport(
        out=work.home,
        names=config.names,
        folds=tuple(folds),
        seeds=seeds,
        num_unseen=sum(len(one.unseen) for one in found),
        images={
            row: {name: Estimate.of(found) for name, found in by_name.items()}
            for row, by_name in values.items()
        },
        by_seed=by_seed,
        differences=differences,
        reached=reached,
        chance=_chance(photos, [one.unseen for one in found]),
        losses=mean_losses([one.losses for one in found]),
        nats=compare_losses([one.losses for one in found], groups),
        groups=group_results(groups, [(one.unseen, one.drawn) for one in found]),
        cpu_minutes={name: round(value, 2) for name, value in work.minutes.items()},
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
