"""Tails and heads by rank, with the real command."""

import json

import numpy as np
import pytest
import torch

from data.kg_folder import TRIPLES_FILE, write_names
from data.runs import Run
from kg.kg_store import HELD_OUT_FILE, save_vectors, write_triples

NAMES = ["北京", "中国", "东京", "日本", "巴黎"]
# A country is its capital plus the relation 属于; 巴黎 is nearest to Japan's capital.
ENTITIES = [[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.0], [4.5, 0.0]]
RELATIONS = [[0.0, 1.0], [3.0, 3.0]]


@pytest.fixture
def kg(tmp_path):
    """A KG folder with known vectors; 东京 is held out."""
    folder = tmp_path / "kg"
    with Run.open(folder, kind="kg", settings={"p_norm": 2}, inputs={}) as run:
        write_names(run.work / "entity2id.txt", NAMES)
        write_names(run.work / "relation2id.txt", ["属于", "相邻"])
        save_vectors(run.work, torch.tensor(ENTITIES), torch.tensor(RELATIONS))
        write_triples(run.work / TRIPLES_FILE, np.array([[0, 0, 1], [4, 0, 3]], np.int32))
        write_triples(run.work / HELD_OUT_FILE, np.array([[2, 0, 3]], np.int32))
        run.finish({})
    return folder


def found(command, kg, *words):
    code, stdout, err = command("kg", "predict", *words, "--kg", kg, "--json")
    assert code == 0, err
    return json.loads(stdout)


def test_tails_are_ranked_by_distance_and_known_ones_have_no_rank(command, kg):
    answer = found(command, kg, "北京", "属于", "--top", "3")
    assert (answer["head"], answer["relation"], answer["tail"]) == ("北京", "属于", None)
    assert [(c["name"], c["score"], c["filtered_rank"]) for c in answer["candidates"]] == [
        ("中国", 0.0, None),
        ("北京", -1.0, 1),
        ("巴黎", -4.609772, 2),
    ]
    assert [c["known"] for c in answer["candidates"]] == [True, False, False]


def test_heads_are_predicted_for_a_tail(command, kg):
    answer = found(command, kg, "--tail", "日本", "--relation", "属于", "--top", "3")
    assert [(c["name"], c["filtered_rank"]) for c in answer["candidates"]] == [
        ("东京", None),  # held out, and known
        ("巴黎", None),
        ("日本", 1),
    ]
    answer = found(command, kg, "--tail", "日本", "--relation", "属于", "--top", "2", "--new-only")
    assert [(c["name"], c["filtered_rank"]) for c in answer["candidates"]] == [
        ("日本", 1),
        ("北京", 2),
    ]


def test_the_norm_is_that_of_the_training(command, kg):
    manifest = kg / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"p_norm": 2', '"p_norm": 1'))
    answer = found(command, kg, "北京", "属于", "--top", "3")
    assert [c["score"] for c in answer["candidates"]] == [0.0, -1.0, -5.0]
    assert [c["name"] for c in answer["candidates"]][2] == "日本"


def test_the_answer_is_printed_as_a_table(command, kg):
    code, stdout, _ = command("kg", "predict", "北京", "属于", "--kg", kg, "--top", "2")
    assert code == 0
    assert stdout.splitlines() == [
        "(北京, 属于, ?): 1 answers in the graph, marked *",
        "     *    0.000  中国",
        "     1   -1.000  北京",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["北平", "属于"], "no entity is called 北平; did you mean 北京?"),
        (["北京", "属干"], "no relation is called 属干; did you mean 属于?"),
        (["北京"], "Give HEAD and RELATION, or --tail and --relation."),
        (["北京", "属于", "--tail", "中国"], "Give HEAD and RELATION"),
        (["北京", "属于", "--relation", "属于"], "The relation is given twice."),
        (["--tail", "中国"], "Give HEAD and RELATION"),
    ],
)
def test_unclear_questions_are_one_clear_error(command, kg, words, error):
    code, _, err = command("kg", "predict", *words, "--kg", kg)
    assert (code, error in err, err.count("\n")) == (2, True, 1), err


def test_a_folder_without_relation_vectors_is_refused(command, kg):
    (kg / "relation_vectors.safetensors").unlink()
    code, _, err = command("kg", "predict", "北京", "属于", "--kg", kg)
    assert (code, "triples cannot be scored" in err) == (2, True)
