"""The demo: run every stage on emoji and compare three models in a gallery.

A caption contains an emoji's name and never its scene; the scene behind the emoji follows from its
type in the graph. Three models are trained alike: with the graph's vectors, without knowledge, and
with vectors assigned to the wrong names. All of them generate images of names that no training
caption contains.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from artist.evaluation.ablation import ablate
from artist.formats.model_folder import load_model
from artist.generation.artist_pipeline import Artist
from artist.generation.config import SamplingConfig
from artist.generation.gallery import (
    ComparisonTable,
    GalleryImage,
    ImageRow,
    Note,
    write_gallery,
)
from artist.generation.prompt_cards import prompt_card
from artist.tables.lattice_rows import Rows
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
from data.images import decode_image, encode_png
from data.kg_folder import ENTITY_NAMES, read_names, read_vectors
from data.runs import read_manifest
from data.schema import LATTICE
from experiments.emoji.identity import NameJudge
from experiments.emoji.scenes import SCENES, classify_scene
from experiments.emoji.world import World, write_world
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
from lattice.building.build import match_texts

log = logging.getLogger(__name__)

WITH, WITHOUT, SHUFFLED = "with knowledge", "without knowledge", "with shuffled knowledge"
ARMS = {"lattice": WITH, "none": WITHOUT, "shuffled": SHUFFLED}
GALLERY = "gallery.html"
# Chosen by the things of trained names, whose images are known.
_SAMPLING = SamplingConfig(temperature=0.15, top_k=None, cfg_scale=2.0)
_IMAGES_PER_PROMPT = 2  # for each model in the gallery


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How much work the demo does; the defaults take about ten minutes on two cores.

    Attributes:
        vqgan: How the image tokenizer is trained.
        train: How each of the three models is trained.
        variants: Images per name in the training set.
        seed: Seed of all random choices.
    """

    vqgan: VQGANTrainConfig = field(default_factory=lambda: VQGANTrainConfig(steps=700))
    train: TrainConfig = field(
        default_factory=lambda: small_training(
            text_len=16,
            epochs=9,
            learning_rate=1e-3,
            validations=6,
            text_scale=30.0,
            name_dropout=0.2,
        )
    )
    variants: int = 4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model's results on held-out names and on training names.

    Attributes:
        scene_unseen: Share of images with the right scene, for names held out of training.
        scene_trained: The same for names in the training captions.
        thing_trained: Share of images whose nearest training image has their name, for names in
            the training captions.
        loss: Lowest validation loss of the training, in nats per code of the held-out images.
        count: Number of images behind `scene_unseen`.
        trained: Number of images behind the other two, one for each name.
    """

    scene_unseen: float
    scene_trained: float
    thing_trained: float
    loss: float
    count: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The comparison of the three models.

    Attributes:
        out: The demo's folder.
        scores: Results by model: `WITH`, `WITHOUT`, `SHUFFLED`.
        scenes: Number of scenes.
        ceiling: `thing_trained` of the training images after the VQGAN, each compared with the
            others.
        seconds: Duration of this run.
        seed: The run's seed.
    """

    out: Path
    scores: dict[str, Score]
    scenes: int
    ceiling: float
    seconds: float
    seed: int = 0

    def __str__(self) -> str:
        lines = [
            "",
            f"{'':26}{'names never seen in training':^30}{'trained names':^16}",
            f"  {'':24}{'right scene':>13}{'nats per code':>15}{'right thing':>17}",
        ]
        lines += [
            f"  {name:24}{score.scene_unseen:>13.2f}{score.loss:>15.3f}{score.thing_trained:>17.2f}"
            for name, score in self.scores.items()
        ]
        chance, ceiling = 1 / self.scenes, self.ceiling
        lines.append(f"  Right scene by chance {chance:.2f}; right thing, the VQGAN {ceiling:.2f}.")
        kg, model, program = self.out / "kg", _models(self.out, self.seed) / "lattice", _program()
        lines += [
            "",
            f"Done in {self.seconds / 60:.1f} minutes. Open {self.out / GALLERY}",
            "",
            "Try next:",
            f"  {program} kg nearest 西兰花 --kg {kg}",
            f"  {program} lattice show 一只老虎和一头大象 --kg {kg}",
            f"  {program} artist predict --text 一只海豚 --num-images 4 --temperature 0.15 "
            f"--cfg-scale 2 --model {model} --kg {kg} --out {self.out / 'images'}",
        ]
        return "\n".join(lines)


