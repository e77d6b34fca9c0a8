"""Trainings of a GPT learn, are reproducible, and resume exactly."""

import json
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from artist.evaluation.config import Sources
from artist.evaluation.evaluator import evaluate
from artist.formats.model_folder import load_model, save_model
from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batches, RowsConfig, read_rows, unit_scale
from artist.training.gpt_task import CodeLoss
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
from data.tokenizer import Tokenizer
from tests.artist.world import NAMES, QUICK, World, start_training, train, wait_for_checkpoint


def batches_of(world: World, **settings: Any) -> Batches:
    """Return the batches of the training table for a nano model with these settings."""
    rows = read_rows(world.train, RowsConfig(text_len=6, pad_id=0, max_entities=4))
    sizes = {"image_vocab_size": 8, "text_len": 6, "image_len": 16, "n_layer": 1, "n_head": 1}
    return Batches(rows, read_vectors(world.kg), GPTConfig(n_embd=8, **sizes, **settings))


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
    return out, train(world, out)


def test_a_model_learns_the_codes_of_its_entities(world, tmp_path):
    report = train(world, tmp_path / "model", epochs=30, ema_decay=0.9, dropout=0.0)
    assert report.valid_loss < 0.5  # 2.08 nats is chance among eight codes
    found = evaluate(Sources(table=world.valid, model=tmp_path / "model", kg=world.kg))
    groups = found.findings.likelihood.groups
    assert groups["all"].captions == groups["with entity"].captions == 16
    assert groups["all"].losses["given"].mean == pytest.approx(report.valid_loss, abs=1e-3)


def test_weights_depend_on_the_seed_only(world, trained, tmp_path):
    train(world, tmp_path / "again")
    train(world, tmp_path / "other", seed=1)
    assert same(trained[0], tmp_path / "again")
    assert not same(trained[0], tmp_path / "other")


def test_a_finished_run_is_reported_and_unchanged(world, trained):
    out, first = trained
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = train(world, out)
    assert again.already_finished
    assert again.valid_loss == first.valid_loss
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_the_output_of_another_run_is_refused(world, trained, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(trained[0], out)
    with pytest.raises(ArtefactError, match="belongs to another run"):
        train(world, out, seed=5)
    assert same(trained[0], out)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon", "keep": "last"}])
def test_a_failed_run_resumed_equals_an_uninterrupted_one(world, tmp_path, monkeypatch, changes):
    out, whole, step = tmp_path / "model", tmp_path / "whole", Trainer._train_step
    train(world, whole, **changes)

    def failing(self: Trainer, *rest: object) -> bool:
        if self.step == 7:
            raise RuntimeError("the machine went away")
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "_train_step", failing)
    with pytest.raises(RuntimeError, match="went away"):
        train(world, out, checkpoint_seconds=0.0, **changes)
    assert not out.exists()
    monkeypatch.setattr(Trainer, "_train_step", step)
    train(world, out, checkpoint_seconds=0.0, **changes)
    assert same(whole, out)
    assert metrics(whole) == metrics(out)
    assert not list(out.rglob("*.pt"))


def test_keep_selects_the_best_or_the_last_weights(world, tmp_path):
    changes = {"epochs": 40, "learning_rate": 0.03, "ema_decay": 0.0}
    best = train(world, tmp_path / "best", **changes)
    last = train(world, tmp_path / "last", **changes, keep="last")
    assert (last.best_loss, last.best_step) == (best.best_loss, best.best_step)
    assert best.kept_step == best.best_step
    assert last.kept_step == last.steps
    assert same(tmp_path / "best", tmp_path / "last") == (best.best_step == best.steps)


