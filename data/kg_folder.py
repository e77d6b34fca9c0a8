"""Read a KG folder: entity names and their vectors. `kg` writes it; all stages read it.

A KG folder contains `entity2id.txt` (OpenKE: first line the count, then `name<TAB>id`) and
`entity_vectors.safetensors`, float32 `[num_entities, dim]`. EasyNLP's pair of `entity2id.txt` and
`entity2vec.pt` is read as well.
"""

import mmap
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.encoding import unicode_path
from data.errors import ArtefactError, InputError
from data.names import MappedNames, Names, as_array, lines_of
from data.runs import fingerprint, manifest_path, read_manifest
from data.schema import TRIPLES, open_table
from data.tsv import compression, open_bytes

VECTORS = "entity_vectors.safetensors"
VECTORS_KEY = "entity_vectors"
EASYNLP_VECTORS = "entity2vec.pt"
ENTITY_NAMES = "entity2id.txt"
RELATION_NAMES = "relation2id.txt"
TRIPLES_FILE = "triples.parquet"


def write_names(path: Path, names: Iterable[str] | pa.Array) -> None:
    """Write an OpenKE id file: the count, then `name<TAB>id` for ids 0..n-1.

    An Arrow string array is written without conversion to Python strings.
    """
    array = as_array(names)
    with path.open("wb") as file:
        file.write(f"{len(array)}\n".encode())
        file.writelines(lines_of(array))


