"""TransE: pykeen's scores, sparse steps equal to dense ones, exact resume."""

import signal
import time

import numpy as np
import pytest
import torch

import kg.training.batch_loss
import kg.training.batches
import kg.training.row_adagrad
from data.errors import ConfigError
from kg.config import CHECKPOINTS, KGConfig
from kg.training.batch_loss import loss_and_slopes
from kg.training.batches import Batch, Batches
from kg.training.row_adagrad import RowAdagrad
from kg.training.trainer import train_transe
from kg.training.transe import make_loop, make_model, tables
from tests.kg.training.small_run import (
    NUM_ENTITIES,
    NUM_RELATIONS,
    assert_resumes_exactly,
    run,
    run_in_child,
    small,
)


def a_batch(triples: np.ndarray, config: KGConfig) -> Batch:
    rows = torch.from_numpy(triples)
    return next(iter(Batches(rows, NUM_ENTITIES, config, 64)))


@pytest.mark.parametrize("p_norm", [1, 2])
@pytest.mark.parametrize("loss", ["nssa", "margin"])
def test_loss_and_gradient_equal_those_of_pykeens_own_transe(triples, p_norm, loss):
    config = small(p_norm=p_norm, loss=loss, num_negatives=40, margin=15.0)
    model = make_model(NUM_ENTITIES, NUM_RELATIONS, config)
    from pykeen.losses import MarginRankingLoss, NSSALoss
    from pykeen.models import TransE
    from pykeen.triples import KGInfo

    stock = TransE(
        triples_factory=KGInfo(NUM_ENTITIES, NUM_RELATIONS, create_inverse_triples=False),
        embedding_dim=config.dim,
        scoring_fct_norm=p_norm,
        random_seed=0,
    )
    stock.load_state_dict(model.state_dict())
    batch = a_batch(triples, config)
    assert len(batch.false)

    def hrt(entity: torch.Tensor) -> torch.Tensor:
        tail_side = batch.sign > 0
        head = torch.where(tail_side, batch.source, entity)
        tail = torch.where(tail_side, entity, batch.source)
        return stock.score_hrt(torch.stack([head, batch.relation, tail], dim=1))

    per_triple = batch.negatives.repeat_interleave(16, 0)
    negative = torch.cat([hrt(per_triple[:, n]) for n in range(40)], dim=1)
    false = torch.zeros(negative.numel(), dtype=torch.bool)
    false[batch.false] = True
    stock_loss = {"nssa": NSSALoss, "margin": MarginRankingLoss}[loss](margin=15.0)
    expected = stock_loss.process_slcwa_scores(
        hrt(batch.target), negative.masked_fill(false.view_as(negative), -torch.inf)
    )
    expected.backward()

    value, entity_grad, relation_grad = loss_and_gradients(model, batch)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-5)
    ours = entity_grad, relation_grad
    for found, weight in zip(ours, tables(stock), strict=True):
        torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-6)


