"""Many processes and many files give the same table as one process and one file."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import ArtefactError, ConfigError, InputError, ToolkitError
from data.kg_folder import write_names
from data.runs import read_manifest
from data.schema import LATTICE, open_shards
from lattice.building import caption_reader as corpus_module
from lattice.building.build import build_lattice
from lattice.building.caption_reader import Chunk
from lattice.building.chunks import ProcessorSpec, TableFormat
from lattice.building.runner import ChunkTask
from lattice.building.shards import ShardTask, shard_tasks
from lattice.building.workers import run_tasks
from lattice.config import BuildConfig, LatticeConfig
from lattice.matching.lexicon import make_lexicon
from lattice.matching.vocabulary import Vocabulary
from tests.conftest import ROOT

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "手机", "手机壳", "李娜（歌手）", "李娜（网球）"]
WORDS = [*NAMES, "的", "一只猫", "，", "李娜", " ", "😀", "T恤", "15", "[MASK]"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Names, and a corpus of five files with a bad row in each."""
    folder = tmp_path_factory.mktemp("shards")
    write_names(folder / "entity2id.txt", NAMES)
    rng = np.random.default_rng(0)
    (folder / "corpus").mkdir()
    for shard in range(5):
        rows = [
            f"{shard}-{n}\t{''.join(rng.choice(WORDS, 6))}猫" if n != 7 else "no tab"
            for n in range(2000)
        ]
        content = ("\n".join(rows) + "\n").encode()
        with gzip.open(folder / "corpus" / f"part-{shard}.tsv.gz", "wb") as file:
            file.write(content)
        with (folder / "all.tsv").open("ab") as whole:
            whole.write(content)
    return folder


def build(world, out, corpus=None, **options):
    corpus = corpus or world / "corpus" / "*.tsv.gz"
    how = {
        name: options.pop(name)
        for name in ("workers", "cluster", "format", "backend")
        if name in options
    }
    config = BuildConfig(**{"workers": 1, **how})
    return build_lattice(corpus, out, names=world / "entity2id.txt", build=config, **options)


def rows(out):
    return open_shards(out, LATTICE).read(LATTICE.names).to_pylist()


@pytest.mark.parametrize("format", ["parquet", "tsv"])
def test_the_number_of_workers_changes_no_byte(world, tmp_path, monkeypatch, format):
    monkeypatch.setattr(corpus_module, "_TEXT_CHUNK", 5000)  # so that there are many chunks
    reports = [
        build(world, tmp_path / f"{n}", world / "all.tsv", workers=n, format=format) for n in (1, 2)
    ]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    first, second = (tmp_path / f"{n}.rejects.tsv" for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_text().splitlines()) == 5
    counts = [read_manifest(tmp_path / f"{n}").counts for n in (1, 2)]
    for count in counts:
        count.pop("seconds")
    assert counts[0] == counts[1]
    assert reports[0].num_rows == 5 * 1999
    assert not list(tmp_path.glob("*.partial"))


def test_shards_have_the_rows_of_one_table(world, tmp_path):
    whole = build(world, tmp_path / "whole.parquet", world / "all.tsv")
    report = build(world, tmp_path / "table", workers=2)
    assert rows(tmp_path / "table") == rows(tmp_path / "whole.parquet")
    for name in ("num_rows", "num_entities", "num_rejected", "rejected", "num_duplicate_idx"):
        assert getattr(report, name) == getattr(whole, name), name
    stats = json.loads((tmp_path / "table" / "part-3_stats.json").read_text())
    assert (stats["rows_in"], stats["rows"], stats["rejected"]) == (2000, 1999, 1)
    assert stats["first_reject"].startswith("line 8: wrong column count")
    assert "5 shards" in str(report)
    assert build(world, tmp_path / "table").already_finished


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def test_a_later_run_writes_only_missing_shards(world, tmp_path):
    files = sorted((world / "corpus").iterdir())
    build(world, tmp_path / "table", files[:3])
    before = stamps(tmp_path / "table")
    report = build(world, tmp_path / "table")
    after = stamps(tmp_path / "table")
    assert len(after) == 5
    assert before.items() <= after.items()
    assert "2 of 5 shards were missing" in str(report)
    with pytest.raises(ArtefactError, match=r"part-3\.parquet, whose file is not in"):
        build(world, tmp_path / "table", files[:3])
    with pytest.raises(ArtefactError, match="min_length was 2, now 3"):
        build(world, tmp_path / "table", config=LatticeConfig(min_length=3))


