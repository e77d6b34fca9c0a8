"""Ablation: the arms differ in their knowledge only, and intervals cover seeds and captions."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from artist.evaluation.ablation import ARMS, LOSSES, ablate, crossed_interval
from artist.evaluation.confidence_intervals import interval
from artist.tables.lattice_rows import RowsConfig, read_rows
from data.errors import ConfigError, SchemaError
from data.kg_folder import ENTITY_NAMES, read_names, read_vectors
from data.shuffled_kg import shuffle_graph
from tests.artist.world import QUICK


def run(world, out, **changes):
    options = {"config": QUICK, "arms": ("lattice", "none", "shuffled"), "seeds": (0, 1)}
    return ablate(
        world.train,
        **world.inputs,
        out=out,
        device="cpu",
        **(options | changes),
    )


def test_every_arm_is_trained_once_and_compared_with_the_first(world, tmp_path):
    report = run(world, tmp_path)
    assert set(report.losses) == {"lattice", "none", "shuffled"}
    made = {p: p.stat().st_mtime_ns for p in tmp_path.glob("seed-*/*/model.safetensors")}
    assert len(made) == 6
    first = {c.what: c for c in report.comparisons if c.group == "all"}
    assert set(first) == {"none", "shuffled", "lattice: none", "lattice: shuffled"}
    for arm in ("none", "shuffled"):
        gap = report.losses[arm].mean - report.losses["lattice"].mean
        assert first[arm].cost.mean == pytest.approx(gap)
        assert np.mean(first[arm].by_seed) == pytest.approx(gap)
    again = run(world, tmp_path)
    assert str(again) == str(report)
    assert made == {p: p.stat().st_mtime_ns for p in made}


def test_results_are_written_as_json_and_as_a_table(world, tmp_path):
    report = run(world, tmp_path, seeds=(3,), arms=("none", "lattice"))
    content = json.loads((tmp_path / "ablation.json").read_text(encoding="utf-8"))
    assert content["arms"] == ["none", "lattice"]
    assert content["costs"][0]["what"] == "lattice"
    assert content["costs"][0]["cost"]["mean"] == report.comparisons[0].cost.mean
    table = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "seeds 3; ± is a 95 % interval over captions only" in table
    assert table.count("| lattice |") == 1 + sum(c.what == "lattice" for c in report.comparisons)


def test_the_losses_of_every_caption_are_kept_and_give_the_reported_figures(world, tmp_path):
    report = run(world, tmp_path, arms=("lattice", "none"))
    losses = pq.read_table(tmp_path / LOSSES).to_pandas()
    captions = pq.read_table(world.valid, columns=["idx", "text"])
    assert losses.groupby(["arm", "seed", "input"]).size().eq(len(captions)).all()
    names = dict(zip(*captions.to_pydict().values(), strict=True))  # a caption is a name here
    assert (losses["cluster"] == losses["idx"].map(names)).all()
    given = losses[losses["input"] == "given"]
    for arm, interval_ in report.losses.items():
        assert given[given["arm"] == arm]["nats"].mean() == pytest.approx(interval_.mean)
    wide = given.pivot(index="idx", columns=["arm", "seed"], values="nats")
    unseen = given.set_index("idx")["groups"].map(lambda groups: "unseen entity" in groups)
    gap = (wide["none"] - wide["lattice"])[unseen.groupby(level=0).first()].to_numpy()
    found = next(c for c in report.comparisons if (c.what, c.group) == ("none", "unseen entity"))
    assert found.cost.mean == pytest.approx(gap.mean())
    assert found.captions == len(gap)


def test_intervals_are_clustered_by_entity_unless_stated_otherwise(world, tmp_path):
    by_entity = run(world, tmp_path, arms=("lattice", "none"), seeds=(0,))
    used = len(set(pq.read_table(world.valid)["text"].to_pylist()))
    assert f"clustered by entity ({used}) and image ({used})" in str(by_entity)
    assert f"only {used} clusters by entity: the intervals are rough." in str(by_entity)
    by_idx = run(world, tmp_path, arms=("lattice", "none"), seeds=(0,), cluster_by="idx")
    assert f"clustered by idx ({len(pq.read_table(world.valid))})" in str(by_idx)
    assert [c.cost.mean for c in by_idx.comparisons] == [c.cost.mean for c in by_entity.comparisons]


def test_a_column_that_does_not_exist_is_refused_before_training(world, tmp_path):
    with pytest.raises(SchemaError, match=r"'klass' does not exist; cluster by .* idx"):
        run(world, tmp_path, cluster_by="klass")
    assert not list(tmp_path.glob("seed-*"))


def test_the_released_fusion_can_be_an_arm(world, tmp_path):
    report = run(world, tmp_path, seeds=(0,), arms=("lattice", "easynlp"))
    assert set(report.losses) == {"lattice", "easynlp"}


def test_a_shuffled_graph_has_the_same_names_and_vectors_but_no_entity_keeps_its_own(
    world, tmp_path
):
    shuffle_graph(world.kg, tmp_path / "kg", np.arange(6), seed=0)
    true, false = read_vectors(world.kg), read_vectors(tmp_path / "kg")
    assert read_names(tmp_path / "kg" / ENTITY_NAMES) == read_names(world.kg / ENTITY_NAMES)
    assert not (true[:6] == false[:6]).all(1).any()
    assert (true[6:] == false[6:]).all()
    assert sorted(map(tuple, true.tolist())) == sorted(map(tuple, false.tolist()))
    shuffle_graph(world.kg, tmp_path / "other", np.arange(6), seed=1)
    assert (read_vectors(tmp_path / "other") != false).any()


def test_the_shuffled_arm_reads_the_same_captions(world, tmp_path):
    run(world, tmp_path, seeds=(0,))
    options = RowsConfig(text_len=6, pad_id=0, max_entities=8)
    true = read_rows(world.train, options)
    false = read_rows(tmp_path / "seed-0" / f"shuffled-{world.train.name}", options)
    assert true.metadata["kg_fingerprint"] != false.metadata["kg_fingerprint"]
    for name in ("bert_ids", "codes", "entity_ids", "starts", "ends"):
        assert (getattr(true, name) == getattr(false, name)).all()


def test_the_crossed_interval_covers_the_true_mean_at_least_95_percent():
    rng = np.random.default_rng(0)
    held, over_captions_only = 0, 0
    for _ in range(400):
        seeds, captions = rng.normal(size=(3, 1)), rng.normal(size=(1, 50))
        values = 0.3 * seeds + captions + rng.normal(size=(3, 50))
        found = crossed_interval(values)
        held += abs(found.mean) <= found.half_width
        narrow = interval(values.mean(0))
        over_captions_only += abs(narrow.mean) <= narrow.half_width
    assert held >= 380
    assert over_captions_only < 370


def test_one_seed_gives_the_interval_over_captions():
    values = np.random.default_rng(0).normal(size=(1, 20))
    assert crossed_interval(values) == interval(values[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ("lattice", "nonsense")}, ", ".join(ARMS)),
        ({"arms": ("lattice",)}, "two or more"),
        ({"arms": ("none", "none")}, "two or more"),
        ({"seeds": ()}, "one seed or more"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(world, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        run(world, tmp_path, **change)
    assert not any(tmp_path.iterdir())


def test_other_settings_are_not_mixed_with_finished_trainings(world, tmp_path):
    run(world, tmp_path, seeds=(0,), arms=("lattice", "none"))
    with pytest.raises(Exception, match="belongs to another run"):
        run(
            world,
            tmp_path,
            seeds=(0,),
            arms=("lattice", "none"),
            config=replace(QUICK, epochs=QUICK.epochs + 1),
        )
