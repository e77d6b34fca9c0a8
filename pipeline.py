"""Generate images from sentences in Python.

    from pipeline import ArtistPipeline

    artist = ArtistPipeline.from_pretrained("runs/model", kg="runs/kg")
    images = artist("一颗绿色的花椰菜在生长", num_images=4, seed=1)  # PIL images

`cli.py artist predict` generates the same images from the same seed, and writes them to files. This
module joins two stages, lattice and artist.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload


def _check_not_hidden() -> None:
    """Check that no other `data.py`, such as one next to the user's script, hides a package.

    Raises:
        ImportError: One does; the message names it.
    """
    here = Path(__file__).resolve().parent
    for name in ("data", "kg", "lattice", "artist"):
        found = sys.modules.get(name) or find_spec(name)
        file = getattr(found, "__file__", None) or getattr(found, "origin", None)
        if file is None or Path(file).resolve().parent.parent != here:
            raise ImportError(
                f"{file or 'another module'} hides the package {name} of the toolkit in {here}. "
                "Rename it, or put the toolkit first in sys.path; in a toolkit installed with pip "
                "nothing can hide it."
            )


if not __package__:  # from source, where the packages are at the top level
    _check_not_hidden()

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from artist.formats.model_folder import read_config
from artist.generation.config import SamplingConfig
from artist.generation.image_files import image_seed
from artist.generation.pipeline_protocol import ImagePipeline, completing, load_pipeline
from artist.generation.prompts import read_prompts
from artist.tables.lattice_rows import lattice_settings
from data.errors import ConfigError
from data.images import square
from data.schema import LATTICE, open_shards, table_metadata
from data.tokenizer import tokenizer_folder
from lattice.building.build import TextMatcher
from lattice.config import LatticeConfig


def prompt_matcher(
    model: Path, kg: Path | None, *, names: Path | None = None, mentions: Path | None = None
) -> TextMatcher:
    """Return a matcher with the settings of a model's training captions.

    Args:
        model: The model folder.
        kg: The KG it was trained with; None for a model trained without.
        names: A vocabulary compiled from the KG's names by `lattice compile`, which loads faster;
            None: the KG's names are read.
        mentions: The mention file that the captions were matched with, if any.
    """
    config = LatticeConfig(**read_config(model)["lattice"])
    return TextMatcher(names or kg, tokenizer=model, config=config, mentions=mentions)


def match_as_table(tsv: Path, table: Path, kg: Path) -> pa.Table:
    """Read the prompts of a TSV and match them with the settings of a lattice table.

    Raises:
        ToolkitError: The TSV cannot be read, or the table was matched with a mention file.
    """
    prompts = read_prompts(tsv)
    metadata = table_metadata(open_shards(table, LATTICE).schema_arrow)
    config = LatticeConfig(**lattice_settings(metadata))  # type: ignore[arg-type]
    found = TextMatcher(kg, tokenizer=tokenizer_folder(table), config=config)(prompts.texts)
    return found.set_column(0, "idx", pa.array(prompts.idx, pa.string()))


class ArtistPipeline:
    """A loaded model of any family with a matcher of its KG; see `from_pretrained`."""

    def __init__(self, pipeline: ImagePipeline, matcher: TextMatcher) -> None:
        self._pipeline, self._matcher = pipeline, matcher

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        kg: str | Path | None = None,
        names: str | Path | None = None,
        mentions: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
    ) -> "ArtistPipeline":
        """Load a model folder.

        Args:
            model: From `artist finetune` or `artist import`.
            kg: The KG folder it was trained with; optional for models of fusion `none` only.
            names: A vocabulary compiled from the KG's names, which loads faster.
            mentions: The mention file that the captions were matched with, if any.
            device: `auto`, `cpu` or `cuda`.
            precision: `auto`, `bf16` or `fp32`.
            compile: Compile the steps at the first call, which is worthwhile for many images.

        Raises:
            ToolkitError: A folder is missing, damaged, or belongs to another model.
        """
        folder, graph, vocabulary, pairs = (
            None if path is None else Path(path) for path in (model, kg, names, mentions)
        )
        assert folder is not None
        pipeline = load_pipeline(
            folder, kg=graph, device=device, precision=precision, compile=compile
        )
        return cls(pipeline, prompt_matcher(folder, graph, names=vocabulary, mentions=pairs))

    @overload
    def __call__(self, prompt: str, **options: Any) -> list[Image.Image]: ...

    @overload
    def __call__(self, prompt: Sequence[str], **options: Any) -> list[list[Image.Image]]: ...

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_images: int = 1,
        seed: int = 0,
        image: Image.Image | None = None,
        keep_top: float = 0.5,
        batch_size: int = 32,
        **sampling: Any,
    ) -> list[Image.Image] | list[list[Image.Image]]:
        """Generate images.

        Args:
            prompt: A sentence, or several.
            num_images: Images per prompt.
            seed: The same seed gives the same images on one machine.
            image: An image whose upper part is kept.
            keep_top: Share of it to keep.
            batch_size: Images generated at once.
            **sampling: `temperature`, `top_k`, `top_p`, `cfg_scale`, `cfg_schedule`,
                `jacobi_window`; see `artist.generation.config.SamplingConfig`.

        Returns:
            `num_images` images; for several sentences, a list of images for each.

        Raises:
            ConfigError: A setting is out of range, or the model cannot complete images.
        """
        if num_images < 1:
            raise ConfigError(f"num_images={num_images} must be at least 1.")
        settings = SamplingConfig(**sampling)
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        idx = [str(n + 1) for n in range(len(texts))]
        table = self._matcher(texts).set_column(0, "idx", pa.array(idx, pa.string()))
        rows = self._pipeline.rows(table)
        draw: Callable[..., NDArray[np.uint8]] = self._pipeline.draw
        if image is not None:
            pipeline = completing(self._pipeline)
            given_pixels = square(image.convert("RGB"), pipeline.resolution)
            given = pipeline.top_codes([given_pixels], keep_top)  # (1, G)
            draw = partial(pipeline.draw, given=given)
        wanted = [(n, i) for n in range(len(texts)) for i in range(num_images)]
        images: list[list[Image.Image]] = [[] for _ in texts]
        for begin in range(0, len(wanted), batch_size):
            part = wanted[begin : begin + batch_size]
            chosen = [n for n, _ in part]
            seeds = [image_seed(seed, idx[n], i) for n, i in part]
            for n, pixels in zip(chosen, draw(rows, chosen, seeds, settings), strict=True):
                images[n].append(Image.fromarray(pixels))
        return images[0] if isinstance(prompt, str) else images