def test_a_changed_corpus_file_is_refused_and_rewritten_with_overwrite(world, tmp_path):
    files = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for file in files:
        file.write_text("1\t北京\n", encoding="utf-8")
    build(world, tmp_path / "table", files)
    os.utime(files[0], (1, 1))  # the same content
    assert build(world, tmp_path / "table", files).already_finished
    files[1].write_text("1\t故宫\n2\t北京\n", encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"b\.tsv has changed since b\.parquet was written"):
        build(world, tmp_path / "table", files)
    build(world, tmp_path / "table", files, overwrite=True)
    assert [row["text"] for row in rows(tmp_path / "table")] == ["北京", "故宫", "北京"]
    damaged = tmp_path / "table" / "a.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtefactError, match="changed since it was written"):
        build(world, tmp_path / "table", files)


def test_a_file_without_a_usable_row_is_an_empty_shard(world, tmp_path):
    (tmp_path / "a.tsv").write_text("1\t北京\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_bytes(b"")
    (tmp_path / "c.tsv").write_text("no tab\n")
    report = build(world, tmp_path / "table", tmp_path / "?.tsv")
    assert len(rows(tmp_path / "table")) == 1
    assert "2 of its files have no usable row" in str(report)
    with pytest.raises(InputError, match="none of the 1 rows of 2 files can be used; the first is"):
        build(world, tmp_path / "none", [tmp_path / "c.tsv", tmp_path / "b.tsv"])


def test_unusable_corpora_are_one_clear_error(world, tmp_path):
    with pytest.raises(InputError, match="matches no file"):
        build(world, tmp_path / "table", tmp_path / "*.tsv")
    (tmp_path / "a.tsv").write_text("1\t北京\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("1\t北京\n", encoding="utf-8")
    both = tmp_path / "a.t*"
    with pytest.raises(ConfigError, match=r"would both become a\.parquet"):
        build(world, tmp_path / "table", both)
    with pytest.raises(ConfigError, match="--format tsv is one file"):
        build(world, tmp_path / "table", both, format="tsv")
    with pytest.raises(ConfigError, match="cannot be shared"):
        build(world, tmp_path / "t.parquet", tmp_path / "a.tsv", workers=2, backend="ahocorasick")


class Deadly(ChunkTask):
    """Kills the worker at the first attempt, or at every attempt."""

    def run(self, processor):
        mark = self.spilled.with_suffix(".tried")
        if self.chunk.line == 3 and (not mark.exists() or mark.read_text() == "always"):
            if not mark.exists():
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(processor)


@pytest.fixture
def spec(world, tmp_path, characters):
    config = LatticeConfig()
    Vocabulary.from_lexicon(make_lexicon(NAMES, characters, config)).save(tmp_path)
    return ProcessorSpec(characters, tmp_path, config, TableFormat(2, "full", False, {}))


def texts(results):
    found = []
    for result in results:
        result.load()
        found += [text for batch in result.rows for text in batch.column("text").to_pylist()]
    return found


def test_the_task_of_a_killed_worker_is_repeated_once(spec, tmp_path):
    captions = [f"{n}号手机" for n in range(1, 9)]
    tasks = [
        Deadly(Chunk(n, f"{n}\t{text}\n".encode()), tmp_path / f"{n}.arrow")
        for n, text in enumerate(captions, 1)
    ]
    assert texts(run_tasks(spec, tasks, 2)) == captions
    assert (tmp_path / "3.tried").exists()


def test_a_task_that_kills_every_worker_is_one_clear_error(spec, tmp_path):
    (tmp_path / "3.tried").write_text("always")
    tasks = [Deadly(Chunk(n, b"1\ta\n"), tmp_path / f"{n}.arrow") for n in range(1, 6)]
    with pytest.raises(ToolkitError, match=r"from line 3 on: .* ended 3 times .*, killed"):
        list(run_tasks(spec, tasks, 2))


class Unreadable(ChunkTask):
    """Cannot be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def test_a_task_that_cannot_be_unpickled_is_an_error_and_no_deadlock(spec, tmp_path):
    task = Unreadable(Chunk(1, b"1\ta\n"), tmp_path / "1.arrow")
    with pytest.raises(ValueError, match="no number"):
        list(run_tasks(spec, [task], 1))


def test_an_error_in_a_worker_is_raised(world, tmp_path):
    whole = (world / "corpus" / "part-0.tsv.gz").read_bytes()
    (tmp_path / "a.tsv.gz").write_bytes(whole)
    (tmp_path / "b.tsv.gz").write_bytes(whole[:-2000])
    with pytest.raises(InputError, match=r"b\.tsv\.gz is a damaged gzip file"):
        build(world, tmp_path / "table", tmp_path / "*.tsv.gz", workers=2)
    assert not (tmp_path / "table").exists()
    (tmp_path / "b.tsv.gz").write_bytes(whole)
    report = build(world, tmp_path / "table", tmp_path / "*.tsv.gz")
    assert report.num_rows == 2 * 1999
    assert report.num_duplicate_idx == 1999


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumes(world, tmp_path, how):
    command = [sys.executable, "cli.py", "lattice", "build", f"{world}/corpus/*.tsv.gz"]
    command += ["--entities", f"{world}/entity2id.txt", "--out", f"{tmp_path}/table"]
    run = subprocess.Popen([*command, "--workers", "2"], cwd=ROOT, stderr=subprocess.PIPE)
    partial = tmp_path / "table.partial"
    while not list(partial.glob("*_stats.json")) and run.poll() is None:
        time.sleep(0.01)
    workers = children(run.pid)
    run.send_signal(how)
    run.communicate()
    for _ in range(500):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.02)
    else:
        pytest.fail("workers outlive their parent")
    if how == signal.SIGINT and run.returncode:
        assert run.returncode == 130
    done = stamps(partial)
    report = build(world, tmp_path / "table")
    assert len(rows(tmp_path / "table")) == report.num_rows == 5 * 1999
    kept = {name for name, stamp in stamps(tmp_path / "table").items() if done.get(name) == stamp}
    assert kept, "finished shards are kept"
    assert not list(tmp_path.glob("*.partial"))
    assert not list((tmp_path / "table").glob("*.partial"))
    for path in (tmp_path / "table").glob("*.parquet"):
        pq.read_table(path)


class DeadlyShard(ShardTask):
    """Kills its worker half-way at the first attempt."""

    def run(self, processor):
        mark = self.folder / f"{self.stem}.tried"
        if self.stem == "part-2" and not mark.exists():
            mark.touch()
            processor = Killer(processor.format)
        return super().run(processor)


@dataclass
class Killer:
    format: TableFormat

    def __call__(self, chunk):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_cluster_loses_and_duplicates_no_row_when_a_worker_is_killed(
    world, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    monkeypatch.setattr("lattice.building.shards.shard_tasks", deadly_tasks)
    build(world, tmp_path / "whole.parquet", world / "all.tsv")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )
    with cluster:
        address = cluster.scheduler_address
        build(world, tmp_path / "table", cluster=address)
        assert build(world, tmp_path / "table", cluster=address).already_finished
    assert rows(tmp_path / "table") == rows(tmp_path / "whole.parquet")
    assert (tmp_path / "table" / "part-2.tried").exists()
    assert not list((tmp_path / "table").glob("*.partial"))


def deadly_tasks(files, folder):
    return [DeadlyShard(task.corpus, task.folder, task.stem) for task in shard_tasks(files, folder)]


def test_a_cluster_that_does_not_answer_is_one_clear_error(world, tmp_path):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(ConfigError, match="a cluster writes shards"):
        build(world, tmp_path / "table", world / "all.tsv", cluster="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense"):
        build(world, tmp_path / "table", cluster="nonsense://x")
