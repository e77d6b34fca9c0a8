"""Checkpoints: the last few, and the best weights that each of them refers to."""

import logging
from pathlib import Path

import torch

from artist.training.checkpoints import Checkpoints

CPU = torch.device("cpu")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_last_checkpoints_and_their_best_weights_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        if step != 40:
            checkpoints.save_best(step, {"w": torch.tensor(float(step))})
        checkpoints.save(step, {"step": step})
    assert files(tmp_path) == ["best-00000030.pt", "step-00000030.pt", "step-00000040.pt"]
    assert checkpoints.load(CPU) == {"step": 40}
    assert checkpoints.load_best(30, CPU)["w"] == 30.0
    checkpoints.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_best_weights_of_an_older_checkpoint_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(10, {})
    checkpoints.save(10, {"step": 10})
    checkpoints.save_best(20, {})
    checkpoints.save(20, {"step": 20})
    bests = [name for name in files(tmp_path) if "best" in name]
    assert bests == ["best-00000010.pt", "best-00000020.pt"]


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        checkpoints.save_best(step, {})
        checkpoints.save(step, {"step": step})
    path = tmp_path / "checkpoints" / "step-00000020.pt"
    path.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(CPU) == {"step": 10}
    assert "step-00000020.pt cannot be read" in caplog.text
    assert files(tmp_path) == ["best-00000010.pt", "step-00000010.pt"]


def test_without_checkpoints_load_returns_none(tmp_path):
    assert Checkpoints(tmp_path, keep=1).load(CPU) is None
