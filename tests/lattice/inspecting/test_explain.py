"""`lattice show` agrees with the table and gives a reason for every dropped match."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.kg_folder import TRIPLES_FILE, write_names
from kg.kg_store import write_triples
from lattice.building.build import match_texts
from lattice.config import LatticeConfig
from lattice.inspecting.explain import LONGEST, Claim, explain_text
from lattice.matching.lexicon import make_lexicon
from tests.lattice.oracle import meanings_of


@pytest.fixture
def explain(tmp_path, characters):
    def run(names, text, mentions=None, **options):
        write_names(tmp_path / "entity2id.txt", names)
        file = None
        if mentions:
            file = tmp_path / "m2e.tsv"
            file.write_text("".join("\t".join(pair) + "\n" for pair in mentions), encoding="utf-8")
        return explain_text(
            text,
            names=tmp_path / "entity2id.txt",
            tokenizer=characters,
            config=LatticeConfig(**options),
            mentions=file,
        )

    return run


def reasons(found) -> dict[str, str]:
    return {m.surface: m.reason for m in found.matches}


def test_every_dropped_match_has_its_reason(explain):
    names = ["研究", "研究生", "生命", "命", "研究生命的起源", "起源", "ip", "phone"]
    text = "研究生命的起源iphone"
    options = {"segment": "jieba", "max_entities": 3, "policy": "longest"}
    assert reasons(explain(names, text, **options)) == {
        "研究生命的起源": "",
        "研究": "",
        "生命": "",
        "起源": "over the cap of 3",
        "研究生": "crosses a word boundary",
        "命": "shorter than --min-length 2",
        "ip": "cuts a word",
        "phone": "cuts a word",
    }


def test_a_match_may_end_inside_a_token(tmp_path, pieces):
    write_names(tmp_path / "entity2id.txt", ["ipho", "iphone"])
    found = explain_text("看iphone", names=tmp_path, tokenizer=pieces)
    assert reasons(found) == {"ipho": "ends inside a token", "iphone": ""}
    assert found.surfaces == ("看", "iphone")


def test_claims_to_a_surface(explain):
    names = ["t恤", "T恤", "t恤", "北京", "T 恤"]
    found = explain(names, "T恤")
    assert found.claims["t恤"] == (
        Claim(2, "t恤", "as written"),
        Claim(0, "t恤", "as written", "a later line has the same name"),
        Claim(4, "T 恤", "folded", "t恤 equals it"),
        Claim(1, "T恤", "folded", "t恤 equals it"),
    )
    assert "北京" not in found.claims


def test_claims_by_brackets_and_mentions(explain):
    names = ["李娜（歌手）", "李娜（网球）", "刘德华（演员）", "刘德华", "华仔"]
    found = explain(names, "李娜和刘德华，华仔", mentions=[("华仔", "刘德华"), ("李", "华仔")])
    assert found.claims["李娜"] == (
        Claim(0, "李娜（歌手）", "without its bracket"),
        Claim(1, "李娜（网球）", "without its bracket"),
    )
    assert found.claims["刘德华"][1].lost == "a name or mention equals it"
    assert found.claims["华仔"] == (Claim(4, "华仔", "as written"), Claim(3, "刘德华", "mention"))
    assert reasons(found)["李"] == "shorter than --min-length 2"


def test_claims_over_the_limit_of_senses(explain):
    found = explain([f"张伟（{n}）" for n in range(4)], "张伟", max_senses=2)
    assert [claim.lost for claim in found.claims["张伟"]] == ["", ""] + [
        "only 2 entities may share a surface"
    ] * 2
    assert found.matches[0].entity_ids == (0, 1)


LETTERS = "研究生命的aAbB1é（） "
words = st.text(LETTERS, max_size=4)


@settings(max_examples=60)
@given(
    names=st.lists(words | words.map("{}（生）".format), min_size=1, max_size=10),
    text=st.text(LETTERS, max_size=15),
    mentions=st.lists(st.tuples(words, words), max_size=3),
    options=st.fixed_dictionaries(
        {
            "min_length": st.sampled_from([1, 2]),
            "max_senses": st.sampled_from([1, 8]),
            "max_entities": st.sampled_from([None, 2]),
            "policy": st.sampled_from(["first", "leftmost-longest"]),
            "segment": st.sampled_from(["none", "jieba"]),
            "bracket_aliases": st.booleans(),
            "senses": st.sampled_from(["own", "all"]),
            "fold_variants": st.booleans(),
            "stop_names": st.lists(words, max_size=2),
        }
    ),
)
def test_explanations_agree_with_the_table(
    names, text, mentions, options, pieces, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("explain")
    write_names(folder / "entity2id.txt", [*names, "占位"])
    file = folder / "m2e.tsv"
    pairs = [pair for pair in mentions if "".join(pair).strip()] or [("占", "占位")]
    file.write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8")
    config = LatticeConfig(**options)
    given = {"names": folder, "tokenizer": pieces, "config": config, "mentions": file}
    found = explain_text(text, **given)
    [row] = match_texts([text], **given).to_pylist()
    edges = [0]
    for surface in found.surfaces:
        edges.append(edges[-1] + len(surface))
    n = row["seq_len"]
    spans = zip(row["lex_ids"], row["pos_s"][n:], row["pos_e"][n:], strict=True)
    in_table = {(edges[first], edges[last + 1], i) for i, first, last in spans}
    shown = [(m.start, m.end, i) for m in found.matches if not m.reason for i in m.entity_ids]
    assert len(shown) == len(set(shown))
    assert set(shown) == in_table

    known = meanings_of(make_lexicon([*names, "占位"], pieces, config, pairs))
    for surface, claims in found.claims.items():
        if config.min_length <= len(surface):
            holding = sorted(claim.entity_id for claim in claims if not claim.lost)
            assert holding == known.get(surface, [])


def test_a_traditional_text_is_shown_as_written_with_the_simplified_name(explain):
    found = explain(["鹦鹉", "绿色"], "綠色鸚鵡", fold_variants=True)
    assert "".join(found.surfaces) == "綠色鸚鵡"
    assert [(m.start, m.end, m.entity_ids, m.reason) for m in found.matches] == [
        (0, 2, (1,), ""),
        (2, 4, (0,), ""),
    ]


def test_a_stop_name_is_shown_as_dropped(explain):
    found = explain(["照片", "北京"], "北京的照片", stop_names=("照片",))
    assert reasons(found) == {"北京": "", "照片": "a stop name"}


def test_all_senses_are_listed_by_their_triples(tmp_path, characters):
    write_names(tmp_path / "entity2id.txt", ["张伟（甲）", "张伟（乙）", "张伟"])
    write_triples(tmp_path / TRIPLES_FILE, np.array([[1, 0, 0], [1, 0, 2], [1, 0, 1]], np.int32))
    config = LatticeConfig(senses="all", max_senses=2)
    found = explain_text("张伟", names=tmp_path, tokenizer=characters, config=config)
    assert [(c.entity_id, c.lost) for c in found.claims["张伟"]] == [
        (1, ""),
        (0, ""),
        (2, "only 2 entities may share a surface"),
    ]
    assert [m.entity_ids for m in found.matches if m.surface == "张伟"] == [(1, 0)]


def test_a_text_that_is_too_long_is_refused(explain):
    with pytest.raises(InputError, match="at most 1000 can be shown"):
        explain(["北京"], "北" * (LONGEST + 1))
