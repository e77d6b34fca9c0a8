"""Surfaces of names, and their entities."""

import numpy as np
import pytest

from data.errors import ConfigError, InputError
from data.kg_folder import write_names
from lattice.config import LexiconConfig
from lattice.matching.lexicon import Lexicon, load_lexicon, make_lexicon, read_stop_names
from tests.lattice.oracle import meanings_of


def make(tokenizer, names, mentions=(), **options) -> Lexicon:
    return make_lexicon(names, tokenizer, LexiconConfig(**options), mentions)


def test_short_long_and_empty_names_are_excluded_and_counted(characters):
    lexicon = make(characters, ["狗", "", " ", "北京", "长" * 64_000])
    assert meanings_of(lexicon) == {"北京": [3]}
    assert lexicon.counts["too_short"] == 3
    assert lexicon.counts["too_long"] == 1


def test_single_characters_match_on_request(characters):
    assert meanings_of(make(characters, ["狗"], min_length=1)) == {"狗": [0]}


def test_the_last_of_equal_names_wins(characters):
    lexicon = make(characters, ["北京", "上海", "北京"])
    assert meanings_of(lexicon) == {"北京": [2], "上海": [1]}
    assert lexicon.counts["duplicate_names"] == 1


def test_a_name_equal_to_its_normal_form_has_precedence(characters):
    lexicon = make(characters, ["t恤", "T恤", "故宫 博物院"])
    assert meanings_of(lexicon) == {"t恤": [0], "故宫博物院": [2]}
    assert lexicon.counts["folded_names"] == 2
    assert lexicon.counts["hidden_by_an_equal_name"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "刘德华（演员）",
        "刘德华(演员)",
        "刘德华 （演员）",
        "刘德华[演员]",
        "刘德华【演员】",
        "刘德华〔演员〕",
    ],
)
def test_a_bracket_may_be_omitted(characters, name):
    assert meanings_of(make(characters, [name]))["刘德华"] == [0]
    assert "刘德华" not in meanings_of(make(characters, [name], bracket_aliases=False))


def test_an_alias_names_every_entity_unless_a_name_equals_it(characters):
    names = ["李娜（歌手）", "李娜（网球）", "刘德华（演员）", "刘德华"]
    found = meanings_of(make(characters, names))
    assert found["李娜"] == [0, 1]
    assert found["刘德华"] == [3]


def test_capped_senses_are_the_lowest_ids(characters):
    lexicon = make(characters, [f"张伟（{n}）" for n in range(10)], max_senses=3)
    assert meanings_of(lexicon)["张伟"] == [0, 1, 2]
    assert lexicon.counts["senses_cut"] == 7


def test_mentions_add_entities_to_a_surface(characters):
    mentions = [["苹果", "苹果公司"], ["Apple", "苹果公司"], ["苹果", "没有"], ["果", "苹果"]]
    lexicon = make(characters, ["苹果", "苹果公司"], mentions)
    assert meanings_of(lexicon) == {"苹果": [0, 1], "苹果公司": [1], "apple": [1]}
    assert lexicon.counts["mentions_of_unknown_entities"] == 1
    assert lexicon.counts["mentions_too_short_or_long"] == 1


def test_a_file_without_usable_names_is_an_error(characters, tmp_path):
    write_names(tmp_path / "entity2id.txt", ["狗", "猫"])
    with pytest.raises(InputError, match=r"none of its names can be matched.*too short: 2"):
        load_lexicon(tmp_path, characters, LexiconConfig())


@pytest.mark.parametrize(
    "options", [{"min_length": 0}, {"min_length": 9, "max_length": 3}, {"max_length": 10**6}]
)
def test_invalid_lengths_are_refused(options):
    with pytest.raises(ConfigError):
        LexiconConfig(**options)


def test_a_mention_has_precedence_over_an_alias(characters):
    lexicon = make(characters, ["李娜（歌手）", "李娜（网球）"], [["李娜", "李娜（网球）"]])
    assert meanings_of(lexicon)["李娜"] == [1]


def test_traditional_and_simplified_names_share_a_surface_on_request(characters):
    names = ["鸚鵡", "鹦鹉", "頭髮", "頭發"]
    assert set(meanings_of(make(characters, names))) == set(names)
    lexicon = make(characters, names, fold_variants=True)
    assert meanings_of(lexicon) == {"鹦鹉": [1], "头发": [3]}  # as written, then the last line
    assert lexicon.counts["hidden_by_an_equal_name"] == 1
    assert lexicon.counts["names_equal_as_variants"] == 1


def test_a_simplified_name_with_one_traditional_spelling_merges_nothing(characters):
    lexicon = make(characters, ["鸚鵡", "鸚鵡"], fold_variants=True)
    assert lexicon.counts["duplicate_names"] == 1
    assert "names_equal_as_variants" not in lexicon.counts


def test_all_senses_keep_every_entity_that_a_surface_names(characters):
    names = ["T恤", "t恤", "苹果（水果）", "苹果（公司）", "苹果", "苹果"]
    lexicon = make(characters, names, [["苹果", "t恤"]], senses="all")
    found = meanings_of(lexicon)
    assert found["t恤"] == [0, 1]
    assert found["苹果"] == [1, 2, 3, 4, 5]
    assert "hidden_by_an_equal_name" not in lexicon.counts
    assert "aliases_hidden_by_a_name" not in lexicon.counts


def test_capped_senses_are_the_entities_with_most_triples(characters):
    names = ["张伟", *(f"张伟（{n}）" for n in range(4))]
    config = LexiconConfig(senses="all", max_senses=2)
    lexicon = make_lexicon(names, characters, config, (), lambda: np.array([1, 5, 0, 9, 5]))
    assert meanings_of(lexicon)["张伟"] == [1, 3]
    assert lexicon.counts["senses_cut"] == 3


def test_stop_names_never_match_whatever_they_come_from(characters):
    names = ["照片", "T恤", "李娜（歌手）", "北京"]
    lexicon = make(
        characters, names, [["首都", "北京"]], stop_names=("照片", "T 恤", "李娜", "首都", "没有")
    )
    assert set(meanings_of(lexicon)) == {"李娜（歌手）", "北京"}
    assert lexicon.counts["stopped"] == 4


def test_stop_names_are_the_first_column_of_a_file(write):
    path = write("stop.txt", "照片\n\n一个\t34.2 %\r\n 图片 \n照片\n")
    assert read_stop_names(path) == ("照片", "一个", "图片")


def test_a_file_that_is_not_a_list_of_names_is_refused(write):
    with pytest.raises(InputError, match=r"not one name \(1 wrong column count"):
        read_stop_names(write("stop.txt", "照片\na\tb\tc\n"))
    with pytest.raises(ConfigError, match="10,001 stop names are more than 10,000"):
        LexiconConfig(stop_names=tuple(map(str, range(10_001))))
