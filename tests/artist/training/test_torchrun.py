"""Trainings by the command under torchrun: killed, stopped, on several nodes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.artist.training.test_gpt_training import metrics
from tests.artist.training.test_process_group import assert_same_training
from tests.artist.world import World, make_world, wait_for_checkpoint

pytestmark = pytest.mark.slow

# A checkpoint after each of 32 steps. Without dropout nothing depends on the number of processes.
RECIPE = {
    "--size": "nano",
    "--text-len": 6,
    "--batch-size": 4,
    "--epochs": 8,
    "--precision": "fp32",
    "--dropout": 0,
    "--caption-dropout": 0.3,
    "--validations": 4,
    "--checkpoint-seconds": 0,
    "--device": "cpu",
}
STANDALONE = ("--standalone", "--nproc-per-node=2")
LOST = "lost another process of this training"


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command, under torchrun if options for it are given."""
    started = []

    def begin(*launch: str, out: Path, folder: Path = tmp_path, **changes: object):
        torchrun = ["-m", "torch.distributed.run", *launch] if launch else []
        options = [word for pair in {**RECIPE, **changes}.items() for word in pair]
        process = subprocess.Popen(
            [sys.executable, *torchrun, *world.command(out, *options)],
            cwd=folder,
            # for torchrun's logs
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            kill(process.pid, *workers_of(process))
            process.communicate()


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Train without interruption; return the model by the number of processes."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def train(processes: int) -> Path:
        if processes not in made:
            made[processes] = folder / str(processes)
            begin = start.__wrapped__(world, folder)
            launch = ("--standalone", f"--nproc-per-node={processes}") if processes > 1 else ()
            end(next(begin)(*launch, out=made[processes]))
        return made[processes]

    return train


def workers_of(torchrun: subprocess.Popen[str]) -> list[int]:
    """Return the processes that torchrun started, by rank; each has its own session."""
    listed = ["ps", "-o", "pid=", "--ppid", str(torchrun.pid)]
    output = subprocess.run(listed, capture_output=True, text=True, check=False).stdout
    return sorted(int(word) for word in output.split())


def kill(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def end(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return output, errors


def assert_equal(ours: Path, theirs: Path) -> None:
    """Check that weights and metrics are equal bit for bit and no unfinished file is left."""
    assert metrics(ours) == metrics(theirs)
    assert len(metrics(ours)) == 36
    a, b = (load_file(out / "model.safetensors") for out in (ours, theirs))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    names = [{p.name for p in out.rglob("*")} for out in (ours, theirs)]
    assert names[0] == names[1]
    assert not [p for p in ours.parent.rglob("*") if p.suffix in (".partial", ".pt", ".lock")]


# The last bit of sums of three or more depends on DDP's order of gradients.
@pytest.mark.parametrize("processes", [2, 4])
def test_killed_processes_resume_to_the_same_weights(start, whole, tmp_path, processes):
    out, launch = tmp_path / "model", ("--standalone", f"--nproc-per-node={processes}")
    torchrun = start(*launch, out=out)
    wait_for_checkpoint(out, torchrun, step=2)
    workers = workers_of(torchrun)
    assert len(workers) == processes
    kill(torchrun.pid, *workers)
    torchrun.communicate()
    assert not out.exists()
    output, errors = end(start(*launch, out=out))
    assert output.count("32 steps") == 1
    assert errors.count("Resuming at step") == 1
    assert_equal(out, whole(processes))


@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_is_killed_the_other_reports_it_and_ends(start, whole, tmp_path, rank):
    out = tmp_path / "model"
    torchrun = start(*STANDALONE, out=out)
    wait_for_checkpoint(out, torchrun, step=2)
    workers = workers_of(torchrun)
    kill(workers[rank])
    began = time.monotonic()
    _, errors = end(torchrun, code=1)
    assert time.monotonic() - began < 20  # not after the timeout of hours
    assert f"process {1 - rank} {LOST}" in errors
    assert "[rank" not in errors  # no traceback
    assert not any(Path(f"/proc/{process}").exists() for process in workers)
    assert not out.exists()
    end(start(*STANDALONE, out=out))
    assert_equal(out, whole(2))


def test_processes_that_outlive_torchrun_keep_their_output_locked(start, whole, tmp_path):
    """They have their own sessions, so killing torchrun alone does not end them."""
    out = tmp_path / "model"
    first = start(*STANDALONE, out=out)
    wait_for_checkpoint(out, first, step=1)
    workers = workers_of(first)
    for process in workers:
        os.kill(process, signal.SIGSTOP)
    kill(first.pid)
    _, errors = end(start(*STANDALONE, out=out), code=1)
    assert errors.count("Another process is writing") == 1
    for process in workers:
        os.kill(process, signal.SIGCONT)
    output, _ = first.communicate(timeout=60)
    assert output.count("32 steps") == 1
    assert_equal(out, whole(2))


def node(number: int, port: int) -> tuple[str, ...]:
    return ("--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1",
            "--master-addr=127.0.0.1", f"--master-port={port}")  # fmt: skip


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_nodes_train_the_model_that_one_process_trains(start, whole, port, tmp_path):
    nodes = [start(*node(n, port), out=tmp_path / "model") for n in (0, 1)]
    output = [end(each)[0] for each in nodes]
    assert "32 steps" in output[0]
    assert output[1] == ""
    assert_same_training(tmp_path / "model", whole(1))
    assert_equal(tmp_path / "model", whole(2))


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_node_stops_both_and_they_resume(start, whole, port, tmp_path, signalled):
    out = tmp_path / "model"
    nodes = [start(*node(n, port), out=out) for n in (0, 1)]
    wait_for_checkpoint(out, *nodes, step=2)
    nodes[signalled].send_signal(signal.SIGTERM)
    errors = [each.communicate(timeout=60)[1] for each in nodes]
    assert all(each.returncode for each in nodes)
    assert [text.count("Repeat the command to continue") for text in errors] == [1, 0]
    assert not [text for text in errors if "[rank" in text or LOST in text]
    assert len(list(tmp_path.glob("model.partial/checkpoints/*step*"))) == 1
    nodes = [start(*node(n, port), out=out) for n in (0, 1)]
    for each in nodes:
        end(each)
    assert_equal(out, whole(2))


@pytest.mark.parametrize("earlier", [False, True], ids=["no folder", "folder of an earlier run"])
def test_nodes_with_different_folders_are_refused(start, port, tmp_path, earlier):
    homes = [tmp_path / "here", tmp_path / "there"]
    for home in homes:
        home.mkdir()
    if earlier:
        (homes[1] / "model.partial" / "checkpoints").mkdir(parents=True)
    nodes = [start(*node(n, port), out=Path("model"), folder=homes[n]) for n in (0, 1)]
    errors = [end(each, code=1)[1] for each in nodes]
    assert errors[0].count("not the same folder for all processes (not for rank 1)") == 1
    assert not [text for text in errors if "[rank" in text or LOST in text]
    assert not list(tmp_path.glob("*/model.partial/*/*"))
    assert not [p for p in homes[1].iterdir() if p.name != "model.partial"]


def test_a_node_with_another_copy_of_the_table_is_refused(start, world, port, tmp_path):
    out, other = tmp_path / "model", make_world(tmp_path / "other", rows=12)
    ours = start(*node(0, port), out=out)
    theirs = start(*node(1, port), out=out, **{"--valid": other.valid})
    errors = [end(each, code=1)[1] for each in (ours, theirs)]
    assert "valid on this machine (process 1) differs from the first machine's" in errors[1]
    assert not [text for text in errors if "[rank" in text or LOST in text]
    assert not out.with_name("model.partial").exists()
