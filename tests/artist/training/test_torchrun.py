"""Training by the real command under torchrun: killed, stopped, on several nodes."""

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

from tests.artist.training.test_process_group import assert_same_training, metrics
from tests.artist.world import World, make_world
from tests.conftest import ROOT

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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begins the command, under torchrun with these options or, with none, alone."""
    begun = []

    def begin(*launch: str, out: Path, folder: Path = tmp_path, **changes: object):
        torchrun = ["-m", "torch.distributed.run", *launch] if launch else []
        words = ["artist", "finetune", world.train, "--valid", world.valid, "--kg", world.kg,
                 "--vqgan", world.vqgan, "--out", out]  # fmt: skip
        for option, value in {**RECIPE, **changes}.items():
            words += [option, value]
        process = subprocess.Popen(
            [sys.executable, *torchrun, str(ROOT / "cli.py"), *map(str, words)],
            cwd=folder,
            # torchrun leaves the folder of its logs behind
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        if process.poll() is None:
            kill(process.pid, *workers_of(process))
            process.communicate()


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The model of a training by so many processes that nothing interrupts."""
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
    """The processes that torchrun started, by rank; each has a session of its own."""
    listed = ["ps", "-o", "pid=", "--ppid", str(torchrun.pid)]
    said = subprocess.run(listed, capture_output=True, text=True, check=False).stdout
    return sorted(int(word) for word in said.split())


def kill(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def wait_for_step(out: Path, step: int, *processes: subprocess.Popen[str]) -> None:
    """Until the checkpoint of that step, or of a later one, is written."""
    folder = out.with_name(out.name + ".partial") / "checkpoints"
    while max((int(p.stem[-8:]) for p in folder.glob("step-*.pt")), default=0) < step:
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def end(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return said, errors


def assert_equal(ours: Path, theirs: Path) -> None:
    """Weights and metrics are the same to the bit, and nothing unfinished lies about."""
    assert metrics(ours) == metrics(theirs)
    assert len(metrics(ours)) == 36
    a, b = (load_file(out / "model.safetensors") for out in (ours, theirs))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    names = [{p.name for p in out.rglob("*")} for out in (ours, theirs)]
    assert names[0] == names[1]
    assert not [p for p in ours.parent.rglob("*") if p.suffix in (".partial", ".pt", ".lock")]


# Sums of three or more depend in their last bit on the order in which DDP sends its gradients.
@pytest.mark.parametrize("processes", [2, 4])
def test_a_team_that_is_killed_ends_as_if_it_had_not_been(start, whole, tmp_path, processes):
    out, launch = tmp_path / "model", ("--standalone", f"--nproc-per-node={processes}")
    torchrun = start(*launch, out=out)
    wait_for_step(out, 2, torchrun)
    team = workers_of(torchrun)
    assert len(team) == processes
    kill(torchrun.pid, *team)
    torchrun.communicate()
    assert not out.exists()
    said, errors = end(start(*launch, out=out))
    assert said.count("32 steps") == 1
    assert errors.count("Resuming at step") == 1
    assert_equal(out, whole(processes))


@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_is_killed_the_other_says_so_and_ends(start, whole, tmp_path, rank):
    out = tmp_path / "model"
    torchrun = start(*STANDALONE, out=out)
    wait_for_step(out, 2, torchrun)
    team = workers_of(torchrun)
    kill(team[rank])
    began = time.monotonic()
    _, errors = end(torchrun, code=1)
    assert time.monotonic() - began < 20  # not the hours that it would wait for an answer
    assert f"process {1 - rank} {LOST}" in errors
    assert "[rank" not in errors  # no traceback of it
    assert not any(Path(f"/proc/{process}").exists() for process in team)
    assert not out.exists()
    end(start(*STANDALONE, out=out))
    assert_equal(out, whole(2))


def test_a_team_outlives_torchrun_and_is_not_joined_by_another(start, whole, tmp_path):
    """Its processes have sessions of their own, so killing it alone does not end them."""
    out = tmp_path / "model"
    first = start(*STANDALONE, out=out)
    wait_for_step(out, 1, first)
    team = workers_of(first)
    for process in team:
        os.kill(process, signal.SIGSTOP)
    kill(first.pid)
    _, errors = end(start(*STANDALONE, out=out), code=1)
    assert errors.count("Another process is writing") == 1
    for process in team:
        os.kill(process, signal.SIGCONT)
    said, _ = first.communicate(timeout=60)
    assert said.count("32 steps") == 1
    assert_equal(out, whole(2))


def node(number: int, port: int) -> tuple[str, ...]:
    return ("--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1",
            "--master-addr=127.0.0.1", f"--master-port={port}")  # fmt: skip


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_nodes_learn_what_one_process_does(start, whole, port, tmp_path):
    nodes = [start(*node(n, port), out=tmp_path / "model") for n in (0, 1)]
    said = [end(each)[0] for each in nodes]
    assert "32 steps" in said[0]
    assert said[1] == ""
    assert_same_training(tmp_path / "model", whole(1))
    assert_equal(tmp_path / "model", whole(2))


@pytest.mark.parametrize("asked", [0, 1])
def test_a_node_that_is_asked_to_stop_stops_both_and_they_go_on(
    start, whole, port, tmp_path, asked
):
    out = tmp_path / "model"
    nodes = [start(*node(n, port), out=out) for n in (0, 1)]
    wait_for_step(out, 2, *nodes)
    nodes[asked].send_signal(signal.SIGTERM)
    told = [each.communicate(timeout=60)[1] for each in nodes]
    assert all(each.returncode for each in nodes)
    assert [text.count("Repeat the command to continue") for text in told] == [1, 0]
    assert not [text for text in told if "[rank" in text or LOST in text]
    assert len(list(tmp_path.glob("model.partial/checkpoints/*step*"))) == 1
    nodes = [start(*node(n, port), out=out) for n in (0, 1)]
    for each in nodes:
        end(each)
    assert_equal(out, whole(2))


@pytest.mark.parametrize("earlier", [False, True], ids=["nothing there", "an earlier run there"])
def test_nodes_that_see_different_folders_are_told_so(start, port, tmp_path, earlier):
    homes = [tmp_path / "here", tmp_path / "there"]
    for home in homes:
        home.mkdir()
    if earlier:
        (homes[1] / "model.partial" / "checkpoints").mkdir(parents=True)
    nodes = [start(*node(n, port), out=Path("model"), folder=homes[n]) for n in (0, 1)]
    told = [end(each, code=1)[1] for each in nodes]
    assert told[0].count("not the same folder for all processes (not for number 1)") == 1
    assert not [text for text in told if "[rank" in text or LOST in text]
    assert not list(tmp_path.glob("*/model.partial/*/*"))
    assert not [p for p in homes[1].iterdir() if p.name != "model.partial"]


def test_a_node_with_another_copy_of_the_table_is_told_so(start, world, port, tmp_path):
    out, other = tmp_path / "model", make_world(tmp_path / "other", rows=12)
    ours = start(*node(0, port), out=out)
    theirs = start(*node(1, port), out=out, **{"--valid": other.valid})
    told = [end(each, code=1)[1] for each in (ours, theirs)]
    assert "valid on this machine (process 1) differs from the first machine's" in told[1]
    assert not [text for text in told if "[rank" in text or LOST in text]
    assert not out.with_name("model.partial").exists()
