"""Reading a KG folder: entity names and their vectors. `kg` writes it; every stage may read it.

A KG folder holds `entity2id.txt` (OpenKE: first line the count, then `name<TAB>id`) and
`entity_vectors.safetensors`, float32 `[num_entities, dim]`. EasyNLP's pair of `entity2id.txt` and
`entity2vec.pt` is read as well.
"""

import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import InputError
from data.names import Names, lines_of
from data.runs import fingerprint, manifest_path, read_manifest
from data.tsv import is_gzip, open_bytes

VECTORS = "entity_vectors.safetensors"
VECTORS_KEY = "entity_vectors"
EASYNLP_VECTORS = "entity2vec.pt"
ENTITY_NAMES = "entity2id.txt"
RELATION_NAMES = "relation2id.txt"


def write_names(path: Path, names: Iterable[str] | pa.Array) -> None:
    """Write an OpenKE id file: the count, then `name<TAB>id` for ids 0..n-1.

    A string array of Arrow's is written without making strings of it.
    """
    array = names if isinstance(names, pa.Array) else pa.array(names, pa.large_string())
    with path.open("wb") as file:
        file.write(f"{len(array)}\n".encode())
        file.writelines(lines_of(array))


def open_names(path: Path) -> Names:
    """The names of an OpenKE id file by id, and the ids by name; mapped, not read.

    The first line is the count; a file without it, beginning with `name<TAB>id`, is read as well,
    and so are blanks for tabs, ids in any order, Windows' line ends and gzip.

    Raises:
        InputError: A line is not `name<TAB>id`, the ids are not 0..n-1 each once, or the count is
            wrong.
    """
    with open_bytes(path) as file:
        if not is_gzip(path) and path.stat().st_size:
            found = Names.parse(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if found is not None:
                return found
    return Names.of(_read_names(path))


def read_names(path: Path) -> list[str]:
    """The same as a list of strings, for those who need them all.

    Raises:
        InputError: As `open_names`.
    """
    return list(open_names(path))


def _read_names(path: Path) -> list[str]:
    """The names of an id file, line by line."""
    names: dict[int, str] = {}
    count: int | None = None
    with open_bytes(path) as file:
        for line, raw in enumerate(file, 1):
            try:
                text = raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{path}:{line}: not UTF-8.") from None
            text = text.removeprefix("\ufeff") if line == 1 else text
            if line == 1 and text.strip().isdigit():
                count = int(text)
                continue
            # OpenKE's own files separate by a tab or a blank; names may hold blanks.
            name, tab, number = text.rpartition("\t")
            if not tab:
                name, tab, number = text.rpartition(" ")
            if not tab or not number.strip().isdigit():
                if not text.strip():
                    continue
                raise InputError(f"{path}:{line}: expected `name<TAB>id`, found {text[:60]!r}.")
            if any(letter <= "\t" for letter in name):
                raise InputError(
                    f"{path}:{line}: the name {name[:60]!r} holds a tab or another control "
                    "character; take it out."
                )
            if int(number) in names:
                raise InputError(
                    f"{path}:{line}: id {int(number)} is given twice "
                    f"({names[int(number)]!r} and {name!r})."
                )
            names[int(number)] = name
    if not names:
        raise InputError(f"{path} holds no names.")
    if count is not None and count != len(names):
        raise InputError(
            f"{path} announces {count} names on its first line but holds {len(names)}."
        )
    if max(names) != len(names) - 1:
        raise InputError(
            f"{path}: ids must be 0..{len(names) - 1}, each once; the largest is {max(names)}."
        )
    return [names[i] for i in range(len(names))]


def read_vectors(folder: Path) -> NDArray[np.float32]:
    """Entity vectors `[num_entities, dim]`, float32; memory-mapped where the format allows.

    Raises:
        InputError: No vectors are there, their shape is wrong, or some are not finite.
    """
    vectors = map_vectors(folder)
    for begin in range(0, len(vectors), 1 << 18):
        if not np.isfinite(vectors[begin : begin + (1 << 18)]).all():
            raise not_finite(folder)
    return vectors


def not_finite(folder: Path) -> InputError:
    """The error of a folder whose vectors hold NaN or infinite values."""
    return InputError(
        f"{folder}: entity vectors hold NaN or infinite values. Train them "
        "again with a lower --learning-rate."
    )


def map_vectors(folder: Path) -> NDArray[np.float32]:
    """The same without looking at the values, so that nothing is read before it is used.

    Raises:
        InputError: No vectors are there, or their shape is wrong.
    """
    if (folder / VECTORS).exists():
        return _map_safetensors(folder / VECTORS)
    if (folder / EASYNLP_VECTORS).exists():
        return _read_easynlp(folder / EASYNLP_VECTORS)
    raise InputError(
        f"{folder} is not a KG folder: it holds neither {VECTORS} nor "
        f"{EASYNLP_VECTORS}. Make one with `cli.py kg train`."
    )


def check_vectors(folder: Path, num_names: int) -> None:
    """Check that each entity has a vector, where that costs nothing (not in EasyNLP's format).

    Raises:
        InputError: There are more names than vectors, or fewer.
    """
    if (folder / VECTORS).exists():
        count = len(_map_safetensors(folder / VECTORS))
        if count != num_names:
            raise InputError(
                f"{folder} holds {num_names} names but {count} vectors: {ENTITY_NAMES} and "
                f"{VECTORS} are not of one training."
            )


def kg_fingerprint(folder: Path) -> str:
    """A name for the names and vectors of a KG folder, EasyNLP's included."""
    if manifest_path(folder).exists():
        return read_manifest(folder).fingerprint
    return fingerprint(folder)


def _map_safetensors(path: Path) -> NDArray[np.float32]:
    """The one tensor of a safetensors file as a read-only memory map."""
    import json
    import struct

    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(path.stat().st_size, 1 << 20):
                raise ValueError("header length")
            header = json.loads(file.read(length))
            entry = header[VECTORS_KEY]
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if entry["dtype"] != "F32" or len(shape) != 2 or end - begin != 4 * shape[0] * shape[1]:
                raise ValueError("expected float32 of two dimensions")
            if path.stat().st_size < 8 + length + end:
                raise ValueError("the file is truncated")
        except (struct.error, ValueError, KeyError) as error:
            raise InputError(f"{path} is not a file of entity vectors: {error}.") from None
    return np.memmap(path, dtype=np.float32, mode="r", offset=8 + length + begin, shape=shape)


def _read_easynlp(path: Path) -> NDArray[np.float32]:
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, all meaning the same to the user
        raise InputError(f"{path} cannot be loaded as a tensor: {type(error).__name__}.") from None
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, torch.Tensor) or value.ndim != 2:
        raise InputError(f"{path}: expected one tensor [num_entities, dim].")
    array: NDArray[np.float32] = value.float().numpy()
    return array
