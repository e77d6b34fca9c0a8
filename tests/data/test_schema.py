"""Tables are read in batches, in bounded memory."""

import numpy as np
import pyarrow as pa
import pytest

from data.errors import SchemaError
from data.schema import LATTICE, open_shards, open_table, table_writer


@pytest.mark.parametrize("way", ["file", "shards"])
def test_reading_a_table_in_batches_does_not_keep_what_was_read(tmp_path, way):
    """By default Arrow keeps every row group that it has read, with images, until the end."""
    path, rng = tmp_path / "t.parquet", np.random.default_rng(0)
    with table_writer(path, LATTICE) as writer:
        for _ in range(32):
            ids = rng.integers(0, 1 << 30, (256, 256), dtype=np.int32)
            rows = {name: pa.nulls(256, LATTICE.field(name).type) for name in LATTICE.names}
            rows["input_ids"] = pa.array(list(ids), pa.list_(pa.int32()))
            writer.write_batch(pa.record_batch(list(rows.values()), schema=LATTICE))
    opened = open_shards(path, LATTICE) if way == "shards" else open_table(path, LATTICE)
    before, held = pa.total_allocated_bytes(), []
    for batch in opened.iter_batches(256):
        held.append(pa.total_allocated_bytes() - before)
        del batch
    assert len(held) == 32
    assert path.stat().st_size > 7_000_000
    assert max(held) < 2_500_000


def test_a_damaged_page_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "t.parquet"
    rows = [{name: ["甲"] if name in ("idx", "text") else [1] for name in LATTICE.names}] * 50
    columns = {name: [row[name][0] if name in ("idx", "text", "seq_len") else row[name]
                      for row in rows] for name in LATTICE.names}  # fmt: skip
    with table_writer(path, LATTICE) as writer:
        writer.write_table(pa.table(columns, schema=LATTICE))
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    table = open_shards(path, LATTICE)
    for read in (lambda: list(table.iter_batches(10)), lambda: table.read(["idx", "text"])):
        with pytest.raises(SchemaError, match=r"t\.parquet is damaged"):
            read()
