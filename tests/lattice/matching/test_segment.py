"""Matches that cross a word boundary."""

import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.matching import segment
from lattice.matching.align import align
from lattice.matching.matcher import AhoCorasick
from lattice.matching.segment import crosses_word, segmenter
from lattice.matching.tokens import BatchTokenizer
from tests.lattice.matching.test_reference import captions


@pytest.fixture(params=["jieba", "rjieba"])
def cut(request, monkeypatch):
    """Each segmenter, with the other unavailable."""
    segmenter.cache_clear()
    if request.param == "jieba":
        ordinary = builtins.__import__

        def without(name, *rest):
            if name == "rjieba":
                raise ImportError(name)
            return ordinary(name, *rest)

        monkeypatch.setattr(builtins, "__import__", without)
    else:
        pytest.importorskip("rjieba")
    found = segmenter()
    assert found.name.startswith(f"{request.param} ")
    monkeypatch.undo()
    yield found.cut
    segmenter.cache_clear()


@pytest.fixture(scope="module", params=["jieba", "rjieba"])
def either(request):
    """The segmenting function alone."""
    if request.param == "jieba":
        return segment._jieba().cut
    return pytest.importorskip("rjieba").cut


@given(text=st.text("研究生命的起源aA1 %.😀\u0301龘𠀀", max_size=12))
def test_concatenated_words_equal_the_text(either, text):
    assert "".join(either(text)) == text


WORDS = "研究 生命 的 起源"
NAMES = ["研究", "研究生", "究生", "生命", "命的", "研究生命", "生命的起源", "的起", "起", "起源"]


def crossing(tokenizer, text):
    tokenise = BatchTokenizer(tokenizer)
    tokens = tokenise([text])
    spans = align(tokens, tokenise.continues, AhoCorasick(NAMES).find(tokens.codes))
    crosses = crosses_word(tokens, spans).tolist()
    return {NAMES[n] for n, bad in zip(spans.ordinal.tolist(), crosses, strict=True) if bad}


def test_a_match_of_parts_of_words_crosses(cut, characters):
    assert list(cut("".join(WORDS.split()))) == WORDS.split()
    assert crossing(characters, "研究生命的起源") == {"研究生", "究生", "命的", "的起"}


def test_boundaries_are_those_of_the_same_caption(cut, characters):
    tokenise = BatchTokenizer(characters)
    tokens = tokenise(["研究生", "命的起源"])
    spans = align(tokens, tokenise.continues, AhoCorasick(NAMES).find(tokens.codes))
    first = [NAMES[n] for n in spans.ordinal[~crosses_word(tokens, spans)]]
    assert "研究生" in first


def test_both_segment_real_captions_alike(real_data):
    rjieba = pytest.importorskip("rjieba")
    jieba = segment._jieba()
    texts = captions(real_data)[::20]
    assert sum(list(jieba.cut(t)) == rjieba.cut(t) for t in texts) > 0.98 * len(texts)
