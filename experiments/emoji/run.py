"""The whole way on emoji: graph, lattice, codes, three models, and a gallery that compares them.

The captions name a thing and never say where it stands; the scene behind it follows from its type
in the graph. Three models are trained alike: one with the graph's vectors, one without knowledge,
one with the vectors dealt out to the wrong names. All are asked for names they have never seen.
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
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file
from tqdm import tqdm

from artist.formats.model_folder import load_model
from artist.generation.config import SamplingConfig
from artist.generation.gallery import ComparisonTable, Note, Picture, PictureRow, write_gallery
from artist.generation.predict import Artist, picture_seed, prompt_card
from artist.tables.lattice_rows import Rows
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.finetune import finetune
from artist.training.train_vqgan import train_vqgan
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, read_names, read_vectors, write_names
from data.schema import LATTICE
from data.seeds import stream
from data.tokenizer import tokenizer_folder
from experiments.emoji.scenes import SCENES, scene_of_pixels
from experiments.emoji.world import World, write_world
from kg.config import KGConfig
from kg.training.train import train_kg
from lattice.building.build import build_lattice, match_texts

log = logging.getLogger(__name__)

KNOWING, BLIND, MISLED = "with knowledge", "without knowledge", "with shuffled knowledge"
_SAMPLING = SamplingConfig(temperature=0.35, top_k=None)
_PICTURES = 2  # of each prompt and model in the gallery
GALLERY = "gallery.html"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How much work the demo does; the defaults take about ten minutes on two cores.

    Attributes:
        vqgan: How the image tokenizer is trained.
        train: How each of the three models is trained.
        variants: Pictures of each name in the training set.
        seed: Of everything.
    """

    vqgan: VQGANTrainConfig = field(default_factory=lambda: VQGANTrainConfig(steps=700))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            size="tiny",
            text_len=16,
            batch_size=32,
            epochs=9,
            optimizer="muon",
            learning_rate=1e-3,
            dropout=0.0,
            keep="last",
            ema_decay=0.99,
            validations=6,
        )
    )
    variants: int = 4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one model did with names it had never seen, and with names it knew.

    Attributes:
        scene_unseen: Share of pictures before the right scene, names held out of training.
        scene_trained: The same for names in the training captions.
        loss: Nats per code of the held-out pictures, where training was best at them.
        count: Pictures judged for `scene_unseen`.
    """

    scene_unseen: float
    scene_trained: float
    loss: float
    count: int


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The three-way comparison and where the gallery lies."""

    out: Path
    scores: dict[str, Score]
    scenes: int
    seconds: float

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
        kg, model, call = self.out / "kg", self.out / "models" / "lattice", _how_we_are_called()
        lines += [
            "",
            f"Done in {self.seconds / 60:.1f} minutes. Open {self.out / GALLERY}",
            "",
            "Try next:",
            f"  {call} kg nearest 西兰花 --kg {kg}",
            f"  {call} lattice show 一只老虎和一头大象 --kg {kg}",
            f"  {call} artist predict --text 一只海豚 --num-images 4 --temperature 0.35 "
            f"--model {model} --kg {kg} --out {self.out / 'pictures'}",
        ]
        return "\n".join(lines)


def _how_we_are_called() -> str:
    """The words before a command: the interpreter with `cli.py`, or the installed script."""
    if Path(sys.argv[0]).name != "cli.py":
        return "artist-toolkit"
    interpreter = os.path.relpath(sys.executable)  # unresolved: a venv's python is a link
    return f"{interpreter if not interpreter.startswith('..') else 'python'} cli.py"


