"""The contract of pipelines: a trained model of any family that turns captions into images.

`artist predict`, galleries and `pipeline.py` use this contract only. A new family implements
`ImagePipeline` and gets a line in `PIPELINES`. A capability that a family may lack is a protocol of
its own: `CompletingPipeline` here. Likelihood is not part of the contract: it is measured on a
model's codes (`artist.evaluation.likelihood`), and a diffusion decoder has none.

Shapes: B images, H x W pixels (H = W = resolution), G given codes per image.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from artist.formats.model_folder import MODEL_TYPE, read_config
from artist.generation.config import SamplingConfig
from artist.tables.lattice_rows import Rows
from data.device import choose_device
from data.errors import ArtefactError, ConfigError, did_you_mean
from data.tokenizer import Tokenizer

# `model_type` in `config.json` -> module and class. Names, not imports: rooms above add theirs.
PIPELINES = {MODEL_TYPE: ("artist.generation.artist_pipeline", "Artist")}


class ImagePipeline(Protocol):
    """A loaded model that generates images from rows of a lattice table."""

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        kg: Path | None,
        device: torch.device,
        precision: str,
        compile: bool,
    ) -> Self:
        """Load a model folder; see `load_pipeline`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The text tokenizer."""

    @property
    def text_len(self) -> int:
        """Text tokens per caption; longer captions are truncated."""

    @property
    def kg_fingerprint(self) -> str:
        """Fingerprint of the KG the model was trained with; empty for a model without one."""

    @property
    def resolution(self) -> int:
        """Side of the images, in pixels."""

    def rows(self, table: pa.Table) -> Rows:
        """Return the rows of a lattice table, truncated to the model's text length."""

    def draw(
        self,
        rows: Rows,
        chosen: Sequence[int],
        seeds: Sequence[int],
        sampling: SamplingConfig,
    ) -> NDArray[np.uint8]:
        """Generate one image per chosen row.

        An image depends on its row, its seed and the settings, not on the rest of the batch.

        Args:
            rows: From `rows`.
            chosen: Indices of B rows.
            seeds: B seeds.
            sampling: Settings; a family ignores those that it does not have.

        Returns:
            Pixels (B, H, W, 3).
        """


@runtime_checkable
class CompletingPipeline(ImagePipeline, Protocol):
    """A pipeline that can keep the upper part of given images; for models of image codes."""

    def top_codes(self, images: Sequence[NDArray[np.uint8]], share: float) -> torch.Tensor:
        """Encode the upper `share` of images (H, W, 3): codes (B, G), whole rows of the grid."""

    def draw(
        self,
        rows: Rows,
        chosen: Sequence[int],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        *,
        given: torch.Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """Generate images that begin with `given` codes, (B, G) or (1, G) for all."""


def load_pipeline(
    folder: Path,
    *,
    kg: Path | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> ImagePipeline:
    """Load the pipeline of a model folder, by the `model_type` in its `config.json`.

    Args:
        folder: The model folder.
        kg: The KG folder it was trained with; optional for models without entities only.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `bf16` or `fp32`.
        compile: Compile the steps, which is worthwhile for many images.

    Raises:
        ArtefactError: The folder is not a finished model, or of an unknown type.
        ToolkitError: A file is damaged, or the KG is missing or not the one of the model.
    """
    model_type = read_config(folder)["model_type"]
    if model_type not in PIPELINES:
        raise ArtefactError(
            f"{folder} is a {model_type!r} model{did_you_mean(model_type, PIPELINES)}; supported "
            f"model types: {', '.join(PIPELINES)}."
        )
    module, name = PIPELINES[model_type]
    family: Any = getattr(import_module(module), name)
    on = device if isinstance(device, torch.device) else choose_device(device)
    pipeline: ImagePipeline = family.load(
        folder, kg=kg, device=on, precision=precision, compile=compile
    )
    return pipeline


def completing(pipeline: ImagePipeline) -> CompletingPipeline:
    """Return the pipeline as one that completes images.

    Raises:
        ConfigError: Its model cannot.
    """
    if not isinstance(pipeline, CompletingPipeline):
        raise ConfigError("this model cannot complete images: it has no image codes.")
    return pipeline
