"""Run the demo with very little training."""

import pytest

from artist.training.config import TrainConfig, VQGANTrainConfig
from experiments.emoji.run import SHUFFLED, WITH, WITHOUT, DemoConfig, DemoReport, Score, run_demo

TINY = DemoConfig(
    vqgan=VQGANTrainConfig(steps=20, ch=32, codebook_size=64, batch_size=8),
    train=TrainConfig(size="nano", text_len=16, max_steps=10, validations=1, ema_decay=0.5),
    variants=1,
)


@pytest.mark.slow
def test_the_demo_writes_a_gallery_and_a_comparison_and_finished_stages_are_not_run_again(tmp_path):
    report = run_demo(tmp_path / "demo", config=TINY, device="cpu")
    assert set(report.scores) == {WITH, WITHOUT, SHUFFLED}
    assert all(0 <= score.scene_unseen <= 1 and score.loss > 0 for score in report.scores.values())
    page = (tmp_path / "demo" / "gallery.html").read_text(encoding="utf-8")
    assert page.count("never seen in training") >= 12
    assert "OpenMoji" in page
    again = run_demo(tmp_path / "demo", config=TINY, device="cpu")
    assert again.scores == report.scores


def test_the_report_contains_the_gallery_the_figures_and_further_commands(tmp_path):
    score = Score(
        scene_unseen=0.9, scene_trained=0.95, thing_trained=0.83, loss=2.5, count=7, trained=9
    )
    report = DemoReport(out=tmp_path, scores={WITH: score}, scenes=16, ceiling=0.97, seconds=60.0)
    text = str(report)
    assert str(tmp_path / "gallery.html") in text
    assert "0.90" in text
    assert "2.500" in text
    assert "0.83" in text
    assert "the VQGAN 0.97" in text
    assert "chance 0.06" in text
    for command in ("kg nearest", "lattice show", "artist predict"):
        assert f"artist-toolkit {command}" in text
