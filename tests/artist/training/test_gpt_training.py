"""Training: it learns, it is reproducible, and being killed changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from artist.evaluation.evaluator import evaluate
from artist.formats.model_folder import load_model
from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batches, RowsConfig, read_rows, unit_scale
from artist.training.gpt_task import CodeLoss
from artist.training.gpt_training import finetune
from artist.training.metrics import METRICS
from artist.training.optimizers import make_optimizers
from artist.training.trainer import Trainer
from artist.training.training_inputs import start_from
from data.errors import (
    ArtefactError,
    ConfigError,
    InputError,
    Interrupted,
    SchemaError,
    ToolkitError,
)
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, read_vectors, write_names
from data.runs import read_manifest
from tests.artist.world import NAMES, QUICK, World, make_world
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(world: World, out: Path, **changes: object):
    config = replace(QUICK, **changes)
    return finetune(
        world.train, valid=world.valid, kg=world.kg, vqgan=world.vqgan, out=out, config=config
    )


def batches_of(world: World) -> Batches:
    """The training table, for a nano model."""
    rows = read_rows(world.train, RowsConfig(text_len=6, pad_id=0, max_entities=4))
    sizes = {"image_vocab_size": 8, "text_len": 6, "image_len": 16, "n_layer": 1, "n_head": 1}
    return Batches(rows, read_vectors(world.kg), GPTConfig(n_embd=8, **sizes))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def metrics(out: Path) -> list[dict[str, float]]:
    lines = (out / METRICS).read_text().splitlines()
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    return out, run(world, out)


def test_a_model_learns_what_its_entities_say(world, tmp_path):
    report = run(world, tmp_path / "model", epochs=30, ema_decay=0.9, dropout=0.0)
    assert report.valid_loss < 0.5  # 2.08 nats is chance among eight codes
    found = evaluate(world.valid, model=tmp_path / "model", kg=world.kg)
    groups = found.findings.likelihood.groups
    assert groups["all"].captions == groups["with entity"].captions == 16
    assert groups["all"].losses["given"].mean == pytest.approx(report.valid_loss, abs=1e-3)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(world, trained, tmp_path):
    run(world, tmp_path / "again")
    run(world, tmp_path / "other", seed=1)
    assert same(trained[0], tmp_path / "again")
    assert not same(trained[0], tmp_path / "other")


def test_a_finished_run_says_so_and_does_nothing(world, trained):
    out, first = trained
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = run(world, out)
    assert again.already_finished
    assert again.valid_loss == first.valid_loss
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_in_the_way_is_refused_unless_it_may_be_replaced(world, trained, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(trained[0], out)
    with pytest.raises(ArtefactError, match="belongs to another run"):
        run(world, out, seed=5)
    assert same(trained[0], out)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon", "keep": "last"}])
def test_a_failed_run_resumed_equals_an_uninterrupted_one(world, tmp_path, monkeypatch, changes):
    out, whole, step = tmp_path / "model", tmp_path / "whole", Trainer._train_step
    run(world, whole, **changes)

    def failing(self: Trainer, *rest: object) -> bool:
        if self.step == 7:
            raise RuntimeError("the machine went away")
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "_train_step", failing)
    with pytest.raises(RuntimeError, match="went away"):
        run(world, out, checkpoint_seconds=0.0, **changes)
    assert not out.exists()
    monkeypatch.setattr(Trainer, "_train_step", step)
    run(world, out, checkpoint_seconds=0.0, **changes)
    assert same(whole, out)
    assert metrics(whole) == metrics(out)
    assert not list(out.rglob("*.pt"))


def test_the_last_weights_are_kept_when_asked_for(world, tmp_path):
    best = run(world, tmp_path / "best", epochs=40, learning_rate=0.03, ema_decay=0.0)
    last = run(world, tmp_path / "last", epochs=40, learning_rate=0.03, ema_decay=0.0, keep="last")
    assert (last.best_loss, last.best_step) == (best.best_loss, best.best_step)
    assert best.kept_step == best.best_step
    assert last.kept_step == last.steps
    assert same(tmp_path / "best", tmp_path / "last") == (best.best_step == best.steps)


def test_muon_moves_the_blocks_matrices_and_adamw_everything_else():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, text_vocab_size=9, image_vocab_size=5))
    muon, adamw = make_optimizers(model, replace(QUICK, optimizer="muon"))
    by_muon, by_adamw = (
        {id(p) for group in o.param_groups for p in group["params"]} for o in (muon, adamw)
    )
    names = {n for n, p in model.named_parameters() if id(p) in by_muon}
    assert names == {f"blocks.0.{n}.weight" for n in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")}
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {id(p) for p in model.parameters()}


def _start(world: World, out: Path) -> subprocess.Popen[str]:
    """The same training in another process, slowly enough to be interrupted."""
    code = f"""
