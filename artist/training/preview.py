"""Previews: images of fixed prompts, sampled at intervals during a training.

A grid has a column per prompt. For held-out rows the first line contains reconstructions of their
real images, the upper bound for the model; the second line is generated.
`prompts.tsv` next to the grids lists the prompts in their order.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artist.generation.config import SamplingConfig
from artist.generation.sampling import sample
from artist.models.gpt import GPT
from artist.models.image_tokenizer import ImageTokenizer, to_uint8
from artist.tables.lattice_rows import Batches
from data.images import encode_png
from data.runs import atomic
from data.seeds import stream

FOLDER = "previews"
PROMPTS = "prompts.tsv"
COUNT = 8  # held-out rows that are sampled
_GAP = 2  # pixels between images


class Preview:
    """Sample the same prompts with the same random numbers each time.

    Args:
        batches: The prompts; for rows with codes, reconstructions are added.
        image_tokenizer: On the model's device, in eval mode.
        folder: Folder of the run.
        seed: Seed of the run.
    """

    def __init__(
        self, batches: Batches, image_tokenizer: ImageTokenizer, folder: Path, seed: int
    ) -> None:
        self.folder, self.image_tokenizer = folder, image_tokenizer
        self.chosen = spread(len(batches.rows)) if batches.rows.codes.shape[1] else None
        chosen = self.chosen if self.chosen is not None else np.arange(len(batches.rows))
        self.batch = batches.get(chosen)
        self.prompts = [(batches.rows.idx[n], batches.rows.texts[n]) for n in chosen]
        self.seeds = [stream(seed, "preview", n) for n in range(len(chosen))]

    def sample(self, gpt: GPT, step: int, dtype: torch.dtype) -> NDArray[np.uint8]:
        """Write the grid of a step as a PNG; return its pixels (H, W, 3)."""
        training, device = gpt.training, next(gpt.parameters()).device
        batch = self.batch.to(device)
        gpt.eval()
        codes = sample(
            gpt,
            gpt.text_ids(batch.conditioning.token_ids),
            batch.conditioning.entities,
            self.seeds,
            SamplingConfig(),
            dtype=dtype,
        )
        gpt.train(training)
        lines = [codes] if self.chosen is None else [batch.codes, codes]
        pixels = _grid([self._images(line) for line in lines])
        write_preview(self.folder, step, pixels)
        with atomic(self.folder / FOLDER / PROMPTS) as file:
            file.writelines(f"{idx}\t{text}\n" for idx, text in self.prompts)
        return pixels

    @torch.inference_mode()
    def _images(self, codes: Tensor) -> NDArray[np.uint8]:
        """Decode codes (B, L) to pixels (B, H, W, 3)."""
        images = to_uint8(self.image_tokenizer.decode(codes))
        pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).cpu().numpy()
        return pixels


def write_preview(folder: Path, step: int, pixels: NDArray[np.uint8]) -> None:
    """Write pixels (H, W, 3) as the preview of a step, into `previews/` of a run's folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    with atomic(folder / FOLDER / f"step-{step:08d}.png", "wb") as file:
        file.write(encode_png(pixels, {"step": str(step)}))


def spread(rows: int, count: int = COUNT) -> NDArray[np.int64]:
    """Return up to `count` evenly spaced row numbers."""
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def _grid(lines: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join lines of images (B, H, W, 3) into one image with white gaps."""
    framed = [
        np.pad(line, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for line in lines
    ]
    rows = [np.concatenate(list(line), axis=1) for line in framed]
    return np.concatenate(rows, axis=0)[:-_GAP, :-_GAP]
