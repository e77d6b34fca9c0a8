"""A map of entity vectors: types found, samples said, the same file for the same seed."""

import numpy as np
import pytest
import torch

from data.errors import ConfigError, InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, TRIPLES_FILE, write_names
from kg.kg_store import save_vectors, write_triples
from kg.tools.map import draw_map


@pytest.fixture
def kg(tmp_path):
    """Forty entities of two types that lie apart, each with a second, rarer type."""
    folder = tmp_path / "kg"
    folder.mkdir()
    names = [f"物{n}" for n in range(40)] + ["动物", "植物", "红", "绿"]
    write_names(folder / ENTITY_NAMES, names)
    write_names(folder / RELATION_NAMES, ["类型", "颜色"])
    of_type = [(n, 0, 40 + n % 2) for n in range(40)] + [(0, 0, 42), (1, 0, 43)]
    colours = [(n, 1, 42 + n // 20) for n in range(40)]
    write_triples(folder / TRIPLES_FILE, np.array(of_type + colours, np.int32))
    vectors = np.random.default_rng(0).normal(size=(44, 8)).astype(np.float32)
    vectors[:40:2, 0] += 20
    vectors[1:40:2, 1] += 20
    save_vectors(folder, torch.from_numpy(vectors), torch.zeros(2, 8))
    return folder


def test_types_are_counted_and_written_in_the_legend(kg, tmp_path):
    report = draw_map(kg, tmp_path / "map.svg", method="pca")
    assert report.relation == "类型"
    assert report.types == {"动物": 20, "植物": 20}
    assert report.together == 1
    assert report.chance == pytest.approx(0.5)
    svg = (tmp_path / "map.svg").read_text(encoding="utf-8")
    assert "动物 (20)" in svg
    assert "物0" in svg
    assert "sampled" not in svg


def test_another_relation_gives_other_types_that_do_not_lie_together(kg, tmp_path):
    report = draw_map(kg, tmp_path / "map.svg", relation="颜色", method="pca")
    assert report.types == {"红": 20, "绿": 20}
    assert report.together < 0.8


def test_a_sample_is_called_one(kg, tmp_path):
    report = draw_map(kg, tmp_path / "map.svg", max_entities=12, method="pca", labels=3)
    assert (report.shown, report.entities) == (12, 40)
    assert "a sample of 40" in str(report)
    assert "12 entities of 40, sampled" in (tmp_path / "map.svg").read_text(encoding="utf-8")


def test_the_same_seed_draws_the_same_file(kg, tmp_path):
    for name in ("a", "b"):
        draw_map(kg, tmp_path / f"{name}.svg", seed=1)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_what_cannot_be_drawn_is_refused_with_what_to_try(kg, tmp_path):
    with pytest.raises(InputError, match=r"no relation 类刑.*类型"):
        draw_map(kg, tmp_path / "map.svg", relation="类刑")
    with pytest.raises(ConfigError, match="tsne or pca"):
        draw_map(kg, tmp_path / "map.svg", method="umap")
    (kg / TRIPLES_FILE).unlink()
    with pytest.raises(InputError, match="types of the entities"):
        draw_map(kg, tmp_path / "map.svg")
    assert not (tmp_path / "map.svg").exists()
