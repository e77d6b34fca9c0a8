"""The proof: train on captions whose names say nothing, and ask for names that no caption held.

For each seed a world, its graph's vectors, and three models trained alike by
`artist.evaluation.ablation`: with the graph's vectors, without knowledge, and with the vectors
dealt to the wrong names. The first one is asked twice, with the vectors it knows and with shuffled
ones. What all of them draw is read from the pixels.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from artist.evaluation.ablation import ablate
from artist.evaluation.likelihood import shuffled_vectors
from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.formats.model_folder import load_model
from artist.generation.config import SamplingConfig
from artist.generation.predict import Artist, picture_seed
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.tables.lattice_rows import Rows
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.train_vqgan import train_vqgan
from data.errors import ConfigError
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, read_names, read_vectors
from data.runs import write_json
from data.schema import LATTICE
from data.seeds import stream
from data.tokenizer import tokenizer_folder
from experiments.proof.world import (
    COLOURS,
    SHAPES,
    World,
    paint,
    read_picture,
    read_world,
    write_world,
)
from kg.config import KGConfig
from kg.training.train import train_kg
from lattice.building.build import build_lattice

log = logging.getLogger(__name__)

RESULTS = "proof.json"
SHEET = "proof.png"
KNOWING, BLIND = "lattice", "none"
MISTAKEN = "lattice, vectors shuffled when drawing"
MISLED = "lattice, vectors shuffled in training"
ARMS = (KNOWING, BLIND, MISTAKEN, MISLED)
_SAMPLING = SamplingConfig(temperature=0.2, top_k=None)
_BATCH = 64
_IN_SHEET = 12
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """How large the world is and how much is trained; the defaults take minutes on two cores.

    Attributes:
        entities: Names in the graph.
        held_out: The share of them that no training caption holds.
        variants: Pictures of each other name in the training set.
        size: Side of the pictures.
        kg: How entity vectors are trained. Nothing is held out by default: each fact is drawn
            independently of the others, so held-out facts cannot be foretold, and stopping by
            them would stop anywhere.
        vqgan: How the image tokenizer is trained; it serves all seeds.
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
        default_factory=lambda: TrainConfig(
            size="tiny",
            text_len=12,
            batch_size=32,
            epochs=4,
            optimizer="muon",
            learning_rate=2e-3,
            dropout=0.0,
            keep="last",
            ema_decay=0.99,
            validations=4,
        )
    )

    def __post_init__(self) -> None:
        if self.vqgan.resolution != self.size:
            raise ConfigError(
                f"vqgan.resolution={self.vqgan.resolution} differs from size={self.size}."
            )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares of pictures with the right colour, the right shape, and both right."""

    colour: float
    shape: float
    both: float


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """What came of one world.

    Attributes:
        seed: Of everything in it.
        unseen: Each arm's pictures of names held out of the captions.
        trained: The same for as many names of the training captions.
        pictures: How many pictures each share in `unseen` and `trained` is of.
        nats_per_code: Of the held-out pictures, for each arm that is a training.
        judge: The judge on true pictures: 1 where it never errs.
        ceiling: The judge on true pictures that went through the VQGAN.
        neighbours: Among an entity's ten nearest in the graph, share of its colour and its shape.
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
    """All seeds."""

    out: Path
    entities: int
    results: tuple[SeedResult, ...]
    seconds: float

    def mean(self, arm: str, what: str, names: str = "unseen") -> float:
        """An arm's accuracy (`colour`, `shape` or `both`) over all seeds."""
        return float(np.mean([getattr(getattr(r, names)[arm], what) for r in self.results]))

    def markdown(self) -> str:
        """The table for a README."""
        first, seeds = self.results[0], ", ".join(str(r.seed) for r in self.results)
        lines = [
            "| names never seen in training | colour | shape | both | both, each seed |",
            "| --- | --- | --- | --- | --- |",
        ]
        for arm in ARMS:
            colour, shape, both = (self.mean(arm, what) for what in ("colour", "shape", "both"))
            each = " ".join(f"{r.unseen[arm].both:.3f}" for r in self.results)
            lines.append(f"| {arm} | {colour:.3f} | {shape:.3f} | {both:.3f} | {each} |")
        colours, shapes = len(COLOURS), len(SHAPES)
        lines += [
            "",
            f"{self.entities} entities, {first.pictures} pictures an arm and seed (seeds {seeds}); "
            f"chance {1 / colours:.3f}, {1 / shapes:.3f}, {1 / colours / shapes:.3f}. Judge on "
            f"true pictures {_mean([r.judge.both for r in self.results]):.3f}, through the VQGAN "
            f"{_mean([r.ceiling.both for r in self.results]):.3f}; trained names "
            f"{self.mean(KNOWING, 'both', 'trained'):.3f} with `lattice`, "
            f"{self.mean(BLIND, 'both', 'trained'):.3f} with `none`.",
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.markdown()}\n\nTook {self.seconds / 60:.1f} minutes. See {self.out / SHEET}."


