"""The statistics of a table equal counting row by row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.kg_folder import write_names
from data.schema import LATTICE, table_writer
from lattice.inspecting.stats import lattice_stats

NAMES = ["北京", "故宫", "北京故宫", "手机", "手机壳"]


def row(length: int, entities: list[tuple[int, int, int]]) -> dict:
    """Return a table row; entities are (id, first token, last token)."""
    tokens = list(range(length))
    return {
        "idx": "1",
        "text": "",
        "input_ids": tokens,
        "seq_len": length,
        "lex_ids": [e[0] for e in entities],
        "pos_s": tokens + [e[1] for e in entities],
        "pos_e": tokens + [e[2] for e in entities],
    }


def save(rows, path):
    with table_writer(path, LATTICE) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=LATTICE), row_group_size=3)


@st.composite
def any_row(draw):
    length = draw(st.integers(1, 120))
    place = st.integers(0, length - 1)
    spans = st.lists(st.tuples(st.integers(0, 4), place, place), max_size=25)
    found = [(i, *sorted(ab)) for i, *ab in draw(spans)]
    return row(length, sorted(found, key=lambda e: e[1:]))


@given(
    rows=st.lists(any_row(), min_size=1, max_size=9),
    cut=st.integers(1, 9),
    text_len=st.integers(1, 50),
)
def test_statistics_equal_counting_row_by_row(rows, cut, text_len, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    save(rows[:cut], folder / "a.parquet")
    if rows[cut:]:
        save(rows[cut:], folder / "b.parquet")
    stats = lattice_stats(folder, top=5, text_len=text_len)
    save(rows, tmp_path_factory.mktemp("whole") / "table.parquet")
    assert stats.num_captions == len(rows)
    assert stats.num_tokens == sum(r["seq_len"] for r in rows)
    spans = [
        list(zip(r["lex_ids"], r["pos_s"][r["seq_len"] :], r["pos_e"][r["seq_len"] :], strict=True))
        for r in rows
    ]
    covered = [{t for _, a, b in row for t in range(a, b + 1)} for row in spans]
    assert stats.num_covered_tokens == sum(map(len, covered))
    flat = [i for row in spans for i, _, _ in row]
    assert (stats.num_entities, stats.num_different) == (len(flat), len(set(flat)))
    assert stats.num_with_entity == sum(bool(row) for row in spans)
    assert stats.entities_per_caption == [
        sum(len(row) == n or (n == 20 and len(row) > 20) for row in spans) for n in range(21)
    ]
    assert sum(stats.tokens_per_caption) == len(rows)
    assert stats.tokens_per_caption[96] == sum(r["seq_len"] >= 96 for r in rows)
    assert stats.num_cut == sum(r["seq_len"] > text_len for r in rows)
    assert stats.num_entities_cut == sum(a >= text_len for row in spans for _, a, _ in row)
    often = sorted(set(flat), key=lambda i: (-flat.count(i), i))
    assert stats.most_frequent == [(str(i), flat.count(i)) for i in often]


@pytest.fixture
def table(tmp_path):
    write_names(tmp_path / "entity2id.txt", NAMES)
    rows = [row(4, [(0, 0, 1), (2, 0, 3), (1, 2, 3)]), row(3, []), row(40, [(3, 35, 36)])]
    save(rows, tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_the_command_prints_text(command, table):
    stats = ["lattice", "stats", table, "--entities", table.with_name("entity2id.txt")]
    code, stdout, _ = command(*stats)
    assert code == 0
    lines = stdout.splitlines()
    assert lines[:3] == [
        "3 captions, 15.7 tokens each",
        "66.7 % have an entity; 1.33 entities per caption, 4 distinct; 12.8 % of tokens covered",
        "33.3 % are longer than 32 tokens; 25.0 % of entities begin after that",
    ]
    assert lines[-1] == "most frequent: 北京 1, 故宫 1, 北京故宫 1, 手机 1"


def test_names_in_many_captions_are_proposed_as_stop_names(command, build_with, tmp_path):
    captions = ["北京的照片", "照片和照片", "手机壳的照片", "北京"]
    table = build_with(
        ["照片", "北京", "手机", "手机壳", "照片（图）"], captions, "--senses", "all"
    )
    stop = tmp_path / "stop.txt"
    found = command("lattice", "stats", table, "--stop-share", "0.5", "--stop-names", stop)
    assert "candidates for --stop-names, by captions: 照片 75.0 %, 北京 50.0 %" in found[1]
    assert stop.read_text(encoding="utf-8") == "照片\t75.0 %\n北京\t50.0 %\n"
    names = ["照片", "北京", "手机", "手机壳"]
    table = build_with(names, captions, "--stop-names", stop, "--overwrite")
    found = {i for row in pq.read_table(table).to_pylist() for i in row["lex_ids"]}
    assert found == {2, 3}


def test_a_surface_with_an_unknown_token_is_not_proposed(build_with, pieces, tmp_path):
    pieces.save(tmp_path)
    table = build_with(["看龘", "龘看"], ["看龘", "龘看"], "--tokenizer", tmp_path / "vocab.txt")
    assert lattice_stats(table).num_with_entity == 2
    assert lattice_stats(table).frequent_surfaces == []


@pytest.fixture
def build_with(command, tmp_path):
    """Build a table of some names and captions with the real command."""

    def run(names, captions, *options):
        write_names(tmp_path / "entity2id.txt", names)
        lines = "".join(f"{n}\t{text}\n" for n, text in enumerate(captions))
        (tmp_path / "captions.tsv").write_text(lines, encoding="utf-8")
        given = ("--entities", tmp_path / "entity2id.txt", "--out", tmp_path / "built.parquet")
        assert command("lattice", "build", tmp_path / "captions.tsv", *given, *options)[0] == 0
        return tmp_path / "built.parquet"

    return run


def test_the_command_prints_json(command, table):
    code, stdout, _ = command("lattice", "stats", table, "--json", "--top", "1", "--text-len", "50")
    figures = json.loads(stdout)
    assert code == 0
    assert figures["num_captions"] == 3
    assert figures["num_cut"] == 0
    assert figures["entities_per_caption"][:4] == [1, 1, 0, 1]
    assert figures["most_frequent"] == [{"entity": "0", "count": 1}]


def test_the_command_writes_a_plot(command, table, tmp_path):
    plot = tmp_path / "plots" / "stats.svg"
    stats = ["lattice", "stats", table, "--entities", table.with_name("entity2id.txt")]
    assert command(*stats, "--plot", plot)[0] == 0
    written = plot.read_text(encoding="utf-8")
    assert "北京故宫" in written
    assert "66.7 % have one" in written


def test_a_table_without_entities_or_rows_has_statistics(command, tmp_path):
    save([row(3, [])], tmp_path / "none.parquet")
    save([], tmp_path / "empty.parquet")
    for name in ("none", "empty"):
        plot = tmp_path / f"{name}.svg"
        code, stdout, _ = command("lattice", "stats", tmp_path / f"{name}.parquet", "--plot", plot)
        assert (code, "most frequent: none" in stdout, plot.exists()) == (0, True, True)


def test_other_files_are_one_clear_error(command, table, tmp_path):
    for path, wrong in [
        (table.with_name("entity2id.txt"), "not a readable Parquet file"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / "folder", "contains no .parquet file"),
    ]:
        (tmp_path / "folder").mkdir(exist_ok=True)
        code, _, err = command("lattice", "stats", path)
        assert (code, wrong in err, err.count("\n")) == (2, True, 1)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "folder" / "x.parquet")
    code, _, err = command("lattice", "stats", tmp_path / "folder")
    assert (code, "is not a lattice table" in err) == (2, True)
    code, _, err = command("lattice", "stats", table, "--top", "0")
    assert (code, "top=0 must be at least 1" in err) == (2, True)
