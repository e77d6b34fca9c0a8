"""A false graph: a KG folder with the same names and vectors, in which no name keeps its vector.

A model that is trained with it gets the positions and the identity of entities, but not their
meaning, which is the comparison that shows whether the content of a graph helps.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from data.errors import InputError, SchemaError
from data.kg_folder import (
    ENTITY_NAMES,
    VECTORS,
    VECTORS_KEY,
    kg_fingerprint,
    map_vectors,
    read_vectors,
)
from data.runs import Run, StageReport, fingerprint
from data.schema import LATTICE, open_shards, table_metadata
from data.seeds import stream


@dataclass(frozen=True, kw_only=True)
class ShuffleReport(StageReport):
    """Result of `shuffle_graph`.

    Attributes:
        entities: Entities of the graph.
        exchanged: Entities that have another's vector.
    """

    entities: int
    exchanged: int

    def __str__(self) -> str:
        return (
            f"{self.outcome()}: {self.exchanged:,} of {self.entities:,} entities have the vector "
            "of another one."
        )


def exchange_vectors(
    vectors: NDArray[np.float32], entity_ids: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a copy of the vectors `(num_entities, D)` in which `entity_ids` exchange theirs.

    The exchange is one random cycle, so no entity keeps its own vector (given two or more). The
    other entities keep theirs.
    """
    order = rng.permutation(entity_ids)
    exchanged = np.array(vectors, dtype=np.float32)
    exchanged[order] = vectors[np.roll(order, 1)]
    return exchanged


def shuffle_graph(
    kg: Path,
    out: Path,
    named: NDArray[np.int64],
    *,
    seed: int,
    inputs: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> ShuffleReport:
    """Write a copy of the KG folder `kg` in which the entities `named` have exchanged vectors.

    None of them keeps its own vector (given two or more); all other entities do. A model thus gets
    the same set of vectors. Triples and relations are not copied: they contradict the vectors.

    Args:
        kg: The KG folder.
        out: The KG folder to write.
        named: Ids of the entities that exchange their vectors.
        seed: Seed of the exchange.
        inputs: Fingerprints of what `named` comes from, for the manifest.
        overwrite: Replace the output of another run.
    """
    with Run.open(
        out,
        kind="kg",
        settings={"shuffled": seed},
        inputs={"kg": kg_fingerprint(kg), **(inputs or {})},
        overwrite=overwrite,
    ) as run:
        already_finished = run.finished is not None
        if run.finished is None:
            rng = np.random.default_rng(stream(seed, "shuffled graph"))
            vectors = exchange_vectors(read_vectors(kg), named, rng)
            shutil.copyfile(kg / ENTITY_NAMES, run.work / ENTITY_NAMES)
            save_file({VECTORS_KEY: vectors}, run.work / VECTORS)
            run.finish({"entities": len(vectors), "exchanged": len(named)})
        assert run.finished is not None
        return ShuffleReport(out=out, **run.finished.counts, already_finished=already_finished)


def shuffle_kg(
    kg: Path,
    out: Path,
    *,
    tables: Sequence[Path] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> ShuffleReport:
    """Write a copy of a KG folder whose entities have exchanged vectors; see `shuffle_graph`.

    Args:
        kg: The KG folder.
        out: The KG folder to write.
        tables: Lattice tables; only the entities in their captions exchange vectors. By default
            all entities do.
        seed: Seed of the exchange.
        overwrite: Replace the output of another run.

    Raises:
        InputError: Fewer than two entities would exchange vectors.
        SchemaError: A table is not a lattice table, or was built with another graph.
    """
    for path in tables:
        made_with = table_metadata(open_shards(path, LATTICE).schema_arrow).get("kg_fingerprint")
        if made_with != kg_fingerprint(kg):
            raise SchemaError(f"{path} was built with another KG than {kg}, so its ids differ.")
    named = named_entities(tables) if tables else np.arange(len(map_vectors(kg)))
    if len(named) < 2:
        where = ", ".join(map(str, tables)) or str(kg)
        raise InputError(f"{where} has {len(named)} entities; exchanging vectors takes two.")
    inputs = {f"table {n}": fingerprint(path) for n, path in enumerate(tables, 1)}
    return shuffle_graph(kg, out, named, seed=seed, inputs=inputs, overwrite=overwrite)


def named_entities(tables: Sequence[Path]) -> NDArray[np.int64]:
    """Return the ids of all entities in lattice tables, also of those that a model would cut."""
    found = [np.zeros(0, dtype=np.int64)]
    for path in tables:
        lists = open_shards(path, LATTICE).read(columns=["lex_ids"])["lex_ids"]
        found.append(np.unique(lists.combine_chunks().flatten().to_numpy()))
    return np.unique(np.concatenate(found)).astype(np.int64)
