"""Loading of weights with strict checks, and conversion of EasyNLP's tensor names.

EasyNLP has three attention projections where we have one fused; all other tensors are the same.
Loading is strict: a missing or unexpected tensor, or one of another shape, is an error.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from data.encoding import unicode_path
from data.errors import InputError

# Modules whose objects hold settings and statistics, never weights.
_TRAINERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "argparse.")
_QKV = ("query", "key", "value")  # the order of our fused projection


def from_easynlp(state: Mapping[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Return EasyNLP's GPT tensors (without the `transformer.` prefix) under our names.

    Args:
        state: `tok_emb.weight`, `blocks.0.attn.query.weight` and so on; the causal `attn.mask`
            buffers, which are constants, are dropped.
        n_layer: Number of blocks.

    Raises:
        InputError: A projection is missing.
    """
    left = {k: v for k, v in state.items() if not k.endswith("attn.mask")}
    ours: dict[str, Tensor] = {}
    for n in range(n_layer):
        for leaf in ("weight", "bias"):
            names = [f"blocks.{n}.attn.{part}.{leaf}" for part in _QKV]
            missing = [name for name in names if name not in left]
            if missing:
                raise InputError(f"the checkpoint lacks {', '.join(missing)}.")
            ours[f"blocks.{n}.attn.qkv.{leaf}"] = torch.cat([left.pop(name) for name in names])
    for name, tensor in left.items():
        ours[name.replace("ent_emb.", "fusion.project.")] = tensor
    return ours


def to_easynlp(state: Mapping[str, Tensor], block_size: int) -> dict[str, Tensor]:
    """Invert `from_easynlp`, adding the mask buffers that EasyNLP expects."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, chunk in zip(_QKV, tensor.chunk(3), strict=True):
                theirs[name.replace("qkv", part)] = chunk.clone()
            if name.endswith("weight"):
                mask = torch.tril(torch.ones(block_size, block_size))[None, None]
                theirs[name.replace("qkv.weight", "mask")] = mask
        else:
            theirs[name.replace("fusion.project.", "ent_emb.")] = tensor
    return theirs


def read_tensors(path: Path, failure: str, advice: str) -> Any:
    """Read a `.safetensors` or torch file on the CPU, without running code from it.

    Tensors are memory-mapped where the format allows, so unused ones are not read.

    Args:
        path: The file.
        failure: The error message's predicate, such as `cannot be read as weights`.
        advice: The error message's advice.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with unicode_path(path) as plain:
            if path.suffix == ".safetensors":
                return load_file(plain)
            mapped = zipfile.is_zipfile(path)  # torch before 1.6 wrote another format
            with torch.serialization.safe_globals(_inert_classes(path) if mapped else []):
                return torch.load(plain, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch and safetensors raise many kinds here
        reason = _what_it_is(path) or f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"{path} {failure}: {reason}. {advice}") from None


class _Inert:
    """Replaces a class that a checkpoint refers to, such as a callback; runs no code."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _inert_classes(path: Path) -> list[Any]:
    """Return a replacement for each class of a trainer that the checkpoint refers to.

    Lightning and omegaconf store their own objects next to the weights; these contain no tensors.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Inert, name) for name in names if name.startswith(_TRAINERS)]


def _what_it_is(path: Path) -> str:
    """Describe a file whose first bytes are not those of a checkpoint; empty if they are."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, probably of a failed download"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    try:
        whole = not head.startswith(b"pk") or zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of several disks
        whole = False
    if not whole:
        return "it is truncated"
    return "" if head else "it is empty"


def _first_line(error: Exception) -> str:
    """Return the first line of a message without its escape codes, and the class it refuses."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    refused = re.search(r"GLOBAL ([\w.]+)", text)
    more = f" (it contains {refused[1]}, which is not loaded)" if refused else ""
    return text.partition("\n")[0][:200] + more


def read_state(path: Path, failure: str, advice: str) -> dict[str, Tensor]:
    """Read a file of tensors by name with `read_tensors`; return them in float32.

    Raises:
        InputError: It cannot be read, or has other content.
    """
    state = read_tensors(path, failure, advice)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} does not contain tensors by name. {advice}")
    return {name: tensor.float() for name, tensor in state.items()}


def misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Describe up to three differences in names and shapes from a module's tensors, if any."""
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    problems = [
        *(f"missing {k}" for k in missing),
        *(f"unexpected {k}" for k in unexpected),
        *(f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}" for k in reshaped),
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict; errors list the tensors that do not fit.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape.
    """
    if wrong := misfit(module.state_dict(), state):
        raise InputError(f"{source} does not fit the model: {wrong}.")
    module.load_state_dict(dict(state))
