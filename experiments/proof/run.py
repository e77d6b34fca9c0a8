"""The proof: train on captions with meaningless names and generate names that no caption contains.

Each seed has its own world and graph, and three models trained alike by
`artist.evaluation.ablation`: with the graph's vectors, without knowledge, and with vectors
assigned to the wrong names. The first model generates twice, with its own vectors and with
shuffled ones. A classifier reads colour and shape from the pixels of all generated images.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from artist.evaluation.ablation import ablate
from artist.evaluation.controls import shuffled_vectors
from artist.formats.model_folder import load_model
from artist.generation.artist_pipeline import Artist
from artist.generation.config import SamplingConfig
from artist.tables.lattice_rows import Rows
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, read_names, read_vectors
from data.runs import write_json
from data.schema import LATTICE
from data.seeds import stream
from experiments.proof.world import (
    COLOURS,
    SHAPES,
    World,
    classify_image,
    paint,
    read_world,
    write_world,
)
from experiments.stages import (
    Pixels,
    StageOptions,
    arm_graph,
    build_tables,
    generate,
    reconstruct,
    small_training,
)
from kg.config import KGConfig
from kg.training.train import train_kg

log = logging.getLogger(__name__)

RESULTS = "proof.json"
GRID = "proof.png"
LATTICE_ARM, NONE_ARM = "lattice", "none"
SHUFFLED_SAMPLING = "lattice, vectors shuffled when drawing"
SHUFFLED_TRAINING = "lattice, vectors shuffled in training"
ARMS = (LATTICE_ARM, NONE_ARM, SHUFFLED_SAMPLING, SHUFFLED_TRAINING)
_SAMPLING = SamplingConfig(temperature=0.2, top_k=None)
_GRID_COLUMNS = 12


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """Size of the world and amount of training; the defaults take minutes on two cores.

    Attributes:
        entities: Number of names in the graph.
        held_out: Share of them that no training caption contains.
        variants: Images per training name.
        size: Width and height of the images.
        kg: How entity vectors are trained. No triples are held out by default: each fact is
            independent of the others, so held-out facts cannot be predicted and early stopping
            on them would stop at an arbitrary epoch.
        vqgan: How the image tokenizer is trained; all seeds share it.
        train: How each of the three models is trained.
    """

    entities: int = 1000
    held_out: float = 0.2
    variants: int = 4
    size: int = 48
    kg: KGConfig = field(default_factory=lambda: KGConfig(valid_fraction=0.0))
    vqgan: VQGANTrainConfig = field(
        default_factory=lambda: VQGANTrainConfig(resolution=48, steps=150, flip=False)
    )
    train: TrainConfig = field(
        default_factory=lambda: small_training(
            text_len=12, epochs=4, learning_rate=2e-3, validations=4
        )
    )

    def __post_init__(self) -> None:
        if self.vqgan.resolution != self.size:
            raise ConfigError(
                f"vqgan.resolution={self.vqgan.resolution} differs from size={self.size}."
            )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares of images with the right colour, the right shape, and both right."""

    colour: float
    shape: float
    both: float


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """Results of one world.

    Attributes:
        seed: Seed of the world and of its trainings.
        unseen: Accuracy by arm, for names held out of the captions.
        trained: The same for as many names of the training captions.
        pictures: Number of images behind each share in `unseen` and `trained`.
        nats_per_code: Loss on the held-out images, for each trained arm.
        judge: Accuracy of the pixel classifier on true images; 1 means no errors.
        ceiling: Accuracy of the pixel classifier on true images reconstructed by the VQGAN.
        neighbours: Shares of an entity's ten nearest entities with its colour and its shape.
    """

    seed: int
    unseen: dict[str, Accuracy]
    trained: dict[str, Accuracy]
    pictures: int
    nats_per_code: dict[str, float]
    judge: Accuracy
    ceiling: Accuracy
    neighbours: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ProofReport:
    """Results of all seeds."""

    out: Path
    entities: int
    results: tuple[SeedResult, ...]
    seconds: float

    def mean(self, arm: str, what: str, names: str = "unseen") -> float:
        """Return an arm's mean accuracy (`colour`, `shape` or `both`) over all seeds."""
        return float(np.mean([getattr(getattr(r, names)[arm], what) for r in self.results]))

    def markdown(self) -> str:
        """Return the results as a Markdown table with notes."""
        first, seeds = self.results[0], ", ".join(str(r.seed) for r in self.results)
        lines = [
            "| names never seen in training | colour | shape | both | both, by seed |",
            "| --- | --- | --- | --- | --- |",
        ]
        for arm in ARMS:
            colour, shape, both = (self.mean(arm, what) for what in ("colour", "shape", "both"))
            by_seed = " ".join(f"{r.unseen[arm].both:.3f}" for r in self.results)
            lines.append(f"| {arm} | {colour:.3f} | {shape:.3f} | {both:.3f} | {by_seed} |")
        colours, shapes = len(COLOURS), len(SHAPES)
        lines += [
            "",
            f"{self.entities} entities, {first.pictures} images per arm and seed (seeds {seeds}); "
            f"chance {1 / colours:.3f}, {1 / shapes:.3f}, {1 / colours / shapes:.3f}. Pixel "
            f"classifier on true images {_mean([r.judge.both for r in self.results]):.3f}, on "
            f"their reconstructions {_mean([r.ceiling.both for r in self.results]):.3f}; trained "
            f"names {self.mean(LATTICE_ARM, 'both', 'trained'):.3f} with `lattice`, "
            f"{self.mean(NONE_ARM, 'both', 'trained'):.3f} with `none`.",
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.markdown()}\n\nTook {self.seconds / 60:.1f} minutes. See {self.out / GRID}."


