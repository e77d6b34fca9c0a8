"""Safetensors written and read block by block, so that a table of gigabytes is never held twice.

`safetensors.torch.save_file` makes the bytes of all tensors in memory before it writes them.
"""

import errno
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import ArtefactError
from data.runs import atomic

_BLOCK_BYTES = 1 << 26


def _blocks(tensor: Tensor) -> list[slice]:
    rows = max(1, _BLOCK_BYTES * len(tensor) // max(1, tensor.numel() * tensor.element_size()))
    return [slice(begin, begin + rows) for begin in range(0, len(tensor), rows)]


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any] | None = None,
    *,
    divide_by: float = 1.0,
) -> None:
    """Write float32 tensors and plain values under `path`, whole or not at all.

    Args:
        path: The file.
        tensors: Name -> tensor, on any device.
        about: Plain values, kept in the file's metadata.
        divide_by: What is written is divided by this.

    Raises:
        ArtefactError: The disk is full.
        FloatingPointError: A value is NaN; what stood at `path` is still there.
    """
    header: dict[str, Any] = {"__metadata__": {"about": json.dumps(about)}} if about else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with atomic(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is known before hours of writing
                os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
            file.write(struct.pack("<Q", len(text)) + text)
            for name, tensor in tensors.items():
                for at in _blocks(tensor):
                    block = tensor[at].detach().to("cpu", torch.float32)
                    if torch.isnan(block).any():
                        raise FloatingPointError(f"{name} holds NaN")
                    if divide_by != 1:
                        block = block / divide_by
                    file.write(block.contiguous().numpy().data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ArtefactError(
            f"{path} cannot be written, the disk is full: it needs {end / 1e9:.1f} GB beside what "
            "stands there. Nothing that was saved before is lost; make room, and the same command "
            "goes on from there."
        ) from None


def load_into(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fill tensors, on any device, with those of a file; what `about` held.

    Raises:
        ArtefactError: The file is damaged, or its tensors are others.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file, torch.no_grad():
            for name, tensor in tensors.items():
                source = file.get_slice(name)
                if list(source.get_shape()) != list(tensor.shape):
                    raise ValueError(f"{name} has the shape {source.get_shape()}")
                for at in _blocks(tensor):
                    tensor[at] = source[at].to(tensor.device)
            about: dict[str, Any] = json.loads(file.metadata()["about"])
            return about
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path} is damaged ({error}). Pass --overwrite to train afresh."
        ) from None
