"""A trained model as one folder, loaded with one call.

config.json            sizes of the GPT, how captions are matched, fingerprints of KG and tokenizer
model.safetensors      the GPT
vqgan/                 the frozen image tokenizer, of whatever type
vocab.txt, tokenizer_config.json
seen_entities.safetensors   ids of the entities in the training captions, if it knows any
manifest.json          settings, inputs, counts, sha256 of each file
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
from artist.formats.state_dict import load_strict, read_state
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.models.image_tokenizer import ImageTokenizer
from data.errors import ArtefactError, ConfigError, InputError, did_you_mean
from data.runs import write_json
from data.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
IMAGE_TOKENIZER_FOLDER = "vqgan"
SEEN = "seen_entities.safetensors"
_SEEN_KEY = "entity_ids"


@dataclass
class Model:
    """Everything that turns a caption's lattice into a picture.

    Attributes:
        gpt: In eval mode.
        image_tokenizer: In eval mode.
        tokenizer: The one it was trained with.
        kg_fingerprint: The KG it was trained with; empty for fusion `none`.
        lattice: The settings `lattice build` matched the training captions with.
    """

    gpt: GPT
    image_tokenizer: ImageTokenizer
    tokenizer: Tokenizer
    kg_fingerprint: str
    lattice: dict[str, Any]

    @property
    def empty_ids(self) -> torch.Tensor:
        """The empty caption (T,), as BERT ids."""
        return torch.full((self.gpt.config.text_len,), self.tokenizer.pad_id)


def save_model(folder: Path, model: Model) -> None:
    """Write a model into an existing folder; the manifest is the caller's."""
    save_image_tokenizer(folder / IMAGE_TOKENIZER_FOLDER, model.image_tokenizer)
    model.tokenizer.save(folder)
    state = {k: v.detach().float().cpu().contiguous() for k, v in model.gpt.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(
        folder / CONFIG,
        {
            "model_type": "artist-toolkit",
            "gpt": asdict(model.gpt.config),
            "kg_fingerprint": model.kg_fingerprint,
            "tokenizer_fingerprint": model.tokenizer.fingerprint,
            "lattice": model.lattice,
        },
    )


def save_seen(folder: Path, entity_ids: NDArray[np.integer]) -> None:
    """Note which entities the training captions held, so that others can be told apart."""
    ids = torch.from_numpy(np.asarray(entity_ids, dtype=np.int64))
    save_file({_SEEN_KEY: ids}, folder / SEEN)


def read_seen(folder: Path) -> NDArray[np.int64] | None:
    """Ids of the entities in the training captions; None where the model does not tell.

    Raises:
        InputError: The file is damaged.
    """
    if not (folder / SEEN).exists():
        return None
    try:
        ids: NDArray[np.int64] = load_file(folder / SEEN)[_SEEN_KEY].numpy()
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{folder / SEEN} cannot be read: {error}.") from None
    return ids


def load_model(folder: Path, device: str | torch.device = "cpu") -> Model:
    """The model of a folder written by `artist finetune`.

    Raises:
        ArtefactError: The folder is not a finished model.
        InputError: A file in it is damaged or does not fit the others.
    """
    config = read_config(folder)
    gpt = GPT(gpt_config(config["gpt"]))
    state = read_state(folder / WEIGHTS, "cannot be read", "Copy or train the model again.")
    load_strict(gpt, state, str(folder / WEIGHTS))
    tokenizer = Tokenizer.load(folder)
    if tokenizer.fingerprint != config["tokenizer_fingerprint"]:
        raise InputError(
            f"{folder / 'vocab.txt'} is not the vocabulary the model was trained with."
        )
    return Model(
        gpt=gpt.to(device).eval(),
        image_tokenizer=load_image_tokenizer(folder / IMAGE_TOKENIZER_FOLDER).to(device).eval(),
        tokenizer=tokenizer,
        kg_fingerprint=config["kg_fingerprint"],
        lattice=config["lattice"],
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder.

    Raises:
        ArtefactError: The folder is not a finished model of this toolkit.
    """
    if not (folder / CONFIG).is_file():
        partial = folder.with_name(folder.name + ".partial")
        hint = (
            f" Its training is unfinished ({partial}); repeat the command to resume it."
            if partial.exists()
            else " Make one with `cli.py artist finetune`."
        )
        raise ArtefactError(f"{folder} is not a model folder: it has no {CONFIG}.{hint}")
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / CONFIG} is not JSON: {error}.") from None
    if config.get("model_type") != "artist-toolkit":
        raise ArtefactError(
            f"{folder} holds a {config.get('model_type', 'nameless')!r} model, not one of this "
            "toolkit."
        )
    return config


def gpt_config(values: dict[str, Any]) -> GPTConfig:
    """A config from plain values; an unknown name is an error that offers the nearest known one."""
    known = [f.name for f in fields(GPTConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{name!r} is not a setting of the GPT{did_you_mean(name, known)}.")
    return GPTConfig(**values)
