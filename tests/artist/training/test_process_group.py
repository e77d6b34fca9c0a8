"""Trainings by several processes under torchrun equal those by one."""

import os
import signal
import subprocess
import sys
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
from artist.training.process_group import ProcessGroup
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError
from data.runs import read_manifest
from tests.artist.training.test_gpt_training import batches_of, metrics
from tests.artist.training.test_vqgan_training import SMALL, blobs, write_tsv
from tests.artist.world import (
    QUICK,
    World,
    start_script,
    start_training,
    wait_for_checkpoint,
)
from tests.conftest import ROOT

# Without dropout nothing depends on the number of processes; captions are dropped nevertheless.
CONFIG = {**asdict(QUICK), "dropout": 0.0, "caption_dropout": 0.3, "checkpoint_seconds": 0.0}

VQGAN_SCRIPT = """
import json, sys
from pathlib import Path
from artist.training.config import VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
table, out, config = (json.loads(word) for word in sys.argv[1:])
train_vqgan(Path(table), Path(out), config=VQGANTrainConfig(**config), device="cpu")
"""


def alone(world: World, out: Path, config: dict):
    return finetune(world.train, **world.inputs, out=out, config=TrainConfig(**config))


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
        # Muon computes its directions in bfloat16, which amplifies rounding.
        pytest.param({"optimizer": "muon", "keep": "last"}, 2e-3, marks=pytest.mark.slow),
    ],
    ids=["adamw-accumulated", "muon"],
)
def test_two_processes_train_the_model_that_one_trains(world, tmp_path, changes, rel):
    config = {**CONFIG, **changes}
    process = start_training(world, tmp_path / "two", config, processes=2)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.count("finished 12;") == 2
    alone(world, tmp_path / "one", config)
    assert_same_training(tmp_path / "two", tmp_path / "one", rel)
    assert not list((tmp_path / "two").rglob("*.pt"))


@pytest.mark.parametrize("preset", ["small", "base"])
def test_two_processes_train_the_vqgan_that_one_trains(tmp_path, preset):
    table = write_tsv(tmp_path / "train.tsv", blobs(20))
    config = {**asdict(SMALL), "preset": preset, "steps": 8, "adversarial_start": 0.5}
    arguments = (str(table), str(tmp_path / "two"), config)
    process = start_script(VQGAN_SCRIPT, tmp_path / "two", arguments, processes=2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    train_vqgan(table, tmp_path / "one", config=VQGANTrainConfig(**config), device="cpu")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name in one:  # Muon's bfloat16 directions amplify rounding
        assert (two[name] - one[name]).norm() <= 0.02 * one[name].norm() + 1e-3, name
    psnr = [read_manifest(tmp_path / name).counts["psnr"] for name in ("two", "one")]
    assert psnr[0] == pytest.approx(psnr[1], abs=0.2)
    assert not list((tmp_path / "two").rglob("*.pt")) + list((tmp_path / "two").glob("*.u8"))


def test_stopped_processes_save_once_and_another_number_of_them_resumes(world, tmp_path):
    out = tmp_path / "model"
    process = start_training(world, out, CONFIG, wait=0.3, processes=2)
    checkpoints = out.with_name("model.partial") / "checkpoints"
    wait_for_checkpoint(out, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert output.count("Repeat the command to continue") == 1, errors
    assert not out.exists()
    assert len(list(checkpoints.glob("step-*.pt"))) == 1
    report = alone(world, out, CONFIG)
    assert report.steps == 12
    alone(world, tmp_path / "whole", CONFIG)
    assert_same_training(out, tmp_path / "whole")


def test_a_user_error_is_reported_in_one_line_by_the_first_process(world, tmp_path):
    command = replace(world, valid=tmp_path / "none.parquet").command(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("none.parquet does not exist") == 1
    assert "[rank" not in done.stderr  # no traceback of the other process


def test_the_fusion_has_a_gradient_in_a_batch_without_entities(world):
    """DDP waits for the gradient of every weight."""
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


def test_the_rows_of_a_step_do_not_depend_on_the_number_of_processes(world):
    config = TrainConfig(**{**CONFIG, "batch_size": 8, "caption_dropout": 0.3, "name_dropout": 0.9})
    cpu = torch.device("cpu")
    batches = batches_of(world, unknown_id=999)
    whole = Loader(batches, config, ProcessGroup(cpu), 0).make(3)[0]
    parts = [Loader(batches, config, ProcessGroup(cpu, rank, 4), 0).make(3)[0] for rank in range(4)]
    together = torch.cat([part.conditioning.token_ids for part in parts])
    assert torch.equal(together, whole.conditioning.token_ids)
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert (whole.conditioning.token_ids == 0).all(1).any()  # some captions are dropped
    assert (whole.conditioning.token_ids == 999).any()  # and some names


def test_the_share_of_dropped_names_falls_to_zero(world):
    changes = {"caption_dropout": 0.0, "name_dropout": 0.8, "batch_size": 8, "max_steps": 400}
    config = TrainConfig(**{**CONFIG, **changes, "epochs": 400})
    loader = Loader(batches_of(world, unknown_id=999), config, ProcessGroup(torch.device("cpu")), 0)
    assert config.num_steps(len(loader.batches.rows)) == 400

    def share(steps: range) -> float:
        """Return the share of captions with an entity that lost a name."""
        found = [loader.make(step)[0].conditioning for step in steps]
        named = torch.cat([c.entities.covers.flatten(1).any(1) for c in found])
        lost = torch.cat([(c.token_ids == 999).any(1) for c in found])
        return float(lost[named].float().mean())

    assert share(range(40)) == pytest.approx(0.8, abs=0.12)
    assert share(range(180, 220)) == pytest.approx(0.4, abs=0.12)
    assert share(range(395, 400)) < 0.1


def test_rows_that_cannot_be_split_evenly_are_refused_with_advice(world):
    with pytest.raises(ConfigError, match="--batch-size to a multiple of 3"):
        Loader(batches_of(world), TrainConfig(**CONFIG), ProcessGroup(torch.device("cpu"), 0, 3), 0)
