"""Several processes, really started by torchrun, train as one does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from artist.models.conditioning import Entities
from artist.models.gpt import GPT
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.gpt_task import CodeLoss
from artist.training.gpt_training import finetune
from artist.training.loader import Loader
from artist.training.metrics import METRICS
from artist.training.process_group import ProcessGroup
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError
from data.runs import read_manifest
from tests.artist.training.test_gpt_training import batches_of
from tests.artist.training.test_vqgan_training import SMALL, blobs, write_tsv
from tests.artist.world import QUICK, World, make_world
from tests.conftest import ROOT

# Without dropout nothing depends on the number of processes; captions are dropped even so.
CONFIG = {**asdict(QUICK), "dropout": 0.0, "caption_dropout": 0.3, "checkpoint_seconds": 0.0}

# The same training from a script, so that a test can choose a nano model and slow its steps.
VQGAN_SCRIPT = """
import json, sys
from pathlib import Path
from artist.training.config import VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
table, out, config = (json.loads(word) for word in sys.argv[1:])
train_vqgan(Path(table), Path(out), config=VQGANTrainConfig(**config), device="cpu")
"""
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.gpt_training import finetune
from artist.training.trainer import Trainer
from data.errors import Interrupted
world, out, config, wait = (json.loads(word) for word in sys.argv[1:])
step = Trainer._train_step
def slow(self, *rest):
    time.sleep(wait)
    return step(self, *rest)
Trainer._train_step = slow
paths = {name: Path(path) for name, path in world.items()}
try:
    report = finetune(paths.pop("train"), **paths, out=Path(out), config=TrainConfig(**config))
    os.write(1, f"finished {report.steps};".encode())  # at once: two processes share the pipe
except Interrupted as stopped:
    print(stopped)
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def torchrun(world: World, out: Path, config: dict, *, wait: float = 0.0, processes: int = 2):
    """The training under torchrun, begun."""
    paths = {name: str(getattr(world, name)) for name in ("train", "valid", "kg", "vqgan")}
    return launch(SCRIPT, out, (paths, str(out), config, wait), processes)


def launch(code: str, out: Path, arguments: tuple, processes: int = 2) -> subprocess.Popen[str]:
    """A script with JSON arguments under torchrun, begun."""
    script = out.with_name("script.py")
    script.write_text(code, encoding="utf-8")
    words = [json.dumps(value) for value in arguments]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
              f"--nproc-per-node={processes}", str(script), *words]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["TMPDIR"] = str(out.parent)  # torchrun leaves its logs' folder behind
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def alone(world: World, out: Path, config: dict):
    paths = {"valid": world.valid, "kg": world.kg, "vqgan": world.vqgan}
    return finetune(world.train, **paths, out=out, config=TrainConfig(**config))


def metrics(out: Path) -> list[dict[str, float]]:
    timed = {"seconds", "images_per_second"}
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def assert_same_training(ours: Path, theirs: Path, rel: float = 1e-4) -> None:
    assert len(metrics(ours)) == len(metrics(theirs)) > 3
    for a, b in zip(metrics(ours), metrics(theirs), strict=True):
        assert a == pytest.approx(b, rel=rel)
    a, b = (load_file(out / "model.safetensors") for out in (ours, theirs))
    for name in a:
        assert (a[name] - b[name]).norm() <= 10 * rel * b[name].norm(), name


@pytest.mark.parametrize(
    ("changes", "rel"),
    [
        ({"micro_batch_size": 1}, 1e-4),
        # Muon computes its directions in bfloat16, which makes more of a rounding.
        pytest.param({"optimizer": "muon", "keep": "last"}, 2e-3, marks=pytest.mark.slow),
    ],
    ids=["adamw-accumulated", "muon"],
)
def test_two_processes_learn_what_one_does(world, tmp_path, changes, rel):
    config = {**CONFIG, **changes}
    process = torchrun(world, tmp_path / "two", config)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert said.count("finished 12;") == 2
    alone(world, tmp_path / "one", config)
    assert_same_training(tmp_path / "two", tmp_path / "one", rel)
    assert not list((tmp_path / "two").rglob("*.pt"))


@pytest.mark.parametrize("preset", ["small", "base"])
def test_two_processes_train_the_vqgan_that_one_trains(tmp_path, preset):
    table = write_tsv(tmp_path / "train.tsv", blobs(20))
    config = {**asdict(SMALL), "preset": preset, "steps": 8, "adversarial_start": 0.5}
    process = launch(VQGAN_SCRIPT, tmp_path / "two", (str(table), str(tmp_path / "two"), config))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    train_vqgan(table, tmp_path / "one", config=VQGANTrainConfig(**config), device="cpu")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name in one:  # Muon's bfloat16 directions enlarge a rounding
        assert (two[name] - one[name]).norm() <= 0.02 * one[name].norm() + 1e-3, name
    psnr = [read_manifest(tmp_path / name).counts["psnr"] for name in ("two", "one")]
    assert psnr[0] == pytest.approx(psnr[1], abs=0.2)
    assert not list((tmp_path / "two").rglob("*.pt")) + list((tmp_path / "two").glob("*.u8"))


def test_a_team_that_is_stopped_saves_once_and_goes_on_with_another_number(world, tmp_path):
    out = tmp_path / "model"
    process = torchrun(world, out, CONFIG, wait=0.3)
    checkpoints = out.with_name("model.partial") / "checkpoints"
    while len(list(checkpoints.glob("step-*.pt"))) == 0:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=120)
    assert said.count("Repeat the command to continue") == 1, errors
    assert not out.exists()
    assert len(list(checkpoints.glob("step-*.pt"))) == 1
    report = alone(world, out, CONFIG)
    assert report.steps == 12
    alone(world, tmp_path / "whole", CONFIG)
    assert_same_training(out, tmp_path / "whole")


def test_what_a_user_can_mend_is_one_line_of_the_first_process(world, tmp_path):
    words = ["artist", "finetune", world.train, "--valid", tmp_path / "none.parquet",
             "--kg", world.kg, "--vqgan", world.vqgan, "--out", tmp_path / "model"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(ROOT / "cli.py"), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("none.parquet does not exist") == 1
    assert "[rank" not in done.stderr  # no traceback of a process that waits for one that has gone


def test_a_batch_without_entities_still_gives_the_fusion_a_gradient(world):
    """DDP waits for one from every weight."""
    batches = batches_of(world)
    batch = batches.get(np.arange(4))
    entities = Entities(
        torch.zeros(4, 0, 100), torch.zeros(4, 0, 6, dtype=torch.bool), torch.zeros(100)
    )
    bare = batch._replace(conditioning=batch.conditioning._replace(entities=entities))
    gpt = GPT(replace(batches.config, text_vocab_size=100))
    step_loss = CodeLoss(gpt, 0.0)
    step_loss(bare).backward()
    assert all(p.grad is not None for p in gpt.parameters())
    assert not gpt.fusion.project.weight.grad.any()
    with torch.no_grad():
        plain = gpt.code_losses(gpt.text_ids(batch.conditioning.token_ids), batch.codes).mean()
        assert torch.equal(step_loss(bare), plain)


def test_a_step_has_the_same_rows_whatever_the_number_of_processes(world):
    config = TrainConfig(**{**CONFIG, "batch_size": 8, "caption_dropout": 0.5})
    cpu = torch.device("cpu")
    batches = batches_of(world)
    whole = Loader(batches, config, ProcessGroup(cpu), 0).make(3)[0]
    parts = [Loader(batches, config, ProcessGroup(cpu, rank, 4), 0).make(3)[0] for rank in range(4)]
    together = torch.cat([part.conditioning.token_ids for part in parts])
    assert torch.equal(together, whole.conditioning.token_ids)
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert (whole.conditioning.token_ids == 0).all(1).any()  # some captions are dropped


def test_rows_that_cannot_be_split_evenly_say_what_to_set(world):
    with pytest.raises(ConfigError, match="--batch-size to a multiple of 3"):
        Loader(batches_of(world), TrainConfig(**CONFIG), ProcessGroup(torch.device("cpu"), 0, 3), 0)
