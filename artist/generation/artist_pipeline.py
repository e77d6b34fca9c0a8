"""The pipeline of ARTIST models: sample image codes with the GPT and decode them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from artist.device import choose_dtype
from artist.formats.model_folder import Model, load_model
from artist.generation.config import SamplingConfig
from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import sample
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.tables.lattice_rows import Batches, Rows, RowsConfig, rows_from_table
from data.errors import ConfigError, SchemaError
from data.kg_folder import kg_fingerprint, read_vectors
from data.tokenizer import Tokenizer


def entity_vectors(model: Model, kg: Path | None) -> NDArray[np.float32]:
    """Return the entity vectors (num_entities, D) of a model's KG; zeros (1, D) without a KG.

    Raises:
        ConfigError: The model requires a KG and none is given.
        SchemaError: The model was trained with another KG.
    """
    if kg is None:
        if model.gpt.config.fusion != "none":
            raise ConfigError("this model uses entities: give its KG folder as --kg.")
        return np.zeros((1, model.gpt.config.entity_dim), np.float32)
    if model.kg_fingerprint and kg_fingerprint(kg) != model.kg_fingerprint:
        raise SchemaError(f"{kg} is another KG than the one the model was trained with.")
    return read_vectors(kg)


class Artist:
    """An ARTIST model with the entity vectors of its KG; a `CompletingPipeline`.

    Args:
        model: From `load_model`, on its device.
        vectors: `(num_entities, D)` of the KG it was trained with.
        precision: `auto`, `bf16` or `fp32`, for the GPT and the image decoder.
        compile: Compile the steps, which is worthwhile for many images. Rounding differs, so an
            image can differ from one generated without.
    """

    def __init__(
        self,
        model: Model,
        vectors: NDArray[np.float32],
        precision: str = "auto",
        *,
        compile: bool = False,
    ) -> None:
        self.model, self.vectors, self.compile = model, vectors, compile
        self.device = next(model.gpt.parameters()).device
        self.dtype = choose_dtype(precision, self.device)
        # Not float16: the features of some VQGANs exceed its range.
        half = self.dtype == torch.bfloat16
        self.decoder = model.image_tokenizer.decoding_in(torch.bfloat16 if half else torch.float32)
        self._graphs: CUDAGraphSampler | None = None  # of the last `SamplingConfig`

    @classmethod
    def load(
        cls, folder: Path, *, kg: Path | None, device: torch.device, precision: str, compile: bool
    ) -> Self:
        """Load a model folder and the vectors of its KG; see `load_pipeline`."""
        model = load_model(folder, device)
        return cls(model, entity_vectors(model, kg), precision, compile=compile)

    @property
    def tokenizer(self) -> Tokenizer:
        """The text tokenizer."""
        return self.model.tokenizer

    @property
    def text_len(self) -> int:
        """Text tokens per caption."""
        return self.model.gpt.config.text_len

    @property
    def kg_fingerprint(self) -> str:
        """Fingerprint of the model's KG; empty for fusion `none`."""
        return self.model.kg_fingerprint

    @property
    def resolution(self) -> int:
        """Side of the images, in pixels."""
        return self.model.image_tokenizer.resolution

    def rows(self, table: pa.Table) -> Rows:
        """Return the rows of a lattice table, truncated to the model's text length."""
        config = RowsConfig.of_model(self.model.gpt.config, self.model.tokenizer.pad_id)
        return rows_from_table(table, config)

    def draw(
        self,
        rows: Rows,
        chosen: Sequence[int],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        *,
        use_entities: bool = True,
        given: torch.Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """Generate one image per chosen row and seed: pixels (B, H, W, 3).

        `given` are the first codes of each image (B, G), or of all (1, G); see `top_codes`.

        Raises:
            ConfigError: `jacobi_window` is set and the steps are compiled.
        """
        windows = sampling.jacobi_window is not None
        if windows and self.compile:
            raise ConfigError("jacobi_window and compile cannot be combined; omit one of them.")
        gpt = self.model.gpt
        seen = self.model.seen if use_entities else None
        batches = Batches(rows, self.vectors, gpt.config, seen)
        batch = batches.get(np.asarray(chosen)).to(self.device)
        text_ids = gpt.text_ids(batch.conditioning.token_ids)
        entities = batch.conditioning.entities if use_entities else None
        if given is not None:
            given = given.expand(len(text_ids), -1)
        if self.compile or (self.device.type == "cuda" and not windows):
            sampler = self._sampler(len(text_ids), sampling)
            codes = sampler.sample(text_ids, entities, seeds, given=given)
        else:
            codes = sample(
                gpt,
                text_ids,
                entities,
                seeds,
                sampling,
                empty_ids=self._empty_ids(),
                given=given,
                dtype=self.dtype,
            )
        with torch.inference_mode():
            images = self.decoder.decode(codes)  # (B, 3, H, W)
        pixels: NDArray[np.uint8] = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
        return pixels

    @torch.inference_mode()
    def top_codes(self, images: Sequence[NDArray[np.uint8]], share: float) -> torch.Tensor:
        """Encode the upper `share` of images (H, W, 3): codes (B, G), whole rows of the grid."""
        tokenizer = self.model.image_tokenizer
        rows = min(max(1, round(share * tokenizer.grid_size)), tokenizer.grid_size - 1)
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        codes = tokenizer.encode(from_uint8(pixels))
        return codes[:, : rows * tokenizer.grid_size]

    def _sampler(self, batch_size: int, sampling: SamplingConfig) -> CUDAGraphSampler:
        """Return the last sampler if its settings and batch size suffice, else a new one."""
        last = self._graphs
        if last is None or last.config != sampling or last.batch_size < batch_size:
            self._graphs = last = None  # free its memory first
            self._graphs = last = CUDAGraphSampler(
                self.model.gpt,
                batch_size,
                sampling,
                empty_ids=self._empty_ids(),
                dtype=self.dtype,
                compile=self.compile,
            )
        return last

    def _empty_ids(self) -> torch.Tensor:
        return self.model.gpt.text_ids(self.model.empty_ids.to(self.device))
