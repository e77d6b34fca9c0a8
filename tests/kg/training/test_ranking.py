"""Ranking, compared with pykeen's and with a slow count."""

import numpy as np
import pytest
import torch

from kg.config import KGConfig
from kg.training.ranking import evaluate, make_queries, rank, summarise
from kg.training.transe import make_model


def graph(seed: int, size: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.integers(0, n, size) for n in (50, 3, 50)], axis=1)
    return np.unique(rows, axis=0).astype(np.int32)


@pytest.mark.parametrize("p_norm", [1, 2])
def test_figures_equal_those_of_pykeens_evaluator(p_norm):
    model = make_model(50, 3, KGConfig(dim=8, p_norm=p_norm))
    entity, relation = (
        part[0]._embeddings.weight.detach()
        for part in (model.entity_representations, model.relation_representations)
    )
    entity[10:20] = entity[:10]  # equal vectors, so that there are ties
    known = graph(0, 600)
    asked = known[::7]
    from pykeen.evaluation import RankBasedEvaluator

    theirs = RankBasedEvaluator(filtered=True).evaluate(
        model=model,
        mapped_triples=torch.from_numpy(asked).long(),
        additional_filter_triples=torch.from_numpy(known).long(),
        batch_size=16,
        use_tqdm=False,
    )
    ours = evaluate(make_queries(asked, [known]), entity, relation, p_norm)
    for side in ("both", "head", "tail"):
        assert ours[side]["mrr"] == pytest.approx(
            theirs.get_metric(f"{side}.realistic.inverse_harmonic_mean_rank"), rel=1e-5
        )
        assert ours[side]["mean_rank"] == pytest.approx(
            theirs.get_metric(f"{side}.realistic.arithmetic_mean_rank"), rel=1e-5
        )
        for k in (1, 3, 10):
            assert ours[side][f"hits@{k}"] == pytest.approx(
                theirs.get_metric(f"{side}.realistic.hits_at_{k}"), rel=1e-5
            )


def test_sampled_ranks_count_only_the_sample():
    generator = torch.Generator().manual_seed(0)
    entity, relation = torch.randn(50, 4, generator=generator), torch.randn(3, 4)
    known = graph(0, 600)
    asked = known[::9]
    pool = torch.tensor([1, 4, 7, 20, 33, 49])
    ranks = rank(make_queries(asked, [known]), entity, relation, 2, candidates=pool)
    truths = set(map(tuple, known.tolist()))
    for i, (h, r, t) in enumerate(asked.tolist()):
        away = (entity[h] + relation[r] - entity).norm(dim=1)
        others = [e for e in pool.tolist() if (h, r, e) not in truths]
        assert ranks[i] == 1 + sum(bool(away[e] < away[t]) for e in others)


def test_a_large_graph_is_ranked_among_a_sample_and_reports_it():
    entity, relation = torch.randn(50, 4), torch.randn(3, 4)
    queries = make_queries(graph(0, 40), [graph(0, 600)])
    assert evaluate(queries, entity, relation, 2)["candidates"] == "all"
    assert evaluate(queries, entity, relation, 2, num_candidates=20)["candidates"] == 20


def test_summary_of_known_ranks():
    summary = summarise(np.array([1.0, 2.0, 4.0, 20.0]))
    assert summary["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 20) / 4)
    assert (summary["hits@1"], summary["hits@3"], summary["hits@10"]) == (0.25, 0.5, 0.75)
