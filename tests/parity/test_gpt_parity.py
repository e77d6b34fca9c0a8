"""The GPT equals the released one in all outputs (EasyNLP, commit a4ee956).

The golden files were made by the unmodified sources on torch 2.13.0, CPU, float32, as described in
their README. Tolerances are the suggested ones: other kernels sum in another order.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from artist.formats.state_dict import from_easynlp, load_strict, to_easynlp
from artist.generation.config import SamplingConfig
from artist.generation.sampling import keep_top_k, sample, sample_plain
from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
from artist.models.gpt import GPT

pytestmark = pytest.mark.parity
CLOSE = {"atol": 2e-5, "rtol": 2e-4}
T = 32


def load(folder: Path, name: str, fusion: str) -> tuple[GPT, dict[str, Tensor]]:
    golden = load_file(folder / f"{name}.safetensors")
    config = GPTConfig(
        text_vocab_size=100,
        image_vocab_size=64,
        n_layer=2,
        n_head=2,
        n_embd=32,
        fusion=fusion,
        max_entities=10,
    )
    model = GPT(config)
    load_strict(model, from_easynlp(released(golden), n_layer=2), name)
    return model.eval(), golden


def released(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the released model's tensors in a golden file."""
    prefix = "transformer."
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def entities_of(golden: dict[str, Tensor]) -> Entities:
    table, words_mat = golden["entity_table"], golden["words_mat"]  # (N, D), (B, K, T)
    return Entities(table[words_mat.amax(-1)], words_mat != 0, table[0])


@pytest.fixture(scope="module")
def painter(golden):
    return load(golden, "painter_tiny", "none")


@pytest.fixture(scope="module")
def knowl(golden):
    return load(golden, "knowl_tiny", "easynlp")


def check_gradients(model: GPT, golden: dict[str, Tensor], loss: Tensor) -> None:
    model.zero_grad()
    loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = {k.removeprefix("grad."): v for k, v in golden.items() if k.startswith("grad.")}
    want = from_easynlp({k.removeprefix("transformer."): v for k, v in theirs.items()}, 2)
    assert ours.keys() == want.keys()
    for name, gradient in want.items():
        assert_close(ours[name], gradient, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


def test_painter_logits_equal_the_released_ones(painter):
    model, golden = painter
    assert_close(model(golden["ids"][:, :-1]), golden["logits_287"], **CLOSE)
    assert_close(model(golden["ids"])[:, -1], golden["logits_288_last"], **CLOSE)


def test_painter_loss_and_gradients_equal_the_released_ones(painter):
    model, golden = painter
    loss = model.code_losses(golden["ids"][:, :T], golden["ids"][:, T:]).mean()
    assert_close(loss, golden["loss"][0], **CLOSE)
    check_gradients(model, golden, loss)


def test_painter_greedy_codes_equal_the_released_ones_with_and_without_cache(painter):
    model, golden = painter
    text, greedy = golden["ids"][:, :T], SamplingConfig(top_k=1)
    assert torch.equal(sample(model, text, None, [1, 2, 3], greedy), golden["greedy_ids"])
    assert torch.equal(sample_plain(model, text, None, [1, 2, 3], greedy), golden["greedy_ids"])


def test_knowl_scores_and_weights_equal_the_released_ones(knowl):
    model, golden = knowl
    hidden = model.hidden(golden["ids"][:, :-1])
    assert_close(hidden, golden["hidden_before_ln_f"], **CLOSE)
    scores = model.fusion.scores(hidden[:, :T], entities_of(golden))
    # Scores reach several hundred, sums over 32 x 32 products: the tolerance is relative.
    assert_close(scores, golden["entity_scores"][:, 0], atol=1e-4, rtol=2e-4)
    assert_close(scores.softmax(-1), golden["entity_weights"][:, 0], **CLOSE)


def test_knowl_logits_equal_the_released_ones(knowl):
    model, golden = knowl
    ids, entities = golden["ids"], entities_of(golden)
    assert_close(model(ids[:, :-1], entities), golden["logits_flag_true"], **CLOSE)
    assert_close(model(ids[:, :-1]), golden["logits_flag_false"], **CLOSE)
    assert_close(model(ids[:, :T], entities), golden["logits_text_only_flag_true"], **CLOSE)


def test_knowl_loss_and_gradients_equal_the_released_ones(knowl):
    model, golden = knowl
    text, codes = golden["ids"][:, :T], golden["ids"][:, T:]
    loss = model.code_losses(text, codes, entities_of(golden)).mean()
    assert_close(loss, golden["loss"][0], **CLOSE)
    check_gradients(model, golden, loss)


def test_knowl_greedy_codes_equal_the_released_ones(knowl):
    model, golden = knowl
    text, entities, greedy = golden["ids"][:, :T], entities_of(golden), SamplingConfig(top_k=1)
    codes = sample(model, text, entities, [1, 2, 3], greedy)
    assert torch.equal(codes, golden["greedy_ids"])


def test_knowl_with_scaled_entities_equals_the_released_one(knowl):
    model, golden = knowl
    factor = golden["scaled_factor"]
    plain = entities_of(golden)
    loud = Entities(plain.vectors * factor, plain.covers, plain.filler * factor)
    text = golden["ids"][:, :T]
    assert_close(model(text, loud), golden["scaled_logits_text_only"], atol=1e-4, rtol=2e-4)
    codes = sample(model, text, loud, [1, 2, 3], SamplingConfig(top_k=1))
    assert torch.equal(codes, golden["scaled_greedy_ids"])


def test_the_only_case_in_which_the_released_mask_acts(golden):
    model, vectors = load(golden, "knowl_tiny", "easynlp")
    with torch.no_grad():
        model.fusion.project.bias.zero_()
        vectors["entity_table"][0] = 0
    logits = model(vectors["ids"][:, :T], entities_of(vectors))
    assert_close(logits, vectors["zero_case_logits"], **CLOSE)


@pytest.mark.parametrize("name", ["painter_tiny", "knowl_tiny"])
def test_a_round_trip_through_our_names_gives_the_released_tensors(golden, name):
    theirs = released(load_file(golden / f"{name}.safetensors"))
    back = to_easynlp(from_easynlp(theirs, n_layer=2), block_size=288)
    masks = {k for k in back if k.endswith("attn.mask")}
    assert len(masks) == 2
    assert back.keys() - masks == theirs.keys()
    assert all(torch.equal(back[k], theirs[k]) for k in theirs)


def test_ties_at_the_kth_logit_are_kept_as_in_the_reference(golden):
    case = json.loads((golden / "top_k_ties.json").read_text())
    kept = keep_top_k(torch.tensor(case["logits"]), case["k"]).isfinite()
    assert kept.tolist() == case["kept"]


def test_one_code_depends_on_the_released_fusion_through_the_last_text_token(knowl):
    """The fault that fusion `lattice` corrects: 255 of 256 codes do not depend on the entities."""
    model, golden = knowl
    ids, entities = golden["ids"], entities_of(golden)
    other = Entities(entities.vectors.flip(-1), entities.covers, entities.filler)
    change = (model(ids[:, :-1], entities) - model(ids[:, :-1], other)).abs().amax(-1)  # (B, S)
    depends = change[:, T - 1 :] > 0  # position T-1 predicts the first code
    assert depends[0].tolist() == [True] + [False] * 255  # an entity covers text position 31
    assert depends[1].sum() == 0  # entities, but none on position 31
    assert depends[2].sum() == 0  # no entities
