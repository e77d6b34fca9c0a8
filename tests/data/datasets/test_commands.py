"""`data convert` and `data validate` in a shell: output, errors and exit codes."""

import json

import pytest
from PIL import Image

from data.tsv import Rejects, read_rows
from tests.data.encoded import b64, encoded


@pytest.fixture
def muge(tmp_path):
    """A folder as in the archive of MUGE: two images, three captions."""
    folder = tmp_path / "ECommerce-T2I"
    folder.mkdir()
    image = b64(encoded(Image.linear_gradient("L")))
    (folder / "T2I_train.img.tsv").write_text(f"1\t{image}\n2\t{image[:100]}\n")
    (folder / "T2I_train.text.tsv").write_text("1\t红色短裤\n2\t绿色上衣\n3\t帽子\n", "utf-8")
    return folder


def test_a_dataset_is_converted_and_then_validated(command, muge, tmp_path):
    out = tmp_path / "train.tsv"
    code, said, errors = command("data", "convert", muge, "--out", out)
    assert code == 0
    assert not errors
    assert said.startswith("Read as muge: captions of")
    assert "1 rows" in said
    assert "Rejected 2: " in said
    assert [row.fields[:2] for row in read_rows(out, (3,), Rejects())] == [["1", "红色短裤"]]
    code, said, errors = command("data", "validate", out, "--strict")
    assert (code, errors) == (0, "")
    assert said.endswith("No problems.\n")


def test_problems_set_the_exit_code_only_with_strict(command, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("1\t甲\n1\t乙\n", "utf-8")
    code, said, _ = command("data", "validate", table)
    assert code == 0
    assert "rows that repeat an earlier idx: 1\n      line 2 repeats line 1" in said
    code, said, errors = command("data", "validate", table, "--strict", "--json")
    assert (code, errors) == (1, "")
    assert json.loads(said)["problems"][0]["code"] == "duplicate-idx"


def test_user_errors_are_one_line(command, tmp_path):
    for words, said in [
        (["data", "convert", tmp_path / "none", "--out", tmp_path / "o"], "does not exist"),
        (["data", "convert", tmp_path, "--out", tmp_path / "o"], "see docs/data.md"),
        (["data", "validate", tmp_path], "contains no .parquet file"),
        (["data", "validate", tmp_path / "none"], "does not exist"),
    ]:
        code, out, errors = command(*words)
        assert (code, out) == (2, "")
        assert errors.startswith("error: ")
        assert said in errors
        assert errors.count("\n") == 1
