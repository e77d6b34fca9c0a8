"""The GPT, and the positions and inputs that each fusion depends on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from artist.formats.state_dict import load_strict
from artist.models.conditioning import Conditioning, Entities
from artist.models.config import GPTConfig
from artist.models.gpt import GPT, KVCache, parameter_groups
from data.errors import ConfigError, InputError

T, L, D = 6, 5, 4
TINY = GPTConfig(
    text_vocab_size=20,
    image_vocab_size=9,
    text_len=T,
    image_len=L,
    n_layer=1,
    n_head=2,
    n_embd=8,
    entity_dim=D,
)


def model_of(fusion: str = "lattice", seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    model = GPT(replace(TINY, fusion=fusion)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # large, so that effects are visible
    return model


def ids_of(rows: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(9, 29, (rows, T), generator=generator)
    codes = torch.randint(0, 9, (rows, L), generator=generator)
    return torch.cat([text, codes], 1)


def entities_of(spans: list[list[tuple[int, int]]], seed: int = 2, slots: int = 0) -> Entities:
    """Return entities from a list of half-open token spans per row, with random vectors."""
    K = max(slots, *(len(row) for row in spans))
    generator = torch.Generator().manual_seed(seed)
    covers = torch.zeros(len(spans), K, T, dtype=torch.bool)
    for n, row in enumerate(spans):
        for k, (start, end) in enumerate(row):
            covers[n, k, start:end] = True
    vectors = torch.randn(len(spans), K, D, generator=generator)
    return Entities(vectors, covers, torch.randn(D, generator=generator))


@st.composite
def spans(draw: st.DrawFn) -> list[tuple[int, int]]:
    pairs = draw(st.lists(st.tuples(st.integers(0, T - 1), st.integers(1, T)), max_size=4))
    return [(start, min(start + length, T)) for start, length in pairs]


@settings(max_examples=30, deadline=None)
@given(row=spans())
def test_a_caption_without_entities_equals_the_plain_gpt_exactly(row):
    model, ids = model_of(), ids_of(2)
    batch = entities_of([[], row])
    assert torch.equal(model(ids, batch)[0], model(ids)[0])


@settings(max_examples=30, deadline=None)
@given(row=spans().filter(bool))
def test_every_image_position_depends_on_an_entity(row):
    model, ids = model_of(), ids_of(1)
    original = entities_of([row])
    other = Entities(original.vectors + 1.0, original.covers, original.filler)
    change = (model(ids, original) - model(ids, other)).abs().amax(-1)[0]
    assert (change[T - 1 :] > 0).all()


@settings(max_examples=30, deadline=None)
@given(row=spans(), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("fusion", ["lattice", "easynlp"])
def test_the_order_of_entities_changes_nothing(fusion, row, order):
    model, ids, batch = model_of(fusion), ids_of(1), entities_of([row], slots=1)
    places = list(range(batch.vectors.shape[1]))
    order.shuffle(places)
    mixed = Entities(batch.vectors[:, places], batch.covers[:, places], batch.filler)
    assert_close(model(ids, batch), model(ids, mixed), atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(row=spans(), slots=st.integers(5, 9), junk=st.sampled_from([0.0, 1e30, float("nan")]))
def test_padding_slots_change_nothing_for_any_content(row, slots, junk):
    model, ids, batch = model_of(), ids_of(1), entities_of([row])
    K = batch.vectors.shape[1]
    vectors = torch.full((1, slots, D), junk)
    covers = torch.zeros(1, slots, T, dtype=torch.bool)
    vectors[:, :K], covers[:, :K] = batch.vectors, batch.covers
    padded = Entities(vectors, covers, batch.filler)
    assert_close(model(ids, batch), model(ids, padded), atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(spans(), min_size=2, max_size=4))
@pytest.mark.parametrize("fusion", ["lattice", "easynlp", "none"])
def test_a_row_does_not_depend_on_its_neighbours(fusion, rows):
    model, ids, batch = model_of(fusion), ids_of(len(rows)), entities_of(rows, slots=4)
    alone = Entities(batch.vectors[:1], batch.covers[:1], batch.filler)
    together = model(ids, batch)[:1]
    assert_close(model(ids[:1], alone), together, atol=1e-4, rtol=1e-4)


def test_the_fusion_changes_only_covered_tokens():
    model, batch = model_of(), entities_of([[(1, 3)]])
    text = torch.randn(1, T, 8, generator=torch.Generator().manual_seed(3))
    change = (model.fusion(text, batch) - text).abs().amax(-1)[0] > 0
    assert change.tolist() == [False, True, True, False, False, False]


def test_a_single_entity_adds_its_whole_projection():
    """With one entity the softmax is 1, so x_t + W v is exact."""
    model, batch = model_of(), entities_of([[(0, 2)]])
    text = torch.randn(1, T, 8, generator=torch.Generator().manual_seed(3))
    want = text[:, :2] + model.fusion.project(batch.vectors[:, :1])
    assert_close(model.fusion(text, batch)[:, :2], want)


def test_fusion_none_ignores_entities():
    model, ids = model_of("none"), ids_of(1)
    assert torch.equal(model(ids, entities_of([[(0, 3)]])), model(ids))


@settings(max_examples=30, deadline=None)
@given(row=spans())
def test_at_most_one_image_position_depends_on_easynlp_fusion(row):
    model, ids = model_of("easynlp"), ids_of(1)
    original = entities_of([row], slots=1)
    other = Entities(original.vectors + 1.0, original.covers, original.filler)
    change = (model(ids, original) - model(ids, other)).abs().amax(-1)[0] > 0
    assert not change[T:].any()
    assert not change[T - 1] or any(end == T for _, end in row)  # none, if shorter than the text


def test_that_position_depends_on_entities_of_the_last_text_token():
    model, ids = model_of("easynlp"), ids_of(1)
    original = entities_of([[(0, T)]])
    other = Entities(original.vectors + 1.0, original.covers, original.filler)
    change = (model(ids, original) - model(ids, other)).abs().amax(-1)[0] > 0
    assert change[T - 1 :].tolist() == [True] + [False] * L


@pytest.mark.parametrize("fusion", ["lattice", "easynlp", "none"])
def test_logits_over_a_cache_equal_those_of_one_pass(fusion):
    model, ids, batch = model_of(fusion), ids_of(2), entities_of([[(0, 2)], [(1, 4), (2, 3)]])
    cache = KVCache(model.config, 2, device=ids.device, dtype=torch.float32)
    parts = [model(ids[:, :T], batch, cache=cache)]
    parts += [model(ids[:, n : n + 1], batch, cache=cache) for n in range(T, T + L - 1)]
    assert_close(torch.cat(parts, 1), model(ids[:, :-1], batch), atol=1e-5, rtol=1e-5)


def test_no_position_depends_on_a_later_one():
    model, ids = model_of(), ids_of(1)
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 9
    same = (model(ids) == model(changed)).all(-1)[0]
    assert same.tolist() == [True] * 7 + [False] * (T + L - 7)


def test_only_matrices_decay_and_every_parameter_is_in_one_group():
    model = model_of()
    decayed, free = (group["params"] for group in parameter_groups(model, 0.1))
    assert all(p.ndim == 2 for p in decayed)
    assert {id(p) for p in [*decayed, *free]} == {id(p) for p in model.parameters()}
    assert len(decayed) + len(free) == len(list(model.parameters()))
    assert any(p is model.tok_emb.weight for p in free)


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    """FACTS of the release: 126,669,312 and 357,795,840, and 77,568 more with fusion (base)."""

    def count(**sizes: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in GPT(GPTConfig(**sizes)).parameters())

    assert count(fusion="none") == 126_669_312
    assert count(fusion="easynlp") == 126_669_312 + 77_568
    assert count(fusion="none", n_layer=24, n_head=16, n_embd=1024) == 357_795_840


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_embd": 10, "n_head": 4}, "the nearest width below is 8"),
        ({"fusion": "latice"}, "use one of lattice, easynlp, none"),
        ({"image_len": 0}, "image_len=0 must be at least 1"),
        ({"attn_pdrop": 1.0}, r"must be in \[0, 1\)"),
    ],
)
def test_invalid_sizes_are_refused_with_advice(wrong, message):
    with pytest.raises(ConfigError, match=message):
        GPTConfig(**wrong)


def test_loading_lists_the_tensors_that_do_not_fit():
    model = model_of("none")
    state = dict(model.state_dict())
    del state["ln_f.bias"]
    state["surplus"] = state["ln_f.weight"]
    state["head.weight"] = state["head.weight"][:-1]
    with pytest.raises(InputError, match=r"missing ln_f.bias; unexpected surplus; head.weight is"):
        load_strict(model, state, "a file")


@given(st.lists(st.tuples(spans(), st.data()), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_token_is_replaced_if_the_longest_entity_that_covers_it_loses_its_name(rows):
    entities = entities_of([row for row, _ in rows])
    K = entities.covers.shape[1]
    which = torch.zeros(len(rows), K, dtype=torch.bool)
    for n, (row, data) in enumerate(rows):
        for k in range(len(row)):
            which[n, k] = data.draw(st.booleans())
    ids = torch.arange(len(rows) * T).view(-1, T) + 100
    found = Conditioning(ids, entities).without_names(which, 7)
    assert found.entities is entities
    for n, (row, _) in enumerate(rows):
        for t in range(T):
            over = [
                (end - start, not which[n, k])
                for k, (start, end) in enumerate(row)
                if start <= t < end
            ]
            replaced = bool(over) and not max(over)[1]
            assert found.token_ids[n, t] == (7 if replaced else ids[n, t])


def test_the_text_scale_multiplies_text_embeddings_and_nothing_else():
    """Positions and codes keep theirs; cached sampling and a forward pass agree."""
    model, ids = model_of("none"), ids_of(2)
    louder = GPT(replace(TINY, fusion="none", text_scale=3.0)).eval()
    louder.load_state_dict(model.state_dict())
    with torch.no_grad():
        model.tok_emb.weight[TINY.image_vocab_size :] *= 3.0
        assert_close(louder(ids), model(ids))
        cache = KVCache(TINY, 2, device=ids.device, dtype=torch.float32, positions=T + L)
        first = louder(ids[:, : T + 2], cache=cache)
        rest = louder(ids[:, T + 2 :], cache=cache)
        assert_close(torch.cat([first, rest], 1), louder(ids))
