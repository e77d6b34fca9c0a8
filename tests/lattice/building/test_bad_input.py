"""Bad captions, names, disks and signals, case by case, with the real command.

Each gives the correct row, or a reject with line and reason, or one clear error, and never a
partial file under its final name.
"""

import bz2
import gzip
import json
import lzma
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from data.kg_folder import VECTORS, VECTORS_KEY, write_names
from data.runs import read_manifest
from lattice.building import caption_reader as corpus
from tests.conftest import ROOT
from tests.lattice.samples import encoded, rejects_of

NAMES = ["北京", "故宫", "北京故宫", "NA", "007", "手机"]
GOOD = "8\t北京\n9\t故宫\n"


def rows(out: Path) -> list[tuple[str, str, list[str]]]:
    return [
        (row["idx"], row["text"], [NAMES[i] for i in row["lex_ids"]])
        for row in pq.read_table(out).to_pylist()
    ]


def assert_one_clear_error(code: int, err: str, message: str, out: Path) -> None:
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not list(out.parent.glob(f"{out.name}*")), "no output"
    assert not list(out.parent.glob("*.partial"))


# --- captions: the correct row -------------------------------------------------------------------
LONG = "北京故宫" * 250_000
CORRECT = {
    "byte-order mark": (b"\xef\xbb\xbf1\t\xe5\x8c\x97\xe4\xba\xac\n", [("1", "北京", ["北京"])]),
    "CRLF": ("1\t北京\r\n2\t故宫\r\n", [("1", "北京", ["北京"]), ("2", "故宫", ["故宫"])]),
    "no line feed at the end": ("1\t北京\n2\t故", [("1", "北京", ["北京"]), ("2", "故", [])]),
    "a lone CR in a caption": ("1\t北\r京狗\n", [("1", "北\r京狗", ["北京"])]),
    "U+2028": ("1\t北\u2028京\n", [("1", "北\u2028京", ["北京"])]),
    "U+0085": ("1\t北京\u0085故\n", [("1", "北京\u0085故", ["北京"])]),
    "vertical tab": ("1\t北京\x0b故\n", [("1", "北京\x0b故", ["北京"])]),
    "literal [MASK]": ("1\t[MASK]北京\n", [("1", "[MASK]北京", ["北京"])]),
    "unbalanced quotes": ('1\t"北京\n2\t故"\n', [("1", '"北京', ["北京"]), ("2", '故"', [])]),
    "NA": ("NA\tNA\n", [("NA", "NA", ["NA"])]),
    "007": ("007\t007\n", [("007", "007", ["007"])]),
    "duplicate idx": ("1\t北京\n1\t故宫\n", [("1", "北京", ["北京"]), ("1", "故宫", ["故宫"])]),
    "a formula": ("=1+1\t@北京\n", [("=1+1", "@北京", ["北京"])]),
    "empty idx": ("\t北京\n", [("", "北京", ["北京"])]),
    "gzip": (gzip.compress("1\t北京\n".encode()), [("1", "北京", ["北京"])]),
}  # fmt: skip


@pytest.mark.parametrize("case", CORRECT)
def test_the_correct_row(build, case):
    content, expected = CORRECT[case]
    code, stdout, err, out = build(content)
    assert (code, err) == (0, "")
    assert rows(out) == expected
    assert rejects_of(out) == []
    assert ("1 rows repeat the idx" in stdout) == (case == "duplicate idx")


def test_a_caption_of_a_million_characters_is_a_row(build):
    code, _, _, out = build(f"1\t{LONG}\n{GOOD}")
    assert code == 0
    [row, *rest] = pq.read_table(out).to_pylist()
    assert row["text"] == LONG
    assert (row["seq_len"], len(row["lex_ids"]), len(rest)) == (1_000_000, 750_000, 2)


