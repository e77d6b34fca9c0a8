"""A dump as the graph that `kg train` would learn, for engines that train elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import InputError
from data.jit import jit
from data.runs import Run, fingerprint
from data.tsv import Rejects
from kg.reading.graph import Graph
from kg.reading.triples import read_triples

_BLOCK = 1 << 20  # triples written at a time
_REJECTS = ".rejects.tsv"


@dataclass(frozen=True)
class CleanReport:
    """The result of `kg clean`."""

    out: Path
    counts: dict[str, Any]

    def __str__(self) -> str:
        c = self.counts
        return (
            f"{self.out}: {c['triples']:,} triples, {c['entities']:,} entities, "
            f"{c['relations']:,} relations\n{c['format']}, rows: {c['rows_read']:,} read, "
            f"{c['rows_rejected']:,} rejected; {c.get('literals_dropped', 0):,} literals and "
            f"{c['duplicates_dropped']:,} duplicates dropped"
        )


def clean_dump(
    triples: Sequence[Path], out: Path, *, min_tail_count: int = 2, overwrite: bool = False
) -> CleanReport:
    """Write a graph as lines of `head<TAB>relation<TAB>tail`.

    Names are normalised, literals, duplicates and self-loops left out; lines are in the order of
    the ids that `kg train` gives. DGL-KE reads this as `raw_udd_hrt`, PyTorch-BigGraph by its
    `torchbiggraph_import_from_tsv`.

    Args:
        triples: Dumps of one graph, or an OpenKE folder; see `kg.reading.triples`.
        out: The file. Unusable rows go to `<out>.rejects.tsv`.
        min_tail_count: See `kg.reading.triples.read_triples`.
        overwrite: Replace what is at `out`.

    Raises:
        ToolkitError: The dumps cannot be read, or `out` is in the way.
    """
    for path in triples:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
    inputs = {f"{i}:{path.name}": fingerprint(path) for i, path in enumerate(triples)}
    settings = {"min_tail_count": min_tail_count}
    with Run.open(
        out, kind="triples", settings=settings, inputs=inputs, folder=False, overwrite=overwrite
    ) as run:
        if run.finished is None:
            rejects = Rejects(run.beside(_REJECTS))
            graph = read_triples(triples, min_tail_count=min_tail_count, rejects=rejects)
            with run.work.open("wb") as file:
                file.writelines(_lines(graph))
            run.finish(graph.counts, companions=(_REJECTS,))
        assert run.finished is not None
        return CleanReport(out, run.finished.counts)


def _lines(graph: Graph) -> Iterator[bytes]:
    names = [_parts(array) for array in (graph.entities, graph.relations)]
    for part in (graph.train, graph.valid, graph.test):
        for begin in range(0, len(part), _BLOCK):
            yield _write_lines(part[begin : begin + _BLOCK], *names[0], *names[1]).tobytes()


def _parts(names: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of the names, and where each begins."""
    _, offsets, data = names.buffers()
    return np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)


@jit
def _write_lines(rows: Any, entity: Any, entity_at: Any, relation: Any, relation_at: Any) -> Any:
    size = 3 * len(rows)
    for i in range(len(rows)):
        h, r, t = rows[i, 0], rows[i, 1], rows[i, 2]
        size += entity_at[h + 1] - entity_at[h] + relation_at[r + 1] - relation_at[r]
        size += entity_at[t + 1] - entity_at[t]
    out = np.empty(size, np.uint8)
    at = 0
    for i in range(len(rows)):
        for c in range(3):
            n = rows[i, c]
            names = relation if c == 1 else entity
            where = relation_at if c == 1 else entity_at
            for k in range(where[n], where[n + 1]):
                out[at] = names[k]
                at += 1
            out[at] = 10 if c == 2 else 9
            at += 1
    return out
