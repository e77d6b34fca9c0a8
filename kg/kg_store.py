"""The KG folder: writing it, reading it, and asking it for neighbours.

Besides what `data.kg_folder` reads, the folder holds the relation vectors, the triples and those
that were held out, so that `kg eval` can measure again.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from data.errors import InputError
from data.kg_folder import (
    EASYNLP_VECTORS,
    ENTITY_NAMES,
    RELATION_NAMES,
    VECTORS,
    VECTORS_KEY,
    map_vectors,
    not_finite,
    open_names,
    read_vectors,
)
from data.names import Names
from data.runs import atomic
from data.schema import TRIPLES, open_table, table_writer
from kg.reading.row_scanner import normalise
from kg.reading.triples import normal_names, read_triples
from kg.tensors import save_tensors

RELATION_VECTORS = "relation_vectors.safetensors"
RELATION_VECTORS_KEY = "relation_vectors"
TRIPLES_FILE = "triples.parquet"
HELD_OUT_FILE = "held_out.parquet"
METRICS = "metrics.json"
_BLOCK = 1 << 12  # rows of the vector table that are compared at a time: they fit the cache
_SHARE = 1 << 19  # rows that a thread takes over

logger = logging.getLogger(__name__)

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


def write_triples(path: Path, triples: Ids) -> None:
    """Write `[n, 3]` triples as a table of `data.schema.TRIPLES`."""
    with table_writer(path, TRIPLES) as writer:
        for begin in range(0, len(triples), 1 << 20):
            block = triples[begin : begin + (1 << 20)]
            columns = [pa.array(np.ascontiguousarray(block[:, c])) for c in range(3)]
            writer.write_table(pa.table(columns, schema=TRIPLES))


def read_triples_table(path: Path) -> Ids:
    """The triples of such a table, `[n, 3]` int32."""
    file = open_table(path, TRIPLES)
    triples = np.empty((file.metadata.num_rows, 3), np.int32)
    begin = 0
    for batch in file.iter_batches(1 << 20, columns=TRIPLES.names):
        for c in range(3):
            triples[begin : begin + len(batch), c] = batch.column(c).to_numpy()
        begin += len(batch)
    return triples


def ids_in(path: Path, names: pa.LargeStringArray) -> NDArray[np.int64]:
    """The ids of names in an id file, -1 where it lacks one.

    Args:
        path: The file; its names are compared in their normal form, however it holds them.
        names: Normalised. Of several that are equal in the file, the first counts.
    """
    found = pc.index_in(names, normal_names(open_names(path))).fill_null(-1)
    return np.asarray(found, np.int64)


def read_named_triples(folder: Path, dump: Path) -> Ids:
    """The triples of a dump in the ids of a KG folder; those with unknown names are left out.

    Names are compared in their normal form, whether or not the folder holds them so.

    Raises:
        InputError: The dump cannot be read, or the folder has no relation names.
    """
    graph = read_triples([dump], min_tail_count=1)
    entity = ids_in(folder / ENTITY_NAMES, graph.entities)
    relation = ids_in(folder / RELATION_NAMES, graph.relations)
    head, kind, tail = graph.train.T
    mapped = np.stack([entity[head], relation[kind], entity[tail]], axis=1).astype(np.int32)
    good: Ids = mapped[(mapped >= 0).all(axis=1)]
    if len(good) < len(mapped):
        logger.warning(
            "%d of %d triples hold names that %s does not know; left out",
            len(mapped) - len(good),
            len(mapped),
            folder,
        )
    return good


def save_vectors(folder: Path, entity: torch.Tensor, relation: torch.Tensor | None) -> None:
    """Write the vectors as safetensors, and those of the entities as EasyNLP's file too."""
    save_tensors(folder / VECTORS, {VECTORS_KEY: entity})
    if relation is not None:
        save_tensors(folder / RELATION_VECTORS, {RELATION_VECTORS_KEY: relation})
    with atomic(folder / EASYNLP_VECTORS, "wb") as file:
        torch.save(entity.float().contiguous(), file)


