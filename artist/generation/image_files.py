"""Image files of a run: seeds, names, and generating the missing ones."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from artist.generation.completion import Completion
from artist.generation.config import SamplingConfig
from artist.generation.pipeline_protocol import ImagePipeline
from artist.tables.lattice_rows import Rows
from data.images import encode_png, encode_webp
from data.runs import atomic
from data.seeds import stream

_ENCODERS: dict[str, Callable[[NDArray[np.uint8], dict[str, str]], bytes]] = {
    "png": encode_png,
    "webp": encode_webp,
}


def image_seed(seed: int, idx: str, number: int) -> int:
    """Return the seed of a row's image `number`, from the run's seed and the row's `idx`."""
    return stream(seed, "picture", idx, number)


def image_file_name(row: int, idx: str, number: int, kind: str = "png") -> str:
    """Return a unique ASCII file name without path separators, for any `idx`.

    The row's number makes it unique where ids differ in case only, and avoids `con` and `nul`.
    """
    readable = re.sub(r"[^\w-]+", "_", idx, flags=re.ASCII).strip("_")[:40]
    parts = (f"{row + 1:05d}", readable, str(number))
    return f"{'_'.join(part for part in parts if part)}.{kind}"


def generate_missing(
    pipeline: ImagePipeline,
    rows: Rows,
    folder: Path,
    *,
    num_images: int,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
    completion: Completion | None = None,
    image_format: str = "png",
) -> list[list[Path]]:
    """Generate the images that `folder` does not contain yet; return all paths, row by row.

    Args:
        pipeline: Generates the images.
        rows: The prompts.
        folder: Created if necessary.
        num_images: Images per prompt.
        sampling: Sampling settings.
        seed: The run's seed; see `image_seed`.
        batch_size: Images generated at once.
        completion: Images to complete, one per prompt.
        image_format: Key of `artist.generation.config.IMAGE_FORMATS`.
    """
    folder.mkdir(exist_ok=True)
    encode = _ENCODERS[image_format]
    files = [
        [folder / image_file_name(n, idx, i, image_format) for i in range(num_images)]
        for n, idx in enumerate(rows.idx)
    ]
    missing = [(n, i) for n, row in enumerate(files) for i, f in enumerate(row) if not f.exists()]
    with tqdm(total=len(missing), desc="generating", unit="image", disable=None) as bar:
        for begin in range(0, len(missing), batch_size):
            part = missing[begin : begin + batch_size]
            chosen = [n for n, _ in part]
            seeds = [image_seed(seed, rows.idx[n], i) for n, i in part]
            if completion is None:
                images = pipeline.draw(rows, chosen, seeds, sampling)
            else:
                images = completion.draw(rows, chosen, seeds, sampling)
            for (n, i), own_seed, pixels in zip(part, seeds, images, strict=True):
                info = {"prompt": rows.texts[n], "idx": rows.idx[n], "seed": str(own_seed)}
                with atomic(files[n][i], "wb") as file:
                    file.write(encode(pixels, info))
            bar.update(len(part))
    return files
