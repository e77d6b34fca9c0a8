"""Optimizers, schedule, averaged weights, and the guard against divergence."""

import math
from dataclasses import replace

import pytest
import torch

from artist.device import choose_dtype
from artist.models.config import GPTConfig
from artist.models.gpt import GPT
from artist.training.config import PRESETS, TrainConfig
from artist.training.divergence_guard import DivergenceGuard
from artist.training.ema import EMA
from artist.training.optimizers import learning_rate_factor, make_optimizers
from data.errors import ConfigError, ToolkitError

CPU = torch.device("cpu")


def tiny() -> GPT:
    torch.manual_seed(0)
    return GPT(
        GPTConfig(
            text_vocab_size=9, image_vocab_size=5, text_len=3, image_len=4,
            n_layer=2, n_head=2, n_embd=8, entity_dim=4,
        )
    )  # fmt: skip


def losses(gpt: GPT, **options: float) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7], [8, 9, 5]])
    return gpt.code_losses(ids, torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]]), **options)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_has_a_linear_warm_up_and_falls_to_its_minimum(schedule):
    config = TrainConfig(schedule=schedule, warmup=0.1, final_learning_rate=0.2)
    rates = [learning_rate_factor(step, 100, config) for step in range(101)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(0.6)  # half-way in both schedules
    assert rates[30] > 0.83 if schedule == "cosine" else rates[30] < 0.83


def test_the_easynlp_preset_has_the_settings_of_the_released_code():
    config = TrainConfig.preset("easynlp", seed=3)
    (adamw,) = make_optimizers(tiny(), config)
    group = adamw.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (4e-5, (0.9, 0.999), 1e-6)
    assert (group["weight_decay"], adamw.param_groups[1]["weight_decay"]) == (1e-4, 0.0)
    assert (config.grad_clip, config.ema_decay, config.seed) == (1.0, 0.0, 3)
    assert [learning_rate_factor(n, 10, config) for n in (0, 1, 10)] == [1.0, 1.0, 0.0]
    assert learning_rate_factor(0, 100, config) == pytest.approx(0.1)


def test_presets_accept_changes_and_unknown_ones_are_refused_with_the_nearest():
    assert TrainConfig.preset("default") == TrainConfig()
    assert TrainConfig.preset("easynlp", learning_rate=1e-4).learning_rate == 1e-4
    assert set(PRESETS["easynlp"]) <= set(TrainConfig().learning)
    with pytest.raises(ConfigError, match='did you mean "easynlp"'):
        TrainConfig.preset("easynpl")


def test_only_settings_that_affect_the_result_identify_a_run():
    config = TrainConfig()
    for name, value in [
        ("micro_batch_size", 2), ("checkpoint_activations", True), ("compile", True),
        ("checkpoint_seconds", 1.0), ("keep_checkpoints", 3), ("preview_every", 5),
        ("tensorboard", True),
    ]:  # fmt: skip
        assert replace(config, **{name: value}).learning == config.learning
    for name, value in [("seed", 1), ("label_smoothing", 0.1), ("schedule", "linear")]:
        assert replace(config, **{name: value}).learning != config.learning


def test_gradients_are_the_same_with_and_without_checkpointed_activations():
    def gradients(again: bool) -> list[torch.Tensor]:
        gpt = tiny().train()
        gpt.drop.p = 0.3
        for block in gpt.blocks:
            block.mlp[3].p = 0.3  # the recomputation must use the same dropout
        gpt.checkpoint_activations = again
        torch.manual_seed(1)
        losses(gpt).mean().backward()
        return [p.grad for p in gpt.parameters() if p.grad is not None]

    plain, again = gradients(False), gradients(True)
    assert len(plain) == len(again) > 10
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_checkpointed_activations_compute_the_blocks_twice():
    gpt, calls = tiny().train(), []
    gpt.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    gpt.checkpoint_activations = True
    losses(gpt).mean().backward()
    assert len(calls) == 2
    with torch.no_grad():
        losses(gpt)
    assert len(calls) == 3


def test_label_smoothing_spreads_a_share_over_all_codes():
    gpt = tiny().eval()
    ids, codes = torch.tensor([[5, 6, 7]]), torch.tensor([[0, 1, 2, 3]])
    logits = gpt(torch.cat([ids, codes[:, :-1]], 1), first=2)
    shares = torch.full((1, 4, 5), 0.02)
    shares.scatter_(2, codes[..., None], 0.92)
    want = -(shares * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(gpt.code_losses(ids, codes, label_smoothing=0.1), want)


def test_averaged_weights_are_updated_and_applied_temporarily():
    gpt = tiny()
    average = EMA(gpt, 0.5)
    before = gpt.head.weight.detach().clone()
    with torch.no_grad():
        gpt.head.weight.add_(1.0)
    average.update(step=10_000)
    torch.testing.assert_close(average.weights["head.weight"], before + 0.5)
    with average.applied():
        torch.testing.assert_close(gpt.head.weight, before + 0.5)
    torch.testing.assert_close(gpt.head.weight, before + 1.0)


def test_float16_is_refused_on_a_cpu_with_advice():
    with pytest.raises(ConfigError, match=r"fp16 is for GPUs.*Use --precision (bf16|fp32) here"):
        choose_dtype("fp16", CPU)
    assert choose_dtype("fp16", torch.device("cuda")) == torch.float16


def test_a_loss_of_nan_or_above_the_limit_for_long_ends_the_training():
    limit = 3 * math.log(1024)
    guard = DivergenceGuard(limit, learning_rate=1e-3)
    guard.check(0, math.log(1024), 1.0, 1.0)
    assert guard.calm
    for step in range(19):
        guard.check(step, 50.0, 1.0, 1.0)
    assert not guard.calm  # no checkpoint is written
    with pytest.raises(
        ToolkitError, match=r"20 consecutive steps above 20.8.*Lower --learning-rate"
    ):
        guard.check(19, 50.0, 1.0, 1.0)
    guard = DivergenceGuard(limit, learning_rate=1e-3)
    with pytest.raises(ToolkitError, match="the loss at step 3 is nan"):
        guard.check(3, math.nan, 1.0, 1.0)
    guard.check(3, 1.0, math.inf, 1024.0)  # float16 overflowed; its scale is lowered
    with pytest.raises(ToolkitError, match="gradient norm inf"):
        guard.check(3, 1.0, math.inf, 1.0)
