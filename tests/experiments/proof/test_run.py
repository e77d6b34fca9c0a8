"""Run the proof; the slow test shows at a small size that knowledge improves unseen names."""

import json

import numpy as np
import pytest

from artist.training.config import VQGANTrainConfig
from data.errors import ConfigError
from experiments.proof.run import (
    ARMS,
    LATTICE_ARM,
    NONE_ARM,
    SHUFFLED_SAMPLING,
    SHUFFLED_TRAINING,
    Accuracy,
    ProofConfig,
    ProofReport,
    SeedResult,
    neighbours,
    run_proof,
)
from experiments.proof.world import write_world
from experiments.stages import small_training
from kg.config import KGConfig
from kg.training.train import train_kg


def test_entities_of_equal_colour_or_shape_are_neighbours_in_the_graph(tmp_path):
    world = write_world(tmp_path / "world", seed=0, entities=200, size=16, variants=1)
    train_kg(world.triples, tmp_path / "kg", config=KGConfig(valid_fraction=0.0), device="cpu")
    near = neighbours(world, tmp_path / "kg")
    assert near["colour"] > 0.25  # chance is 0.08
    assert near["shape"] > 0.25


def test_the_report_contains_the_mean_over_seeds_of_each_arm():
    def result(seed, right):
        same = Accuracy(colour=right, shape=right, both=right)
        return SeedResult(
            seed=seed,
            unseen=dict.fromkeys(ARMS, same),
            trained=dict.fromkeys(ARMS, same),
            pictures=240,
            nats_per_code={"lattice": 1.0},
            judge=same,
            ceiling=same,
            neighbours={"colour": 0.5, "shape": 0.5},
        )

    report = ProofReport(
        out=None, entities=600, results=(result(0, 1.0), result(1, 0.5)), seconds=60.0
    )
    table = report.markdown()
    assert "| lattice | 0.750 | 0.750 | 0.750 | 1.000 0.500 |" in table
    assert "seeds 0, 1" in table
    assert "chance 0.083, 0.083, 0.007" in table


def test_no_seed_and_different_sizes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="one seed or more"):
        run_proof(tmp_path, seeds=())
    with pytest.raises(ConfigError, match="differs from size"):
        ProofConfig(size=32)


@pytest.mark.slow
def test_unseen_names_are_generated_correctly_with_their_graph_and_at_chance_without(tmp_path):
    tiny = ProofConfig(
        entities=300,
        size=32,
        vqgan=VQGANTrainConfig(resolution=32, steps=100, flip=False),
        train=small_training(text_len=12, epochs=8, learning_rate=2e-3, validations=1),
    )
    report = run_proof(tmp_path, config=tiny, device="cpu")
    assert report.results[0].judge.both == 1
    assert report.mean(LATTICE_ARM, "both") > 0.6
    assert report.mean(LATTICE_ARM, "both", "trained") > 0.6
    for arm in (NONE_ARM, SHUFFLED_SAMPLING, SHUFFLED_TRAINING):
        assert report.mean(arm, "both") < 0.1, arm
    content = json.loads((tmp_path / "proof.json").read_text(encoding="utf-8"))
    found = content["seeds"][0]["unseen"][LATTICE_ARM]["both"]
    assert np.isclose(found, report.mean(LATTICE_ARM, "both"))
    assert (tmp_path / "proof.png").stat().st_size > 1000
    again = run_proof(tmp_path, config=tiny, device="cpu")
    assert again.results == report.results
