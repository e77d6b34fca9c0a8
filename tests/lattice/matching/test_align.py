"""Alignment of matches to tokens."""

import pytest

from lattice.matching.align import align
from lattice.matching.matcher import AhoCorasick
from lattice.matching.tokens import BatchTokenizer


def aligned(tokenizer, names, texts):
    """Return `(name, first token, end token)` of the matches of each text."""
    surfaces = [tokenizer.normalise(name) for name in names]
    tokenise = BatchTokenizer(tokenizer)
    tokens = tokenise(texts)
    spans = align(tokens, tokenise.continues, AhoCorasick(surfaces).find(tokens.codes))
    rows = [[] for _ in texts]
    for first, end, ordinal in zip(*(c.tolist() for c in spans), strict=True):
        row = int((tokens.row_tokens[1:] <= first).sum())
        begin = int(tokens.row_tokens[row])
        rows[row].append((names[ordinal], first - begin, end - begin))
    return rows


@pytest.mark.parametrize("which", ["characters", "pieces"])
def test_a_match_never_cuts_a_word(which, request):
    tokenizer = request.getfixturevalue(which)
    names = ["5手机", "15手机", "iPhone", "ip", "cat", "手机壳", "手机", "iPhone15", "mate40"]
    [found, latin, cats] = aligned(
        tokenizer, names, ["iPhone15手机壳", "华为Mate40pro", "concatenate a cat"]
    )
    assert [name for name, *_ in found] == ["iPhone", "iPhone15", "15手机", "手机", "手机壳"]
    assert [name for name, *_ in latin] == ["mate40"]
    assert [name for name, *_ in cats] == ["cat"]


def test_white_space_in_a_caption_is_ignored(characters):
    assert aligned(characters, ["北京故宫"], ["看北 京　故宫"]) == [[("北京故宫", 1, 5)]]


def test_case_and_accents_fold_but_width_does_not(characters):
    rows = aligned(characters, ["T恤", "Ｔ恤", "café"], ["t恤", "ｔ恤", "CAFE", "cafe\u0301"])
    assert [[name for name, *_ in row] for row in rows] == [["T恤"], ["Ｔ恤"], ["café"], ["café"]]


def test_unknown_characters_match_by_their_text(pieces):
    assert aligned(pieces, ["龘鱻", "龘"], ["看龘鱻"]) == [[("龘", 1, 2), ("龘鱻", 1, 3)]]


def test_matches_do_not_cross_captions(characters):
    assert aligned(characters, ["北京"], ["北", "京", "", "北京"]) == [[], [], [], [("北京", 0, 2)]]


def test_spans_are_ordered_by_start_then_end(characters):
    [row] = aligned(characters, ["宫博", "故宫", "故宫博物院", "博物院"], ["故宫博物院"])
    assert [name for name, *_ in row] == ["故宫", "故宫博物院", "宫博", "博物院"]