def run_demo(
    out: Path,
    *,
    config: DemoConfig | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> DemoReport:
    """Run every stage on the embedded world; what is finished already is used again.

    Args:
        out: The folder for everything.
        config: How much work to do.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Do everything again.

    Raises:
        ToolkitError: A package of the demo is missing, or `out` holds something else.
    """
    began, config = time.monotonic(), config or DemoConfig()
    log.info("1/6  The world: emoji, their Chinese names, a small knowledge graph")
    world = write_world(
        out / "world", seed=config.seed, variants=config.variants, overwrite=overwrite
    )
    log.info("     %s", world)
    log.info("2/6  kg train: one vector for each entity")
    kg, misled_kg = out / "kg", out / "kg-shuffled"
    report = train_kg(
        world.triples, kg, config=KGConfig(seed=config.seed), device=device, overwrite=overwrite
    )
    log.info("     %s", str(report).replace("\n", "\n     "))
    _shuffle(kg, misled_kg, config.seed)
    log.info("3/6  lattice build: entities in every caption")
    tables = {name: _tables(world, out / "tables", name, overwrite) for name in (kg, misled_kg)}
    log.info("4/6  artist vqgan train: pictures as %d codes", config.vqgan.model_config().image_len)
    vqgan = out / "vqgan"
    train, valid = tables[kg]
    codec = replace(config.vqgan, seed=config.seed)
    made = train_vqgan(train, vqgan, config=codec, valid=valid, device=device, overwrite=overwrite)
    log.info("     %s", str(made).replace("\n", "\n     "))
    log.info("5/6  artist finetune: three models")
    artists: dict[str, Artist] = {}
    losses: dict[str, float] = {}
    for name, folder, fusion, graph in (
        (KNOWING, "lattice", "lattice", kg),
        (BLIND, "none", "none", kg),
        (MISLED, "shuffled", "lattice", misled_kg),
    ):
        model = out / "models" / folder
        log.info("     %s", name)
        trained = finetune(
            tables[graph][0],
            valid=tables[graph][1],
            kg=graph,
            vqgan=vqgan,
            out=model,
            config=replace(config.train, fusion=fusion, seed=config.seed),
            device=device,
            overwrite=overwrite,
        )
        log.info("     %s", str(trained).replace("\n", "\n     "))
        artists[name] = Artist(load_model(model), read_vectors(graph))
        losses[name] = trained.best_loss
    log.info("6/6  artist predict: draw, judge, compare")
    scores = {
        name: _score(
            artist, world, tables[misled_kg if name == MISLED else kg], losses[name], config.seed
        )
        for name, artist in artists.items()
    }
    _gallery(out / GALLERY, world, kg, artists[KNOWING], artists[BLIND], scores, config.seed)
    return DemoReport(out=out, scores=scores, scenes=len(SCENES), seconds=time.monotonic() - began)


def _tables(world: World, out: Path, kg: Path, overwrite: bool) -> tuple[Path, Path]:
    """Lattice tables of the training and the held-out captions."""
    folder = out / kg.name
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = folder / "train.parquet", folder / "valid.parquet"
    report = build_lattice(world.train, train, names=kg, tokenizer=None, overwrite=overwrite)
    log.info("     %s", str(report).splitlines()[0])
    tokenizer = tokenizer_folder(train)
    build_lattice(world.valid, valid, names=kg, tokenizer=tokenizer, overwrite=overwrite)
    return train, valid


def _shuffle(kg: Path, out: Path, seed: int) -> None:
    """The same graph with its vectors dealt out to the wrong names: the control."""
    names, vectors = read_names(kg / ENTITY_NAMES), read_vectors(kg)
    order = np.random.default_rng(stream(seed, "shuffled graph")).permutation(len(names))
    out.mkdir(parents=True, exist_ok=True)
    write_names(out / ENTITY_NAMES, names)
    save_file({VECTORS_KEY: np.ascontiguousarray(vectors[order])}, out / VECTORS)


def _score(
    artist: Artist, world: World, tables: tuple[Path, Path], loss: float, seed: int
) -> Score:
    """Draw every held-out caption, and as many trained ones, and look at the scene."""
    shares = []
    trained, unseen = (artist.rows(pq.read_table(table, columns=LATTICE.names)) for table in tables)
    rng = np.random.default_rng(stream(seed, "trained names to judge"))
    some = np.sort(rng.choice(len(trained), min(len(unseen), len(trained)), replace=False))
    for rows, chosen in ((unseen, np.arange(len(unseen))), (trained, some)):
        pictures = _draw(artist, rows, chosen, seed)
        right = [
            scene_of_pixels(Image.fromarray(pixels)) == world.scenes[int(rows.idx[n][:4])]
            for pixels, n in zip(pictures, chosen, strict=True)
        ]
        shares.append(float(np.mean(right)))
    return Score(scene_unseen=shares[0], scene_trained=shares[1], loss=loss, count=len(unseen))


def _draw(
    artist: Artist, rows: Rows, chosen: NDArray[np.int64], seed: int, number: int = 0
) -> list[NDArray[np.uint8]]:
    """One picture of each chosen row."""
    pictures: list[NDArray[np.uint8]] = []
    with tqdm(total=len(chosen), desc="drawing", unit="picture", leave=False, disable=None) as bar:
        for begin in range(0, len(chosen), 64):
            part = chosen[begin : begin + 64].tolist()
            seeds = [picture_seed(seed, rows.idx[n], number) for n in part]
            pictures.extend(artist.draw(rows, part, seeds, _SAMPLING))
            bar.update(len(part))
    return pictures


def _gallery(
    path: Path,
    world: World,
    kg: Path,
    knowing: Artist,
    blind: Artist,
    scores: dict[str, Score],
    seed: int,
) -> None:
    """The page: each prompt with its lattice, drawn with knowledge and without, same seeds."""
    texts = [prompt.text for prompt in world.prompts]
    table = match_texts(texts, names=kg, tokenizer=knowing.model.tokenizer)
    rows = knowing.rows(table.set_column(0, "idx", pa.array(texts)))
    everything = np.arange(len(texts))
    drawn = {
        label: [_draw(artist, rows, everything, seed, i) for i in range(_PICTURES)]
        for label, artist in ((KNOWING, knowing), (BLIND, blind))
    }
    names = read_names(kg / ENTITY_NAMES)
    types = dict(zip(world.names, world.types, strict=True))
    cards = [
        prompt_card(
            knowing.model,
            rows,
            n,
            names,
            types=types,
            badges=["never seen in training"] if prompt.held_out else [],
            note=f"belongs before: {prompt.scene}",
            rows=[
                PictureRow(
                    label=label if label == KNOWING else f"{label}, same seeds",
                    pictures=[_judged(images[n], prompt.scene) for images in rounds],
                )
                for label, rounds in drawn.items()
            ],
        )
        for n, prompt in enumerate(world.prompts)
    ]
    write_gallery(
        path,
        title="A name, a graph, a place",
        subtitle="Pictures drawn from Chinese captions by a small model that was trained on this "
        "machine a moment ago.",
        notes=[
            Note(
                title="What to look for",
                text="No caption says where a thing stands. The scene behind it follows from its "
                "type in the knowledge graph. So a name that the model has never been trained on "
                "can be put into the right place only by one who knows what it is.",
            )
        ],
        table=_comparison(scores),
        cards=cards,
        footer=world.credits,
    )


def _judged(pixels: NDArray[np.uint8], scene: str) -> Picture:
    seen = scene_of_pixels(Image.fromarray(pixels))
    return Picture(content=encode_png(pixels), caption=seen, right=seen == scene)


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
        note=f"For each model {count} pictures of held-out names and as many of trained ones; "
        f"chance is {1 / len(SCENES):.2f}. The scene is read from the picture's border, by its "
        "colours. Nats per code: negative log-likelihood of the held-out pictures at the step "
        "where it was lowest; pictures are drawn with the weights of the last step.",
    )
