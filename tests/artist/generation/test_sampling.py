"""Sampling codes: filters, seeds, and the plain sampler as the reference of the others."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from artist.generation.config import CFG_SCHEDULES, SamplingConfig
from artist.generation.cuda_graph import CUDAGraphSampler
from artist.generation.sampling import (
    guidance_scale,
    keep_top_k,
    keep_top_p,
    sample,
    sample_code,
    sample_plain,
)
from artist.models.gpt import GPT
from data.errors import ConfigError
from tests.artist.models.test_gpt import TINY, L, T, entities_of, ids_of, model_of

EMPTY = torch.full((T,), 9)

logits = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=2, max_size=12).map(
    lambda row: torch.tensor([row])
)


@settings(max_examples=15, deadline=None)
@given(
    fusion=st.sampled_from(["lattice", "easynlp", "none"]),
    scale=st.sampled_from([1.0, 2.5]),
    top_k=st.sampled_from([None, 1, 4]),
    top_p=st.sampled_from([None, 0.8]),
    schedule=st.sampled_from(CFG_SCHEDULES),
    kept=st.integers(0, L),
)
def test_all_samplers_give_the_codes_of_the_plain_one(fusion, scale, top_k, top_p, schedule, kept):
    model, text = model_of(fusion), ids_of(2)[:, :T]
    entities = entities_of([[(0, 2), (1, 4)], []])
    config = SamplingConfig(cfg_scale=scale, cfg_schedule=schedule, top_k=top_k, top_p=top_p)
    given = torch.arange(2 * kept).view(2, kept) % model.config.image_vocab_size
    fast, slow = (
        run(model, text, entities, [5, 6], config, empty_ids=EMPTY, given=given)
        for run in (sample, sample_plain)
    )
    assert fast.shape == (2, L)
    assert torch.equal(fast, slow)
    assert torch.equal(fast[:, :kept], given)
    sampler = CUDAGraphSampler(model, 3, config, empty_ids=EMPTY)
    for _ in range(2):  # no state of the first call may affect the second
        assert torch.equal(sampler.sample(text, entities, [5, 6], given=given), slow)


@settings(max_examples=25, deadline=None)
@given(
    fusion=st.sampled_from(["lattice", "easynlp", "none"]),
    scale=st.sampled_from([1.0, 2.5]),
    top_k=st.sampled_from([None, 1, 4]),
    window=st.integers(2, L + 1),
    kept=st.integers(0, L),
    seed=st.integers(0, 99),
)
def test_several_codes_per_pass_are_those_of_one_per_pass(fusion, scale, top_k, window, kept, seed):
    model, text = model_of(fusion), ids_of(1)[:, :T]
    entities = entities_of([[(0, 2), (1, 4)]])
    config = SamplingConfig(
        cfg_scale=scale, cfg_schedule="linear", top_k=top_k, jacobi_window=window
    )
    given = torch.arange(kept)[None] % model.config.image_vocab_size
    fast, slow = (
        run(model, text, entities, [seed], config, empty_ids=EMPTY, given=given)
        for run in (sample, sample_plain)
    )
    assert torch.equal(fast, slow)
    assert torch.equal(fast[:, :kept], given)


def test_codes_that_do_not_depend_on_each_other_need_three_passes():
    model, passes = model_of(), 0
    torch.nn.init.zeros_(model.tok_emb.weight)

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_hook(count)
    sample(model, ids_of(1)[:, :T], None, [3], SamplingConfig(jacobi_window=L))
    assert passes <= 3  # the text, a pass from guesses, a pass from right ones
    assert L > 3


def test_images_sampled_with_a_window_follow_the_distribution_of_the_model():
    torch.manual_seed(0)
    model = GPT(replace(TINY, image_vocab_size=3, image_len=4, fusion="none")).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    text = torch.arange(3, 3 + T)[None]
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)  # (81, 4)
    expected = 600 * (-model.code_losses(text.expand(81, T), every).sum(1)).exp().detach()
    config = SamplingConfig(top_k=None, jacobi_window=3)
    images = torch.cat([sample(model, text, None, [seed], config) for seed in range(600)])
    found = (images @ torch.tensor([27, 9, 3, 1])).bincount(minlength=81)
    rare = expected < 5
    found, expected = (
        torch.cat([counts[~rare], counts[rare].sum()[None]]) for counts in (found, expected)
    )
    statistic = ((found - expected) ** 2 / expected).sum().item()
    assert rare.any()
    assert chi2.sf(statistic, len(expected) - 1) > 0.01


@pytest.mark.parametrize("window", [None, 4])
def test_a_completed_image_equals_the_one_its_codes_are_from(window):
    model, text = model_of(), ids_of(2)[:, :T]
    entities = entities_of([[(0, 2)], []])
    config = SamplingConfig(top_k=None, jacobi_window=window)
    whole = sample(model, text, entities, [5, 6], config)
    again = sample(model, text, entities, [5, 6], config, given=whole[:, : L // 2])
    assert torch.equal(again, whole)


@pytest.mark.parametrize(
    ("schedule", "scales"),
    [("constant", [3, 3, 3, 3, 3]), ("linear", [1, 1.5, 2, 2.5, 3]), ("cosine", [1, 2, 3])],
)
def test_a_schedule_sets_the_scale_from_the_first_code_to_the_last(schedule, scales):
    config = SamplingConfig(cfg_scale=3.0, cfg_schedule=schedule)
    found = [guidance_scale(config, n, len(scales)) for n in range(len(scales))]
    assert found == pytest.approx(scales)


@pytest.mark.parametrize("window", [None, 4])
def test_a_row_depends_on_its_seed_and_not_on_its_batch(window):
    model, text = model_of(), ids_of(3)[:, :T]
    entities = entities_of([[(0, 2)], [(1, 4), (2, 3)], []])
    config = SamplingConfig(top_k=None, jacobi_window=window)
    together = sample(model, text, entities, [11, 12, 13], config)
    for n, seed in enumerate([11, 12, 13]):
        one = type(entities)(
            entities.vectors[n : n + 1], entities.covers[n : n + 1], entities.filler
        )
        assert torch.equal(sample(model, text[n : n + 1], one, [seed], config)[0], together[n])


def test_another_seed_gives_another_image():
    model, text = model_of(), ids_of(1)[:, :T]
    found = {tuple(sample(model, text, None, [s], SamplingConfig())[0].tolist()) for s in range(9)}
    assert len(found) > 1


@given(row=logits, k=st.integers(1, 15))
def test_top_k_keeps_the_k_most_likely_and_their_ties(row, k):
    kept = keep_top_k(row, k).isfinite()[0]
    ordered = sorted(row[0].tolist(), reverse=True)
    smallest = ordered[min(k, len(ordered)) - 1]
    assert kept.tolist() == [x >= smallest for x in row[0].tolist()]


@given(row=logits, p=st.floats(0.05, 1.0))
def test_top_p_keeps_the_smallest_sufficient_set(row, p):
    kept = keep_top_p(row, p).isfinite()[0]
    chance = row.softmax(-1)[0]
    held = chance[kept].sum()
    assert held >= p - 1e-5
    assert held - chance[kept].min() < p + 1e-5  # minimal: smaller without its least likely one
    assert chance[kept].min() >= chance[~kept].max() - 1e-6 if (~kept).any() else True


@given(row=logits, uniform=st.floats(0, 1, exclude_max=True), k=st.integers(1, 4))
def test_a_sampled_code_is_one_that_the_filters_kept(row, uniform, k):
    code = sample_code(row, torch.tensor([uniform]), SamplingConfig(top_k=k))
    assert keep_top_k(row, k)[0, code].isfinite()


def test_sampled_codes_follow_their_distribution():
    row = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    codes = sample_code(row.expand(100_000, 4), uniform, SamplingConfig(top_k=None))
    share = codes.bincount(minlength=4) / 100_000
    torch.testing.assert_close(share, row.softmax(-1)[0], atol=1e-4, rtol=0)


def test_the_largest_number_below_one_never_selects_a_filtered_code():
    row = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    code = sample_code(row, torch.tensor([1 - 2**-24]), SamplingConfig(top_k=2))
    assert code.item() == 1


def test_guidance_without_an_empty_caption_is_refused():
    with pytest.raises(ConfigError, match="empty caption"):
        sample(model_of(), ids_of(1)[:, :T], None, [0], SamplingConfig(cfg_scale=2.0))


def test_bfloat16_samples_valid_codes():
    model: GPT = model_of()
    codes = sample(model, ids_of(2)[:, :T], None, [1, 2], SamplingConfig(), dtype=torch.bfloat16)
    assert codes.shape == (2, L)
    assert ((codes >= 0) & (codes < model.config.image_vocab_size)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "use top_k=1"),
        ({"top_k": 0}, "at least 1"),
        ({"top_p": 1.5}, "top_p"),
        ({"jacobi_window": 1}, "at least 2"),
        ({"cfg_schedule": "square"}, "constant, linear, cosine"),
    ],
)
def test_errors_of_invalid_settings_offer_alternatives(wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(SamplingConfig(), **wrong)
