"""Mapped rows equal rows in memory, for any number of files, and need no memory."""

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artist.tables import lattice_rows as dataset
from artist.tables import mmap_rows as row_cache
from artist.tables.lattice_rows import Batches, Rows, RowsConfig, read_rows
from artist.tables.mmap_rows import map_rows, open_rows
from data.errors import SchemaError
from data.schema import CODES, LATTICE, MORE_CODES, table_writer, with_metadata
from data.seeds import stream
from tests.artist.tables.test_lattice_rows import CONFIG, VECTORS, row
from tests.artist.training.test_gpt_training import metrics, same
from tests.artist.world import train

WITH_CODES = LATTICE.append(CODES)
READING = RowsConfig(text_len=4, pad_id=0, max_entities=2)


def some_rows(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(count):
        length = int(rng.integers(1, 7))
        entities = [(int(rng.integers(10)), 0, int(rng.integers(length))) for _ in range(n % 4)]
        rows.append(row(f"第{n}行", length, entities, codes=(n % 7, n % 5)))
    return rows


def write(path: Path, rows: list[dict], schema: pa.Schema = WITH_CODES) -> Path:
    with table_writer(path, with_metadata(schema, {"kg_fingerprint": "k"})) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
    return path


def assert_equal(ours: Rows, theirs: Rows) -> None:
    assert len(ours) == len(theirs)
    assert list(ours.idx) == list(theirs.idx)
    assert ours.texts[3] == theirs.texts[3]
    assert ours.texts[1:3] == list(theirs.texts[1:3])
    names = ("bert_ids", "codes", "first_entity", "entity_ids", "starts", "ends", "largest_entity")
    for name in names:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.metadata == theirs.metadata


def test_mapped_rows_equal_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(row_cache, "_CHUNK", 16)
    path = write(tmp_path / "t.parquet", some_rows(50))
    mapped = map_rows(path, READING)
    in_memory = read_rows(path, READING)
    assert_equal(mapped, in_memory)
    assert isinstance(mapped.codes, np.memmap)
    monkeypatch.setattr(dataset, "_MANY", 7)
    assert mapped.named_entities().tolist() == np.unique(in_memory.entity_ids).tolist()
    chosen = np.array([3, 49, 0, 17])
    ours, theirs = (Batches(rows, VECTORS, CONFIG).get(chosen) for rows in (mapped, in_memory))
    parts = ((b.conditioning.token_ids, b.codes, *b.conditioning.entities) for b in (ours, theirs))
    for a, b in zip(*parts, strict=True):
        assert a.dtype == b.dtype
        assert (a == b).all()


def test_the_files_are_written_once_per_content_and_settings(tmp_path):
    path = write(tmp_path / "t.parquet", some_rows(20))
    map_rows(path, READING)
    (folder,) = tmp_path.glob("t.parquet.rows-*")
    made = (folder / "records.bin").stat().st_mtime_ns
    map_rows(path, READING)
    assert (folder / "records.bin").stat().st_mtime_ns == made
    map_rows(path, replace(READING, text_len=3))
    assert len(list(tmp_path.glob("t.parquet.rows-*"))) == 2
    (folder / "records.bin").write_bytes(b"half")
    assert_equal(map_rows(path, READING), read_rows(path, READING))
    write(path, some_rows(21))
    assert len(map_rows(path, READING)) == 21


def test_a_folder_of_shards_is_a_table(tmp_path):
    rows, folder = some_rows(30), tmp_path / "shards"
    folder.mkdir()
    whole = read_rows(write(tmp_path / "t.parquet", rows), READING)
    write(folder / "part-0.parquet", rows[:11])
    write(folder / "part-1.parquet", rows[11:])
    assert_equal(read_rows(folder, READING), whole)
    assert_equal(map_rows(folder, READING), whole)
    assert_equal(open_rows(folder, READING, in_memory=29), whole)
    assert isinstance(open_rows(folder, READING, in_memory=29).codes, np.memmap)
    assert not isinstance(open_rows(folder, READING, in_memory=30).codes, np.memmap)


def test_shards_with_different_metadata_are_refused(tmp_path):
    write(tmp_path / "a.parquet", some_rows(2))
    other = with_metadata(LATTICE.append(CODES), {"kg_fingerprint": "another"})
    pq.write_table(pa.Table.from_pylist(some_rows(2), schema=other), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"b\.parquet and .*a\.parquet were made with different"):
        read_rows(tmp_path, READING)


def test_versions_of_an_image_take_turns_by_epoch(tmp_path):
    rows = [{**r, "more_codes": [n, 100, n, 200]} for n, r in enumerate(some_rows(64))]
    schema = LATTICE.append(CODES).append(MORE_CODES)
    path = write(tmp_path / "t.parquet", rows, schema)
    for found in (read_rows(path, READING), map_rows(path, READING)):
        batches, everyone = Batches(found, VECTORS, CONFIG), np.arange(64)
        plain = batches.get(everyone).codes
        assert plain.tolist() == [[n % 7, n % 5] for n in everyone]
        epochs = [batches.get(everyone, epoch).codes for epoch in range(4)]
        assert (epochs[0] == epochs[3]).all()
        for n in everyone:
            seen = sorted(tuple(codes[n].tolist()) for codes in epochs[:3])
            assert seen == sorted([(n % 7, n % 5), (n, 100), (n, 200)])
        first = [int(codes) for codes in epochs[0][:, 1] // 100]  # the first version of each row
        assert min(first.count(version) for version in range(3)) > 10


def test_a_training_on_mapped_rows_is_equal_bit_for_bit(world, tmp_path, monkeypatch):
    train(world, tmp_path / "in_memory")
    monkeypatch.setattr("artist.training.training_inputs.open_rows", map_rows)
    train(world, tmp_path / "mapped")
    assert list(world.train.parent.glob("train.parquet.rows-*"))
    assert same(tmp_path / "in_memory", tmp_path / "mapped")
    assert metrics(tmp_path / "in_memory") == metrics(tmp_path / "mapped")


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(row_cache, "_CHUNK", 64)
    peaks = []
    for count in (500, 4000):
        path = write(tmp_path / f"{count}.parquet", some_rows(count))
        tracemalloc.start()
        rows = map_rows(path, READING)
        batches = Batches(rows, VECTORS, CONFIG)
        rng = np.random.default_rng(stream(0, "test"))
        for _ in range(20):
            batches.get(rng.integers(count, size=16))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
    shutil.rmtree(tmp_path)
