"""`kg convert` on every format, and on to entity vectors and a lexicon, by the real commands."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from backports.zstd import compress as zstd

from data.runs import verify
from kg.sources.config import ConvertConfig
from kg.sources.convert import convert_graph
from tests.kg.sources import samples

Command = Callable[..., tuple[int, str, str]]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def convert(folder: Path, *sources: Path, **settings) -> tuple[list[str], list[str], str]:
    """Return triples, mentions and the report."""
    report = convert_graph(
        sources, folder / "out" / "triples.tsv", config=ConvertConfig(**settings), overwrite=True
    )
    return lines(report.out), lines(report.mentions), str(report)


TRIPLES = [
    "大熊猫\t隶属于\t哺乳动物",
    "苹果（Q89）\t隶属于\t水果",
    "苹果（Q89）\t父级分类单元\t水果",
    "苹果（Q312）\t隶属于\t企業",
    "水果\tP1889\t企業",
]


def test_wikidata_is_named_in_the_order_of_preference(tmp_path):
    triples, mentions, report = convert(tmp_path, samples.write_wikidata(tmp_path / "a.nt"))
    assert triples == TRIPLES
    # The bare name means both items, the more frequent one first.
    assert [m for m in mentions if m.startswith("苹果\t")] == [
        "苹果\t苹果（Q89）",
        "苹果\t苹果（Q312）",
    ]
    assert {"大貓熊\t大熊猫", "蘋果\t苹果（Q89）", "苹果公司\t苹果（Q312）", '🍎果 "x"\t水果'} < {
        *mentions
    }
    assert "read: Wikidata N-Triples" in report
    assert "1 literals, decimal" in report
    assert "2 entities have the same name" in report


def test_bad_lines_are_kept_with_file_line_and_reason(tmp_path):
    path = samples.write_wikidata(tmp_path / "a.nt")
    _, _, report = convert(tmp_path, path)
    rejects = lines(tmp_path / "out" / "triples.tsv.rejects.tsv")
    found = [line.split("\t", 3) for line in rejects]
    raw = path.read_bytes().splitlines()
    assert [int(line) for _, line, _, _ in found] == sorted(int(line) for _, line, _, _ in found)
    for source, line, _, text in found[:-2]:
        assert source == str(path)
        assert raw[int(line) - 1].decode() == text
    expected = [*samples.BAD_WIKIDATA.values(), "not UTF-8", "line ends inside a term"]
    assert [part in reason for part, (_, _, reason, _) in zip(expected, found, strict=True)] == (
        [True] * len(expected)
    )
    assert f"{len(expected)} rejected" in report


def test_the_json_dump_gives_the_same_triples(tmp_path):
    triples, mentions, report = convert(tmp_path, samples.write_wikidata_json(tmp_path / "a.json"))
    assert triples == TRIPLES
    assert "貓熊\t大熊猫" in mentions
    assert "13 lines, 2 rejected" in report
    assert "1 items have no name" in report


def test_a_fallback_language_names_what_the_first_does_not(tmp_path):
    path = samples.write_wikidata(tmp_path / "a.nt")
    triples, mentions, _ = convert(tmp_path, path, fallback_lang="en")
    assert "苹果（Q89）\t隶属于\tnameless in Chinese" in triples
    assert "giant panda\t大熊猫" in mentions
    english, _, _ = convert(tmp_path, path, lang="en")
    assert "apple\tinstance of\tfruit" in english


def test_dbpedia_is_named_by_labels_or_iris_and_redirects_are_mentions(tmp_path):
    triples, mentions, report = convert(tmp_path, *samples.write_dbpedia(tmp_path))
    assert triples == ["刘德华\t出生地\t香港", "李白\t出生地\t碎叶", "忘情水\tartist\t刘德华",
                       "AC/DC\thometown\t香港"]  # fmt: skip
    assert mentions == ["Andy Lau\t刘德华", "华仔\t刘德华"]
    assert "1 literals, double" in report
    assert "1 statements of disambiguation pages" in report


def test_conceptnet_keeps_assertions_within_the_language(tmp_path):
    path = samples.write_conceptnet(tmp_path / "conceptnet.csv")
    triples, mentions, report = convert(tmp_path, path)
    assert triples == ["熊猫\tIsA\t动物", "熊猫\tIsA\t哺乳 动物", "熊猫\tAtLocation\t竹林",
                       "摇滚\tgenre\t音乐"]  # fmt: skip
    assert mentions == []
    assert "9 lines, 3 rejected" in report
    fewer, _, report = convert(tmp_path, path, min_weight=1)
    assert fewer == [t for t in triples if "竹林" not in t]
    assert "1 assertions below the minimum weight" in report


def test_wikidata5m_is_named_by_the_first_alias(tmp_path):
    triples, mentions, report = convert(tmp_path, *samples.write_wikidata5m(tmp_path))
    assert triples == ["Douglas Adams\tinstance of\thuman", "universe\tpart of\tEarth"]
    assert "The Blue Planet\tEarth" in mentions
    assert "12 lines, 3 rejected" in report
    without_relations, _, _ = convert(
        tmp_path, *[tmp_path / f"wikidata5m_{name}.txt" for name in ("all_triplet", "entity")]
    )
    assert without_relations[1] == "universe\tP361\tEarth"


def test_wikidata5m_takes_chinese_names_from_wikidata(tmp_path):
    names = tmp_path / "names.nt"
    names.write_text(f'{samples.item("Q42")} {samples.LABEL} "道格拉斯·亚当斯"@zh .\n', "utf-8")
    triples, mentions, _ = convert(tmp_path, names, *samples.write_wikidata5m(tmp_path))
    assert triples[0] == "道格拉斯·亚当斯\tinstance of\thuman"
    assert "Douglas Adams\t道格拉斯·亚当斯" in mentions


@pytest.mark.parametrize("write", [samples.write_omw_tab, samples.write_chinese_lmf])
def test_a_wordnet_skips_synsets_without_a_chinese_word(tmp_path, write):
    english = samples.write_english_wordnet(tmp_path / "en.xml")
    triples, mentions, _ = convert(tmp_path, write(tmp_path / "cmn"), english)
    # Between 狗 and 哺乳动物 is "carnivore", which has no Chinese word here.
    assert {"狗\t上位词\t哺乳动物", "哺乳动物\t上位词\t动物", "狗\t部分\t爪"} <= {*triples}
    assert {"犬\t狗", "哺乳类\t哺乳动物"} <= {*mentions}
    more, _, _ = convert(tmp_path, tmp_path / "cmn", english, closure=True)
    assert {*more} - {*triples} == {"狗\t属于\t哺乳动物", "狗\t属于\t动物", "哺乳动物\t属于\t动物"}


def test_an_omw_file_has_optional_endings_and_gaps(tmp_path):
    english = samples.write_english_wordnet(tmp_path / "en.xml")
    triples, mentions, report = convert(tmp_path, samples.write_omw_tab(tmp_path / "a"), english)
    assert "美丽\t近义\t好看" in triples  # a satellite adjective is one of OMW's adjectives
    assert {"美丽的\t美丽", "好看的\t好看"} <= {*mentions}
    assert "GAP!" not in str(triples) + str(mentions)
    assert "2 rejected" in report


def test_ownthinks_senses_are_mentions(tmp_path):
    triples, mentions, report = convert(tmp_path, samples.write_ownthink(tmp_path / "own.csv"))
    assert '大山【歌手】\t描述\t名字里有"引号",也有逗号' in triples
    assert len(triples) == 6
    assert {*mentions} == {"大山\t大山【歌手】", "大山\t大山[某协会会长]", "大山\t大山〔山名〕",
                           "刘德华\t刘德华（演员）"}  # fmt: skip
    assert "3 rejected" in report


def test_other_triples_are_named_by_the_last_part_of_their_iri(tmp_path):
    triples, mentions, _ = convert(tmp_path, samples.write_ntriples(tmp_path / "a.nt"))
    assert triples == ["玫瑰\tgrows in\tgarden", "tulip\tgrows in\t花园"]
    assert mentions == ["玫瑰花\t玫瑰"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstd])
def test_compressed_sources_are_read_and_damage_leaves_nothing_behind(tmp_path, pack, command):
    plain = samples.write_wikidata(tmp_path / "a.nt").read_bytes()
    path = tmp_path / "a.nt.packed"
    path.write_bytes(pack(plain))
    assert convert(tmp_path, path)[0] == TRIPLES
    path.write_bytes(pack(plain * 50)[:-20])
    code, _, error = command("kg", "convert", path, "--out", tmp_path / "new.tsv")
    assert code == 2
    assert "damaged" in error
    assert {p.name for p in tmp_path.iterdir()} == {"a.nt", "a.nt.packed", "out"}


# ---- The way to entity vectors and a lexicon

ALL = {
    "wikidata": lambda f: [samples.write_wikidata(f / "a.nt")],
    "wikidata_json": lambda f: [samples.write_wikidata_json(f / "a.json")],
    "dbpedia": samples.write_dbpedia,
    "conceptnet": lambda f: [samples.write_conceptnet(f / "a.csv")],
    "wikidata5m": samples.write_wikidata5m,
    "wordnet": lambda f: [samples.write_omw_tab(f / "a.tab"),
                          samples.write_english_wordnet(f / "en.xml")],
    "ownthink": lambda f: [samples.write_ownthink(f / "a.csv")],
    "ntriples": lambda f: [samples.write_ntriples(f / "a.nt")],
}  # fmt: skip
CAPTIONS = {
    "wikidata": ("竹林里的貓熊和苹果", {"大熊猫", "苹果(Q89)", "苹果(Q312)"}),
    "wikidata_json": ("竹林里的貓熊和苹果", {"大熊猫", "苹果(Q89)", "苹果(Q312)"}),
    "dbpedia": ("华仔在香港", {"刘德华", "香港"}),
    "conceptnet": ("竹林里的熊猫", {"竹林", "熊猫"}),
    "wikidata5m": ("the blue planet", {"Earth"}),
    "wordnet": ("一只美丽的哺乳类", {"美丽", "哺乳动物"}),
    "ownthink": ("大山在加拿大", {"大山[某协会会长]", "大山【歌手】", "大山〔山名〕", "加拿大"}),
    "ntriples": ("花园里的玫瑰花", {"花园", "玫瑰"}),
}


@pytest.mark.parametrize("graph", ALL)
def test_every_format_leads_to_vectors_and_a_lexicon(tmp_path, command, graph):
    sources = ALL[graph](tmp_path)
    triples, mentions, kg = (tmp_path / name for name in ("triples.tsv", "mentions.tsv", "kg"))
    for word in ("is written", "is finished and unchanged"):
        code, output, error = command("kg", "convert", *sources, "--out", triples)
        assert code == 0, error
        assert word in output
    verify(triples)
    verify(mentions)
    small = ("--min-tail-count", 1, "--epochs", 1, "--dim", 8)
    code, _, error = command("kg", "train", triples, "--out", kg, *small)
    assert code == 0, error
    text, expected = CAPTIONS[graph]
    (tmp_path / "captions.tsv").write_text(f"1\t{text}\n", encoding="utf-8")
    table = tmp_path / "table.parquet"
    words = ("--kg", kg, "--mentions", mentions, "--out", table)
    code, _, error = command("lattice", "build", tmp_path / "captions.tsv", *words)
    assert code == 0, error
    names = [line.split("\t")[0] for line in lines(kg / "entity2id.txt")[1:]]
    found = {names[i] for i in pq.read_table(table)["lex_ids"][0].as_py()}
    assert expected <= found


# ---- What is refused, and what it leaves behind


@pytest.mark.parametrize("graph", [g for g in ALL if g != "ownthink"])
def test_kg_train_names_the_conversion_and_leaves_nothing_behind(tmp_path, command, graph, caplog):
    source = ALL[graph](tmp_path)[0]
    before = {*tmp_path.iterdir()}
    words = ("--out", tmp_path / "kg", "--min-tail-count", 1, "--epochs", 1, "--dim", 8)
    code, _, error = command("kg", "train", source, *words)
    assert "kg convert" in error + caplog.text
    if graph == "wikidata5m":  # three columns of ids: triples like any others
        assert code == 0
    else:
        assert code == 2
        assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"\xe7\x94\xb2\t\xe6\x98\xaf\t\xe4\xb9\x99\n", "`kg train"),
        ("a.txt", b"some prose\n", "unknown format"),
        ("a.zip", b"PK\x03\x04...", "zip archive"),
        ("a.ttl", b"@prefix a: <http://a/> .\na:b a:c a:d .\n", "Turtle with prefixes"),
        ("a.xml", b"<?xml version='1.0'?><LexicalResource><Lexicon>", "not valid XML"),
        ("a.nt", b'<http://a/b> <http://a/c> "d" .\n', "no statement between two entities"),
        ("a.nt", f"{samples.direct('Q1', 'P1', 'Q2')}\n".encode(), "--fallback-lang en"),
        ("a.tab", b"00001740-n\tcmn:lemma\t\xe7\x94\xb2\n", "omw-en"),
        ("a.nt", b"", "empty"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(tmp_path, command, name, content, message):
    (tmp_path / name).write_bytes(content)
    code, _, error = command("kg", "convert", tmp_path / name, "--out", tmp_path / "t.tsv")
    assert code == 2
    assert message in error
    assert {p.name for p in tmp_path.iterdir()} == {name}


def test_files_of_different_graphs_are_refused(tmp_path, command):
    sources = [samples.write_ntriples(tmp_path / "a.nt"), samples.write_conceptnet(tmp_path / "b")]
    code, _, error = command("kg", "convert", *sources, "--out", tmp_path / "t.tsv")
    assert code == 2
    assert "different graphs (a.nt: ntriples, b: conceptnet)" in error


def test_a_lost_mention_file_is_written_again(tmp_path, command):
    source = samples.write_ntriples(tmp_path / "a.nt")
    words = ("kg", "convert", source, "--out", tmp_path / "t.tsv")
    assert command(*words)[0] == 0
    before = (tmp_path / "mentions.tsv").read_bytes()
    (tmp_path / "mentions.tsv").unlink()
    (tmp_path / "mentions.tsv.manifest.json").unlink()
    assert command(*words)[0] == 0
    assert (tmp_path / "mentions.tsv").read_bytes() == before
    manifest = json.loads((tmp_path / "t.tsv.manifest.json").read_text(encoding="utf-8"))
    assert manifest["counts"]["dropped"] == {"literal, plain": 1}
    assert command(*words, "--lang", "de")[0] == 2  # another run
