"""Write and read safetensors files block by block, without a second copy of the tensors in memory.

`safetensors.torch.save_file` serialises all tensors in memory before it writes them.
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

from data.encoding import unicode_path
from data.errors import ArtefactError
from data.runs import atomic

_BLOCK_BYTES = 1 << 26


def _blocks(tensor: Tensor) -> list[slice]:
    rows = max(1, _BLOCK_BYTES * len(tensor) // max(1, tensor.numel() * tensor.element_size()))
    return [slice(begin, begin + rows) for begin in range(0, len(tensor), rows)]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> None:
    """Write tensors as float32, and plain values, atomically.

    Args:
        path: The file.
        tensors: Name -> tensor, on any device.
        about: Plain values for the metadata of the file.

    Raises:
        ArtefactError: The disk is full.
        FloatingPointError: A value is NaN; an earlier file at `path` is unchanged.
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
            if hasattr(os, "posix_fallocate"):  # a full disk fails here, not after hours
                os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
            file.write(struct.pack("<Q", len(text)) + text)
            for name, tensor in tensors.items():
                for at in _blocks(tensor):
                    block = tensor[at].detach().to("cpu", torch.float32)
                    if torch.isnan(block).any():
                        raise FloatingPointError(f"{name} contains NaN")
                    file.write(block.contiguous().numpy().data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ArtefactError(
            f"{path} cannot be written, the disk is full: it needs another {end / 1e9:.1f} GB. "
            "Earlier checkpoints are intact; free some space and run the same command to resume."
        ) from None


def load_into(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Copy the tensors of a file into `tensors`, on any device; return its `about`.

    Raises:
        ArtefactError: The file is damaged, or has other names or shapes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with (
            unicode_path(path) as plain,
            safe_open(plain, "pt") as file,
            torch.no_grad(),
        ):
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