def test_muon_updates_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, text_vocab_size=9, image_vocab_size=5))
    muon, adamw = make_optimizers(model, replace(QUICK, optimizer="muon"))
    by_muon, by_adamw = (
        {id(p) for group in o.param_groups for p in group["params"]} for o in (muon, adamw)
    )
    names = {n for n, p in model.named_parameters() if id(p) in by_muon}
    assert names == {f"blocks.0.{n}.weight" for n in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")}
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_to_the_same_weights(world, trained, tmp_path, number):
    out = tmp_path / "model"
    process = start_training(world, out, asdict(replace(QUICK, checkpoint_seconds=0.0)), wait=0.2)
    wait_for_checkpoint(out, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert not out.exists()
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "Repeat the command to continue" in output
    train(world, out, checkpoint_seconds=0.0)
    assert same(trained[0], out)


def test_micro_batches_do_not_change_the_result(world, tmp_path):
    whole = train(world, tmp_path / "whole", dropout=0.0, caption_dropout=0.0)
    parts = train(world, tmp_path / "parts", dropout=0.0, caption_dropout=0.0, micro_batch_size=2)
    assert parts.valid_loss == pytest.approx(whole.valid_loss, abs=1e-4)


def test_a_loss_of_nan_stops_the_run_and_keeps_the_checkpoint(
    world, trained, tmp_path, monkeypatch
):
    out, real = tmp_path / "model", CodeLoss.forward
    calls = []

    def breaking(self: CodeLoss, *batch: object) -> torch.Tensor:
        calls.append(1)
        return real(self, *batch) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(CodeLoss, "forward", breaking)
    with pytest.raises(ToolkitError, match=r"the loss at step 6 is nan .* Lower --learning-rate"):
        train(world, out, checkpoint_seconds=0.0)
    assert not out.exists()
    (checkpoint,) = tmp_path.glob("model.partial/checkpoints/step-*.pt")
    assert checkpoint.name == "step-00000006.pt"
    monkeypatch.undo()
    train(world, out)
    assert same(trained[0], out)


def test_init_from_a_model_without_knowledge_keeps_its_loss(world, tmp_path):
    train(world, tmp_path / "plain", fusion="none")
    plain = load_model(tmp_path / "plain")
    changes = {"max_steps": 1, "learning_rate": 1e-12, "ema_decay": 0.0}
    start = train(world, tmp_path / "fused", init=tmp_path / "plain", **changes)
    assert plain.kg_fingerprint == ""
    want = read_manifest(tmp_path / "plain").counts["valid_loss"]
    assert start.valid_loss == pytest.approx(want, abs=1e-5)


def test_a_training_keeps_the_text_scale_of_the_model_that_it_starts_from(world, tmp_path):
    """An imported model has 1: ten times larger text embeddings would destroy what it learned."""
    train(world, tmp_path / "imported", fusion="none", text_scale=1.0)
    changes = {"max_steps": 1, "learning_rate": 1e-12, "text_scale": 10.0}
    train(world, tmp_path / "tuned", init=tmp_path / "imported", **changes)
    assert load_model(tmp_path / "tuned").gpt.config.text_scale == 1.0


def test_names_seen_by_the_model_that_a_training_starts_from_stay_seen(world, tmp_path, trained):
    first = load_model(trained[0])
    one = np.array([int(first.seen[0]), 10**6], dtype=np.int64)
    shutil.copytree(trained[0], tmp_path / "first")
    save_model(tmp_path / "first", replace(first, seen=one))
    train(world, tmp_path / "second", init=tmp_path / "first", max_steps=1)
    assert load_model(tmp_path / "second").seen.tolist() == [*first.seen.tolist(), 10**6]


def test_a_model_trained_with_name_dropout_does_not_read_names_it_never_saw(world, tmp_path):
    """Their characters cannot matter; with names seen in training, or without dropout, they do."""
    train(world, tmp_path / "model", max_steps=2, name_dropout=0.5)
    model = load_model(tmp_path / "model")
    unknown = Tokenizer.load(tmp_path / "model").unk_id
    assert model.gpt.config.unknown_id == unknown
    rows = batches_of(world).rows
    row = int(np.flatnonzero(np.diff(rows.first_entity))[0])
    begin, end = rows.first_entity[row : row + 2]
    covered = np.zeros(rows.bert_ids.shape[1], dtype=bool)
    for start, stop in zip(rows.starts[begin:end], rows.ends[begin:end], strict=True):
        covered[start:stop] = True

    def ids(seen, config=model.gpt.config):
        batch = Batches(rows, read_vectors(world.kg), config, seen).get(np.array([row]))
        return batch.conditioning.token_ids[0].numpy()

    none = np.zeros(0, dtype=np.int64)
    assert (ids(none)[covered] == unknown).all()
    assert (ids(none)[~covered] == rows.bert_ids[row][~covered]).all()
    for same in (ids(model.seen), ids(None), ids(none, replace(model.gpt.config, unknown_id=None))):
        assert (same == rows.bert_ids[row]).all()


def test_a_fusion_initialised_to_zero_is_trained(world, tmp_path):
    """At first the outputs equal those without knowledge, bit for bit; not after some steps."""
    train(world, tmp_path / "plain", fusion="none")
    plain = load_model(tmp_path / "plain").gpt
    fused = GPT(replace(plain.config, fusion="lattice")).eval()
    start_from(fused, load_model(tmp_path / "plain"), "plain")
    batches = batches_of(world)
    batch = Batches(batches.rows, batches.vectors, fused.config).get(np.arange(8))
    ids = plain.text_ids(batch.conditioning.token_ids)
    with torch.no_grad():
        want = plain.code_losses(ids, batch.codes)
        assert torch.equal(fused.code_losses(ids, batch.codes, batch.conditioning.entities), want)
    train(world, tmp_path / "fused", init=tmp_path / "plain", keep="last", ema_decay=0.0)
    trained = load_model(tmp_path / "fused").gpt
    assert trained.fusion.project.weight.abs().max() > 1e-4
    with torch.no_grad():
        with_entities = trained.code_losses(ids, batch.codes, batch.conditioning.entities)
        assert (with_entities - trained.code_losses(ids, batch.codes)).abs().max() > 1e-4


def test_entity_vectors_are_scaled_and_init_preserves_the_fusion(world, tmp_path, trained):
    assert load_model(trained[0]).gpt.config.entity_scale == pytest.approx(10)  # unit vectors, 100
    scaled = tmp_path / "kg"
    shutil.copytree(world.kg, scaled)
    save_file({VECTORS_KEY: 4 * np.array(read_vectors(world.kg))}, scaled / VECTORS)
    gpt = load_model(trained[0]).gpt
    rescaled = GPT(replace(gpt.config, entity_scale=unit_scale(read_vectors(scaled))))
    assert rescaled.config.entity_scale == pytest.approx(2.5)
    start_from(rescaled, load_model(trained[0]), "trained")
    entities = Entities(torch.randn(1, 1, 100), torch.ones(1, 1, 6, dtype=torch.bool), None)
    text = torch.randn(1, 6, gpt.config.n_embd)
    torch.testing.assert_close(rescaled.fusion(text, entities), gpt.fusion(text, entities))


def test_a_model_folder_loads_and_its_manifest_names_the_inputs(world, trained):
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
        train(replace(world, kg=other), tmp_path / "model")


def test_a_table_without_its_tokenizer_is_refused(world, tmp_path):
    shutil.copy(world.train, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet.tokenizer is missing"):
        train(replace(world, train=tmp_path / "train.parquet"), tmp_path / "model")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "huge"}, "use one of nano, tiny, small, base, large"),
        ({"batch_size": 6, "micro_batch_size": 4}, "not a multiple"),
        ({"epochs": 0}, "at least 1"),
        ({"optimizer": "sgd"}, "use adamw or muon"),
        ({"keep": "first"}, "use best or last"),
        ({"caption_dropout": 1.0}, "must be in"),
    ],
)
def test_invalid_settings_are_refused_with_advice(wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(QUICK, **wrong)


def test_patience_ends_a_run_without_improvement(world, tmp_path):
    changes = {"epochs": 200, "learning_rate": 0.3, "validations": 50, "patience": 2}
    report = train(world, tmp_path / "model", **changes)
    assert report.steps < 800
    assert report.best_step < report.steps


def test_an_interruption_is_a_toolkit_error():
    assert issubclass(Interrupted, ToolkitError)