import sys, time
from pathlib import Path
from dataclasses import replace
from artist.training.gpt_training import finetune
from artist.training.trainer import Trainer
from data.errors import Interrupted
from data.kg_folder import VECTORS, VECTORS_KEY, read_vectors
from tests.artist.world import QUICK
step = Trainer._train_step
def slow(self, *rest):
    time.sleep(0.2)
    return step(self, *rest)
Trainer._train_step = slow
try:
    finetune(Path({str(world.train)!r}), valid=Path({str(world.valid)!r}),
             kg=Path({str(world.kg)!r}), vqgan=Path({str(world.vqgan)!r}),
             out=Path({str(out)!r}), config=replace(QUICK, checkpoint_seconds=0.0))
except Interrupted as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(130)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )


def _wait_for_checkpoint(out: Path, process: subprocess.Popen[str]) -> None:
    folder = out.with_name("model.partial") / "checkpoints"
    while not list(folder.glob("step-*.pt")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_really_killed_ends_as_if_it_had_not_been(world, trained, tmp_path, number):
    out = tmp_path / "model"
    process = _start(world, out)
    _wait_for_checkpoint(out, process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert not out.exists()
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "Repeat the command to continue" in said
    run(world, out, checkpoint_seconds=0.0)
    assert same(trained[0], out)


def test_micro_batches_change_the_speed_and_not_the_result(world, tmp_path):
    whole = run(world, tmp_path / "whole", dropout=0.0, caption_dropout=0.0)
    parts = run(world, tmp_path / "parts", dropout=0.0, caption_dropout=0.0, micro_batch_size=2)
    assert parts.valid_loss == pytest.approx(whole.valid_loss, abs=1e-4)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(
    world, trained, tmp_path, monkeypatch
):
    out, real = tmp_path / "model", CodeLoss.forward
    calls = []

    def breaking(self: CodeLoss, *batch: object) -> torch.Tensor:
        calls.append(1)
        return real(self, *batch) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(CodeLoss, "forward", breaking)
    with pytest.raises(ToolkitError, match=r"the loss at step 6 is nan .* Lower --learning-rate"):
        run(world, out, checkpoint_seconds=0.0)
    assert not out.exists()
    (checkpoint,) = tmp_path.glob("model.partial/checkpoints/step-*.pt")
    assert checkpoint.name == "step-00000006.pt"
    monkeypatch.undo()
    run(world, out)
    assert same(trained[0], out)


def test_a_model_with_knowledge_can_begin_as_one_without(world, tmp_path):
    run(world, tmp_path / "plain", fusion="none")
    plain = load_model(tmp_path / "plain")
    start = finetune(
        world.train,
        valid=world.valid,
        kg=world.kg,
        vqgan=world.vqgan,
        out=tmp_path / "knowing",
        config=replace(QUICK, max_steps=1, learning_rate=1e-12, ema_decay=0.0),
        init=tmp_path / "plain",
    )
    assert plain.kg_fingerprint == ""
    want = read_manifest(tmp_path / "plain").counts["valid_loss"]
    assert start.valid_loss == pytest.approx(want, abs=1e-5)


def test_knowledge_that_begins_as_nothing_is_moved_by_training(world, tmp_path):
    """The painter's outputs to the bit at first, whatever the entities; not after some steps."""
    run(world, tmp_path / "plain", fusion="none")
    painter = load_model(tmp_path / "plain").gpt
    knowing = GPT(replace(painter.config, fusion="lattice")).eval()
    start_from(knowing, tmp_path / "plain")
    batches = batches_of(world)
    batch = Batches(batches.rows, batches.vectors, knowing.config).get(np.arange(8))
    ids = painter.text_ids(batch.conditioning.token_ids)
    with torch.no_grad():
        want = painter.code_losses(ids, batch.codes)
        assert torch.equal(knowing.code_losses(ids, batch.codes, batch.conditioning.entities), want)
    finetune(
        world.train, valid=world.valid, kg=world.kg, vqgan=world.vqgan, out=tmp_path / "knowing",
        config=replace(QUICK, keep="last", ema_decay=0.0), init=tmp_path / "plain",
    )  # fmt: skip
    trained = load_model(tmp_path / "knowing").gpt
    assert trained.fusion.project.weight.abs().max() > 1e-4
    with torch.no_grad():
        with_entities = trained.code_losses(ids, batch.codes, batch.conditioning.entities)
        assert (with_entities - trained.code_losses(ids, batch.codes)).abs().max() > 1e-4


def test_vectors_speak_as_loudly_as_layers_expect_and_a_model_goes_on_at_its_own_scale(
    world, tmp_path, trained
):
    assert load_model(trained[0]).gpt.config.entity_scale == pytest.approx(10)  # unit vectors, 100
    loud = tmp_path / "kg"
    shutil.copytree(world.kg, loud)
    save_file({VECTORS_KEY: 4 * np.array(read_vectors(world.kg))}, loud / VECTORS)
    gpt = load_model(trained[0]).gpt
    louder = GPT(replace(gpt.config, entity_scale=unit_scale(read_vectors(loud))))
    assert louder.config.entity_scale == pytest.approx(2.5)
    start_from(louder, trained[0])
    entities = Entities(torch.randn(1, 1, 100), torch.ones(1, 1, 6, dtype=torch.bool), None)
    text = torch.randn(1, 6, gpt.config.n_embd)
    torch.testing.assert_close(louder.fusion(text, entities), gpt.fusion(text, entities))


def test_a_model_folder_loads_with_one_call_and_names_what_it_was_made_from(world, trained):
    model = load_model(trained[0])
    manifest = read_manifest(trained[0])
    assert model.gpt.config.image_len == 16
    assert model.tokenizer.vocab_size == model.gpt.config.text_vocab_size
    assert manifest.inputs["kg"] == model.kg_fingerprint
    assert manifest.settings["train"]["seed"] == 0
    assert {"model.safetensors", "vocab.txt", "vqgan/model.safetensors"} <= manifest.files.keys()


def test_a_table_of_another_graph_is_refused(world, tmp_path):
    other = tmp_path / "kg"
    shutil.copytree(world.kg, other)
    write_names(other / ENTITY_NAMES, NAMES[::-1])
    with pytest.raises(SchemaError, match="was built with another KG"):
        finetune(
            world.train,
            valid=world.valid,
            kg=other,
            vqgan=world.vqgan,
            out=tmp_path / "model",
            config=QUICK,
        )


def test_a_table_without_its_tokenizer_says_what_is_missing(world, tmp_path):
    shutil.copy(world.train, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet.tokenizer is missing"):
        finetune(
            tmp_path / "train.parquet",
            valid=world.valid,
            kg=world.kg,
            vqgan=world.vqgan,
            out=tmp_path / "model",
            config=QUICK,
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": "huge"}, "use one of nano, tiny, small, base, large"),
        ({"batch_size": 6, "micro_batch_size": 4}, "not a multiple"),
        ({"epochs": 0}, "at least 1"),
        ({"optimizer": "sgd"}, "use adamw or muon"),
        ({"keep": "first"}, "use best or last"),
        ({"caption_dropout": 1.0}, "must be in"),
    ],
)
def test_an_impossible_setting_says_what_to_use(wrong, said):
    with pytest.raises(ConfigError, match=said):
        replace(QUICK, **wrong)


def test_patience_ends_a_run_that_no_longer_improves(world, tmp_path):
    report = run(
        world, tmp_path / "model", epochs=200, learning_rate=0.3, validations=50, patience=2
    )
    assert report.steps < 800
    assert report.best_step < report.steps


def test_interrupted_is_for_the_user_and_not_a_crash():
    assert issubclass(Interrupted, ToolkitError)
