"""Does reading training data take more memory for more rows, and what does a row cost?

Tables with 256 codes per row are generated in a temporary folder. Each method reads them in its own
process, through the training's loader, in random order:

held      the whole table in memory, as for tables up to 100,000 rows; the baseline
mapped    written once as records next to the table, then memory-mapped
parquet   each row's row group read from the Parquet file: the reason for writing records

Peak memory is that of private pages (RssAnon), sampled; pages of a mapped file are in the system's
cache, which may drop them. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measuring import PeakMemory, cpu_seconds, in_child, memory

from artist.models.config import GPTConfig
from artist.tables.lattice_rows import Batches, RowsConfig, rows_from_table
from artist.tables.mmap_rows import open_rows
from artist.training.config import TrainConfig
from artist.training.loader import Loader
from artist.training.process_group import ProcessGroup
from data.schema import CODES, LATTICE, table_writer

READING = RowsConfig(text_len=32, pad_id=0, max_entities=32)
NUM_ENTITIES, DIM, CODEBOOK, BATCH = 50_000, 100, 16_384, 64


def make_table(path: Path, rows: int) -> None:
    """Write captions of 10 to 30 tokens with 0 to 7 entities and the codes of a 16x16 grid."""
    rng = np.random.default_rng(0)
    with table_writer(path, LATTICE.append(CODES)) as writer:
        for begin in range(0, rows, 8192):
            count = min(8192, rows - begin)
            lengths, known = rng.integers(10, 31, count), rng.integers(0, 8, count)
            begins = [np.sort(rng.integers(0, n, k)) for n, k in zip(lengths, known, strict=True)]
            columns = {
                "idx": [str(begin + n) for n in range(count)],
                "text": ["一颗绿色的花椰菜在生长"] * count,
                "input_ids": [rng.integers(0, 21_128, n).tolist() for n in lengths],
                "seq_len": lengths.tolist(),
                "lex_ids": [rng.integers(0, NUM_ENTITIES, k).tolist() for k in known],
                "pos_s": [[*range(n), *b] for n, b in zip(lengths, begins, strict=True)],
                "pos_e": [[*range(n), *b] for n, b in zip(lengths, begins, strict=True)],
            }
            codes = rng.integers(0, CODEBOOK, (count, 256)).astype(np.uint16)
            offsets = np.arange(count + 1, dtype=np.int32) * 256
            lists = pa.ListArray.from_arrays(offsets, codes.ravel())
            arrays = [pa.array(columns[f.name], f.type) for f in LATTICE]
            batch = pa.record_batch([*arrays, lists], schema=writer.schema)
            for n in range(0, count, 512):  # the row groups that `artist encode` writes
                writer.write_batch(batch[n : n + 512], row_group_size=512)


def read(way: str, table: Path, steps: int) -> dict[str, float]:
    """Load batches for some steps; return CPU time per row and memory without imports."""
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8)
    vectors = np.zeros((NUM_ENTITIES, DIM), dtype=np.float32)
    began = time.process_time()
    with PeakMemory() as peak:
        if way == "parquet":
            opened, per_row = 0.0, parquet_rows(table, vectors, config)
        else:
            rows = open_rows(table, READING, in_memory=1 << 62 if way == "held" else 0)
            batches = Batches(rows, vectors, config)
            loader = Loader(
                batches, TrainConfig(batch_size=BATCH), ProcessGroup(torch.device("cpu")), 0
            )
            opened = time.process_time() - began
            seconds = cpu_seconds(lambda: [loader.make(step) for step in range(steps)])
            per_row = seconds / (steps * BATCH)
    return {
        "open_cpu_seconds": round(opened, 3),
        "microseconds_a_row": round(1e6 * per_row, 2),
        "private_mb": round(peak.growth / 1e6, 1),
        "resident_mb": round(memory("VmHWM") / 1e6, 1),
    }


def parquet_rows(table: Path, vectors: np.ndarray, config: GPTConfig, count: int = 256) -> float:
    """Return CPU seconds per row when each row's row group is read."""
    file, rng, began = pq.ParquetFile(table), np.random.default_rng(0), time.process_time()
    for group in rng.integers(0, file.num_row_groups, count):
        rows = file.read_row_group(int(group))
        one = rows.slice(int(rng.integers(len(rows))), 1)
        Batches(rows_from_table(one, READING), vectors, config).get(np.array([0]))
    return (time.process_time() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[50_000, 400_000])
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            table = Path(folder) / f"{rows}.parquet"
            make_table(table, rows)
            for way in ("held", "mapped", "mapped again", "parquet"):
                result = in_child(read, way.split()[0], table, given.steps)
                found[f"{way}, {rows} rows"] = result
                print(f"{way + ', ' + str(rows) + ' rows':28}", result)
    small, large = given.rows
    grown = {
        way: found[f"{way}, {large} rows"]["private_mb"]
        / found[f"{way}, {small} rows"]["private_mb"]
        for way in ("held", "mapped")
    }
    print(json.dumps({"rows": given.rows, "private_memory_grew": grown, "ways": found}))


if __name__ == "__main__":
    main()
