"""Checkpoints: the last few, and the best that each of them needs."""

import logging
from pathlib import Path

import torch

from artist.training.checkpoints import Checkpoints

CPU = torch.device("cpu")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_last_ones_are_kept_and_the_bests_they_name(tmp_path):
    snapshots = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        if step != 40:
            snapshots.save_best(step, {"w": torch.tensor(float(step))})
        snapshots.save(step, {"step": step})
    assert files(tmp_path) == [
        *("best-00000030.pt", "step-00000030.pt", "step-00000040.pt"),
    ]
    assert snapshots.load(CPU) == {"step": 40}
    assert snapshots.load_best(30, CPU)["w"] == 30.0
    snapshots.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_a_best_that_an_older_checkpoint_needs_stays_with_it(tmp_path):
    snapshots = Checkpoints(tmp_path, keep=2)
    snapshots.save_best(10, {})
    snapshots.save(10, {"step": 10})
    snapshots.save_best(20, {})
    snapshots.save(20, {"step": 20})
    assert [name for name in files(tmp_path) if "best" in name] == [
        *("best-00000010.pt", "best-00000020.pt"),
    ]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    snapshots = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        snapshots.save_best(step, {})
        snapshots.save(step, {"step": step})
    path = tmp_path / "checkpoints" / "step-00000020.pt"
    path.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert snapshots.load(CPU) == {"step": 10}
    assert "step-00000020.pt cannot be read" in caplog.text
    assert files(tmp_path) == ["best-00000010.pt", "step-00000010.pt"]


def test_there_may_be_none(tmp_path):
    assert Checkpoints(tmp_path, keep=1).load(CPU) is None