def run_proof(
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    config: ProofConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> ProofReport:
    """Run every stage on generated worlds and classify the generated images.

    Args:
        out: The folder for all outputs; finished stages are not run again.
        seeds: Each gives a world and its trainings.
        config: How much work to do.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Run all stages again and replace their outputs.

    Raises:
        ConfigError: `seeds` is empty.
        ToolkitError: `out` contains another run's output.
    """
    if not seeds:
        raise ConfigError("the proof needs one seed or more.")
    began, config = time.monotonic(), config or ProofConfig()
    stage = StageOptions(device=device, overwrite=overwrite)
    results, vqgan = [], out / "vqgan"
    for seed in seeds:
        folder = out / f"seed-{seed}"
        world, (train, valid) = _prepare(folder, config, seed, stage)
        if seed == seeds[0]:
            tokenizer = replace(config.vqgan, seed=seed)
            log.info("%s", train_vqgan(train, vqgan, config=tokenizer, valid=valid, **stage))
        trained = ablate(
            train, valid=valid, kg=folder / "kg", vqgan=vqgan, out=folder / "models",
            config=config.train, seeds=(seed,), **stage
        )  # fmt: skip
        log.info("%s", trained)
        losses = {arm: value.mean for arm, value in trained.losses.items()}
        results.append(_evaluate(world, (train, valid), vqgan, losses, config.size, seed))
    _write_grid(out / f"seed-{seeds[0]}", out / GRID, config.size, seeds[0])
    seconds = time.monotonic() - began
    report = ProofReport(out=out, entities=config.entities, results=tuple(results), seconds=seconds)
    write_json(out / RESULTS, _as_json(report, config))
    return report


def _prepare(
    folder: Path, config: ProofConfig, seed: int, stage: StageOptions
) -> tuple[World, tuple[Path, Path]]:
    """Write a world, train its graph's vectors in `<folder>/kg`, and build its lattice tables."""
    world = write_world(
        folder / "world",
        seed=seed,
        entities=config.entities,
        held_out=config.held_out,
        variants=config.variants,
        size=config.size,
        overwrite=stage["overwrite"],
    )
    log.info("Seed %d: %s", seed, world)
    kg = folder / "kg"
    log.info("%s", train_kg(world.triples, kg, config=replace(config.kg, seed=seed), **stage))
    return world, build_tables(world, folder, kg, stage["overwrite"])


def _evaluate(
    world: World,
    tables: tuple[Path, Path],
    vqgan: Path,
    losses: dict[str, float],
    size: int,
    seed: int,
) -> SeedResult:
    """Generate images with every arm of a trained world and classify them."""
    folder = world.folder.parent
    count = min(pq.read_metadata(path).num_rows for path in tables)
    trained, unseen = (
        {
            arm: _generation_accuracy(artist, rows, count, seed, world)
            for arm, artist, rows in _artists(folder, seed, table)
        }
        for table in tables
    )
    judge, ceiling = _classifier_accuracy(world, vqgan, size, seed)
    return SeedResult(
        seed=seed,
        unseen=unseen,
        trained=trained,
        pictures=count,
        nats_per_code=losses,
        judge=judge,
        ceiling=ceiling,
        neighbours=neighbours(world, folder / "kg"),
    )


def _artists(folder: Path, seed: int, table: Path) -> Iterable[tuple[str, Artist, Rows]]:
    """Yield each arm with its model and vectors, and the captions of a table as rows."""
    models, read = folder / "models" / f"seed-{seed}", pq.read_table(table, columns=LATTICE.names)
    for arm, name in (
        (LATTICE_ARM, "lattice"),
        (NONE_ARM, "none"),
        (SHUFFLED_SAMPLING, "lattice"),
        (SHUFFLED_TRAINING, "shuffled"),
    ):
        model = load_model(models / name)
        vectors = read_vectors(arm_graph(name, models, folder / "kg"))
        artist = Artist(model, vectors)
        rows = artist.rows(read)
        if arm == SHUFFLED_SAMPLING:
            artist = Artist(model, shuffled_vectors(rows, vectors, seed))
        yield arm, artist, rows


def _generation_accuracy(
    artist: Artist, rows: Rows, count: int, seed: int, world: World
) -> Accuracy:
    """Generate one image for each of `count` captions and classify it."""
    order = np.random.default_rng(stream(seed, "captions to draw")).permutation(len(rows))
    chosen = np.sort(order[:count])
    images = generate(artist, rows, chosen, seed, _SAMPLING)
    return _accuracy(images, [rows.idx[n] for n in chosen], world)


def _accuracy(images: Sequence[Pixels], idx: Sequence[str], world: World) -> Accuracy:
    """Return how often the images match the attributes of the rows' entities."""
    right = np.array(
        [
            (colour == thing.colour, shape == thing.shape)
            for (colour, shape), thing in zip(
                map(classify_image, images), map(world.thing, idx), strict=True
            )
        ]
    )
    return Accuracy(
        colour=float(right[:, 0].mean()),
        shape=float(right[:, 1].mean()),
        both=float(right.all(1).mean()),
    )


def _classifier_accuracy(
    world: World, vqgan: Path, size: int, seed: int
) -> tuple[Accuracy, Accuracy]:
    """Return the classifier's accuracy on new true images, before and after the VQGAN."""
    idx = [f"{n}-judge" for n in range(len(world.things))]
    true = [
        paint(thing.colour, thing.shape, size, np.random.default_rng(stream(seed, "judge", n)))
        for n, thing in enumerate(world.things)
    ]
    decoded = list(reconstruct(vqgan, np.stack(true)))
    return _accuracy(true, idx, world), _accuracy(decoded, idx, world)


def neighbours(world: World, kg: Path, count: int = 10) -> dict[str, float]:
    """Return the shares of the nearest entities by cosine with the same colour and shape."""
    numbers = {name: n for n, name in enumerate(read_names(kg / ENTITY_NAMES))}
    vectors = np.asarray(read_vectors(kg)[[numbers[thing.name] for thing in world.things]])
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1)[:, :count]
    found = {}
    for what in ("colour", "shape"):
        values = np.array([getattr(thing, what) for thing in world.things])
        found[what] = float((values[nearest] == values[:, None]).mean())
    return found


def _write_grid(folder: Path, out: Path, size: int, seed: int) -> None:
    """Write a grid of some held-out names: true images in the first row, then a row per arm."""
    world = read_world(folder / "world")
    grid = list[list[Pixels]]()
    for _, artist, rows in _artists(folder, seed, folder / "valid.parquet"):
        chosen = np.arange(0, len(rows), max(1, len(rows) // _GRID_COLUMNS))[:_GRID_COLUMNS]
        if not grid:
            things = [world.thing(rows.idx[n]) for n in chosen]
            rng = np.random.default_rng(stream(seed, "sheet"))
            grid.append([paint(thing.colour, thing.shape, size, rng) for thing in things])
        grid.append(generate(artist, rows, chosen, seed, _SAMPLING))
    pixels = np.concatenate([np.concatenate(row, axis=1) for row in grid])
    out.write_bytes(encode_png(pixels))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _as_json(report: ProofReport, config: ProofConfig) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "sampling": asdict(_SAMPLING),
        "colours": len(COLOURS),
        "shapes": len(SHAPES),
        "seeds": [asdict(result) for result in report.results],
    }