def _program() -> str:
    """Return the words before a command: the interpreter with `cli.py`, or the script."""
    if Path(sys.argv[0]).name != "cli.py":
        return "artist-toolkit"
    interpreter = os.path.relpath(sys.executable)  # unresolved: a venv's python is a link
    return f"{interpreter if not interpreter.startswith('..') else 'python'} cli.py"


def _models(out: Path, seed: int) -> Path:
    """Return the folder in which `ablate` writes a seed's models."""
    return out / "models" / f"seed-{seed}"


def run_demo(
    out: Path,
    *,
    config: DemoConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> DemoReport:
    """Run every stage on the embedded world; finished stages are not run again.

    Args:
        out: The folder for all outputs.
        config: How much work to do.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Run all stages again and replace their outputs.

    Raises:
        ToolkitError: A package of the demo is missing, or `out` contains another run's output.
    """
    began, config = time.monotonic(), config or DemoConfig()
    seed, kg, vqgan, models = config.seed, out / "kg", out / "vqgan", _models(out, config.seed)
    stage = StageOptions(device=device, overwrite=overwrite)
    log.info("1/6  Write the world: emoji, Chinese names, a small knowledge graph")
    world = write_world(out / "world", seed=seed, variants=config.variants, overwrite=overwrite)
    _log(world)
    log.info("2/6  kg train: one vector per entity")
    _log(train_kg(world.triples, kg, config=KGConfig(seed=seed), **stage))
    log.info("3/6  lattice build: find the entities in every caption")
    train, valid = build_tables(world, out / "tables", kg, overwrite)
    log.info("4/6  artist vqgan train: %d codes per image", config.vqgan.model_config().image_len)
    tokenizer = replace(config.vqgan, seed=seed)
    _log(train_vqgan(train, vqgan, config=tokenizer, valid=valid, **stage))
    log.info("5/6  artist ablate: train three models")
    ablate(
        train, valid=valid, kg=kg, vqgan=vqgan, out=models.parent, config=config.train,
        arms=tuple(ARMS), seeds=(seed,), **stage
    )  # fmt: skip
    log.info("6/6  artist predict: generate images and compare")
    artists = {
        name: Artist(load_model(models / arm), read_vectors(arm_graph(arm, models, kg)))
        for arm, name in ARMS.items()
    }
    losses = {arm: read_manifest(models / arm).counts["best_loss"] for arm in ARMS}
    images, names = _training_images(train)
    judge = NameJudge(images, names)
    ceiling = _ceiling(judge, images, names, vqgan)
    scores = {
        name: _score(artists[name], world, (kg, valid), judge, losses[arm], seed)
        for arm, name in ARMS.items()
    }
    report = DemoReport(
        out=out,
        scores=scores,
        scenes=len(SCENES),
        ceiling=ceiling,
        seconds=time.monotonic() - began,
        seed=seed,
    )
    _write_gallery(world, kg, artists[WITH], artists[WITHOUT], report)
    return report


def _log(report: object) -> None:
    log.info("     %s", str(report).replace("\n", "\n     "))


def _training_images(table: Path) -> tuple[list[Pixels], NDArray[np.int64]]:
    """Return the training images and the number of the name of each."""
    read = pq.read_table(table, columns=["idx", "image"]).to_pylist()
    images = [np.asarray(decode_image(row["image"]["bytes"])) for row in read]
    return images, np.array([_number(row["idx"]) for row in read])


def _number(idx: str) -> int:
    """Return the number of a row's emoji in the world."""
    return int(idx[:4])


def _ceiling(
    judge: NameJudge, images: list[Pixels], names: NDArray[np.int64], vqgan: Path
) -> float:
    """Return the share of images that still show their name after the VQGAN."""
    decoded = list(reconstruct(vqgan, np.stack(images)))
    ranks = judge.ranks(decoded, names, leave_out=np.arange(len(images)))
    return float(np.mean(ranks == 1))


def _prompt_rows(artist: Artist, kg: Path, texts: list[str]) -> Rows:
    table = match_texts(texts, names=kg, tokenizer=artist.tokenizer)
    return artist.rows(table.set_column(0, "idx", pa.array(texts)))


def _score(
    artist: Artist,
    world: World,
    inputs: tuple[Path, Path],
    judge: NameJudge,
    loss: float,
    seed: int,
) -> Score:
    """Generate every held-out caption and each trained name; judge scenes and things."""
    kg, valid = inputs
    numbers = np.flatnonzero(~np.array(world.held_out))
    trained = _prompt_rows(artist, kg, [world.names[n] for n in numbers])
    things = generate(artist, trained, np.arange(len(trained)), seed, _SAMPLING)
    unseen = artist.rows(pq.read_table(valid, columns=LATTICE.names))
    scenes = generate(artist, unseen, np.arange(len(unseen)), seed, _SAMPLING)
    return Score(
        scene_unseen=_right_scenes(scenes, map(_number, unseen.idx), world),
        scene_trained=_right_scenes(things, numbers.tolist(), world),
        thing_trained=float(np.mean(judge.ranks(things, numbers) == 1)),
        loss=loss,
        count=len(unseen),
        trained=len(trained),
    )


def _right_scenes(images: list[Pixels], numbers: Iterable[int], world: World) -> float:
    right = [
        classify_scene(Image.fromarray(pixels)) == world.scenes[n]
        for pixels, n in zip(images, numbers, strict=True)
    ]
    return float(np.mean(right))


def _write_gallery(
    world: World, kg: Path, with_knowledge: Artist, without: Artist, report: DemoReport
) -> None:
    """Write the page: each prompt with its lattice, and both models' images for equal seeds."""
    seed, texts = report.seed, [prompt.text for prompt in world.prompts]
    rows = _prompt_rows(with_knowledge, kg, texts)
    every = np.arange(len(texts))
    rounds = range(_IMAGES_PER_PROMPT)
    generated = {
        label: [generate(artist, rows, every, seed, _SAMPLING, i) for i in rounds]
        for label, artist in ((WITH, with_knowledge), (f"{WITHOUT}, same seeds", without))
    }
    names = read_names(kg / ENTITY_NAMES)
    types = dict(zip(world.names, world.types, strict=True))
    cards = [
        prompt_card(
            with_knowledge.tokenizer,
            with_knowledge.text_len,
            rows,
            n,
            names,
            types=types,
            badges=["never seen in training"] if prompt.held_out else [],
            note=f"scene of its type: {prompt.scene}",
            rows=[
                ImageRow(
                    label=label,
                    images=[_classified(images[n], prompt.scene) for images in rounds],
                )
                for label, rounds in generated.items()
            ],
        )
        for n, prompt in enumerate(world.prompts)
    ]
    write_gallery(
        report.out / GALLERY,
        title="A name, a graph, a scene",
        subtitle="Images generated from Chinese captions by a small model that was just trained on "
        "this machine.",
        notes=[
            Note(
                title="What to look for",
                text="No caption contains a scene. The scene follows from the type of the named "
                "thing in the knowledge graph. For a name that no training caption contains, only "
                "the graph gives the type, so only the model with knowledge can choose the scene.",
            )
        ],
        table=_comparison(report),
        cards=cards,
        footer=world.credits,
    )


def _classified(pixels: Pixels, scene: str) -> GalleryImage:
    found = classify_scene(Image.fromarray(pixels))
    return GalleryImage(content=encode_png(pixels), caption=found, right=found == scene)


def _comparison(report: DemoReport) -> ComparisonTable:
    scores = list(report.scores.values())
    return ComparisonTable(
        title="Three models, trained alike",
        header=(
            "",
            "right scene, unseen names",
            "right scene, trained names",
            "right thing, trained names",
            "nats per code",
        ),
        rows=[
            (
                name,
                f"{s.scene_unseen:.2f}",
                f"{s.scene_trained:.2f}",
                f"{s.thing_trained:.2f}",
                f"{s.loss:.3f}",
            )
            for name, s in report.scores.items()
        ],
        best=max(range(len(scores)), key=lambda n: scores[n].scene_unseen),
        note=f"For each model, {scores[0].count} images of held-out names and one of each of the "
        f"{scores[0].trained} trained names. The scene is classified by the colours of the image's "
        f"border; chance is {1 / report.scenes:.2f}. The thing is right if the nearest training "
        f"image, by 32x32 pixels, has the name; the VQGAN's ceiling is {report.ceiling:.2f}. Nats "
        "per code: lowest validation loss on the held-out images; images are generated with the "
        "weights of the last step.",
    )
