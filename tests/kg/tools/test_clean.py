"""A dump and its clean form have the same graph."""

import numpy as np
from typer.testing import CliRunner

import cli
from data.runs import verify
from kg.reading.triples import read_triples
from kg.tools.clean import clean_dump


def test_the_clean_file_is_the_graph_and_cleaning_it_again_changes_nothing(tmp_path):
    generator = np.random.default_rng(0)
    rows = [f"名Ａ{h}\t关系{r}\t名Ａ{t}\n" for h, r, t in generator.integers(0, 30, (400, 3))]
    dump = tmp_path / "dump.tsv"
    dump.write_text("".join(rows) + "坏\n名A1\t简介\t只此一次\n名A1\t同\t名A1\n", encoding="utf-8")
    report = clean_dump([dump], tmp_path / "a.tsv")
    assert "1 rejected; 1 literals" in str(report)
    clean_dump([tmp_path / "a.tsv"], tmp_path / "b.tsv", min_tail_count=1)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    one, other = read_triples([dump]), read_triples([tmp_path / "a.tsv"], min_tail_count=1)
    assert one.entities.equals(other.entities)
    np.testing.assert_array_equal(one.train, other.train)
    assert "坏" in (tmp_path / "a.tsv.rejects.tsv").read_text(encoding="utf-8")
    verify(tmp_path / "a.tsv")


def test_the_command_writes_the_file_once(tmp_path):
    dump = tmp_path / "dump.tsv"
    dump.write_text("乙\t是\t甲\n丙\t是\t甲\n", encoding="utf-8")
    for _ in range(2):
        args = ["kg", "clean", str(dump), "--out", str(tmp_path / "out.tsv")]
        result = CliRunner().invoke(cli.app, args)
        assert result.exit_code == 0, result.exception
        assert "2 triples, 3 entities, 1 relations" in result.stdout
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "丙\t是\t甲\n乙\t是\t甲\n"
