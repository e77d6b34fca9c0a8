"""Training, validation and held-out triples of a run, in the run's folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, TRIPLES_FILE, write_names
from data.runs import write_json
from data.seeds import stream
from data.tsv import Rejects
from kg.arrays import Ids, Ints
from kg.config import KGConfig
from kg.kg_store import HELD_OUT_FILE, read_triples_table, write_triples
from kg.reading.graph import Graph
from kg.reading.triples import read_triples

READ_COUNTS = "read.json"  # written last, when the graph is complete in the run's folder
TRAIN_FILE, VALID_FILE = "train.parquet", "valid.parquet"  # until the run is finished
_TOO_FEW_TO_STOP = 100  # validation triples; with 24, chance ended a training after 6 of 60 epochs


@dataclass(frozen=True)
class Splits:
    """The triples of a graph, int32 `[n, 3]` each."""

    train: Ids
    valid: Ids  # for early stopping
    test: Ids  # for `metrics.json`

    @property
    def all(self) -> list[Ids]:
        """All three."""
        return [self.train, self.valid, self.test]


def read_splits(paths: list[Path], work: Path, config: KGConfig) -> tuple[Splits, dict[str, Any]]:
    """Read and split the graph, unless the run that is resumed has done it; return the counts."""
    if not (work / READ_COUNTS).exists():
        rejects = Rejects(work / "rejects.tsv")
        graph = read_triples(paths, min_tail_count=config.min_tail_count, rejects=rejects)
        _write_graph(graph, work, config)
    counts = json.loads((work / READ_COUNTS).read_text(encoding="utf-8"))
    train, valid, test = (
        read_triples_table(work / name) for name in (TRAIN_FILE, VALID_FILE, HELD_OUT_FILE)
    )
    return Splits(train, valid, test), counts


def _write_graph(graph: Graph, work: Path, config: KGConfig) -> None:
    train, valid, test = graph.train, graph.valid, graph.test
    if not len(valid) and not len(test) and config.valid_fraction:
        count = min(int(len(train) * config.valid_fraction), config.max_valid)
        train, held_out = hold_out(train, count, config.seed)
        valid, test = held_out[::2], held_out[1::2]
        if len(valid) < _TOO_FEW_TO_STOP:
            valid, test = held_out[:0], held_out
    elif not len(test):
        valid, test = valid[::2], valid[1::2]
    write_names(work / ENTITY_NAMES, graph.entities)
    write_names(work / RELATION_NAMES, graph.relations)
    write_triples(work / TRIPLES_FILE, np.concatenate([train, valid, test]))
    write_triples(work / TRAIN_FILE, train)
    write_triples(work / VALID_FILE, valid)
    write_triples(work / HELD_OUT_FILE, test)
    held = {
        "split": "given" if len(graph.valid) + len(graph.test) else "random",
        "triples_for_stopping": len(valid),
        "triples_held_out": len(test),
    }
    write_json(work / READ_COUNTS, graph.counts | held)


def hold_out(triples: Ids, count: int, seed: int) -> tuple[Ids, Ids]:
    """Split off `count` random triples, but no entity's or relation's last one.

    Returns the remaining and the held-out triples, `[n, 3]`; fewer are held out if the graph does
    not allow `count`.
    """
    degree = _count(triples, 0) + _count(triples, 2)
    uses = _count(triples, 1)
    generator = np.random.default_rng(stream(seed, "hold out"))
    chosen: list[int] = []
    for i in generator.choice(len(triples), min(len(triples), 20 * count), replace=False):
        if len(chosen) == count:
            break
        head, relation, tail = triples[i]
        needed = 1 + (head == tail)
        if degree[head] > needed and degree[tail] > needed and uses[relation] > 1:
            degree[head] -= 1
            degree[tail] -= 1
            uses[relation] -= 1
            chosen.append(int(i))
    mask = np.zeros(len(triples), bool)
    mask[chosen] = True
    return triples[~mask], triples[mask]


def _count(triples: Ids, column: int) -> Ints:
    """Count the ids in a column of `[n, 3]`, without a copy of the column."""
    length = 1 + max(int(triples[:, c].max(initial=-1)) for c in ((1,) if column == 1 else (0, 2)))
    count = np.zeros(length, np.int64)
    for begin in range(0, len(triples), 1 << 22):
        count += np.bincount(triples[begin : begin + (1 << 22), column], minlength=length)
    return count
