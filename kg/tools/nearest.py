"""Find the entities with the most similar vectors, by exact search over a memory map."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, map_vectors, not_finite, open_names
from data.names import Names
from kg.arrays import Doubles, Floats, Ints
from kg.reading.row_scanner import normalise

_BLOCK = 1 << 12  # rows compared at a time: they fit the cache
_SHARE = 1 << 19  # rows per task of a thread


@dataclass(frozen=True)
class Neighbour:
    """An entity and the cosine of its vector with that of another entity."""

    entity_id: int
    name: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    """The nearest entities of one entity, nearest first."""

    name: str
    found: tuple[Neighbour, ...]

    def __str__(self) -> str:
        lines = [f"{n.cosine:.3f}  {n.name}" for n in self.found]
        return "\n".join([f"nearest to {self.name} (cosine):", *lines])


def find_nearest(folder: Path, name: str, *, count: int = 10) -> Neighbours:
    """Find the entities whose vectors have the highest cosine with that of `name`.

    Args:
        folder: A KG folder.
        name: The name of an entity, or `#` and its id.
        count: The number of neighbours.

    Raises:
        InputError: The entity does not exist; the message offers similar spellings.
    """
    names = open_names(folder / ENTITY_NAMES)
    vectors = map_vectors(folder)
    if len(names) != len(vectors):
        raise InputError(
            f"{folder}: {ENTITY_NAMES} has {len(names)} names but the folder has {len(vectors)} "
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
    """Return the id of a name, or of `#id`.

    Raises:
        InputError: The entity does not exist; the message offers similar spellings.
    """
    wanted = normalise(name)
    found = names.find(wanted)
    if found is None:
        found = names.find(name)  # a folder of another origin may have names in another form
    if found is not None:
        return found
    if wanted.startswith("#") and wanted[1:].isdigit() and int(wanted[1:]) < len(names):
        return int(wanted[1:])
    offers = names.similar(wanted)
    hint = f"; did you mean {' or '.join(offers)}?" if offers else "."
    raise InputError(f"no entity is called {wanted}{hint}")


def nearest_ids(vectors: Floats, query: Floats, count: int) -> tuple[Ints, Doubles]:
    """Return ids and cosines of the `count` rows nearest to `query`, exactly, block by block.

    Rows with NaN come first, with the cosine NaN.

    Args:
        vectors: float32 `[n, dim]`.
        query: float32 `[dim]`.
        count: The number of rows.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-12)

    def best(begin: int) -> tuple[Ints, Doubles]:
        ids: Ints = np.empty(0, np.int64)
        cosines: Doubles = np.empty(0)
        for at in range(begin, min(begin + _SHARE, len(vectors)), _BLOCK):
            block = np.asarray(vectors[at : min(at + _BLOCK, begin + _SHARE)])
            length = np.sqrt(np.einsum("nd,nd->n", block, block))
            cosine = (block @ unit) / np.maximum(length, 1e-12)
            if len(cosines) == count and not cosine.max() <= cosines[-1]:
                chosen = np.flatnonzero(~(cosine <= cosines[-1]))
            elif len(cosines) == count:
                continue
            else:
                chosen = np.arange(len(cosine))
            ids, cosines = _best(
                np.concatenate([ids, chosen + at]), np.concatenate([cosines, cosine[chosen]]), count
            )
        return ids, cosines

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(best, range(0, len(vectors), _SHARE)))
    ids, cosines = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    return _best(ids, cosines, count)


def _best(ids: Ints, cosines: Doubles, count: int) -> tuple[Ints, Doubles]:
    """Return the `count` highest cosines, highest first; of equal ones the lowest ids."""
    # Sorting puts NaN last, where it would be cut off.
    order = np.lexsort((ids, -np.where(np.isnan(cosines), np.inf, cosines)))[:count]
    return ids[order], cosines[order]
