"""`kg clean`: write the triples that `kg train` would train on as a TSV, for other engines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.jit import jit
from data.quoted_rows import quoted_note
from data.runs import Run, StageReport, fingerprint
from data.tsv import Rejects
from kg.arrays import Bytes, Ints
from kg.reading.graph import Graph
from kg.reading.triples import read_triples

_BLOCK = 1 << 20  # triples per write
_REJECTS = ".rejects.tsv"


@dataclass(frozen=True, kw_only=True)
class CleanReport(StageReport):
    """The result of `kg clean`."""

    counts: dict[str, Any]

    def __str__(self) -> str:
        c = self.counts
        return (
            f"{self.outcome()}: {c['triples']:,} triples, {c['entities']:,} entities, "
            f"{c['relations']:,} relations\n{c['format']}, rows: {c['rows_read']:,} read, "
            f"{c['rows_rejected']:,} rejected; {c.get('literals_dropped', 0):,} literals and "
            f"{c['duplicates_dropped']:,} duplicates dropped"
            + (f"\n{note}" if (note := quoted_note(c)) else "")
        )


def clean_dump(
    triples: Sequence[Path], out: Path, *, min_tail_count: int = 2, overwrite: bool = False
) -> CleanReport:
    """Write a graph as lines of `head<TAB>relation<TAB>tail`.

    Names are normalised, and literals, duplicates and self-loops are dropped; lines are in the
    order of the ids of `kg train`. DGL-KE reads the file as `raw_udd_hrt`, PyTorch-BigGraph with
    `torchbiggraph_import_from_tsv`.

    Args:
        triples: Dumps of one graph, or an OpenKE folder; see `kg.reading.triples`.
        out: The file. Unusable rows go to `<out>.rejects.tsv`.
        min_tail_count: See `kg.reading.triples.read_triples`.
        overwrite: Replace an existing `out`.

    Raises:
        ToolkitError: The dumps cannot be read, or `out` is the output of another run.
    """
    inputs = {f"{i}:{path.name}": fingerprint(path) for i, path in enumerate(triples)}
    settings = {"min_tail_count": min_tail_count}
    with Run.open(
        out, kind="triples", settings=settings, inputs=inputs, folder=False, overwrite=overwrite
    ) as run:
        already_finished = run.finished is not None
        if run.finished is None:
            rejects = Rejects(run.companion(_REJECTS))
            graph = read_triples(triples, min_tail_count=min_tail_count, rejects=rejects)
            with run.work.open("wb") as file:
                file.writelines(_lines(graph))
            run.finish(graph.counts)
        assert run.finished is not None
        return CleanReport(out=out, counts=run.finished.counts, already_finished=already_finished)


def _lines(graph: Graph) -> Iterator[bytes]:
    names = [_parts(array) for array in (graph.entities, graph.relations)]
    for part in (graph.train, graph.valid, graph.test):
        for begin in range(0, len(part), _BLOCK):
            yield _write_lines(part[begin : begin + _BLOCK], *names[0], *names[1]).tobytes()


def _parts(names: pa.LargeStringArray) -> tuple[Bytes, Ints]:
    """Return the bytes of n names, and their offsets, int64 `[n + 1]`."""
    _, offsets, data = names.buffers()
    return np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)


@jit
def _write_lines(rows: Any, entity: Any, entity_at: Any, relation: Any, relation_at: Any) -> Any:
    """Return the lines of some triples as bytes.

    Args:
        rows: int32 `[n, 3]`, heads and tails below num_entities, relations below num_relations.
        entity: uint8, the names of the entities, concatenated.
        entity_at: int64 `[num_entities + 1]`, their offsets in `entity`, ascending.
        relation: uint8, the names of the relations, concatenated.
        relation_at: int64 `[num_relations + 1]`, their offsets in `relation`, ascending.
    """
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
