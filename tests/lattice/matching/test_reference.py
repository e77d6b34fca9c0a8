"""No match of the reference is lost; on pure Chinese text the rows are identical."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tsv import Rejects, read_rows
from tests.lattice.reference import compare

LETTERS = "北京故宫博物院（）， "


@pytest.mark.parametrize("backend", ["ahocorasick", "trie"])
@settings(max_examples=40)
@given(
    names=st.lists(st.text(LETTERS.strip(), max_size=5), max_size=20),
    texts=st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=5),
)
def test_rows_equal_the_reference_on_random_chinese(backend, names, texts, pieces):
    found = compare(names, texts, pieces, backend)
    assert found.pure_identical == found.pure == len(texts)


@settings(max_examples=100)
@given(
    names=st.lists(st.text("北京aAbB1２é\u0301😀龘 ", max_size=4), max_size=20),
    texts=st.lists(st.text("北京aAbB12２é\u0301😀龘 ", max_size=20), min_size=1, max_size=5),
)
def test_no_match_of_the_reference_is_lost_for_any_letters(names, texts, pieces):
    found = compare(names, texts, pieces)
    assert found.lost == found.lost_in_a_run, found.example
    assert found.other_tokens == 0


def test_the_only_excluded_matches_are_inside_words(characters):
    found = compare(["大a", "大ab"], ["大ab", "大a"], characters)
    assert (found.matches, found.lost, found.lost_in_a_run, found.more) == (2, 1, 1, 1)


def captions(real_data: Path) -> list[str]:
    """Return all captions of Flickr8k-CN, training and validation."""
    folder = real_data / "flickr8k-cn"
    files = [folder / "train.captions.tsv", folder / "val.captions.tsv"]
    return [row.fields[1] for file in files for row in read_rows(file, (2,), Rejects())]


def heads_and_tails(real_data: Path, graph: str) -> list[str]:
    rows = read_rows(real_data / "kg" / f"{graph}.spo", (3,), Rejects())
    return list(dict.fromkeys(name for row in rows for name in (row.fields[0], row.fields[2])))


def jieba_words() -> list[str]:
    found = importlib.util.find_spec("jieba")
    dictionary = Path(found.submodule_search_locations[0]) / "dict.txt"
    return [line.split(" ")[0] for line in dictionary.read_text(encoding="utf-8").splitlines()]


def assert_no_match_is_lost(found) -> None:
    assert found.matches > 0
    assert found.lost == found.lost_in_a_run, found.example
    assert found.pure_identical == found.pure > 0
    assert found.other_tokens == 0


@pytest.mark.parametrize("graph", ["hownet", "medical"])
def test_no_match_is_lost_on_real_captions_and_names(graph, real_data, pieces):
    names = heads_and_tails(real_data, graph)
    assert_no_match_is_lost(compare(names, captions(real_data)[::7] + names[::7], pieces))


def test_no_match_is_lost_with_the_words_of_jieba_as_names_and_texts(characters):
    words = jieba_words()
    assert_no_match_is_lost(compare(words[::5], words[::50], characters))


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["characters", "pieces"])
@pytest.mark.parametrize("lexicon", ["hownet", "medical", "jieba"])
def test_no_match_is_lost_on_all_available_texts(lexicon, tokenizer, real_data, request):
    names = jieba_words() if lexicon == "jieba" else heads_and_tails(real_data, lexicon)
    texts = captions(real_data) + jieba_words()
    for graph in ("hownet", "medical"):
        texts += heads_and_tails(real_data, graph)
    found = compare(names, texts, request.getfixturevalue(tokenizer))
    print(f"\n{lexicon}, {tokenizer}: {found}")  # noqa: T201 (for `pytest -s -m slow`)
    assert_no_match_is_lost(found)
