"""From a sentence to pictures in one call.

    from pipeline import ArtistPipeline

    artist = ArtistPipeline.from_pretrained("runs/model", kg="runs/kg")
    pictures = artist("一颗绿色的花椰菜在生长", num_images=4, seed=1)  # PIL images

It joins two stages, lattice and artist, so it lives above both. `cli.py artist predict` draws the
same pictures from the same seed, and writes them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from PIL import Image

from artist.formats.model_folder import load_model, read_config
from artist.generation.config import SamplingConfig
from artist.generation.predict import (
    Artist,
    entity_vectors,
    matching_settings,
    picture_seed,
    read_prompts,
)
from artist.tables.lattice_rows import lattice_settings
from data.device import choose_device
from data.errors import ConfigError
from data.images import square
from data.schema import LATTICE, open_shards, table_metadata
from data.tokenizer import tokenizer_folder
from lattice.building.build import TextMatcher
from lattice.config import LatticeConfig


def prompt_matcher(
    model: Path, kg: Path | None, *, names: Path | None = None, mentions: Path | None = None
) -> TextMatcher:
    """Finds entities in prompts as they were found in the captions that a model was trained on.

    Args:
        model: The model folder.
        kg: The KG it was trained with; None, if it was trained without.
        names: A vocabulary compiled from the KG's names by `lattice compile`, which is ready at
            once; None: the KG's names are read.
        mentions: The mention file that the captions were matched with, if any.
    """
    config = LatticeConfig(**matching_settings(model))
    return TextMatcher(names or kg, tokenizer=model, config=config, mentions=mentions)


def match_as_table(tsv: Path, table: Path, kg: Path) -> pa.Table:
    """The prompts of a TSV, with entities found as they were found in a lattice table's captions.

    Raises:
        ToolkitError: The TSV cannot be read, or the table was matched with a mention file.
    """
    prompts = read_prompts(tsv)
    metadata = table_metadata(open_shards(table, LATTICE).schema_arrow)
    config = LatticeConfig(**lattice_settings(metadata))  # type: ignore[arg-type]
    found = TextMatcher(kg, tokenizer=tokenizer_folder(table), config=config)(prompts.texts)
    return found.set_column(0, "idx", pa.array(prompts.idx, pa.string()))


class ArtistPipeline:
    """A model, its graph and its tokenizer, ready to draw. Make one with `from_pretrained`."""

    def __init__(self, artist: Artist, matcher: TextMatcher) -> None:
        self._artist, self._matcher = artist, matcher

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
            kg: The KG folder it was trained with; only models of fusion `none` do without.
            names: A vocabulary compiled from the KG's names, which saves reading them.
            mentions: The mention file that the captions were matched with, if any.
            device: `auto`, `cpu` or `cuda`.
            precision: `auto`, `bf16` or `fp32`.
            compile: Compile the steps at the first call, which pays for many pictures.

        Raises:
            ToolkitError: A folder is missing, damaged, or belongs to another model.
        """
        folder, graph, vocabulary, pairs = (
            None if path is None else Path(path) for path in (model, kg, names, mentions)
        )
        assert folder is not None
        read_config(folder)  # a path that is no model is said first
        loaded = load_model(folder, choose_device(device))
        artist = Artist(loaded, entity_vectors(loaded, graph), precision=precision, compile=compile)
        return cls(artist, prompt_matcher(folder, graph, names=vocabulary, mentions=pairs))

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
        """Draw pictures.

        Args:
            prompt: A sentence, or several.
            num_images: Pictures a prompt.
            seed: The same seed gives the same pictures on one machine.
            image: A picture whose upper part is kept.
            keep_top: How much of it.
            batch_size: Pictures drawn at once.
            **sampling: `temperature`, `top_k`, `top_p`, `cfg_scale`, `cfg_schedule`; see
                `artist.training.config.SamplingConfig`.

        Returns:
            `num_images` pictures; for several sentences, a list of them for each.
        """
        if num_images < 1:
            raise ConfigError(f"num_images={num_images} must be at least 1.")
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        idx = [str(n + 1) for n in range(len(texts))]
        table = self._matcher(texts).set_column(0, "idx", pa.array(idx, pa.string()))
        rows = self._artist.rows(table)
        given = None
        if image is not None:
            size = self._artist.model.image_tokenizer.resolution
            given = self._artist.top_codes([square(image.convert("RGB"), size)], keep_top)
        wanted = [(n, i) for n in range(len(texts)) for i in range(num_images)]
        pictures: list[list[Image.Image]] = [[] for _ in texts]
        for begin in range(0, len(wanted), batch_size):
            part = wanted[begin : begin + batch_size]
            drawn = self._artist.draw(
                rows,
                [n for n, _ in part],
                [picture_seed(seed, idx[n], i) for n, i in part],
                SamplingConfig(**sampling),
                given=None if given is None else given.expand(len(part), -1),
            )
            for (n, _), pixels in zip(part, drawn, strict=True):
                pictures[n].append(Image.fromarray(np.asarray(pixels)))
        return pictures[0] if isinstance(prompt, str) else pictures