def test_mask_is_the_token_of_the_tokenizer(build, tmp_path):
    *_, out = build("1\t[MASK]北京\n")
    vocabulary = (tmp_path / "out.parquet.tokenizer" / "vocab.txt").read_text("utf-8").split("\n")
    [ids] = pq.read_table(out)["input_ids"].to_pylist()
    assert [vocabulary[i] for i in ids] == ["[MASK]", "北", "京"]


@pytest.mark.parametrize("size", [1 << 10, 1 << 16])
def test_a_row_longer_than_one_read_is_a_row(build, monkeypatch, size):
    monkeypatch.setattr(corpus, "_TEXT_CHUNK", size)
    text = "北京" * 100_000
    code, _, _, out = build(f"{GOOD}1\t{text}\n{GOOD}")
    assert code == 0
    assert [len(row[1]) for row in rows(out)] == [2, 2, 200_000, 2, 2]


# --- captions: a reject with line and reason -----------------------------------------------------
REJECTED = {
    "NUL": (b"1\t\xe5\x8c\x97\x00\n", "NUL character"),
    "invalid UTF-8": (b"1\t\xe5\x8c\n", "not UTF-8"),
    "tab in a caption": (b"1\t\xe5\x8c\x97\t\xe4\xba\xac\n", "wrong column count: 3, expected 2"),
    "one column": (b"1\n", "wrong column count: 1, expected 2"),
    "empty caption": (b"1\t\n", "empty caption"),
    "blank caption": (b"1\t \xe3\x80\x80 \n", "empty caption"),
    "blank line": (b"\n", "blank line"),
    "no token": (b"1\t\xe2\x80\x8b\n", "caption without a token"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_reject_with_line_and_reason(build, case):
    line, reason = REJECTED[case]
    code, stdout, _, out = build(GOOD.encode() + line + GOOD.encode())
    assert code == 0
    assert [row[0] for row in rows(out)] == ["8", "9", "8", "9"]
    [[number, why, kept]] = rejects_of(out)
    assert (number, why[: len(reason)]) == ("3", reason)
    assert kept == line.rstrip(b"\n").decode("utf-8", "replace").replace("\t", "\\t")
    assert "1 rows rejected" in stdout
    assert f"first: line 3: {reason}" in stdout


def test_two_columns_where_three_are_expected_in_the_middle(build):
    image = encoded()
    lines = [f"{n}\t北京\t{image}\n" for n in range(5)]
    code, _, _, out = build("".join([*lines[:3], "x\t北京\n", *lines[3:]]))
    assert code == 0
    assert [row[0] for row in rows(out)] == list("01234")
    [[number, why, _]] = rejects_of(out)
    assert (number, why) == (
        "4",
        "wrong column count: 2, expected 3 as most of the first rows have",
    )


# --- captions: one clear error -------------------------------------------------------------------
UNUSABLE = {
    "empty file": (b"", "corpus.tsv is empty"),
    "empty gzip": (gzip.compress(b""), "corpus.tsv is empty"),
    "only a byte-order mark": (b"\xef\xbb\xbf", "is empty"),
    "GBK": ("".join(f"{n}\t北京的故宫\n" for n in range(50)).encode("gbk"), "iconv -f GB18030"),
    "UTF-16": ("1\t北京\n2\t故宫\n".encode("utf-16"), "UTF-16"),
    "lone CR as line ends": (b"1\t\xe5\x8c\x97\r2\t\xe5\x8c\x97\r3\t\xe5\x8c\x97\r", "end with CR"),
    "no tabs": (
        "一\n二\n".encode(),
        "none of its 2 rows can be used; the first is line 1: wrong column",
    ),
    "four columns": (b"1\t2\t3\t4\n", "wrong column count: 4, expected 2 as most"),
    "no image": (f"1\t北京\t{'x' * 9}\n".encode(), "invalid base64"),
    "a Parquet file": (b"PAR1\0\0\0\n" * 9, "not a text file but a Parquet file"),
    "a truncated gzip": (gzip.compress(GOOD.encode() * 9999)[:-30], "damaged gzip"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_corpus_is_one_clear_error(build, case):
    content, message = UNUSABLE[case]
    code, stdout, err, out = build(content)
    assert stdout == ""
    assert_one_clear_error(code, err, message, out)
    assert build(GOOD)[0] == 0, "a failed run does not affect the next"


def test_a_row_longer_than_any_buffer_is_one_clear_error(build, monkeypatch):
    monkeypatch.setattr(corpus, "_TEXT_CHUNK", 1 << 12)
    monkeypatch.setattr(corpus, "LONGEST_LINE", 1 << 16)
    code, _, err, out = build(f"{GOOD}1\t{'北' * (1 << 16)}\n")
    assert_one_clear_error(code, err, "corpus.tsv:3: this row is longer than", out)


# --- names ---------------------------------------------------------------------------------------
USABLE = {
    "empty": ("2\n\t0\n北京\t1\n", [[1], []], "too_short"),
    "one character": ("2\n北\t0\n北京\t1\n", [[1], []], "too_short"),
    "64,000 characters": (f"2\n{'北京' * 32_000}\t0\n北京\t1\n", [[1], []], "too_long"),
    "duplicated": ("3\n北京\t0\n故宫\t1\n北京\t2\n", [[2], [1]], "duplicate_names"),
    "duplicated by folding": ("2\n北 京\t0\n北京\t1\n", [[1], []], "hidden_by_an_equal_name"),
    "no count line": ("北京\t0\n故宫\t1\n", [[0], [1]], None),
    "ids out of order": ("2\n北京\t1\n故宫\t0\n", [[1], [0]], None),
    "spaces for tabs": ("2\n北京 0\n故宫 1\n", [[0], [1]], None),
    "CRLF and a byte-order mark": ("\ufeff2\r\n北京\t0\r\n故宫\t1\r\n", [[0], [1]], None),
    "a quote": ('2\n"北京\t0\n北京\t1\n', [[1], []], None),
    "numbers as names": ("3\n007\t0\nNA\t1\n北京\t2\n", [[2], []], None),
}


@pytest.mark.parametrize("case", USABLE)
def test_odd_names_are_used_or_counted(build, case):
    content, expected, counted = USABLE[case]
    code, _, err, out = build(GOOD, entities=content)
    assert (code, err) == (0, "")
    assert pq.read_table(out)["lex_ids"].to_pylist() == expected
    if counted:
        assert read_manifest(out).counts["lexicon"][counted] == 1


WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty file": ("", "contains no names"),
    "only a count": ("0\n", "contains no names"),
    "id gaps": ("2\n北京\t0\n故宫\t2\n", "ids must be 0..1, each once; the largest is 2"),
    "a negative id": ("2\n北京\t0\n故宫\t-1\n", "names.txt:3: expected `name<TAB>id`"),
    "a non-integer id": ("2\n北京\t0\n故宫\t1.0\n", "names.txt:3: expected `name<TAB>id`"),
    "a huge id": ("2\n北京\t0\n故宫\t99999999999999999999\n", "ids must be 0..1"),
    "an id twice": ("2\n北京\t0\n故宫\t0\n", "names.txt:3: id 0 is given twice"),
    "a count too large": (
        "3\n北京\t0\n故宫\t1\n",
        "announces 3 names on its first line but contains 2",
    ),
    "a count too small": (
        "1\n北京\t0\n故宫\t1\n",
        "announces 1 names on its first line but contains 2",
    ),
    "a tab in a name": (
        "2\n北京\t故宫\t0\n北京\t1\n",
        "names.txt:2: the name '北京\\t故宫' contains a tab",
    ),
    "no id": ("2\n北京\n故宫\t1\n", "names.txt:2: expected `name<TAB>id`"),
    "GBK": ("2\n北京\t0\n故宫\t1\n".encode("gbk"), "names.txt:2: not UTF-8"),
    "no usable name": ("1\n狗\t0\n", "none of its names can be matched"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_names_are_one_clear_error(build, case):
    content, message = WRONG[case]
    code, _, err, out = build(GOOD, entities=content)
    assert_one_clear_error(code, err, message, out)


def test_an_id_beyond_the_vectors_is_one_clear_error(command, write, tmp_path):
    kg, out = tmp_path / "kg", tmp_path / "out.parquet"
    kg.mkdir()
    write_names(kg / "entity2id.txt", NAMES)
    save_file({VECTORS_KEY: np.zeros((4, 3), np.float32)}, kg / VECTORS)
    code, _, err = command("lattice", "build", write("corpus.tsv", GOOD), "--kg", kg, "--out", out)
    assert_one_clear_error(code, err, "6 names but 4 vectors", out)


def test_a_mention_file_with_bad_rows_is_used_and_counted(build, write):
    mentions = write("m2e.tsv", "帝都\t北京\n紫禁城\n帝都\t没有\n\n")
    code, _, _, out = build("1\t帝都\n", "--mentions", mentions)
    assert (code, rows(out)) == (0, [("1", "帝都", ["北京"])])
    lexicon = read_manifest(out).counts["lexicon"]
    assert lexicon["malformed_mentions"] == 2
    assert lexicon["mentions_of_unknown_entities"] == 1


# --- a damaged vocabulary ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "changed since"),
        ("flip", "changed since"),
        ("remove", "is missing"),
        ("manifest", "cannot be read"),
    ],
)
def test_a_damaged_vocabulary_is_one_clear_error(command, names, write, tmp_path, damage, message):
    folder, out = tmp_path / "compiled", tmp_path / "out.parquet"
    assert command("lattice", "compile", "--entities", names, "--out", folder)[0] == 0
    build = ["lattice", "build", write("corpus.tsv", GOOD), "--entities", folder, "--out", out]
    for file in sorted(folder.iterdir()):
        if (file.name == "manifest.json") != (damage == "manifest"):
            continue
        whole = file.read_bytes()
        if damage in ("cut", "manifest"):
            file.write_bytes(whole[: len(whole) // 2])
        elif damage == "flip":
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        else:
            file.unlink()
        code, _, err = command(*build)
        assert_one_clear_error(code, err, file.name, out)
        if file.name != "entity2id.txt":  # the names are read first
            assert message in err
        file.write_bytes(whole)
    assert command(*build)[0] == 0, "the restored folder is used"


# --- disks ---------------------------------------------------------------------------------------
def run_command(*arguments, limit: int | None = None, **more) -> subprocess.Popen:
    """Run the real command in a child process, with a limit on the size of files."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        **more,
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for a process; return exit code, stdout and stderr."""
    stdout, err = process.communicate(timeout=240)
    return process.returncode, stdout, err


def many_captions(count: int) -> str:
    rng = np.random.default_rng(0)
    letters = np.array(list("北京故宫手机的一只猫在雪地里奔跑"))
    return "".join(
        f"{n}\t{''.join(row)}\n" for n, row in enumerate(rng.choice(letters, (count, 20)))
    )


@pytest.mark.parametrize("format", ["parquet", "tsv"])
def test_a_full_disk_is_one_clear_error_without_output(names, write, tmp_path, format):
    source, out = write("corpus.tsv", many_captions(20_000)), tmp_path / "out"
    build = ["lattice", "build", source, "--entities", names, "--out", out, "--format", format]
    vocabulary = write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n北\n京\n故\n宫\n")
    build += ["--tokenizer", vocabulary]
    code, _, err = ended(run_command(*build, limit=100_000))
    assert_one_clear_error(code, err, f"{out} cannot be written: ", out)
    assert "File too large" in err
    assert ended(run_command(*build))[0] == 0


def test_a_full_disk_while_rows_are_rejected_is_one_clear_error(names, write, tmp_path):
    source, out = write("corpus.tsv", GOOD + "bad row\n" * 9000), tmp_path / "out.parquet"
    vocabulary = write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n北\n京\n故\n宫\n")
    build = ["lattice", "build", source, "--entities", names, "--out", out]
    code, _, err = ended(run_command(*build, "--tokenizer", vocabulary, limit=50_000))
    assert_one_clear_error(code, err, "cannot be written: File too large", out)


@pytest.mark.parametrize("which", ["corpus", "names", "mentions"])
def test_an_output_equal_to_an_input_is_one_clear_error(command, names, write, which):
    source, mentions = write("corpus.tsv", GOOD), write("m2e.tsv", "帝都\t北京\n")
    out = {"corpus": source, "names": names, "mentions": mentions}[which]
    before = out.read_bytes()
    build = ["lattice", "build", source, "--entities", names, "--mentions", mentions]
    code, _, err = command(*build, "--out", out, "--overwrite")
    assert (code, "is an input" in err, err.count("\n")) == (2, True, 1)
    assert out.read_bytes() == before


# --- signals -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A corpus that takes seconds to build."""
    path = tmp_path_factory.mktemp("large") / "corpus.tsv"
    path.write_text(many_captions(10_000) * 8, encoding="utf-8")
    return path


def interrupt(process: subprocess.Popen, partial: Path, signal_: int) -> tuple[int, str]:
    """Send a signal in the middle of the table; return exit code and stderr."""
    until = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 2_000_000):
        assert process.poll() is None, ended(process)
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal_)
    code, _, err = ended(process)
    return code, err


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_an_interrupted_build_has_no_table_and_can_be_repeated(how, names, large, tmp_path):
    out = tmp_path / "out.tsv"
    build = ["lattice", "build", large, "--entities", names, "--out", out, "--format", "tsv"]
    partial = tmp_path / "out.tsv.partial"
    code, err = interrupt(run_command(*build), partial, getattr(signal, how))
    assert not out.exists()
    if how == "SIGINT":
        assert code == 130
        assert "Traceback" not in err
        assert not list(tmp_path.glob("out.tsv*"))
    else:
        assert code == -signal.SIGKILL
        assert not list(tmp_path.glob("out.tsv.manifest*"))
    code, stdout, err = ended(run_command(*build))
    assert code == 0, err
    assert "80,000 captions" in stdout
    assert json.loads((tmp_path / "out.tsv.manifest.json").read_text())["counts"]["rows"] == 80_000
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("header", ["idx\ttext", "id\tcaption", '"idx"\t"text"', "\ttext"])
def test_a_header_is_no_caption(build, header):
    code, stdout, _, out = build(f"{header}\n{GOOD}")
    assert code == 0
    assert [row[0] for row in rows(out)] == ["8", "9"]
    assert [kept[:2] for kept in rejects_of(out)] == [["1", "header"]]
    assert "first: line 1: header" in stdout
    code, _, _, out = build(f"{GOOD}{header}\n", "--overwrite")
    assert len(rows(out)) == 3, "only a first row is a header"


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"PK\x03\x04rest", "a zip archive"), (b"SQLite format 3\0", "SQLite"),
     (b"x" * 257 + b"ustar\0" + b"0" * 300, "a tar archive"),
     (bz2.compress(b"1\tx\n" * 99)[:-9], "damaged bzip2"),
     (lzma.compress(b"1\tx\n" * 99)[:-9], "damaged xz")],
)  # fmt: skip
def test_a_file_that_is_not_text_is_named(build, content, what):
    compressed = what.startswith("damaged")
    for packed in (content,) if compressed else (content, gzip.compress(content)):
        code, _, err, out = build(packed)
        assert_one_clear_error(code, err, what, out)


def test_a_full_folder_of_temporary_files_is_one_clear_error(tmp_path):
    (tmp_path / "c.tsv").write_text(GOOD, "utf-8")
    (tmp_path / "names.txt").write_text("北京\t0\n", "utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "lattice", "build", "c.tsv", "--entities",
         "names.txt", "--out", "o.parquet"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be written: the file is too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("o.*"))