def run_proof(
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    config: ProofConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> ProofReport:
    """Run every stage on generated worlds and read what the models draw.

    Args:
        out: The folder for everything; what is finished there is used again.
        seeds: A world and its trainings for each.
        config: How much work to do.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Do everything again.

    Raises:
        ConfigError: No seed was given.
        ToolkitError: `out` holds something else.
    """
    if not seeds:
        raise ConfigError("the proof needs one seed or more.")
    began, config = time.monotonic(), config or ProofConfig()
    results, codec = [], out / "vqgan"
    for seed in seeds:
        world, tables = _prepare(out / f"seed-{seed}", config, seed, device, overwrite)
        if seed == seeds[0]:
            made = train_vqgan(
                tables["train"],
                codec,
                config=replace(config.vqgan, seed=seed),
                valid=tables["valid"],
                device=device,
                overwrite=overwrite,
            )
            log.info("%s", made)
        results.append(_prove(world, tables, codec, config, seed, device, overwrite))
    _write_sheet(out / f"seed-{seeds[0]}", out / SHEET, config.size, seeds[0])
    report = ProofReport(
        out=out,
        entities=config.entities,
        results=tuple(results),
        seconds=time.monotonic() - began,
    )
    write_json(out / RESULTS, _as_json(report, config))
    return report


def _prepare(
    folder: Path, config: ProofConfig, seed: int, device: str, overwrite: bool
) -> tuple[World, dict[str, Path]]:
    """A world, its graph's vectors in `<folder>/kg`, and its lattice tables."""
    world = write_world(
        folder / "world",
        seed=seed,
        entities=config.entities,
        held_out=config.held_out,
        variants=config.variants,
        size=config.size,
        overwrite=overwrite,
    )
    log.info("Seed %d: %s", seed, world)
    kg = folder / "kg"
    settings = replace(config.kg, seed=seed)
    log.info("%s", train_kg(world.triples, kg, config=settings, device=device, overwrite=overwrite))
    tables = {name: folder / f"{name}.parquet" for name in ("train", "valid")}
    build_lattice(world.train, tables["train"], names=kg, tokenizer=None, overwrite=overwrite)
    build_lattice(
        world.valid,
        tables["valid"],
        names=kg,
        tokenizer=tokenizer_folder(tables["train"]),
        overwrite=overwrite,
    )
    return world, tables


def _prove(
    world: World,
    tables: dict[str, Path],
    codec: Path,
    config: ProofConfig,
    seed: int,
    device: str,
    overwrite: bool,
) -> SeedResult:
    """Train the three models of a world, let them draw, and read it."""
    folder = world.folder.parent
    kg = folder / "kg"
    trained = ablate(
        tables["train"],
        valid=tables["valid"],
        kg=kg,
        vqgan=codec,
        out=folder / "models",
        config=config.train,
        arms=("lattice", "none", "shuffled"),
        seeds=(seed,),
        device=device,
        overwrite=overwrite,
    )
    log.info("%s", trained)
    pictures = min(pq.read_metadata(path).num_rows for path in tables.values())
    unseen, known = (
        {
            arm: _draw_and_judge(artist, rows, pictures, seed, world)
            for arm, artist, rows in _artists(folder, seed, tables[name])
        }
        for name in ("valid", "train")
    )
    judge, ceiling = _check_judge(world, codec, config.size, seed)
    return SeedResult(
        seed=seed,
        unseen=unseen,
        trained=known,
        pictures=pictures,
        nats_per_code={arm: value.mean for arm, value in trained.losses.items()},
        judge=judge,
        ceiling=ceiling,
        neighbours=neighbours(world, kg),
    )


def _artists(folder: Path, seed: int, table: Path) -> Iterable[tuple[str, Artist, Rows]]:
    """Each arm's model with the vectors that it is asked with, and the captions to draw."""
    models, read = folder / "models" / f"seed-{seed}", pq.read_table(table, columns=LATTICE.names)
    true, false = read_vectors(folder / "kg"), read_vectors(models / "shuffled-kg")
    for arm, name, vectors in (
        (KNOWING, "lattice", true),
        (BLIND, "none", true),
        (MISTAKEN, "lattice", None),
        (MISLED, "shuffled", false),
    ):
        model = load_model(models / name)
        artist = Artist(model, true if vectors is None else vectors)
        rows = artist.rows(read)
        if vectors is None:
            artist = Artist(model, shuffled_vectors(rows, true, seed))
        yield arm, artist, rows


def _draw_and_judge(artist: Artist, rows: Rows, count: int, seed: int, world: World) -> Accuracy:
    """Draw so many of the captions, each once, and look at the pictures."""
    order = np.random.default_rng(stream(seed, "captions to draw")).permutation(len(rows))
    chosen = np.sort(order[:count])
    return _accuracy(_draw(artist, rows, chosen, seed), [rows.idx[n] for n in chosen], world)


def _draw(artist: Artist, rows: Rows, chosen: NDArray[np.int64], seed: int) -> list[Pixels]:
    """One picture of each chosen row."""
    pictures: list[Pixels] = []
    for begin in range(0, len(chosen), _BATCH):
        part = chosen[begin : begin + _BATCH].tolist()
        seeds = [picture_seed(seed, rows.idx[n], 0) for n in part]
        pictures.extend(artist.draw(rows, part, seeds, _SAMPLING))
    return pictures


def _accuracy(pictures: Sequence[Pixels], idx: Sequence[str], world: World) -> Accuracy:
    """How often the pictures show what the graph says of the rows' entities."""
    right = np.array(
        [
            (colour == thing.colour, shape == thing.shape)
            for (colour, shape), thing in zip(
                map(read_picture, pictures), map(world.thing, idx), strict=True
            )
        ]
    )
    return Accuracy(
        colour=float(right[:, 0].mean()),
        shape=float(right[:, 1].mean()),
        both=float(right.all(1).mean()),
    )


def _check_judge(world: World, codec: Path, size: int, seed: int) -> tuple[Accuracy, Accuracy]:
    """The judge on fresh true pictures of all entities, before and after the VQGAN."""
    idx = [f"{n}-judge" for n in range(len(world.things))]
    true = [
        paint(thing.colour, thing.shape, size, np.random.default_rng(stream(seed, "judge", n)))
        for n, thing in enumerate(world.things)
    ]
    model, coded = load_image_tokenizer(codec), list[Pixels]()
    with torch.inference_mode():
        for begin in range(0, len(true), _BATCH):
            batch = torch.from_numpy(np.stack(true[begin : begin + _BATCH])).permute(0, 3, 1, 2)
            again = to_uint8(model.decode(model.encode(from_uint8(batch))))
            coded.extend(again.permute(0, 2, 3, 1).numpy())
    return _accuracy(true, idx, world), _accuracy(coded, idx, world)


def neighbours(world: World, kg: Path, count: int = 10) -> dict[str, float]:
    """Of each entity's nearest ones by cosine, the share that has its colour, and its shape."""
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


def _write_sheet(folder: Path, out: Path, size: int, seed: int) -> None:
    """Some held-out names: true pictures in the first row, then each arm's in its own."""
    world = read_world(folder / "world")
    grid = list[list[Pixels]]()
    for _, artist, rows in _artists(folder, seed, folder / "valid.parquet"):
        chosen = np.arange(0, len(rows), max(1, len(rows) // _IN_SHEET))[:_IN_SHEET]
        if not grid:
            things = [world.thing(rows.idx[n]) for n in chosen]
            rng = np.random.default_rng(stream(seed, "sheet"))
            grid.append([paint(thing.colour, thing.shape, size, rng) for thing in things])
        grid.append(_draw(artist, rows, chosen, seed))
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in grid])
    out.write_bytes(encode_png(sheet))


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
