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
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, read_names, read_vectors
from data.runs import read_manifest
from data.schema import LATTICE
from data.seeds import stream
from experiments.emoji.scenes import SCENES, classify_scene
from experiments.emoji.world import World, write_world
from experiments.stages import (
    Pixels,
    StageOptions,
    arm_graph,
    build_tables,
    generate,
    small_training,
)
from kg.config import KGConfig
from kg.training.train import train_kg
from lattice.building.build import match_texts

log = logging.getLogger(__name__)

WITH, WITHOUT, SHUFFLED = "with knowledge", "without knowledge", "with shuffled knowledge"
ARMS = {"lattice": WITH, "none": WITHOUT, "shuffled": SHUFFLED}
GALLERY = "gallery.html"
_SAMPLING = SamplingConfig(temperature=0.35, top_k=None)
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
            text_len=16, epochs=9, learning_rate=1e-3, validations=6
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
        loss: Lowest validation loss of the training, in nats per code of the held-out images.
        count: Number of images behind `scene_unseen`.
    """

    scene_unseen: float
    scene_trained: float
    loss: float
    count: int


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The comparison of the three models.

    Attributes:
        out: The demo's folder.
        scores: Results by model: `WITH`, `WITHOUT`, `SHUFFLED`.
        scenes: Number of scenes.
        seconds: Duration of this run.
        seed: The run's seed.
    """

    out: Path
    scores: dict[str, Score]
    scenes: int
    seconds: float
    seed: int = 0

    def __str__(self) -> str:
        lines = [
            "",
            f"Names never seen in training, {self.scenes} scenes (chance {1 / self.scenes:.2f}):",
            f"  {'':24}{'right scene':>12}{'nats per code':>15}",
        ]
        lines += [
            f"  {name:24}{score.scene_unseen:>12.2f}{score.loss:>15.3f}"
            for name, score in self.scores.items()
        ]
        kg, model, program = self.out / "kg", _models(self.out, self.seed) / "lattice", _program()
        lines += [
            "",
            f"Done in {self.seconds / 60:.1f} minutes. Open {self.out / GALLERY}",
            "",
            "Try next:",
            f"  {program} kg nearest 西兰花 --kg {kg}",
            f"  {program} lattice show 一只老虎和一头大象 --kg {kg}",
            f"  {program} artist predict --text 一只海豚 --num-images 4 --temperature 0.35 "
            f"--model {model} --kg {kg} --out {self.out / 'images'}",
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
    scores = {
        name: _score(artists[name], world, (train, valid), losses[arm], seed)
        for arm, name in ARMS.items()
    }
    _write_gallery(out / GALLERY, world, kg, artists[WITH], artists[WITHOUT], scores, seed)
    seconds = time.monotonic() - began
    return DemoReport(out=out, scores=scores, scenes=len(SCENES), seconds=seconds, seed=seed)


def _log(report: object) -> None:
    log.info("     %s", str(report).replace("\n", "\n     "))


def _score(
    artist: Artist, world: World, tables: tuple[Path, Path], loss: float, seed: int
) -> Score:
    """Generate every held-out caption and as many training captions; classify the scenes."""
    shares = []
    trained, unseen = (artist.rows(pq.read_table(table, columns=LATTICE.names)) for table in tables)
    rng = np.random.default_rng(stream(seed, "trained names to judge"))
    some = np.sort(rng.choice(len(trained), min(len(unseen), len(trained)), replace=False))
    for rows, chosen in ((unseen, np.arange(len(unseen))), (trained, some)):
        images = generate(artist, rows, chosen, seed, _SAMPLING)
        right = [
            classify_scene(Image.fromarray(pixels)) == world.scenes[int(rows.idx[n][:4])]
            for pixels, n in zip(images, chosen, strict=True)
        ]
        shares.append(float(np.mean(right)))
    return Score(scene_unseen=shares[0], scene_trained=shares[1], loss=loss, count=len(unseen))


def _write_gallery(
    path: Path,
    world: World,
    kg: Path,
    with_knowledge: Artist,
    without: Artist,
    scores: dict[str, Score],
    seed: int,
) -> None:
    """Write the page: each prompt with its lattice, and both models' images for equal seeds."""
    texts = [prompt.text for prompt in world.prompts]
    table = match_texts(texts, names=kg, tokenizer=with_knowledge.model.tokenizer)
    rows = with_knowledge.rows(table.set_column(0, "idx", pa.array(texts)))
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
        path,
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
        table=_comparison(scores),
        cards=cards,
        footer=world.credits,
    )


def _classified(pixels: Pixels, scene: str) -> GalleryImage:
    found = classify_scene(Image.fromarray(pixels))
    return GalleryImage(content=encode_png(pixels), caption=found, right=found == scene)


def _comparison(scores: dict[str, Score]) -> ComparisonTable:
    count = next(iter(scores.values())).count
    best = max(range(len(scores)), key=lambda n: list(scores.values())[n].scene_unseen)
    return ComparisonTable(
        title="Three models, trained alike",
        header=("", "right scene, unseen names", "right scene, trained names", "nats per code"),
        rows=[
            (name, f"{s.scene_unseen:.2f}", f"{s.scene_trained:.2f}", f"{s.loss:.3f}")
            for name, s in scores.items()
        ],
        best=best,
        note=f"For each model, {count} images of held-out names and as many of trained names; "
        f"chance is {1 / len(SCENES):.2f}. The scene is classified by the colours of the image's "
        "border. Nats per code: lowest validation loss on the held-out images; images are "
        "generated with the weights of the last step.",
    )
