"""Reading dumps: strict, independent of order, and correct where data frames are not."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench_kg_read import make_dump
from hypothesis import given, settings
from hypothesis import strategies as st

import data.names
import kg.reading.dumps
import kg.reading.triples
from data.errors import InputError
from data.names import Names
from data.tsv import Rejects
from kg.reading.graph import Graph
from kg.reading.names import normal_names
from kg.reading.row_scanner import normalise
from kg.reading.triples import read_triples
from tests.conftest import ROOT
from tests.kg.reading.slow_reader import slow_read

Named = set[tuple[str, str, str]]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def named(graph: Graph) -> Named:
    entities, relations = graph.entities.to_pylist(), graph.relations.to_pylist()
    return {(entities[h], relations[r], entities[t]) for h, r, t in graph.train.tolist()}


def read(path: Path, min_tail_count: int = 1) -> tuple[Named, Rejects]:
    rejects = Rejects()
    return named(read_triples([path], min_tail_count=min_tail_count, rejects=rejects)), rejects


def assert_same_graph(one: Graph, other: Graph) -> None:
    assert one.entities.equals(other.entities)
    assert one.relations.equals(other.relations)
    np.testing.assert_array_equal(one.train, other.train)


def write_openke(folder: Path, **triples: str | bytes) -> None:
    """Write an OpenKE folder of three entities and one relation."""
    write(folder / "entity2id.txt", "3\n甲\t0\n乙\t1\n丙\t2\n")
    write(folder / "relation2id.txt", "1\n是\t0\n")
    for split, content in triples.items():
        write(folder / f"{split}2id.txt", content)


names = st.text("甲乙丙ab\"' ·Ａé()\u3000\u2028", max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(names, st.sampled_from("rs"), names), min_size=1, max_size=30),
    least=st.integers(1, 3),
)
def test_equals_a_slow_reader(tmp_path_factory, rows, least):
    path = tmp_path_factory.mktemp("dump") / "dump.tsv"
    write(path, "".join("\t".join(r) + "\n" for r in rows))
    wanted = slow_read(path.read_bytes(), least)
    if not wanted.triples:
        with pytest.raises(InputError):
            read_triples([path], min_tail_count=least)
        return
    graph = read_triples([path], min_tail_count=least)
    assert graph.entities.to_pylist() == wanted.entities
    assert graph.relations.to_pylist() == wanted.relations
    assert graph.train.tolist() == wanted.triples


def test_names_that_data_frames_misread_are_unchanged(tmp_path):
    odd = ["NA", "null", "None", "nan", "001", "1e5", "a b", "行\u2028内", "-", "#"]
    odd += ['"1+8"时代广场', '"', "'x", "<a>兰考县</a>"]
    rows = [(name, "是", "东西") for name in odd]
    found, rejects = read(write(tmp_path / "d.tsv", "".join("\t".join(r) + "\n" for r in rows)))
    assert found == set(rows)
    assert rejects.count == 0


def test_unusable_rows_are_rejected_with_line_and_reason(tmp_path):
    bad = "甲\t是\t乙\n一\t二\na\tb\tc\td\n\nx\0\tb\tc\n".encode() + b"\xff\tb\tc\n"
    bad += "\t是\t乙\n甲\t \t乙\n甲\t是\t\u3000".encode()
    rejects = Rejects(tmp_path / "rejects.tsv")
    graph = read_triples([write(tmp_path / "d.tsv", bad)], min_tail_count=1, rejects=rejects)
    assert named(graph) == {("甲", "是", "乙")}
    said = [line.split("\t")[:2] for line in rejects.path.read_text("utf-8").splitlines()]
    assert sorted(said) == [
        ["2", "wrong column count: 2, expected 3"],
        ["3", "wrong column count: 4, expected 3"],
        ["4", "blank line"],
        ["5", "NUL character"],
        ["6", "not UTF-8"],
        ["7", "empty head"],
        ["8", "empty relation"],
        ["9", "empty tail"],
    ]
    assert graph.counts["rows_read"] == 9
    assert graph.counts["rows_rejected"] == 8


def test_byte_order_mark_and_carriage_returns_are_dropped(tmp_path):
    found, _ = read(write(tmp_path / "d.tsv", "\ufeff甲\t是\t乙\r\n丙\t是\t乙\r\n".encode()))
    assert found == {("甲", "是", "乙"), ("丙", "是", "乙")}


def test_a_last_line_without_a_line_break_counts(tmp_path):
    assert read(write(tmp_path / "d.tsv", "甲\t是\t乙\n丙\t是\t乙"))[0] >= {("丙", "是", "乙")}


def test_ids_do_not_depend_on_the_order_of_lines_or_on_chunks(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    rows = [f"名{h}\tr{r}\t物{t}\n" for h, r, t in generator.integers(0, 40, (500, 3))]
    one = read_triples([write(tmp_path / "a.tsv", "".join(rows))])
    generator.shuffle(rows)
    monkeypatch.setattr(kg.reading.dumps, "_BLOCK", 97)
    half = len(rows) // 2
    other = read_triples(
        [
            write(tmp_path / "b.tsv", "".join(rows[:half])),
            write(tmp_path / "c.tsv.gz", gzip.compress("".join(rows[half:]).encode())),
        ]
    )
    assert_same_graph(one, other)
    assert one.counts["format"] == "TSV"
    assert other.counts["format"] == "TSV + TSV in gzip"


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(names, st.sampled_from("rs"), names), min_size=2, max_size=40),
    order=st.randoms(use_true_random=False),
    threads=st.integers(1, 3),
)
def test_ids_depend_neither_on_the_order_of_lines_nor_on_threads_nor_on_chunks(
    tmp_path_factory, rows, order, threads
):
    folder = tmp_path_factory.mktemp("dump")
    lines = ["\t".join(row) + "\n" for row in [*rows, ("甲", "r", "乙")]]
    one = read_triples([write(folder / "a.tsv", "".join(lines))], min_tail_count=1, threads=1)
    order.shuffle(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kg.reading.dumps, "_BLOCK", 64)
        path = write(folder / "b.tsv", "".join(lines))
        other = read_triples([path], min_tail_count=1, threads=threads)
    assert_same_graph(one, other)
    for counts in (one.counts, other.counts):  # the first such row, and a field over several lines
        for name in [name for name in counts if "quote" in name]:
            del counts[name]
    assert one.counts == other.counts


def test_ids_go_by_frequency_then_name(tmp_path):
    graph = read_triples([write(tmp_path / "d.tsv", "b\tr\ta\nc\tr\ta\nd\tr\ta\n")])
    assert graph.entities.to_pylist() == ["a", "b", "c", "d"]


def test_counts_account_for_each_row(tmp_path):
    text = (
        "甲\tr\t乙\n甲\tr\t乙\n丙\tr\t乙\n甲\tr\t甲\n"
        "甲\tr\t长长的话\n丁\tr\t只此一次\nＡ\tr\t乙\nA\tr\t乙\n"
    )
    counts = read_triples([write(tmp_path / "d.tsv", text)]).counts
    assert counts["duplicates_dropped"] == 2  # 甲 r 乙, and A r 乙 once it is normalised
    assert counts["self_loops_dropped"] == 1
    assert counts["literals_dropped"] == counts["literals_distinct"] == 2
    assert counts["entities_without_triples"] == 1
    assert counts["names_merged"] == 1
    assert (counts["triples"], counts["entities"]) == (3, 4)


def test_a_value_of_a_megabyte_is_one_literal(tmp_path):
    found, rejects = read(
        write(tmp_path / "d.tsv", f"甲\tr\t乙\n甲\t简介\t{'很长' * (1 << 19)}\n丙\tr\t乙\n"), 2
    )
    assert found == {("甲", "r", "乙"), ("丙", "r", "乙")}
    assert rejects.count == 0


def test_ownthink_csv_is_read_with_its_quotes(tmp_path, monkeypatch):
    text = (
        '实体,属性,值\n苹果,颜色,红\n"苹果, 青",颜色,"绿""色"\n梨,颜色,"绿""色"\n"甲\n乙",颜色,红\n'
        '"坏,颜色,红\n梨,颜色,红\na,b\n桃,"味",甜\n'
    )
    wanted = {
        ("苹果", "颜色", "红"),
        ("苹果, 青", "颜色", '绿"色'),
        ("梨", "颜色", '绿"色'),
        ("梨", "颜色", "红"),
        ("桃", "味", "甜"),
    }
    for block in (1 << 22, 40, 7):
        monkeypatch.setattr(kg.reading.dumps, "_BLOCK", block)
        found, rejects = read(write(tmp_path / "d.csv", text))
        assert found == wanted, block
        assert rejects.reasons == {
            "line break, tab or NUL in a field": 1,
            "unbalanced quote": 1,
            "wrong column count": 1,
        }, block


def test_openke_folder_keeps_its_ids_and_its_splits(tmp_path, caplog):
    write_openke(tmp_path, train="2\n0 1 0\n2\t1\t0\n", test="1\n0 2 0\n")
    graph = read_triples([tmp_path])
    assert graph.entities.to_pylist() == ["甲", "乙", "丙"]
    assert graph.train.tolist() == [[0, 0, 1], [2, 0, 1]]
    assert graph.test.tolist() == [[0, 0, 2]]
    assert not caplog.records
    write_openke(tmp_path, train="2\n0 0 1\n2 0 1\n", test="1\n0 0 2\n")
    assert read_triples([tmp_path]).train.tolist() == [[0, 0, 1], [2, 0, 1]]
    assert "h r t" in caplog.text


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("3\n0 1 0\n2 1 0\n", "announces 3"),
        ("2\n0 9 0\n2 1 0\n", "train2id.txt:2: ids .* out of range"),
        ("1\n0 1 7\n", "neither the third nor the second"),
        ("1\n0 x 0\n", "train2id.txt"),
        ("0 1 0\n2 1 0\n", "expected the number"),
        ("0\n2 1 0\n", "expected the number"),
        ("0\n", "has no triples"),
        (gzip.compress(b"2\n0 1 0\n2 1 0\n", mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_a_damaged_openke_folder_is_refused(tmp_path, train, said):
    write_openke(tmp_path, train=train)
    with pytest.raises(InputError, match=said):
        read_triples([tmp_path])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        ("甲\t是\t乙\n".encode("gb18030") * 30, "iconv"),
        (gzip.compress("甲\t是\t乙\n".encode() * 9999, mtime=0)[:-30], "damaged gzip"),
        ("甲 是 乙\n".encode(), "no row holds"),
        ("甲\t是\t乙\n".encode(), "--min-tail-count 1"),
    ],
)
def test_a_dump_without_a_graph_is_refused(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read_triples([write(tmp_path / "d", content)])


def test_a_folder_that_is_not_openkes_is_refused(tmp_path):
    with pytest.raises(InputError, match="not an OpenKE folder: entity2id"):
        read_triples([tmp_path])
    with pytest.raises(InputError, match="give it alone"):
        read_triples([tmp_path, write(tmp_path / "d.tsv", "a\tb\tc\n")])


@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", min_codepoint=12)) | st.text("ａ① é́　가b"),
        min_size=1,
        max_size=9,
    )
)
def test_names_of_an_id_file_are_normalised_as_those_of_a_dump(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.names, "_BLOCK", 4)
        assert normal_names(Names.of(names)).to_pylist() == [normalise(name) for name in names]


def test_a_row_that_does_not_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kg.reading.dumps, "_BLOCK", 64)
    monkeypatch.setattr(kg.reading.dumps, "_LONGEST_ROW", 256)
    path = write(tmp_path / "d.tsv", "甲\t是\t乙\n" + "长" * 200)
    with pytest.raises(InputError, match=r"d\.tsv:2: a row of more than"):
        read_triples([path], min_tail_count=1)


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "d.tsv", "甲\t是\t乙\n" * 9)
    number = kg.reading.triples._number

    def cut_short(*args):
        write(path, "甲\t是\t乙\n")
        return number(*args)

    monkeypatch.setattr(kg.reading.triples, "_number", cut_short)
    with pytest.raises(InputError, match="changed while it was read"):
        read_triples([path], min_tail_count=1)


def test_other_line_ends_than_newlines_belong_to_the_names(tmp_path):
    odd = ["甲\u2028乙", "甲\u2029乙", "甲\x85乙", "甲\x0b乙", "甲\x0c乙", "甲\r乙", "甲\x1e乙"]
    text = "".join(f"{name}\t是\t物\r\n" for name in odd)
    found, rejects = read(write(tmp_path / "d.tsv", text))
    assert found == {(name, "是", "物") for name in odd}
    assert rejects.count == 0


def test_a_graph_of_one_relation_and_one_triple_is_a_graph(tmp_path):
    graph = read_triples([write(tmp_path / "d.tsv", "甲\t是\t乙\n")], min_tail_count=1)
    assert graph.relations.to_pylist() == ["是"]
    assert named(graph) == {("甲", "是", "乙")}


_PEAK = """
import resource, sys
from pathlib import Path
from kg.reading.triples import read_triples
tiny, big = map(Path, sys.argv[1:])
read_triples([tiny])  # loads the compiled loops
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
graph = read_triples([big])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, len(graph.entities))
"""


@pytest.mark.slow
def test_memory_stays_below_a_sixth_of_pykeens_reader(tmp_path):
    # `TriplesFactory.from_path` takes 640 bytes per line (benchmarks/kg_xeon_2026-11-21.md).
    lines = 2_000_000
    make_dump(tmp_path / "tiny.tsv", 1000)
    make_dump(tmp_path / "big.tsv", lines)
    paths = [str(tmp_path / name) for name in ("tiny.tsv", "big.tsv")]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peak, entities = map(int, done.stdout.split())
    assert entities > lines / 8
    assert peak / lines < 640 / 6


@pytest.mark.parametrize(
    "header",
    ["head\trelation\ttail", "Subject\tPredicate\tObject", "h\tr\tt", "实体\t属性\t值",
     "\ufeff头实体\t关系\t尾实体", '"head"\t"relation"\t"tail"', "head,relation,tail"],
)  # fmt: skip
def test_a_header_is_rejected_and_no_entity(tmp_path, header):
    mark = "," if "," in header else "\t"
    rows = [mark.join(row) for row in (("红果", "类", "水果"), ("青果", "类", "水果"))]
    rejects = Rejects(tmp_path / "rejects.tsv")
    for end in ("\n", "\r\n"):
        path = write(tmp_path / "d.tsv", end.join([header, *rows]) + end)
        graph = read_triples([path], rejects=rejects)
        assert sorted(graph.entities.to_pylist()) == sorted(["水果", "红果", "青果"])
    assert rejects.first == "line 1: header"
    assert graph.counts["rejected: header"] == 2
    only = write(tmp_path / "only.tsv", header)
    with pytest.raises(InputError, match=r"no row holds head, relation and tail \(line 1: header"):
        read_triples([only])


def test_a_header_of_another_order_is_refused_with_the_command_that_mends_it(tmp_path):
    path = write(tmp_path / "d.tsv", "head\ttail\trelation\n红果\t水果\t类\n")
    with pytest.raises(InputError, match=r"head, tail, relation; .*print \$1, \$3, \$2"):
        read_triples([path])


def test_a_graph_without_triples_says_why(command, tmp_path):
    loops, literals = "甲\tr\t甲\n乙\tr\t乙\n", "丙\tr\t丁\n"
    for text, options, said in [
        (loops, ["--min-tail-count", 1], "2 name the same entity as head and tail. Triples of an"),
        (literals, [], "1 have a tail with fewer than 2 triples. Try --min-tail-count 1."),
        (loops + literals, [], "head and tail and 1 have a tail with fewer than 2 triples. Try"),
    ]:
        path = write(tmp_path / "d.tsv", text)
        code, _, error = command("kg", "train", path, "--out", tmp_path / "kg", *options)
        assert code == 2
        assert said in error
        assert "Try --min-tail-count" not in error or not options
        assert not list(tmp_path.glob("kg*"))
