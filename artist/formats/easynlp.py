"""Import and export EasyNLP's model directories.

Such a directory contains `config.json` (sizes), `vocab.txt`, and `pytorch_model.bin` with the VQGAN
as `first_stage_model.*` and the GPT as `transformer.*`. With `transformer.ent_emb` it is an
artist-knowl model, fusion `easynlp` here; without, a pai-painter, fusion `none`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from artist.formats.model_folder import Model, load_model, save_model
from artist.formats.state_dict import from_easynlp, load_strict, read_state, to_easynlp
from artist.formats.taming import read_taming_checkpoint
from artist.models.config import EASYNLP_ENTITIES, GPTConfig, VQGANConfig
from artist.models.gpt import GPT
from artist.models.vqgan import VQGAN
from data.errors import ConfigError, InputError
from data.kg_folder import kg_fingerprint, read_vectors
from data.runs import Run, StageReport, atomic, fingerprint, write_json
from data.tokenizer import Tokenizer

WEIGHTS = "pytorch_model.bin"
_GPT, _VQGAN = "transformer.", "first_stage_model."
# EasyNLP's preprocessor matches names of two characters or more, without aliases.
_MATCHING = {"min_length": 2, "bracket_aliases": False}


@dataclass(frozen=True, kw_only=True)
class ConversionReport(StageReport):
    """Result of an import or export."""

    fusion: str
    parameters: int
    vqgan_parameters: int

    def __str__(self) -> str:
        return (
            f"{self.outcome()}: fusion {self.fusion}, {self.parameters / 1e6:.1f} M parameters, "
            f"VQGAN of {self.vqgan_parameters / 1e6:.1f} M."
        )


def import_easynlp(
    folder: Path,
    out: Path,
    *,
    kg: Path | None = None,
    resolution: int = 256,
    overwrite: bool = False,
) -> ConversionReport:
    """Convert an EasyNLP model directory into a model folder.

    Args:
        folder: The directory.
        out: The model folder to write.
        kg: For a model with `ent_emb`: folder of its `entity2id.txt` and `entity2vec.pt`.
        resolution: Side of its images, in pixels; the tensors do not determine it.
        overwrite: Replace what is at `out`.

    Raises:
        InputError: A file is missing or damaged, or tensors are missing, unexpected or of shapes
            other than in `config.json`.
        ConfigError: The model has `ent_emb` and no `kg` is given.
    """
    sizes = _read_sizes(folder)
    state = _read_weights(folder / WEIGHTS)
    fusion = "easynlp" if "ent_emb.weight" in state else "none"
    if fusion == "easynlp" and kg is None:
        raise ConfigError(
            f"{folder} is a model with entity embeddings. Give the folder of the entity2id.txt and "
            "entity2vec.pt that it was trained with as --kg."
        )
    settings = {"resolution": resolution, "fusion": fusion}
    inputs = {"easynlp": fingerprint(folder), **({"kg": kg_fingerprint(kg)} if kg else {})}
    with Run.open(out, kind="model", settings=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.finished:
            return ConversionReport(out=out, **run.finished.counts, already_finished=True)
        vqgan = read_taming_checkpoint(folder / WEIGHTS, resolution)
        width = state["ent_emb.weight"].shape[1] if fusion == "easynlp" else None
        config = _gpt_config(folder, sizes, vqgan, width)
        if kg is not None and width is not None and read_vectors(kg).shape[1] != width:
            raise InputError(
                f"{kg} has vectors of {read_vectors(kg).shape[1]} dimensions, the model expects "
                f"{width}. Give the KG it was trained with."
            )
        gpt = GPT(config)
        load_strict(gpt, from_easynlp(state, config.n_layer), str(folder / WEIGHTS))
        model = Model(
            gpt=gpt,
            image_tokenizer=vqgan,
            tokenizer=Tokenizer.load(folder),
            kg_fingerprint=kg_fingerprint(kg) if kg is not None and fusion == "easynlp" else "",
            lattice=dict(_MATCHING),
        )
        if model.tokenizer.vocab_size > config.text_vocab_size:
            raise InputError(
                f"{folder / 'vocab.txt'} has {model.tokenizer.vocab_size} tokens, the model only "
                f"{config.text_vocab_size}."
            )
        save_model(run.work, model)
        counts = _counts(model)
        run.finish(counts)
    return ConversionReport(out=out, **counts)


def export_easynlp(model: Path, out: Path, *, overwrite: bool = False) -> ConversionReport:
    """Write a model folder as an EasyNLP directory.

    Args:
        model: A model folder with fusion `none` or `easynlp`.
        out: The directory to write.
        overwrite: Replace what is at `out`.

    Raises:
        ConfigError: EasyNLP's code does not support this model.
    """
    loaded = load_model(model)
    config = loaded.gpt.config
    if config.fusion == "lattice":
        raise ConfigError(
            f"{model} has fusion lattice, which EasyNLP's code does not support. Only fusion none "
            "and easynlp can be exported."
        )
    tokenizer, plain = loaded.image_tokenizer, VQGANConfig()
    if not isinstance(tokenizer, VQGAN):
        raise ConfigError(
            f"{model} has an image tokenizer of type {tokenizer.model_type}; EasyNLP's "
            "code supports VQGANs only."
        )
    for name in ("patch_size", "norm_groups", "quantizer"):
        value = getattr(tokenizer.config, name)
        if value != getattr(plain, name):
            raise ConfigError(
                f"{model}: its VQGAN has {name}={value}, which EasyNLP's code does not support. "
                "Train one with --preset base."
            )
    inputs = {"model": fingerprint(model)}
    with Run.open(out, kind="easynlp", settings={}, inputs=inputs, overwrite=overwrite) as run:
        if run.finished:
            return ConversionReport(out=out, **run.finished.counts, already_finished=True)
        weights = dict(loaded.gpt.state_dict())
        table = weights["tok_emb.weight"].clone()  # EasyNLP's code has no text scale
        table[config.image_vocab_size :] *= config.text_scale
        state = to_easynlp(weights | {"tok_emb.weight": table}, config.block_size)
        tensors = {_GPT + name: tensor for name, tensor in state.items()}
        tensors |= {_VQGAN + name: t for name, t in tokenizer.state_dict().items()}
        with atomic(run.work / WEIGHTS, "wb") as file:
            torch.save({name: t.contiguous() for name, t in tensors.items()}, file)
        write_json(
            run.work / "config.json",
            {
                "model_type": "artist",
                "vocab_size": config.vocab_size,
                "img_vocab_size": config.image_vocab_size,
                "text_vocab_size": config.text_vocab_size,
                "block_size": config.block_size,
                "n_layer": config.n_layer,
                "n_head": config.n_head,
                "n_embd": config.n_embd,
                "embd_pdrop": config.embd_pdrop,
                "resid_pdrop": config.resid_pdrop,
                "attn_pdrop": config.attn_pdrop,
                "n_unmasked": 0,
            },
        )
        loaded.tokenizer.save(run.work)
        counts = _counts(loaded)
        run.finish(counts)
    return ConversionReport(out=out, **counts)


def _counts(model: Model) -> dict[str, Any]:
    return {
        "fusion": model.gpt.config.fusion,
        "parameters": _num_parameters(model.gpt),
        "vqgan_parameters": _num_parameters(model.image_tokenizer),
    }


def _num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _read_sizes(folder: Path) -> dict[str, int]:
    """Read the sizes in an EasyNLP `config.json`."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is not an EasyNLP model directory: config.json is missing.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        names = ("img_vocab_size", "text_vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        return {name: int(values[name]) for name in names}
    except KeyError as error:
        raise InputError(f"{path} has no {error}; is it the config of an ARTIST model?") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def _gpt_config(
    folder: Path, sizes: dict[str, int], vqgan: VQGAN, entity_dim: int | None
) -> GPTConfig:
    """Return the config of a GPT with these sizes; `entity_dim` is None for fusion `none`."""
    image_len = vqgan.config.image_len
    text_len = sizes["block_size"] - image_len
    if text_len < 1:
        raise InputError(
            f"{folder}: block_size {sizes['block_size']} leaves no room for text next to "
            f"{image_len} codes. Is --resolution {vqgan.config.resolution} right?"
        )
    return GPTConfig(
        text_vocab_size=sizes["text_vocab_size"],
        image_vocab_size=sizes["img_vocab_size"],
        text_len=text_len,
        image_len=image_len,
        n_layer=sizes["n_layer"],
        n_head=sizes["n_head"],
        n_embd=sizes["n_embd"],
        fusion="none" if entity_dim is None else "easynlp",
        max_entities=EASYNLP_ENTITIES,
        entity_dim=100 if entity_dim is None else entity_dim,
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Return the GPT's tensors of a `pytorch_model.bin`, without their prefix."""
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    content = read_state(path, "cannot be loaded", "Fetch it again.")
    unknown = [name for name in content if not name.startswith((_GPT, _VQGAN))]
    if unknown:
        raise InputError(
            f"{path} contains {len(unknown)} tensors that are neither {_GPT}* nor {_VQGAN}*: "
            f"{', '.join(unknown[:3])}."
        )
    return {
        name.removeprefix(_GPT): tensor for name, tensor in content.items() if name.startswith(_GPT)
    }
