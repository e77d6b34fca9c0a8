"""The inputs of a GPT's training: tables, graph, tokenizers and a new model of matching sizes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from artist.formats.model_folder import CONFIG, Model, load_model
from artist.formats.state_dict import load_strict
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.models.image_tokenizer import ImageTokenizer
from artist.tables.lattice_rows import (
    Batches,
    Rows,
    RowsConfig,
    lattice_settings,
    open_lattice,
    rows_from_table,
    unit_scale,
)
from artist.tables.mmap_rows import open_rows
from artist.training.config import SIZES, TrainConfig
from artist.training.preview import Preview
from data.errors import SchemaError
from data.kg_folder import kg_fingerprint, read_vectors
from data.seeds import stream
from data.tokenizer import Tokenizer, tokenizer_of

_log = logging.getLogger(__name__)

_SPARE_TOKENS = 8


@dataclass
class TrainingInputs:
    """Everything that a GPT's training starts from, read and checked.

    `seen` are the ids of the entities in the training captions, and in those of the model that the
    training starts from if it has the same graph.
    """

    gpt: GPT
    image_tokenizer: ImageTokenizer
    tokenizer: Tokenizer
    graph: str
    train: Batches
    valid: Batches
    seen: NDArray[np.int64]

    def model(self) -> Model:
        """Return the current model with its tokenizers, for saving."""
        return Model(
            gpt=self.gpt,
            image_tokenizer=self.image_tokenizer.cpu(),
            tokenizer=self.tokenizer,
            kg_fingerprint=self.graph if self.gpt.config.fusion != "none" else "",
            lattice=lattice_settings(self.train.rows.metadata),
            seen=self.seen if self.gpt.config.fusion != "none" else None,
        )

    def preview(
        self, prompts: pa.Table | None, folder: Path, config: TrainConfig, device: torch.device
    ) -> Preview:
        """Return the sampler of previews, of the given prompts or of validation rows."""
        batches = self.valid
        if prompts is not None:
            reading = RowsConfig.of_model(self.gpt.config, self.tokenizer.pad_id)
            rows = rows_from_table(prompts, reading, source="the preview's prompts")
            batches = Batches(rows, self.valid.vectors, self.gpt.config, self.seen)
        return Preview(batches, self.image_tokenizer.to(device), folder, config.seed)


def load_training_inputs(
    table: Path,
    valid: Path,
    *,
    kg: Path,
    image_tokenizer: ImageTokenizer,
    config: TrainConfig,
    init: Path | None,
    called: tuple[Path, Path] | None = None,
) -> TrainingInputs:
    """Read all inputs and create a model of matching sizes.

    `called` are the tables' names in messages, if they are copies of others.

    Raises:
        ToolkitError: Inputs do not match.
    """
    tokenizer, vectors, graph = tokenizer_of(table), read_vectors(kg), kg_fingerprint(kg)
    wanted = graph if config.fusion != "none" else None
    rows, valid_rows = (
        _read(path, name, tokenizer, wanted, config)
        for path, name in zip((table, valid), called or (table, valid), strict=True)
    )
    start = load_model(init) if init is not None else None
    text_len_warning(_longest(called or (table, valid)), config.text_len)
    torch.manual_seed(stream(config.seed, "weights"))
    gpt = GPT(
        GPTConfig(
            text_vocab_size=tokenizer.vocab_size,
            image_vocab_size=image_tokenizer.codebook_size,
            text_len=config.text_len,
            image_len=rows.codes.shape[1],
            embd_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            fusion=config.fusion,
            entity_dim=vectors.shape[1],
            entity_scale=unit_scale(vectors) if config.fusion == "lattice" else 1.0,
            text_scale=start.gpt.config.text_scale if start else config.text_scale,
            unknown_id=tokenizer.unk_id if _drops_names(config) else None,
            max_entities=config.max_entities,
            entity_policy=config.entity_policy,
            **SIZES[config.size],
        )
    )
    seen = rows.named_entities()
    if start is not None:
        start_from(gpt, start, str(init))
        if start.seen is not None and start.kg_fingerprint == graph:
            seen = np.union1d(seen, start.seen)
    train = Batches(rows, vectors, gpt.config)
    held_out = Batches(valid_rows, vectors, gpt.config, seen)
    return TrainingInputs(gpt, image_tokenizer, tokenizer, graph, train, held_out, seen)


def _drops_names(config: TrainConfig) -> bool:
    return config.fusion == "lattice" and config.name_dropout > 0


def _longest(tables: Sequence[Path]) -> int:
    """Return the number of tokens of the longest caption."""
    lengths = (open_lattice(path).read(["seq_len"])["seq_len"] for path in tables)
    return max(int(pc.max(column).as_py()) for column in lengths)


@cache  # once per process: an ablation trains several models on the same captions
def text_len_warning(longest: int, text_len: int) -> None:
    """Log a warning if all captions are much shorter than the model's text."""
    if text_len >= max(2 * longest, longest + _SPARE_TOKENS):
        _log.warning(
            "Warning: the longest caption has %d tokens and the model reads %d, most of them "
            "padding. With --text-len %d it is smaller and faster; longer prompts are cut.",
            longest,
            text_len,
            longest,
        )


def _read(
    table: Path, called: Path, tokenizer: Tokenizer, graph: str | None, config: TrainConfig
) -> Rows:
    """Read the rows of a table that was built with this tokenizer and (unless None) this graph."""
    reading = RowsConfig(
        text_len=config.text_len,
        pad_id=tokenizer.pad_id,
        max_entities=config.max_entities,
        policy=config.entity_policy,
    )
    rows = open_rows(table, reading)
    if rows.metadata.get("tokenizer_fingerprint") != tokenizer.fingerprint:
        raise SchemaError(f"{called} was built with another tokenizer than the training table.")
    if graph is not None and rows.metadata.get("kg_fingerprint") != graph:
        raise SchemaError(
            f"{called} was built with another KG than the one given, so its entity ids denote "
            "other entities. Build it again with `cli.py lattice build --kg`."
        )
    return rows


def start_from(gpt: GPT, start: Model, called: str) -> None:
    """Load the weights of a model; a fusion that it lacks is initialised to zero.

    `called` names the model's folder in messages.

    Raises:
        InputError: The model has other sizes.
    """
    other = start.gpt
    state = dict(other.state_dict())
    if gpt.config.fusion == "lattice" and other.config.fusion == "none":
        state["fusion.project.weight"] = torch.zeros_like(gpt.state_dict()["fusion.project.weight"])
    elif gpt.config.fusion == other.config.fusion == "lattice":  # the same for the same vectors
        ratio = other.config.entity_scale / gpt.config.entity_scale
        state["fusion.project.weight"] = state["fusion.project.weight"] * ratio
    load_strict(gpt, state, str(Path(called) / CONFIG))