def load_vectors(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Entity and relation vectors.

    Raises:
        InputError: The folder has none, or no relation vectors (EasyNLP's has not).
    """
    path = folder / RELATION_VECTORS
    entity = read_vectors(folder)
    if not path.is_file():
        raise InputError(
            f"{folder} has no {RELATION_VECTORS}, so triples cannot be scored. Train it with "
            "`cli.py kg train`."
        )
    with safe_open(path, "pt") as file:
        relation = file.get_tensor(RELATION_VECTORS_KEY)
    return torch.from_numpy(np.array(entity)), relation


@dataclass(frozen=True)
class Neighbour:
    """An entity near another one, and the cosine of the angle between them."""

    entity_id: int
    name: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    """The nearest entities of one, nearest first."""

    name: str
    found: tuple[Neighbour, ...]

    def __str__(self) -> str:
        lines = [f"{n.cosine:.3f}  {n.name}" for n in self.found]
        return "\n".join([f"nearest to {self.name} (cosine):", *lines])


def nearest(folder: Path, name: str, *, count: int = 10) -> Neighbours:
    """The entities whose vectors make the smallest angles with that of `name`.

    Args:
        folder: A KG folder.
        name: An entity's name, or `#` and its id.
        count: How many.

    Raises:
        InputError: There is no such entity; the message offers the nearest spelling.
    """
    names = open_names(folder / ENTITY_NAMES)
    vectors = map_vectors(folder)
    if len(names) != len(vectors):
        raise InputError(
            f"{folder}: {ENTITY_NAMES} holds {len(names)} names but there are {len(vectors)} "
            "vectors; they belong to different runs."
        )
    entity_id = find_entity(names, name)
    ids, cosines = nearest_ids(vectors, vectors[entity_id], count + 1)
    if np.isnan(cosines).any():
        raise not_finite(folder)
    found = [
        Neighbour(int(i), names[int(i)], float(c))
        for i, c in zip(ids, cosines, strict=True)
        if i != entity_id
    ]
    return Neighbours(names[entity_id], tuple(found[:count]))


def find_entity(names: Names, name: str) -> int:
    """The id of a name, or of `#id`.

    Raises:
        InputError: There is none; the message offers names that are spelled alike.
    """
    wanted = normalise(name)
    found = names.find(wanted)
    if found is None:
        found = names.find(name)  # a folder that was not made here may hold what is not normal
    if found is not None:
        return found
    if wanted.startswith("#") and wanted[1:].isdigit() and int(wanted[1:]) < len(names):
        return int(wanted[1:])
    offers = names.similar(wanted)
    said = f"; did you mean {' or '.join(offers)}?" if offers else "."
    raise InputError(f"no entity is called {wanted}{said}")


def nearest_ids(
    vectors: Floats, query: Floats, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and cosines of the `count` rows nearest to `query`, exactly, block by block.

    Rows that hold NaN come first, with NaN for a cosine.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-12)

    def best(begin: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        ids: NDArray[np.int64] = np.empty(0, np.int64)
        cosines: NDArray[np.float64] = np.empty(0)
        for at in range(begin, min(begin + _SHARE, len(vectors)), _BLOCK):
            block = np.asarray(vectors[at : min(at + _BLOCK, begin + _SHARE)])
            length = np.sqrt(np.einsum("nd,nd->n", block, block))
            cosine = (block @ unit) / np.maximum(length, 1e-12)
            if len(cosines) == count and not cosine.max() <= cosines[-1]:
                mine = np.flatnonzero(~(cosine <= cosines[-1]))
            elif len(cosines) == count:
                continue
            else:
                mine = np.arange(len(cosine))
            ids, cosines = _best(
                np.concatenate([ids, mine + at]), np.concatenate([cosines, cosine[mine]]), count
            )
        return ids, cosines

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(best, range(0, len(vectors), _SHARE)))
    ids, cosines = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    return _best(ids, cosines, count)


def _best(
    ids: NDArray[np.int64], cosines: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `count` with the highest cosines, highest first; of equal ones the lowest ids."""
    # Sorting puts NaN last; here it must not be lost.
    order = np.lexsort((ids, -np.where(np.isnan(cosines), np.inf, cosines)))[:count]
    return ids[order], cosines[order]
