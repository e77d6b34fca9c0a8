"""Find the entities with the most similar vectors, by exact search over a memory map."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, map_names, map_vectors, not_finite
from data.names import Names
from kg.reading.row_scanner import normalise
from kg.tools.best_rows import nearest_by_cosine


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
    names = map_names(folder)
    vectors = map_vectors(folder)
    if len(names) != len(vectors):
        raise InputError(
            f"{folder}: {ENTITY_NAMES} has {len(names)} names but the folder has {len(vectors)} "
            "vectors; they belong to different runs."
        )
    entity_id = find_entity(names, name)
    ids, cosines = nearest_by_cosine(vectors, vectors[entity_id], count + 1)
    if np.isnan(cosines).any():
        raise not_finite(folder)
    found = [
        Neighbour(int(i), names[int(i)], float(c))
        for i, c in zip(ids, cosines, strict=True)
        if i != entity_id
    ]
    return Neighbours(names[entity_id], tuple(found[:count]))


def find_entity(names: Names, name: str, kind: str = "entity") -> int:
    """Return the id of a name, or of `#id`.

    Args:
        names: The names.
        name: A name, or `#` and an id.
        kind: What the names are, for the message.

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
    raise InputError(f"no {kind} is called {wanted}{hint}")
