"""ARTIST models on disk: one folder, loaded by one call.

config.json            model type, GPT config, matching settings, fingerprints of KG and tokenizer
model.safetensors      the GPT
vqgan/                 the frozen image tokenizer, of any type
vocab.txt, tokenizer_config.json
seen_entities.safetensors   ids of the entities in the training captions, if any
seen_tokens.safetensors     ids of the tokens in the training captions
manifest.json          settings, inputs, counts, sha256 of each file

Every family's folder has a `config.json` with a `model_type`; `read_config` reads any of them.
"""

import json
from dataclasses import asdict, dataclass
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
from data.encoding import unicode_path
from data.errors import ArtefactError, InputError
from data.options import from_dict
from data.runs import write_json
from data.tokenizer import Tokenizer

CONFIG = "config.json"
MODEL_TYPE = "artist-toolkit"
WEIGHTS = "model.safetensors"
IMAGE_TOKENIZER_FOLDER = "vqgan"
SEEN = "seen_entities.safetensors"
SEEN_TOKENS = "seen_tokens.safetensors"
_SEEN_KEY = "entity_ids"
_SEEN_TOKENS_KEY = "token_ids"


@dataclass
class Model:
    """An ARTIST model with its tokenizers.

    Attributes:
        gpt: In eval mode.
        image_tokenizer: In eval mode.
        tokenizer: The text tokenizer it was trained with.
        kg_fingerprint: Fingerprint of its KG; empty for fusion `none`.
        lattice: Settings of `lattice build` for the training captions.
        seen: Ids of the entities in the training captions, ascending; None if unknown.
    """

    gpt: GPT
    image_tokenizer: ImageTokenizer
    tokenizer: Tokenizer
    kg_fingerprint: str
    lattice: dict[str, Any]
    seen: NDArray[np.int64] | None = None

    @property
    def empty_ids(self) -> torch.Tensor:
        """Return the empty caption (T,), as BERT ids."""
        return torch.full((self.gpt.config.text_len,), self.tokenizer.pad_id)


def save_model(folder: Path, model: Model) -> None:
    """Write a model into an existing folder; the caller writes the manifest."""
    save_image_tokenizer(folder / IMAGE_TOKENIZER_FOLDER, model.image_tokenizer)
    model.tokenizer.save(folder)
    state = {k: v.detach().float().cpu().contiguous() for k, v in model.gpt.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(
        folder / CONFIG,
        {
            "model_type": MODEL_TYPE,
            "gpt": asdict(model.gpt.config),
            "kg_fingerprint": model.kg_fingerprint,
            "tokenizer_fingerprint": model.tokenizer.fingerprint,
            "lattice": model.lattice,
        },
    )
    if model.seen is not None:
        _save_ids(folder / SEEN, _SEEN_KEY, model.seen)


def read_seen(folder: Path) -> NDArray[np.int64] | None:
    """Return the ids of the entities in the training captions, or None if the folder has none.

    Raises:
        InputError: The file is damaged.
    """
    return _read_ids(folder / SEEN, _SEEN_KEY)


def save_seen_tokens(folder: Path, token_ids: NDArray[np.integer]) -> None:
    """Save the ids of the tokens in the training captions."""
    _save_ids(folder / SEEN_TOKENS, _SEEN_TOKENS_KEY, token_ids)


def read_seen_tokens(folder: Path) -> NDArray[np.int64] | None:
    """Return the ids of the tokens in the training captions, or None if the folder has none.

    Folders of other families, imported models and those of the first version have none.

    Raises:
        InputError: The file is damaged.
    """
    return _read_ids(folder / SEEN_TOKENS, _SEEN_TOKENS_KEY)


def _save_ids(path: Path, key: str, ids: NDArray[np.integer]) -> None:
    save_file({key: torch.from_numpy(np.asarray(ids, dtype=np.int64))}, path)


def _read_ids(path: Path, key: str) -> NDArray[np.int64] | None:
    if not path.exists():
        return None
    try:
        with unicode_path(path) as plain:
            ids: NDArray[np.int64] = load_file(plain)[key].numpy()
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    return ids


def load_model(folder: Path, device: str | torch.device = "cpu") -> Model:
    """Load an ARTIST model, as `artist finetune` writes it.

    Raises:
        ArtefactError: The folder is not a finished model, or a model of another type.
        InputError: A file in it is damaged or does not fit the others.
    """
    config = read_config(folder)
    if config["model_type"] != MODEL_TYPE:
        raise ArtefactError(
            f"{folder} is a {config['model_type']!r} model; an ARTIST model is required."
        )
    gpt = GPT(from_dict(GPTConfig, config["gpt"]))
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
        seen=read_seen(folder),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of a model folder of any type.

    Raises:
        ArtefactError: The folder is not a finished model.
        InputError: `config.json` cannot be read.
    """
    if not (folder / CONFIG).is_file():
        partial = folder.with_name(folder.name + ".partial")
        hint = (
            f" Its training is unfinished ({partial}); repeat the command to resume it."
            if partial.exists()
            else " Make one with `cli.py artist finetune`."
        )
        raise ArtefactError(f"{folder} is not a model folder: {CONFIG} is missing.{hint}")
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / CONFIG} is not JSON: {error}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ArtefactError(f"{folder / CONFIG} has no model_type, so it is not a model folder.")
    return config
