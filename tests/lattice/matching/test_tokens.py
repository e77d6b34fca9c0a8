"""The batch tokenizer equals the tokenizer for all characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.matching.tokens import SEPARATOR, BatchTokenizer

ODD = "\u0301\u200d\u3099😀İßςéＡ①ﬁ가한ギカﾞ\u00ad\u2028\u0085\x0b\ufeff\ufffd龘鱻𠀀豈"
LETTERS = "北京故宫手机的，。Tt恤iPhone15z \t\u3000-_'[]()（）MASKUN##" + ODD


def assert_equal(tokenizer, texts):
    batch = BatchTokenizer(tokenizer)(texts)
    assert len(batch.row_tokens) == len(batch.row_chars) == len(texts) + 1
    stream = batch.codes.tobytes().decode("utf-32-le")
    for n, expected in enumerate(tokenizer.encode(texts)):
        begin, end = batch.row_tokens[n : n + 2]
        assert batch.ids[begin:end].tolist() == expected.ids, texts[n]
        assert batch.lengths[begin:end].tolist() == [len(s) for s in expected.surfaces]
        row = stream[batch.row_chars[n] : batch.row_chars[n + 1]]
        assert row == "".join(expected.surfaces) + chr(SEPARATOR), texts[n]
    return batch


@given(st.lists(st.text(LETTERS, max_size=12), max_size=6))
def test_equals_the_tokenizer_row_by_row(pieces, texts):
    assert_equal(pieces, texts)


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4))
def test_equals_the_tokenizer_on_any_unicode(characters, texts):
    assert_equal(characters, texts)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_equals_the_tokenizer_for_each_character_between_others(characters, plane):
    codes = [c for c in range(plane << 16, (plane + 1) << 16) if not 0xD800 <= c < 0xE000]
    codes = codes[:0x3400] + codes[0x3400::5] if plane == 0 else codes[::11]
    assert_equal(characters, [f"猫a{chr(c)}b{chr(c)}狗{chr(c)}" for c in codes])


@pytest.mark.parametrize(
    "texts", [[], [""], ["", "北京", ""], ["[MASK]北京[mask]", "北[UNK]京"], ["a\nb", "\n"]]
)
def test_edges(pieces, texts):
    assert_equal(pieces, texts)


def test_only_undecided_rows_go_to_the_tokenizer(pieces):
    texts = ["北京故宫，iPhone15。", "北京😀", "[x] 北", "北[MASK]", "e\u0301"]
    batch = assert_equal(pieces, texts)
    assert batch.num_undecided == 3


def test_a_long_word_is_unknown_as_in_bert(pieces):
    assert_equal(pieces, ["猫" + "a" * 101 + "狗", "a" * 5000])
