"""Tables larger than memory: memory-mapped files of fixed-width records next to the table.

Parquet does not support random access: one row costs the decompression of its whole row group. So a
large table is written once, in the order of its rows, and every training maps the files:

records.bin    a record per row: BERT ids, codes, index of its first entity; one more at the end
entities.bin   entity id, first token, one past the last token
strings.arrow  idx and text

The record of a row is contiguous, so random access touches one or two pages. The operating system
caches what fits into memory. Truncation and the choice of entities depend on the settings, whose
hash is in the folder's name.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from artist.tables.lattice_rows import (
    Rows,
    RowsConfig,
    columns_of,
    open_lattice,
    read_rows,
    rows_from_table,
)
from data.errors import ArtefactError
from data.runs import Run, fingerprint, manifest_path, read_manifest
from data.schema import CODES, MORE_CODES, Shards, table_metadata

log = logging.getLogger(__name__)

IN_MEMORY = 100_000  # rows; tables up to this size are read whole, half a GB at the peak
_RECORDS, _ENTITIES, _STRINGS = "records.bin", "entities.bin", "strings.arrow"
_CHUNK = 2048  # rows that are converted at once
_ENTITY = np.dtype([("id", "<i4"), ("start", "<i4"), ("end", "<i4")])
_TEXTS = pa.schema([("idx", pa.string()), ("text", pa.string())])


def open_rows(path: Path, config: RowsConfig, *, in_memory: int = IN_MEMORY) -> Rows:
    """Return the rows of a lattice table: in memory, or mapped if there are more than `in_memory`.

    Args:
        path: A table, or a folder of its shards.
        config: How captions are truncated and padded.
        in_memory: Largest number of rows that are read whole.

    Raises:
        SchemaError: It is not a lattice table, or it has no rows.
    """
    if open_lattice(path).num_rows <= in_memory:
        return read_rows(path, config)
    return map_rows(path, config)


def map_rows(path: Path, config: RowsConfig) -> Rows:
    """Return the rows of a lattice table, mapped from files next to it, written if missing.

    Raises:
        SchemaError: It is not a lattice table.
    """
    shards, inputs = open_lattice(path), {"table": fingerprint(path)}
    settings = {**asdict(config), "columns": columns_of(shards)}
    name = hashlib.sha256(json.dumps([settings, inputs], sort_keys=True).encode()).hexdigest()
    folder = path.with_name(f"{path.name}.rows-{name[:12]}")
    if not _is_whole(folder, shards):
        with Run.open(
            folder, kind="rows", settings=settings, inputs=inputs, overwrite=folder.exists()
        ) as run:
            if not run.finished:
                log.info("%s has %d rows: mapping them in %s.", path, shards.num_rows, folder)
                run.finish(_write(shards, run.work, str(path), config))
    return _mapped(folder, shards.schema_arrow)


def _is_whole(folder: Path, shards: Shards) -> bool:
    """Return whether the files exist in full length; hashing them would read them all."""
    if not manifest_path(folder).is_file():
        return False
    try:
        counts = read_manifest(folder).counts
    except ArtefactError:
        return False
    sizes = {
        name: (folder / name).stat().st_size for name in counts["bytes"] if (folder / name).exists()
    }
    return bool(counts["rows"] == shards.num_rows and counts["bytes"] == sizes)


def _write(shards: Shards, folder: Path, source: str, config: RowsConfig) -> dict[str, Any]:
    """Convert a table in chunks; return the counts of the manifest."""
    entities, largest = 0, -1
    record: np.dtype[Any] | None = None
    with (
        (folder / _RECORDS).open("wb") as records,
        (folder / _ENTITIES).open("wb") as spans,
        pa.OSFile(os.fsencode(folder / _STRINGS), "wb") as sink,
        pa.ipc.new_file(sink, _TEXTS) as strings,
        tqdm(total=shards.num_rows, unit="row", unit_scale=True, disable=None) as bar,
    ):
        for batch in shards.iter_batches(_CHUNK, columns_of(shards)):
            rows = rows_from_table(pa.Table.from_batches([batch]), config, source=source)
            if record is None:
                record = _record_type(rows)
            chunk = np.zeros(len(rows), dtype=record)
            if chunk.dtype != _record_type(rows):
                raise ArtefactError(f"{source}: rows have different numbers of codes.")
            chunk["first_entity"] = rows.first_entity[:-1] + entities
            chunk["bert_ids"], chunk["codes"] = rows.bert_ids, rows.codes
            if rows.more_codes is not None:
                chunk["more_codes"] = rows.more_codes
            found = np.zeros(len(rows.entity_ids), dtype=_ENTITY)
            found["id"], found["start"], found["end"] = rows.entity_ids, rows.starts, rows.ends
            records.write(chunk.tobytes())
            spans.write(found.tobytes())
            strings.write_batch(batch.select(_TEXTS.names).cast(_TEXTS))
            entities, largest = entities + len(found), max(largest, rows.largest_entity)
            bar.update(len(rows))
        last = np.zeros(1, dtype=record)
        last["first_entity"] = entities
        records.write(last.tobytes())
    assert record is not None
    return {
        "rows": shards.num_rows,
        "entities": entities,
        "largest_entity": largest,
        "record": {name: list(record[name].shape) for name in record.names or ()},
        "bytes": {p.name: p.stat().st_size for p in folder.iterdir() if p.suffix != ".json"},
    }


def _record_type(rows: Rows) -> np.dtype[Any]:
    """Return the type of the record of a row."""
    shapes = {"bert_ids": rows.bert_ids.shape[1:], "codes": rows.codes.shape[1:]}
    if rows.more_codes is not None:
        shapes["more_codes"] = rows.more_codes.shape[1:]
    return _record_of_shapes({"first_entity": (), **shapes})


def _record_of_shapes(shapes: dict[str, Any]) -> np.dtype[Any]:
    """Return the type of a record, given the shapes of its parts."""
    kinds = {"first_entity": "<i8", "bert_ids": "<i4", CODES.name: "<u2", MORE_CODES.name: "<u2"}
    return np.dtype([(name, kinds[name], tuple(shape)) for name, shape in shapes.items()])


def _mapped(folder: Path, schema: pa.Schema) -> Rows:
    counts = read_manifest(folder).counts
    record = _record_of_shapes(counts["record"])
    records = np.memmap(folder / _RECORDS, record, mode="r", shape=(counts["rows"] + 1,))
    entities: NDArray[Any] = np.zeros(0, dtype=_ENTITY)
    if counts["entities"]:
        entities = np.memmap(folder / _ENTITIES, _ENTITY, mode="r", shape=(counts["entities"],))
    strings = pa.ipc.open_file(pa.memory_map(os.fsencode(folder / _STRINGS))).read_all()
    rows = Rows(
        idx=Strings(strings["idx"]),
        texts=Strings(strings["text"]),
        bert_ids=records["bert_ids"][:-1],
        codes=records["codes"][:-1],
        first_entity=records["first_entity"],
        entity_ids=entities["id"],
        starts=entities["start"],
        ends=entities["end"],
        metadata=table_metadata(schema),
        more_codes=records["more_codes"][:-1] if "more_codes" in counts["record"] else None,
    )
    vars(rows)["largest_entity"] = counts["largest_entity"]  # cached: avoids reading all entities
    return rows


class Strings(Sequence[str]):
    """A mapped column of strings, read on access."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        return self._column[int(place)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()
