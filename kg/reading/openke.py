"""Read a folder in OpenKE's format, with its own ids.

`entity2id.txt` and `relation2id.txt`: the count, then `name<TAB>id`. `train2id.txt` and optionally
`valid2id.txt` and `test2id.txt`: the count, then `head tail relation`.
"""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, read_names
from data.tsv import open_bytes
from kg.arrays import Ints
from kg.reading.graph import Graph
from kg.reading.graph_index import distinct

logger = logging.getLogger(__name__)


def read_openke(folder: Path) -> Graph:
    """Read an OpenKE folder; `valid` and `test` are empty where their files are missing.

    Raises:
        InputError: A file is missing or malformed, or an id is out of range.
    """
    for name in (ENTITY_NAMES, RELATION_NAMES, "train2id.txt"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} is not an OpenKE folder: {name} is missing. Give the folder with "
                f"{ENTITY_NAMES}, {RELATION_NAMES} and train2id.txt, or a dump file."
            )
    entities, relations = read_names(folder / ENTITY_NAMES), read_names(folder / RELATION_NAMES)
    sizes = len(entities), len(relations)
    raw = {"train": _read_ids(folder / "train2id.txt")}
    for split in ("valid", "test"):
        path = folder / f"{split}2id.txt"
        raw[split] = _read_ids(path) if path.is_file() else np.empty((0, 3), np.int64)
    if not len(raw["train"]):
        raise InputError(f"{folder / 'train2id.txt'} has no triples.")
    order = _column_order(folder / "train2id.txt", raw["train"], sizes)
    counts: dict[str, int | str] = {
        "format": "OpenKE",
        "rows_read": sum(map(len, raw.values())),
        "rows_rejected": 0,
    }
    splits = {}
    for split, rows in raw.items():
        path = folder / f"{split}2id.txt"
        triples = rows[:, order]
        limits = np.array([sizes[0], sizes[1], sizes[0]])
        wrong = np.flatnonzero(((triples < 0) | (triples >= limits)).any(axis=1))
        if len(wrong):
            raise InputError(
                f"{path}:{wrong[0] + 2}: ids {rows[wrong[0]].tolist()} are out of range for "
                f"{sizes[0]} entities and {sizes[1]} relations."
            )
        splits[split] = distinct(triples.astype(np.int32), *sizes)
    counts["column_order"] = "h t r" if order == [0, 2, 1] else "h r t"
    counts["duplicates_dropped"] = len(raw["train"]) - len(splits["train"])
    counts["self_loops_kept"] = int((splits["train"][:, 0] == splits["train"][:, 2]).sum())
    counts |= {"triples": len(splits["train"]), "entities": sizes[0], "relations": sizes[1]}
    return Graph(
        pa.array(entities, pa.large_string()),
        pa.array(relations, pa.large_string()),
        **splits,
        counts=counts,
    )


def _read_ids(path: Path) -> Ints:
    """Read a `*2id.txt`, int64 `[n, 3]`: the first line is n, then three ids per line."""
    with open_bytes(path) as file:
        first = file.readline().split()
        try:
            count = int(first[0]) if len(first) == 1 else -1
            if count == 0 and not file.read().strip():
                return np.empty((0, 3), np.int64)
            if count > 0:
                rows: Ints = np.loadtxt(file, dtype=np.int64, ndmin=2, comments=None)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}: {error} (rows are counted after line 1).") from None
    if count <= 0:
        raise InputError(f"{path}:1: expected the number of triples, as written by OpenKE.")
    if len(rows) != count or rows.shape[1] != 3:
        raise InputError(
            f"{path} announces {count} triples on its first line but has {len(rows)} rows of "
            f"{rows.shape[1]} ids."
        )
    return rows


def _column_order(path: Path, rows: Ints, sizes: tuple[int, int]) -> list[int]:
    """Return the columns of head, relation and tail: OpenKE's `h t r`, or `h r t` by the ids."""
    num_entities, num_relations = sizes
    largest = rows.max(axis=0)
    if largest[2] < num_relations:
        return [0, 2, 1]
    if largest[1] < num_relations and largest[2] < num_entities:
        logger.warning(
            "%s: the largest id in the third column is %d, for %d relations; read as h r t, not as "
            "OpenKE's h t r.",
            path,
            largest[2],
            num_relations,
        )
        return [0, 1, 2]
    raise InputError(
        f"{path}: neither the third nor the second column can be relations: their largest ids are "
        f"{largest[2]} and {largest[1]}, for {num_relations} relations."
    )
