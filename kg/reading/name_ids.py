"""Look up names of a dump in the id files of a KG folder."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, open_names
from kg.arrays import Ids, Ints
from kg.reading.names import normal_names
from kg.reading.triples import read_triples

logger = logging.getLogger(__name__)


def ids_in(path: Path, names: pa.LargeStringArray) -> Ints:
    """Return the ids of names in an id file, int64 `[n]`; -1: not in the file.

    Args:
        path: The file; its names are compared in their normal form.
        names: Normalised. Of several names that are equal in the file, the first counts.
    """
    found = pc.index_in(names, normal_names(open_names(path))).fill_null(-1)
    return np.asarray(found, np.int64)


def read_named_triples(folder: Path, dump: Path) -> Ids:
    """Read a dump as triples of the ids of a KG folder, int32 `[n, 3]`.

    Names are compared in their normal form, also where the folder contains others. Triples with
    unknown names are left out and their number is logged.

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
            "%d of %d triples left out: their names are not in %s",
            len(mapped) - len(good),
            len(mapped),
            folder,
        )
    return good
