"""Trainings of a small graph, whole, interrupted and resumed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kg.config import KGConfig
from kg.training.train_state import Trained
from kg.training.trainer import train_transe
from tests.conftest import ROOT

NUM_ENTITIES, NUM_RELATIONS = 60, 3


def small(**changes: Any) -> KGConfig:
    """Return the settings of a run of a second."""
    config = KGConfig(dim=8, epochs=6, batch_size=64, chunk_size=16, num_negatives=5)
    return replace(config, **changes)


def run(triples, work=None, config: KGConfig | None = None, **more: Any) -> Trained:
    """Train on the CPU."""
    sizes = NUM_ENTITIES, NUM_RELATIONS
    return train_transe(triples, *sizes, config or small(), device="cpu", work=work, **more)


def run_in_child(triples, work: Path, epochs: int = 6, patch: str = "") -> subprocess.Popen:
    """Start a run in another process, which first executes the lines of `patch`."""
    np.save(work.parent / "triples.npy", triples)
    work.mkdir()
    code = (
        "import os, signal, sys, numpy as np; from pathlib import Path\n"
        f"from tests.kg.training.small_run import run, small\n{patch}"
        f"run(np.load(sys.argv[1]), Path(sys.argv[2]), small(epochs={epochs}),"
        " checkpoint_seconds=0)\n"
    )
    arguments = [sys.executable, "-c", code, work.parent / "triples.npy", work]
    return subprocess.Popen(arguments, cwd=ROOT)


def assert_resumes_exactly(triples, work: Path, **options: Any) -> None:
    """Resume a run, and compare it with one that was not interrupted."""
    resumed, whole = run(triples, work, **options), run(triples, **options)
    assert torch.equal(resumed.entity, whole.entity)
    assert torch.equal(resumed.relation, whole.relation)
    assert resumed.losses == whole.losses
    assert resumed.scores == whole.scores
