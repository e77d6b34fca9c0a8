"""Write and read the files of a KG folder that only `kg` uses.

In addition to what `data.kg_folder` reads, the folder contains the relation vectors, the triples
and the held-out triples, so that `kg eval` can measure it again.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open

from data.encoding import unicode_path
from data.errors import InputError
from data.kg_folder import EASYNLP_VECTORS, TRIPLES_FILE, VECTORS, VECTORS_KEY, read_vectors
from data.runs import atomic
from data.schema import TRIPLES, open_table, table_writer
from kg.arrays import Ids, Ints
from kg.safetensors_io import save_tensors

RELATION_VECTORS = "relation_vectors.safetensors"
RELATION_VECTORS_KEY = "relation_vectors"
HELD_OUT_FILE = "held_out.parquet"
METRICS = "metrics.json"


def write_triples(path: Path, triples: Ids) -> None:
    """Write `[n, 3]` triples as a table of `data.schema.TRIPLES`."""
    with table_writer(path, TRIPLES) as writer:
        for begin in range(0, len(triples), 1 << 20):
            block = triples[begin : begin + (1 << 20)]
            columns = [pa.array(np.ascontiguousarray(block[:, c])) for c in range(3)]
            writer.write_table(pa.table(columns, schema=TRIPLES))


def read_triples_table(path: Path) -> Ids:
    """Read the triples of such a table, int32 `[n, 3]`."""
    file = open_table(path, TRIPLES)
    triples = np.empty((file.metadata.num_rows, 3), np.int32)
    begin = 0
    for batch in file.iter_batches(1 << 20, columns=TRIPLES.names):
        for c in range(3):
            triples[begin : begin + len(batch), c] = batch.column(c).to_numpy()
        begin += len(batch)
    return triples


def known_answers(folder: Path, given: str, entity_id: int, relation_id: int) -> Ints:
    """Return the entities that complete a triple in the graph, held-out triples included.

    Args:
        folder: A KG folder.
        given: `head_id` or `tail_id`: the side of the given entity.
        entity_id: The given entity.
        relation_id: The relation.

    Returns:
        Distinct ids, ascending; int64.
    """
    asked = "tail_id" if given == "head_id" else "head_id"
    found = [np.empty(0, np.int64)]
    for path in (folder / TRIPLES_FILE, folder / HELD_OUT_FILE):
        if path.exists():
            for batch in open_table(path, TRIPLES).iter_batches(1 << 20):
                ids = {name: batch.column(name).to_numpy() for name in TRIPLES.names}
                hit = (ids[given] == entity_id) & (ids["relation_id"] == relation_id)
                found.append(ids[asked][hit].astype(np.int64))
    return np.unique(np.concatenate(found))


def save_vectors(folder: Path, entity: torch.Tensor, relation: torch.Tensor | None) -> None:
    """Write the vectors as safetensors, and the entity vectors in EasyNLP's format as well.

    Args:
        folder: The KG folder.
        entity: `[num_entities, dim]`.
        relation: `[num_relations, dim]`, or None: write none.
    """
    save_tensors(folder / VECTORS, {VECTORS_KEY: entity})
    if relation is not None:
        save_tensors(folder / RELATION_VECTORS, {RELATION_VECTORS_KEY: relation})
    with atomic(folder / EASYNLP_VECTORS, "wb") as file:
        torch.save(entity.float().contiguous(), file)


def load_vectors(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the vectors of entities `[num_entities, dim]` and relations `[num_relations, dim]`.

    Raises:
        InputError: The folder has no entity vectors, or no relation vectors (EasyNLP's has none).
    """
    relation = load_relation_vectors(folder)
    return torch.from_numpy(np.array(read_vectors(folder))), relation


def load_relation_vectors(folder: Path) -> torch.Tensor:
    """Load the vectors of relations `[num_relations, dim]`.

    Raises:
        InputError: The folder has none.
    """
    path = folder / RELATION_VECTORS
    if not path.is_file():
        raise InputError(
            f"{folder} has no {RELATION_VECTORS}, so triples cannot be scored. Train it with "
            "`cli.py kg train`."
        )
    with unicode_path(path) as plain, safe_open(plain, "pt") as file:
        relation: torch.Tensor = file.get_tensor(RELATION_VECTORS_KEY)
    return relation
