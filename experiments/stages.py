"""The stages that the experiments share: lattice tables, training settings, generation."""

import logging
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.generation.artist_pipeline import Artist
from artist.generation.config import SamplingConfig
from artist.generation.image_files import image_seed
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.tables.lattice_rows import Rows
from artist.training.config import TrainConfig
from data.tokenizer import tokenizer_folder
from experiments.world import WorldFolder
from lattice.building.build import build_lattice

log = logging.getLogger(__name__)

BATCH_SIZE = 64
Pixels = NDArray[np.uint8]  # (H, W, 3)


class StageOptions(TypedDict):
    """What all stages of a run share: the device, and whether finished outputs are replaced."""

    device: str
    overwrite: bool


def small_training(**settings: Any) -> TrainConfig:
    """Return the settings of a small GPT that trains in minutes on a CPU, and `settings`."""
    return TrainConfig(
        size="tiny",
        batch_size=32,
        optimizer="muon",
        dropout=0.0,
        keep="last",
        ema_decay=0.99,
        **settings,
    )


def build_tables(world: WorldFolder, folder: Path, kg: Path, overwrite: bool) -> tuple[Path, Path]:
    """Build `train.parquet` and `valid.parquet` in a folder, with one tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = folder / "train.parquet", folder / "valid.parquet"
    report = build_lattice(world.train, train, names=kg, tokenizer=None, overwrite=overwrite)
    log.info("     %s", str(report).splitlines()[0])
    tokenizer = tokenizer_folder(train)
    build_lattice(world.valid, valid, names=kg, tokenizer=tokenizer, overwrite=overwrite)
    return train, valid


def arm_graph(arm: str, models: Path, kg: Path) -> Path:
    """Return the graph that an arm of `ablate` was trained with; `models` is its `seed-N`."""
    return models / "shuffled-kg" if arm == "shuffled" else kg


@torch.inference_mode()
def reconstruct(vqgan: Path, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, H, W, 3) after encoding to codes and decoding."""
    model, parts = load_image_tokenizer(vqgan), [images[:0]]
    for begin in range(0, len(images), BATCH_SIZE):
        part = torch.from_numpy(images[begin : begin + BATCH_SIZE]).permute(0, 3, 1, 2)
        decoded = to_uint8(model.decode(model.encode(from_uint8(part))))
        parts.append(decoded.permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def generate(
    artist: Artist,
    rows: Rows,
    chosen: NDArray[np.int64],
    seed: int,
    sampling: SamplingConfig,
    number: int = 0,
) -> list[Pixels]:
    """Generate one image for each chosen row; `number` tells several images of a row apart."""
    images: list[Pixels] = []
    with tqdm(total=len(chosen), desc="sampling", unit="image", leave=False, disable=None) as bar:
        for begin in range(0, len(chosen), BATCH_SIZE):
            part = chosen[begin : begin + BATCH_SIZE].tolist()
            seeds = [image_seed(seed, rows.idx[n], number) for n in part]
            images.extend(artist.draw(rows, part, seeds, sampling))
            bar.update(len(part))
    return images
