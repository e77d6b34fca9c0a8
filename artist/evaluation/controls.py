"""Controls for measuring what a model's inputs are worth, and the groups that are compared.

N captions   D entity_dim
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from artist.tables.lattice_rows import Rows
from data.seeds import stream
from data.shuffled_kg import exchange_vectors


def shuffled_vectors(rows: Rows, vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the graph's vectors, exchanged among the entities that occur in the rows."""
    rng = np.random.default_rng(stream(seed, "shuffle"))
    return exchange_vectors(vectors, rows.named_entities(), rng)


class OtherIds:
    """Ids of a table's entities in another graph, by name.

    Args:
        rows: With ids of the graph whose entities are called `names`.
        names: Names by id.
        other_names: Names by id in the other graph.
    """

    def __init__(self, rows: Rows, names: Sequence[str], other_names: Sequence[str]) -> None:
        wanted = {entity: names[entity] for entity in rows.named_entities().tolist()}
        sought = set(wanted.values())
        ids_by_name = {name: n for n, name in enumerate(other_names) if name in sought}
        self._ids = {entity: ids_by_name.get(name, -1) for entity, name in wanted.items()}

    def rows(self, rows: Rows) -> Rows:
        """Return the rows with the other graph's ids, without entities whose name it lacks."""
        ids = np.array([self._ids[e] for e in rows.entity_ids.tolist()], dtype=np.int64)
        return _keep_entities(replace(rows, entity_ids=ids), ids >= 0)

    def entities(self, entity_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the other graph's ids of some entities; those that it or the table lacks not."""
        ids = [self._ids.get(entity, -1) for entity in entity_ids.tolist()]
        return np.array([i for i in ids if i >= 0], dtype=np.int64)


def without_entities(rows: Rows) -> Rows:
    """Return the same captions without entities."""
    return _keep_entities(rows, np.zeros(len(rows.entity_ids), dtype=bool))


def _keep_entities(rows: Rows, kept: NDArray[np.bool_]) -> Rows:
    """Return the rows with only the entities marked in `kept`."""
    before = np.concatenate([[0], np.cumsum(kept)])
    return replace(
        rows,
        first_entity=before[rows.first_entity],
        entity_ids=rows.entity_ids[kept],
        starts=rows.starts[kept],
        ends=rows.ends[kept],
    )


def another_image(images: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a random permutation (N,) that maps each row to a row of another image.

    Where one image has more than half of all rows this is impossible; some rows keep their image.

    Args:
        images: Image number of each row (N,).
        seed: Seed of the permutation.
    """
    N, largest = len(images), int(np.bincount(images).max())
    order = np.random.default_rng(stream(seed, "caption")).permutation(images.max() + 1)
    sorted_rows = np.argsort(order[images], kind="stable")  # rows of one image are adjacent
    other = np.empty(N, dtype=np.int64)
    other[sorted_rows] = np.roll(sorted_rows, largest)
    return other


def has_unseen(rows: Rows, seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each row (N,) has an entity that is not among `seen`."""
    unseen = ~np.isin(rows.entity_ids, seen)
    before = np.concatenate([[0], np.cumsum(unseen)])
    return before[rows.first_entity[1:]] > before[rows.first_entity[:-1]]


def caption_groups(rows: Rows, seen: NDArray[np.int64] | None) -> dict[str, NDArray[np.bool_]]:
    """Return a mask (N,) of the rows of each group that is reported on its own.

    Args:
        rows: The captions.
        seen: Ids of the entities in the training captions; None leaves out the groups that need
            them.
    """
    with_entity = np.diff(rows.first_entity) > 0
    groups = {"all": np.ones(len(rows), dtype=bool), "with entity": with_entity}
    if seen is not None:
        unseen = has_unseen(rows, seen)
        groups |= {"unseen entity": unseen, "seen entities only": with_entity & ~unseen}
    return groups | {"without entity": ~with_entity}
