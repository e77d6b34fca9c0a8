"""Previews, plots, TensorBoard, advice and faster modes of a training."""

import json
import logging
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from artist.models.compiled import Compiled
from artist.training import trainer
from artist.training.config import TrainConfig
from artist.training.gpt_training import finetune
from artist.training.memory import advice_on_memory, what_to_lower
from artist.training.metrics import METRICS, MetricsLogger
from data.errors import ConfigError, ToolkitError
from data.schema import LATTICE
from tests.artist.training.test_gpt_training import metrics, same
from tests.artist.world import QUICK, train
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "model"
    train(world, out)
    return out


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_previews_are_generated_at_intervals_and_change_nothing_else(world, plain, tmp_path):
    out = tmp_path / "model"
    train(world, out, preview_every=5)
    grids = sorted((out / "previews").glob("*.png"))
    assert [path.name for path in grids] == ["step-00000005.png", "step-00000010.png"]
    first, second = (pixels(path) for path in grids)
    assert first.shape == (2 * 8 + 2, 8 * 8 + 7 * 2, 3)  # 8 prompts; real above, generated below
    assert (first[:8] == second[:8]).all()
    assert (first[8:] != second[8:]).any()
    prompts = (out / "previews" / "prompts.tsv").read_text("utf-8").splitlines()
    assert len(prompts) == 8
    assert same(plain, out)
    assert metrics(plain) == metrics(out)


def test_previews_of_given_prompts(world, tmp_path):
    row = {"idx": "a", "text": "大象", "input_ids": [5, 6], "seq_len": 2, "lex_ids": [2]}
    table = pa.Table.from_pylist([{**row, "pos_s": [0, 1, 0], "pos_e": [0, 1, 1]}], schema=LATTICE)
    config = replace(QUICK, max_steps=2, preview_every=2)
    out = tmp_path / "model"
    finetune(world.train, **world.inputs, out=out, config=config, preview_prompts=table)
    folder = tmp_path / "model" / "previews"
    assert pixels(folder / "step-00000002.png").shape == (8, 8, 3)
    assert (folder / "prompts.tsv").read_text("utf-8") == "a\t大象\n"


def test_a_finished_run_has_a_plot_and_metrics_of_steps_and_validations(plain):
    svg = (plain / "loss.svg").read_text("utf-8")
    assert "validation" in svg
    lines = [json.loads(line) for line in (plain / METRICS).read_text().splitlines()]
    steps = [line for line in lines if "valid_loss" not in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert all(line["images_per_second"] > 0 and line["gradient_norm"] > 0 for line in steps)
    assert [line["step"] for line in lines if "valid_loss" in line] == [4, 8, 12]
    validation = next(line for line in lines if "valid_loss" in line)
    assert validation["train_loss"] == pytest.approx(np.mean([s["train_loss"] for s in steps[:4]]))


def test_tensorboard_has_the_same_figures(world, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "model"
    train(world, out, tensorboard=True, preview_every=6)
    events = reader.EventAccumulator(str(out / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    want = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert [point.value for point in events.Scalars("valid_loss")] == pytest.approx(want)
    assert [point.step for point in events.Images("previews")] == [6, 12]


def test_without_tensorboard_the_error_names_what_to_install(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'artist-toolkit\[tensorboard\]'"):
        train(world, tmp_path / "model", tensorboard=True)


def test_float16_trains_with_a_scaled_loss(world, tmp_path, monkeypatch):
    """On a CPU, which users cannot select; the arithmetic is that of a GPU."""
    scales = []
    monkeypatch.setattr(trainer, "choose_dtype", lambda *_: torch.float16)
    real = trainer.DivergenceGuard.check
    monkeypatch.setattr(
        trainer.DivergenceGuard,
        "check",
        lambda *a: (scales.append(a[-1]), real(*a)),
    )
    report = train(world, tmp_path / "half", epochs=10, dropout=0.0)
    monkeypatch.undo()
    whole = train(world, tmp_path / "whole", epochs=10, dropout=0.0)
    assert max(scales) > 1000
    assert report.valid_loss == pytest.approx(whole.valid_loss, abs=0.02)


def test_checkpointed_activations_do_not_change_the_result(world, plain, tmp_path):
    train(world, tmp_path / "model", checkpoint_activations=True)
    assert same(plain, tmp_path / "model")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # raised by torch itself
def test_without_a_compiler_a_warning_is_logged_and_the_run_continues(caplog, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/c++",))
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU())
    compiled = Compiled(module)
    with caplog.at_level(logging.WARNING):
        result = compiled(torch.ones(2, 3))
    assert torch.equal(result, module(torch.ones(2, 3)))
    assert "--compile does not work here" in caplog.text
    assert "continuing without it" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_training_reaches_the_same_loss(world, tmp_path):
    pytest.importorskip("torch._inductor")
    plain = train(world, tmp_path / "plain", dropout=0.0)
    fast = train(world, tmp_path / "compiled", dropout=0.0, compile=True)
    assert fast.valid_loss == pytest.approx(plain.valid_loss, abs=1e-3)


def test_fusion_easynlp_has_the_released_codes_number_of_entities_by_default():
    assert TrainConfig.preset("default", fusion="easynlp").max_entities == 10
    assert TrainConfig.preset("easynlp", fusion="easynlp", max_entities=4).max_entities == 4
    assert TrainConfig.preset("easynlp").max_entities == TrainConfig().max_entities


def test_a_preset_refuses_a_setting_that_does_not_exist():
    with pytest.raises(ConfigError, match='did you mean "learning_rate"'):
        TrainConfig.preset("default", learnin_rate=1.0)


def test_running_out_of_memory_lists_what_to_lower_in_order():
    config = TrainConfig(batch_size=64, precision="fp32")
    with (
        pytest.raises(ToolkitError, match=r"out of memory .*can't allocate memory.* Try") as caught,
        advice_on_memory(what_to_lower(config, 2), "The run resumes."),
    ):
        torch.empty(1 << 55)  # the message of CPUs
    message = str(caught.value)
    order = ["--micro-batch-size 16 (now 32", "--checkpoint-activations", "--precision auto",
             "--size small", "The run resumes."]  # fmt: skip
    assert [message.index(part) for part in order] == sorted(message.index(part) for part in order)
    with (
        pytest.raises(ToolkitError, match="out of memory"),
        advice_on_memory(what_to_lower(config), ""),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="shapes"), advice_on_memory(what_to_lower(config), ""):
        raise RuntimeError("shapes do not fit")
    least = TrainConfig(size="nano", batch_size=1, checkpoint_activations=True)
    assert what_to_lower(least) == "Use a larger machine."


def test_a_training_that_runs_out_of_memory_reports_one_line(world, tmp_path):
    """The process is limited to little more memory than torch itself needs."""
    options = ("--size", "tiny", "--batch-size", 16, "--text-len", 4096, "--max-steps", 1)
    done = subprocess.run(
        [sys.executable, *world.command(tmp_path / "model", *options)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 2, done.stderr
    assert "error: out of memory" in done.stderr
    assert "--micro-batch-size 8 (now 16" in done.stderr


def test_a_truncated_last_line_of_the_metrics_does_not_stop_a_resumed_run(world, tmp_path):
    path = Path(tmp_path) / METRICS
    path.write_text('{"step": 1, "train_loss": 2.0}\n{"step": 2, "tr')
    with MetricsLogger(tmp_path, total_steps=4, images_per_step=1) as logger:
        logger.start(1)
    assert path.read_text() == '{"step": 1, "train_loss": 2.0}\n'
