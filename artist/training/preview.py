"""Pictures of the same prompts at intervals, so that one can watch a model learn.

A grid has a column for each prompt. For held-out rows the first line is what the VQGAN makes of
their real images, the best that could be drawn; the second line is drawn. `prompts.tsv` beside the
grids says which prompt is where.
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
COUNT = 8  # of held-out rows that are drawn
_GAP = 2  # pixels between pictures


class Preview:
    """Draws the same prompts with the same random numbers each time.

    Args:
        batches: The prompts; where they have codes, those are shown too.
        image_tokenizer: On the model's device, in eval mode.
        folder: The run's.
        seed: The run's.
    """

    def __init__(
        self, batches: Batches, image_tokenizer: ImageTokenizer, folder: Path, seed: int
    ) -> None:
        self.folder, self.image_tokenizer = folder / FOLDER, image_tokenizer
        self.chosen = spread(len(batches.rows)) if batches.rows.codes.shape[1] else None
        chosen = self.chosen if self.chosen is not None else np.arange(len(batches.rows))
        self.batch = batches.get(chosen)
        self.prompts = [(batches.rows.idx[n], batches.rows.texts[n]) for n in chosen]
        self.seeds = [stream(seed, "preview", n) for n in range(len(chosen))]

    def draw(self, gpt: GPT, step: int, dtype: torch.dtype) -> NDArray[np.uint8]:
        """Write the grid of a step as a PNG; its pixels (H, W, 3)."""
        training, device = gpt.training, next(gpt.parameters()).device
        batch = self.batch.to(device)
        gpt.eval()
        codes = sample(
            gpt,
            gpt.text_ids(batch.bert_ids),
            batch.entities,
            self.seeds,
            SamplingConfig(),
            dtype=dtype,
        )
        gpt.train(training)
        lines = [codes] if self.chosen is None else [batch.codes, codes]
        pixels = _grid([self._pictures(line) for line in lines])
        self.folder.mkdir(exist_ok=True)
        with atomic(self.folder / PROMPTS) as file:
            file.writelines(f"{idx}\t{text}\n" for idx, text in self.prompts)
        with atomic(self.folder / f"step-{step:08d}.png", "wb") as file:
            file.write(encode_png(pixels, {"step": str(step)}))
        return pixels

    @torch.inference_mode()
    def _pictures(self, codes: Tensor) -> NDArray[np.uint8]:
        """Codes (B, L) -> pixels (B, H, W, 3)."""
        images = to_uint8(self.image_tokenizer.decode(codes))
        pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).cpu().numpy()
        return pixels


def spread(rows: int, count: int = COUNT) -> NDArray[np.int64]:
    """Up to `count` row numbers, evenly over all."""
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def _grid(lines: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lines of pictures (B, H, W, 3) as one, on white."""
    framed = [
        np.pad(line, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for line in lines
    ]
    rows = [np.concatenate(list(line), axis=1) for line in framed]
    return np.concatenate(rows, axis=0)[:-_GAP, :-_GAP]
