"""The training run: stopping anywhere, resuming exactly, fitting into memory and disk."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import kg.safetensors_io
import kg.training.resources
import kg.training.trainer
from data.errors import ArtefactError, ConfigError, Interrupted
from kg.config import CHECKPOINTS, KGConfig
from kg.safetensors_io import load_into, save_tensors
from kg.training.resources import Placement, Requirements, available_bytes, default_epochs
from kg.training.warm_start import KnownVectors
from tests.conftest import ROOT
from tests.kg.training.small_run import (
    NUM_ENTITIES,
    NUM_RELATIONS,
    assert_resumes_exactly,
    run,
    run_in_child,
    small,
)


def quality(entity, relation):
    return float(entity.sum() + relation.sum())


def stop_before_step(monkeypatch, number, action):
    """Call an action before a step of a run."""
    calls = iter(range(1_000_000))
    before = kg.training.trainer._Training.before_step

    def counted(self):
        if next(calls) == number:
            action()
        before(self)

    monkeypatch.setattr(kg.training.trainer._Training, "before_step", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_an_epoch_saves_the_state_and_resuming_is_exact(
    triples, tmp_path, monkeypatch, number
):
    with monkeypatch.context() as patch:
        stop_before_step(patch, 15, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=r"epoch 3 of 6.*--finish-now"):
            run(triples, tmp_path, measure=quality)
    assert_resumes_exactly(triples, tmp_path, measure=quality)


def test_the_vectors_of_a_stopped_run_can_be_used(triples, tmp_path, monkeypatch):
    stop_before_step(monkeypatch, 15, lambda: os.kill(os.getpid(), signal.SIGTERM))
    seen = {}

    def falling(entity, relation):
        seen[len(seen) + 1] = entity / 10
        return -len(seen)

    with pytest.raises(Interrupted):
        run(triples, tmp_path, measure=falling)
    trained = run(triples, tmp_path, finish_now=True)
    assert trained.best_epoch == 1
    torch.testing.assert_close(trained.entity.norm(dim=1), torch.ones(NUM_ENTITIES))
    assert not torch.equal(trained.entity, run(triples).entity)
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="nothing has been trained"):
        run(triples, tmp_path / "none", finish_now=True)


def test_killed_while_it_saves_a_run_resumes_to_the_same_vectors(triples, tmp_path):
    patch = (
        "import kg.safetensors_io\n"
        "real, calls = kg.safetensors_io._blocks, []\n"
        "def blocks(tensor):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 30: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(tensor)\n"
        "kg.safetensors_io._blocks = blocks\n"
    )
    assert run_in_child(triples, tmp_path / "killed", patch=patch).wait() == -signal.SIGKILL
    assert (tmp_path / "killed" / (CHECKPOINTS[0] + ".partial")).exists()
    assert_resumes_exactly(triples, tmp_path / "killed")


def test_a_full_disk_is_explained_and_leaves_the_last_good_checkpoint(
    triples, tmp_path, monkeypatch
):
    run(triples, tmp_path, config=small(epochs=2))
    good = (tmp_path / CHECKPOINTS[0]).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kg.safetensors_io, "_blocks", full)
    with pytest.raises(ArtefactError, match="disk is full"):
        save_tensors(tmp_path / CHECKPOINTS[0], {"entity": torch.ones(3, 4)})
    assert (tmp_path / CHECKPOINTS[0]).read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINTS[0]]


def test_too_little_disk_space_is_an_error_before_the_start(triples, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(kg.training.resources.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match="Free some space"):
        run(triples, tmp_path)


def test_a_run_that_cannot_fit_into_memory_is_refused_with_advice(triples, monkeypatch):
    monkeypatch.setattr(kg.training.resources, "available_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"smaller --dim.*kg import"):
        run(triples)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what memory is available")
def test_the_available_memory_is_known():
    assert 1e8 < available_bytes() < 1e15


def test_a_gpu_keeps_what_fits_and_the_host_the_rest(monkeypatch):
    gpu, host = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(kg.training.resources, "available_bytes", lambda: 10**12)
    need = Requirements(tables=4_000, triples=1_000, step=500, disk=0)
    for free, tables, rows in ((7_000, gpu, gpu), (5_500, gpu, host), (4_000, host, host)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        assert Placement.choose(gpu, need) == Placement(tables, rows, gpu)


def test_the_estimate_holds_what_the_run_holds():
    need = Requirements.of(1_000_000, 9_412_272, 377_910, KGConfig(), 8192)
    assert need.tables == pytest.approx((9_412_272 + 377_910) * 404)
    assert need.disk > 3 * need.tables


def test_an_infinite_loss_stops_with_advice_and_keeps_the_last_good_checkpoint(
    triples, tmp_path, monkeypatch
):
    before = kg.training.trainer._Training.before_step

    def poisoned(self):
        before(self)
        if self.state.epoch == 3:
            next(iter(self.state.weights.values())).data.fill_(torch.nan)

    monkeypatch.setattr(kg.training.trainer._Training, "before_step", poisoned)
    with pytest.raises(ConfigError, match=r"epoch 4; try a lower --learning-rate.*last good"):
        run(triples, tmp_path, checkpoint_seconds=0)
    monkeypatch.undo()
    assert run(triples, tmp_path, finish_now=True).entity.isfinite().all()


def test_vectors_that_are_not_numbers_are_never_saved(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(3, 2)}, {"n": 1})
    with pytest.raises(FloatingPointError):
        save_tensors(path, {"x": torch.tensor([[1.0, torch.nan]])})
    x = torch.zeros(3, 2)
    assert load_into(path, {"x": x}) == {"n": 1}
    assert (x == 1).all()


def test_tensors_written_in_blocks_are_plain_safetensors(tmp_path, monkeypatch):
    monkeypatch.setattr(kg.safetensors_io, "_BLOCK_BYTES", 100)
    tensors = {"a": torch.randn(37, 5), "b": torch.randn(11), "none": torch.empty(0, 5)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"of": "ours"})
    found = load_file(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
    again = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    assert load_into(tmp_path / "x.safetensors", again) == {"of": "ours"}
    assert torch.equal(again["a"], tensors["a"])
    with pytest.raises(ArtefactError, match="--overwrite"):
        load_into(tmp_path / "x.safetensors", {"a": torch.empty(2, 5)})
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtefactError, match="damaged"):
        load_into(tmp_path / "x.safetensors", again)


def known_half(trained, *, freeze):
    ids = {"entity": np.arange(0, NUM_ENTITIES, 2), "relation": np.arange(NUM_RELATIONS)}
    vectors = {"entity": trained.entity.numpy(), "relation": trained.relation.numpy()}
    return KnownVectors(vectors, ids, ids, freeze=freeze)


def test_known_vectors_stay_to_the_bit_and_new_ones_learn(triples):
    before = run(triples)
    trained = run(triples, config=small(seed=1), known=known_half(before, freeze=True))
    assert torch.equal(trained.entity[::2], before.entity[::2])
    assert torch.equal(trained.relation, before.relation)
    assert not torch.allclose(trained.entity[1::2], before.entity[1::2], atol=1e-2)
    assert trained.losses[-1] < trained.losses[0]


def test_known_vectors_may_move_on(triples):
    before = run(triples)
    config = small(learning_rate=1e-4, seed=1)
    trained = run(triples, config=config, known=known_half(before, freeze=False))
    assert not torch.equal(trained.entity[::2], before.entity[::2])
    torch.testing.assert_close(trained.entity[::2], before.entity[::2], atol=1e-2, rtol=0)


def test_small_graphs_get_more_epochs_than_large_ones():
    epochs = [default_epochs(n) for n in (1_000, 30_000, 270_000, 65_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 5


def test_the_checkpoint_contains_epoch_and_step(triples, tmp_path):
    run(triples, tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / CHECKPOINTS[0], "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert (about["epoch"], about["step"]) == (6, 0)


def test_pykeen_leaves_no_folder_behind(tmp_path):
    code = "import os, kg.training.transe as t; t._pykeen(); print(os.environ['PYSTOW_HOME'])"
    env = {k: v for k, v in os.environ.items() if k != "PYSTOW_HOME"} | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True)
    assert not list(tmp_path.glob("pystow-*"))