def loss_and_gradients(model, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Return loss and gradients of a batch from our step."""
    loop = make_loop(model, RowAdagrad(tables(model)), None, torch.device("cpu"))
    loss = loop._process_batch(batch, 0, len(batch.source))
    loss.backward()
    return loss.detach(), *(weight.grad.to_dense() for weight in tables(model))


@pytest.mark.parametrize("p_norm", [1, 2])
def test_a_batch_in_blocks_gives_what_it_gives_at_once(triples, p_norm, monkeypatch):
    config = small(p_norm=p_norm, num_negatives=40)
    batch = a_batch(triples, config)
    model = make_model(NUM_ENTITIES, NUM_RELATIONS, config)
    whole = loss_and_gradients(model, batch)
    model.zero_grad()
    monkeypatch.setattr(kg.training.batch_loss, "_BLOCK", 1)
    for blockwise, at_once in zip(loss_and_gradients(model, batch), whole, strict=True):
        torch.testing.assert_close(blockwise, at_once, rtol=1e-4, atol=1e-7)


def test_a_margin_too_large_for_the_closed_form_uses_pykeens_loss():
    batch = torch.rand(4, 1), torch.rand(4, 6)
    from pykeen.losses import NSSALoss

    model = make_model(NUM_ENTITIES, NUM_RELATIONS, small(margin=1000.0))
    value, *slopes = loss_and_slopes(model.loss, *batch)
    expected = NSSALoss(margin=1000.0).process_slcwa_scores(-batch[0], -batch[1])
    torch.testing.assert_close(value, expected)
    assert all(slope.isfinite().all() for slope in slopes)


def test_a_step_touches_only_the_rows_of_its_batch_and_keeps_them_on_the_sphere(triples):
    config = small()
    model = make_model(1000, NUM_RELATIONS, config)
    weight, _ = tables(model)
    before = weight.detach().clone()
    optimizer = RowAdagrad([weight])
    batch = a_batch(triples, config)
    loss_and_gradients(model, batch)
    optimizer.step()
    moved = (weight != before).any(dim=1).nonzero().flatten()
    touched = torch.cat([batch.source, batch.target, batch.negatives.flatten()])
    assert set(moved.tolist()) <= set(touched.tolist())
    assert len(moved) > 40
    torch.testing.assert_close(weight.detach().norm(dim=1), torch.full((1000,), config.scale))


@pytest.mark.parametrize("gpu_code", [False, True])
def test_row_adagrad_equals_its_formula_on_dense_gradients(gpu_code, monkeypatch):
    if gpu_code:
        monkeypatch.setattr(
            kg.training.row_adagrad, "_step_on_cpu", kg.training.row_adagrad._step_on_gpu
        )
    weight = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = RowAdagrad([weight], lr=0.5)
    expected, power = torch.ones(4, 3), torch.zeros(4)
    ids = torch.tensor([2, 0, 3, 1, 2, 2])  # row 2 occurs three times
    for k in range(1, 4):
        rows = torch.arange(18.0).view(6, 3) * k
        grad = torch.zeros(4, 3).index_add_(0, ids, rows)
        optimizer.zero_grad()
        weight.grad = torch.sparse_coo_tensor(ids[None], rows, (4, 3), check_invariants=True)
        optimizer.step()
        power += grad.square().mean(1)
        expected -= 0.5 * grad / (power.sqrt() + 1e-10)[:, None]
    torch.testing.assert_close(weight.detach(), expected)


def test_true_negatives_of_a_small_graph_are_known(triples):
    config = small(num_negatives=40)
    batch = a_batch(triples, config)
    known = set(map(tuple, triples.tolist()))
    negatives = batch.negatives.repeat_interleave(16, 0)
    false = set(batch.false.tolist())
    for i in range(len(batch.source)):
        for n in range(40):
            pair = int(batch.source[i]), int(negatives[i, n])
            head, tail = pair if batch.sign[i] > 0 else pair[::-1]
            assert ((i * 40 + n) in false) == ((head, int(batch.relation[i]), tail) in known)


def test_in_a_large_graph_the_target_itself_is_not_a_negative(triples, monkeypatch):
    monkeypatch.setattr(kg.training.batches._TrueAnswers, "LARGEST", 0)
    batch = a_batch(triples, small(num_negatives=40))
    per_triple = batch.negatives.repeat_interleave(16, 0)
    expected = (per_triple == batch.target.unsqueeze(1)).flatten().nonzero().flatten()
    assert len(expected) > 10
    assert batch.false.tolist() == expected.tolist()


def test_each_epoch_has_each_triple_once_except_an_incomplete_chunk(triples):
    rows = torch.from_numpy(triples)
    batches = Batches(rows, NUM_ENTITIES, small(), 64)
    seen = []
    for batch in batches:
        swap = batch.sign < 0
        head = torch.where(swap, batch.target, batch.source)
        tail = torch.where(swap, batch.source, batch.target)
        seen += torch.stack([head, batch.relation, tail], dim=1).tolist()
    assert len(seen) == len(triples) // 16 * 16
    assert len(set(map(tuple, seen))) == len(seen)
    assert set(map(tuple, seen)) <= set(map(tuple, triples.tolist()))


@pytest.mark.parametrize(("loss", "p_norm"), [("nssa", 2), ("margin", 1)])
def test_the_loss_falls_and_vectors_have_length_one(triples, loss, p_norm):
    slower = {} if loss == "nssa" else {"scale": 1, "learning_rate": 0.1}
    trained = run(triples, config=small(loss=loss, p_norm=p_norm, epochs=15, **slower))
    assert trained.losses[-1] < 0.9 * trained.losses[0]
    torch.testing.assert_close(trained.entity.norm(dim=1), torch.ones(NUM_ENTITIES))


def test_a_triple_whose_only_negatives_are_true_keeps_the_loss_finite():
    everything = [[h, 0, t] for h in range(4) for t in range(4)]
    config = small(num_negatives=1)
    trained = train_transe(np.array(everything, np.int32), 4, 1, config, device="cpu")
    assert np.isfinite(trained.losses).all()
    assert trained.entity.isfinite().all()


def test_the_same_seed_gives_the_same_vectors_and_another_one_others(triples):
    one, same, other = (run(triples, config=small(seed=seed)).entity for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("stop_in", [2, 4, 5])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(triples, tmp_path, stop_in):
    calls = []

    def measure(entity: torch.Tensor, relation: torch.Tensor) -> float:
        calls.append(1)
        if len(calls) == stop_in:
            raise KeyboardInterrupt
        return float(entity.sum() + relation.sum())

    with pytest.raises(KeyboardInterrupt):
        run(triples, tmp_path, measure=measure, checkpoint_seconds=0)
    assert (tmp_path / CHECKPOINTS[0]).exists()
    assert_resumes_exactly(triples, tmp_path, measure=measure, checkpoint_seconds=0)


def test_a_killed_run_resumes_to_the_same_vectors(triples, tmp_path):
    work = tmp_path / "killed"
    process = run_in_child(triples, work, epochs=80)
    while not (work / CHECKPOINTS[0]).exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert_resumes_exactly(triples, work, config=small(epochs=80))


def test_training_stops_when_the_measure_no_longer_rises_and_keeps_the_best(triples):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])
    seen = []

    def measure(entity: torch.Tensor, relation: torch.Tensor) -> float:
        seen.append(entity / 10)
        return next(scores)

    config = small(epochs=8, patience=3)
    trained = run(triples, config=config, measure=lambda e, r: measure(e.clone(), r))
    assert len(trained.losses) == 5
    assert trained.best_epoch == 2
    torch.testing.assert_close(trained.entity, seen[1])


def test_a_diverging_learning_rate_is_explained(triples):
    with pytest.raises(ConfigError, match="--learning-rate"):
        run(triples, config=small(learning_rate=1e38, scale=0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "nsa"}, "did you mean"),
        ({"p_norm": 3}, "1 or 2"),
        ({"dim": 0}, "at least 1"),
        ({"valid_fraction": 1.0}, "valid_fraction"),
    ],
)
def test_invalid_settings_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        KGConfig(**changes)
