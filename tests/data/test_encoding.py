"""Paths in GBK and locales that are not UTF-8, through the real command in a fresh interpreter."""

import json
import os
import subprocess
import sys

from data.encoding import argument_text, has_surrogates, readable
from data.runs import atomic, read_manifest, write_json
from tests.conftest import ROOT

PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # ASCII, as in old shells
GBK = os.fsdecode("红果".encode("gbk"))  # not UTF-8 by chance, as 图片 is


def run(*words: object, **environment: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *map(str, words)],
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    return done.returncode, done.stdout, done.stderr


def test_surrogates_are_written_as_json_escapes(tmp_path):
    write_json(tmp_path / "a.json", {GBK: "甲\ud800"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {GBK: "甲\ud800"}
    with atomic(tmp_path / "b.txt") as file:
        file.write(f"{GBK}红")
    assert (tmp_path / "b.txt").read_bytes() == b"\\udcba\\udcec\\udcb9\\udcfb" + "红".encode()
    assert readable(GBK) == "红果"
    assert readable("a\ud800") == "a\\ud800"
    assert readable("红") == "红"
    assert has_surrogates(GBK)
    assert argument_text(os.fsdecode("红果".encode())) == "红果"


def test_a_folder_in_gbk_holds_a_graph_and_a_table(command, tmp_path):
    folder = tmp_path / GBK
    folder.mkdir()
    triples = folder / os.fsdecode("三元组.tsv".encode("gbk"))
    triples.write_text("红果\t类\t水果\n青果\t类\t水果\n", "utf-8")
    captions = folder / os.fsdecode("描述.tsv".encode("gbk"))
    captions.write_text("1\t一个红果\n2\t\n", "utf-8")
    kg, table, shards = folder / "kg", folder / "t.parquet", folder / "shards"
    for words in (
        ["kg", "train", triples, "--out", kg, "--epochs", 1],
        ["kg", "nearest", "红果", "--kg", kg],
        ["kg", "stats", kg],
        ["kg", "clean", triples, "--out", folder / "clean.tsv"],
        ["lattice", "build", captions, "--kg", kg, "--out", table],
        ["lattice", "build", captions, triples, "--kg", kg, "--out", shards, "--workers", 2],
        ["lattice", "stats", table, "--kg", kg, "--plot", folder / "stats.svg"],
        ["lattice", "export", table, "--out", folder / "easynlp.tsv"],
        ["lattice", "compile", "--kg", kg, "--out", folder / "compiled"],
        ["data", "validate", table],
        ["data", "unquote", captions, "--out", folder / "unquoted.tsv"],
        ["data", "convert", captions, "--no-images", "--out", folder / "converted.tsv"],
    ):
        code, said, error = command(*words)
        assert (code, said != "") == (0, True), (words, error)
    assert read_manifest(kg).inputs.keys() == {f"0:{triples.name}"}
    assert command("kg", "train", triples, "--out", kg, "--epochs", 1)[0] == 0


def test_a_file_in_gbk_is_read_and_written_in_an_ascii_locale(tmp_path):
    folder = tmp_path / GBK
    folder.mkdir()
    captions = folder / os.fsdecode("描述.tsv".encode("gbk"))
    captions.write_text("1\t一个红果\n2\t\n", "utf-8")
    names = folder / "entity2id.txt"
    names.write_text("红果\t0\n", "utf-8")
    table = folder / "t.parquet"
    code, said, error = run("lattice", "build", captions, "--entities", names, "--out", table,
                            **PLAIN)  # fmt: skip
    assert (code, b"1 captions" in said) == (0, True), error
    assert table.exists()
    code, said, error = run("lattice", "show", "一个红果", "--entities", names, **PLAIN)
    assert (code, "红果".encode() in said) == (0, True), error


def test_output_in_gbk_escapes_what_gbk_lacks(tmp_path):
    captions = tmp_path / "\U0001f600.tsv"
    captions.write_text("1\t红果\n", "utf-8")
    code, said, _ = run("data", "validate", captions, "--json", PYTHONIOENCODING="gbk")
    assert code == 0
    found = json.loads(said.decode("gbk"))
    assert found["table"] == str(captions)
    assert "\\ud83d\\ude00" in said.decode("gbk")


def test_a_text_that_is_not_unicode_is_one_clear_error(command, tmp_path):
    names = tmp_path / "entity2id.txt"
    names.write_text("红果\t0\n", "utf-8")
    show = ["lattice", "show", GBK, "--entities", names]
    for words in (show, ["kg", "nearest", GBK, "--kg", tmp_path]):
        code, _, error = command(*words)
        assert (code, error.count("\n")) == (2, 1)
        assert "红果' is not valid Unicode" in error
