"""A graph as the reader returns it: names by id, and triples of ids."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from kg.arrays import Ids


@dataclass(frozen=True)
class Graph:
    """Names and triples.

    Attributes:
        entities: Names of the entities, a string array; the index of an entity is its id.
        relations: Names of the relations.
        train: int32 `[num_triples, 3]`: head, relation, tail; distinct, ascending.
        valid: Triples of the dump's own validation split (OpenKE's `valid2id.txt`), or none.
        test: The same for `test2id.txt`.
        counts: Rows and triples read, kept, dropped and rejected.
    """

    entities: pa.LargeStringArray
    relations: pa.LargeStringArray
    train: Ids
    valid: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    test: Ids = field(default_factory=lambda: np.empty((0, 3), np.int32))
    counts: dict[str, int | str] = field(default_factory=dict)