def open_names(path: Path) -> Names:
    """Return the names of an OpenKE id file, by id and by name; memory-mapped.

    The first line is the count. Also read: files without the count, blanks instead of tabs, ids in
    any order, CRLF line ends, and compressed ones; these are not mapped.

    Raises:
        InputError: A line is not `name<TAB>id`, the ids are not 0..n-1 each once, or the count is
            wrong.
    """
    with open_bytes(path) as file:
        if not compression(path) and path.stat().st_size:
            found = Names.parse(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if found is not None:
                return found
    return Names.of(_read_names(path))


def map_names(folder: Path) -> Names:
    """Return the entity names of a KG folder; those of a finished run are not checked again.

    Raises:
        InputError: As `open_names`, for other folders.
        ArtefactError: The file was changed after it was written.
    """
    path = folder / ENTITY_NAMES
    if not manifest_path(folder).exists() or not path.is_file():
        return open_names(path)
    with path.open("rb") as file:
        try:
            return MappedNames(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise ArtefactError(f"{path} was changed after it was written: {error}.") from None


def read_names(path: Path) -> list[str]:
    """Return the names of an id file as a list of strings.

    Raises:
        InputError: As `open_names`.
    """
    return list(open_names(path))


def _read_names(path: Path) -> list[str]:
    """Read the names of an id file line by line."""
    names: dict[int, str] = {}
    count: int | None = None
    with open_bytes(path) as file:
        for line, raw in enumerate(file, 1):
            try:
                text = raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{path}:{line}: not UTF-8.") from None
            text = text.removeprefix("\ufeff") if line == 1 else text
            if line == 1 and len(text) < 20 and text.strip().isdecimal():
                count = int(text.strip())
                continue
            # OpenKE separates by a tab or a blank; names may contain blanks.
            name, tab, number = text.rpartition("\t")
            if not tab:
                name, tab, number = text.rpartition(" ")
            if not tab or not number.strip().isdigit():
                if not text.strip():
                    continue
                raise InputError(f"{path}:{line}: expected `name<TAB>id`, found {text[:60]!r}.")
            if any(letter <= "\t" for letter in name):
                raise InputError(
                    f"{path}:{line}: the name {name[:60]!r} contains a tab or another control "
                    "character; remove it."
                )
            if int(number) in names:
                raise InputError(
                    f"{path}:{line}: id {int(number)} is given twice "
                    f"({names[int(number)]!r} and {name!r})."
                )
            names[int(number)] = name
    if not names:
        raise InputError(f"{path} contains no names.")
    if count is not None and count != len(names):
        raise InputError(
            f"{path} announces {count} names on its first line but contains {len(names)}."
        )
    if max(names) != len(names) - 1:
        raise InputError(
            f"{path}: ids must be 0..{len(names) - 1}, each once; the largest is {max(names)}."
        )
    return [names[i] for i in range(len(names))]


def triples_per_entity(folder: Path, num_entities: int) -> NDArray[np.int64]:
    """Return the number of triples of each entity of a KG folder, int64 `[num_entities]`.

    All 0 for a folder without triples, such as EasyNLP's pair of files.

    Raises:
        SchemaError: The triples are not a table of `TRIPLES`.
    """
    counts = np.zeros(num_entities, np.int64)
    if (folder / TRIPLES_FILE).exists():
        file = open_table(folder / TRIPLES_FILE, TRIPLES)
        for batch in file.iter_batches(1 << 20, columns=["head_id", "tail_id"]):
            for column in batch.columns:
                found = np.bincount(column.to_numpy(), minlength=num_entities)
                counts += found[:num_entities]
    return counts


def read_vectors(folder: Path) -> NDArray[np.float32]:
    """Return entity vectors `[num_entities, dim]`, float32; memory-mapped if the format allows.

    Raises:
        InputError: Vectors are missing, of a wrong shape, or not finite.
    """
    vectors = map_vectors(folder)
    for begin in range(0, len(vectors), 1 << 18):
        if not np.isfinite(vectors[begin : begin + (1 << 18)]).all():
            raise not_finite(folder)
    return vectors


def not_finite(folder: Path) -> InputError:
    """Return the error of a folder whose vectors contain NaN or infinite values."""
    return InputError(
        f"{folder}: entity vectors contain NaN or infinite values. Train them "
        "again with a lower --learning-rate."
    )


def map_vectors(folder: Path) -> NDArray[np.float32]:
    """Return the same without checking the values, so that nothing is read before it is used.

    Raises:
        InputError: Vectors are missing, of a wrong shape, or not one per name.
    """
    vectors = _open_vectors(folder)
    if not manifest_path(folder).exists() and (folder / ENTITY_NAMES).exists():
        # Not written by one run of this toolkit: EasyNLP's pair, or files put together by hand.
        _check_count(folder, len(open_names(folder / ENTITY_NAMES)), len(vectors))
    return vectors


def check_vectors(folder: Path, num_names: int) -> None:
    """Check that a folder with vectors has one per name, from headers only.

    Raises:
        InputError: The numbers of names and vectors differ.
    """
    if (folder / VECTORS).exists() or (folder / EASYNLP_VECTORS).exists():
        _check_count(folder, num_names, len(_open_vectors(folder)))


def _open_vectors(folder: Path) -> NDArray[np.float32]:
    if (folder / VECTORS).exists():
        return _map_safetensors(folder / VECTORS)
    if (folder / EASYNLP_VECTORS).exists():
        return _read_easynlp(folder / EASYNLP_VECTORS)
    raise InputError(
        f"{folder} is not a KG folder: it contains neither {VECTORS} nor "
        f"{EASYNLP_VECTORS}. Make one with `cli.py kg train`."
    )


def _check_count(folder: Path, num_names: int, num_vectors: int) -> None:
    if num_names != num_vectors:
        raise InputError(
            f"{folder} contains {num_names} names but {num_vectors} vectors, so the vectors would "
            f"belong to other names. Take {ENTITY_NAMES} and the vectors from one training."
        )


def kg_fingerprint(folder: Path) -> str:
    """Return a hash of the names and vectors of a KG folder, also of EasyNLP's."""
    if manifest_path(folder).exists():
        return read_manifest(folder).fingerprint
    return fingerprint(folder)


def _map_safetensors(path: Path) -> NDArray[np.float32]:
    """Return the entity vectors of a safetensors file as a read-only memory map."""
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
            sizes = (*shape, begin, end)
            if not all(type(size) is int and size >= 0 for size in sizes) or 0 in shape:
                raise ValueError("its sizes are not positive integers")
            if entry["dtype"] != "F32" or len(shape) != 2 or end - begin != 4 * shape[0] * shape[1]:
                raise ValueError("expected float32 of two dimensions")
            if path.stat().st_size < 8 + length + end:
                raise ValueError("the file is truncated")
        except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is not a file of entity vectors: {error}.") from None
    return np.memmap(path, dtype=np.float32, mode="r", offset=8 + length + begin, shape=shape)


def _read_easynlp(path: Path) -> NDArray[np.float32]:
    import torch

    try:
        mapped = zipfile.is_zipfile(path)  # torch before 1.6 wrote another format
        with unicode_path(path) as plain:
            value = torch.load(plain, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds for a bad file
        raise InputError(f"{path} cannot be loaded as a tensor: {type(error).__name__}.") from None
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, torch.Tensor) or value.ndim != 2:
        raise InputError(f"{path}: expected one tensor [num_entities, dim].")
    array: NDArray[np.float32] = value.float().numpy()
    return array
