"""Figures of a graph, against networks small enough to count by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import cli
from data.errors import InputError
from data.kg_folder import write_names
from kg.config import KGConfig
from kg.kg_store import write_triples
from kg.tools.stats import kg_stats
from kg.training.train import train_kg


def folder_of(folder, triples, entities=None, relations=None):
    """A KG folder that holds a graph and no vectors."""
    rows = np.array(triples, np.int32).reshape(-1, 3)
    folder.mkdir()
    write_names(folder / "entity2id.txt", entities or [f"e{i}" for i in range(rows.max() + 1)])
    write_names(folder / "relation2id.txt", relations or [f"r{i}" for i in range(rows.max() + 1)])
    write_triples(folder / "triples.parquet", rows)
    return folder


def test_relations_are_of_the_kinds_of_bordes(tmp_path):
    one = [(0, 0, 1), (2, 0, 3)]
    fan_out = [(0, 1, t) for t in (1, 2, 3)]
    fan_in = [(h, 2, 0) for h in (1, 2, 3)]
    both = [(h, 3, t) for h in (0, 1) for t in (2, 3)]
    folder = folder_of(tmp_path / "kg", one + fan_out + fan_in + both, relations=list("一多入全"))
    stats = kg_stats(folder)
    assert stats.kinds == {"1-1": (1, 2), "1-N": (1, 3), "N-1": (1, 3), "N-N": (1, 4)}
    found = {r.name: (r.kind, r.tails_per_head, r.heads_per_tail) for r in stats.top_relations}
    assert found == {
        "一": ("1-1", 1, 1),
        "多": ("1-N", 3, 1),
        "入": ("N-1", 1, 3),
        "全": ("N-N", 2, 2),
    }


def test_components_and_degrees_are_counted(tmp_path):
    folder = folder_of(tmp_path / "kg", [(0, 0, 1), (1, 0, 2), (3, 0, 4), (5, 0, 5), (1, 1, 0)])
    stats = kg_stats(folder)
    assert (stats.num_components, stats.components) == (3, [3, 2, 1])
    assert stats.top_entities[:2] == [("e1", 3), ("e0", 2)]
    assert stats.degrees["all"][100] == 3
    assert stats.degrees["all"][0] == 1  # a loop is one triple
    assert stats.degrees["in"][0] == 0
    assert stats.mean_degree == pytest.approx(9 / 6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sets(
        st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40
    )
)
def test_figures_equal_a_slow_count(tmp_path_factory, rows):
    folder = folder_of(
        tmp_path_factory.mktemp("kg") / "kg", sorted(rows), list("abcdefghij"), list("rstu")
    )
    stats = kg_stats(folder)
    groups = [{e} for e in range(10)]
    for h, _, t in rows:
        joined = [g for g in groups if h in g or t in g]
        groups = [g for g in groups if g not in joined] + [set().union(*joined)]
    assert stats.components == sorted(map(len, groups), reverse=True)[:10]
    assert stats.num_components == len(groups)
    for relation in stats.top_relations:
        mine = [row for row in rows if "rstu"[row[1]] == relation.name]
        assert relation.triples == len(mine)
        if mine:
            heads, tails = {h for h, _, _ in mine}, {t for _, _, t in mine}
            assert relation.tails_per_head == round(len(mine) / len(heads), 3)
            assert relation.heads_per_tail == round(len(mine) / len(tails), 3)
    degree = [sum(e in (h, t) for h, _, t in rows) for e in range(10)]
    assert dict(stats.top_entities) == {"abcdefghij"[e]: degree[e] for e in range(10)}


def test_the_command_describes_a_trained_graph(tmp_path):
    dump = tmp_path / "d.tsv"
    rows = [f"菜{n}\t类别\t蔬菜\n菜{n}\t简介\t第{n}句\n" for n in range(30)]
    dump.write_text("".join(rows) + "坏\n蔬菜\t同\t蔬菜\n", encoding="utf-8")
    kg = tmp_path / "kg"
    train_kg(dump, kg, config=KGConfig(dim=4, epochs=1), device="cpu")
    files = ["--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.svg")]
    result = CliRunner().invoke(cli.app, ["kg", "stats", str(kg), *files])
    assert result.exit_code == 0, result.exception
    assert "31 entities, 1 relations, 30 triples" in result.stdout
    assert "1 rows rejected, 30 literals, 0 duplicates, 1 self-loops" in result.stdout
    assert "蔬菜" in result.stdout
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert found["kinds"]["N-1"] == [1, 30]
    assert found["degrees"]["all"]["100"] == 30
    assert "entities with at least this degree" in (tmp_path / "s.svg").read_text(encoding="utf-8")


def test_a_folder_without_a_graph_is_refused(tmp_path):
    with pytest.raises(InputError, match="no graph to describe"):
        kg_stats(tmp_path)
