"""`data validate` finds every problem of a table by line, and no others."""

import base64
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.datasets.validate import validate_table
from data.errors import ConfigError, InputError
from data.schema import IMAGE, LATTICE, table_writer
from tests.data.datasets.test_image_hash import noise_image
from tests.data.encoded import b64, encoded


def noise(seed: int, kind: str = "JPEG", size: int = 96, **options) -> str:
    return b64(encoded(noise_image(seed, size), kind, **options))


def write(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def codes(findings) -> dict[str, int]:
    return {f.code: f.count for f in findings}


def lines(report, code: str) -> list[tuple[int, int]]:
    (found,) = [f for f in report.findings if f.code == code]
    return [(one.line, one.to) for one in found.first]


def test_a_valid_table_has_no_problems_and_a_summary(tmp_path):
    path = write(tmp_path / "t.tsv", *(f"{n}\t第{n}张图\t{noise(n)}" for n in range(40)))
    report = validate_table(path, workers=2)
    assert report.findings == []
    assert report.summary["rows"] == report.summary["usable_rows"] == 40
    assert report.summary["images"]["formats"] == {"JPEG": 40}
    assert report.summary["images"]["shorter_side"]["max"] == 96
    assert report.summary["captions"]["characters"] == {"min": 4, "median": 5, "p95": 5, "max": 5}
    said = str(report)
    assert "40 rows, 40 of them usable" in said
    assert said.endswith("No problems.")


def test_every_kind_of_unusable_row_is_counted_with_its_first_lines(tmp_path):
    whole = base64.b64decode(noise(1))
    half = b64(whole[: len(whole) // 2])
    huge = b64(b"P6 20000 20000 255\n")
    page = b64(b"<html>404</html>")
    path = write(
        tmp_path / "t.tsv", f"1\t甲\t{noise(1)}", "2\t乙\t!", f"3\t丙\t{half}", f"4\t丁\t{huge}",
        f"5\t戊\t{page}", f"6\t \t{noise(2)}", "7", "8\t己\t", f"9\t庚\t{half}", "10\t辛",
    )  # fmt: skip
    report = validate_table(path)
    assert codes(report.problems) == {
        "wrong-column-count": 1, "invalid-base64": 1, "damaged-image": 2, "image-too-large": 1,
        "not-an-image": 1, "empty-caption": 1, "empty-image": 1, "no-image": 1,
    }  # fmt: skip
    assert lines(report, "damaged-image") == [(3, 0), (9, 0)]
    assert lines(report, "no-image") == [(10, 0)]
    assert "line 5: an HTML page" in str(report)
    assert report.summary["rows"] == 10
    assert report.summary["usable_rows"] == 2


def test_repeats_are_listed_with_the_line_they_repeat(tmp_path):
    same, again = noise(1), noise(1, quality=70)
    path = write(
        tmp_path / "t.tsv", f"1\t一只猫\t{same}", f"2\t一条狗\t{noise(2)}",
        f"1\t一 只猫\t{noise(3)}", f"4\t鸟\t{same}", f"5\t鱼\t{again}", f"6\t一只猫\t{same}",
    )  # fmt: skip
    report = validate_table(path)
    assert codes(report.problems) == {"duplicate-idx": 1}
    assert codes(report.remarks) == {
        "duplicate-row": 1, "duplicate-image": 2, "near-image": 1, "duplicate-caption": 2
    }  # fmt: skip
    assert lines(report, "duplicate-idx") == [(3, 1)]
    assert lines(report, "duplicate-row") == [(6, 1)]
    assert lines(report, "duplicate-image") == [(4, 1), (6, 1)]
    assert lines(report, "near-image") == [(5, 1)]
    assert lines(report, "duplicate-caption") == [(3, 1), (6, 1)]


def test_blank_images_are_not_near_duplicates(tmp_path):
    blank = [b64(encoded(Image.new("RGB", (32, 32), c))) for c in ("white", "ivory", "black")]
    rows = [f"{n}\t第{n}\t{content}" for n, content in enumerate(blank)]
    assert validate_table(write(tmp_path / "t.tsv", *rows)).findings == []


def test_leakage_from_another_table_is_found_after_re_encoding(tmp_path):
    train = write(tmp_path / "train.tsv", *(f"{n}\t第{n}张\t{noise(n)}" for n in range(20)))
    test = write(
        tmp_path / "test.tsv", f"a\t新的\t{noise(7)}", f"b\t更新的\t{noise(9, quality=60)}",
        f"3\t全新的\t{noise(30)}", f"d\t第4张\t{noise(31)}",
        f"e\t小的\t{noise(11, 'PNG', size=48)}",
    )  # fmt: skip
    report = validate_table(test, against=train)
    assert codes(report.problems) == {"shared-image": 1, "shared-near-image": 2}
    assert codes(report.remarks) == {"shared-idx": 1, "shared-caption": 1}
    assert lines(report, "shared-image") == [(1, 8)]
    assert lines(report, "shared-near-image") == [(2, 10), (5, 12)]
    assert lines(report, "shared-caption") == [(4, 5)]
    other = write(tmp_path / "other.tsv", f"x\t别的\t{noise(90)}")
    assert validate_table(other, against=train).findings == []
    with pytest.raises(ConfigError, match="is the table itself"):
        validate_table(train, against=train)


def test_long_captions_are_found_if_tokens_are_counted(tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "甲", "乙"]
    write(tmp_path / "vocab.txt", *vocabulary)
    path = write(tmp_path / "t.tsv", "1\t" + "甲" * 33, "2\t" + "乙" * 32, "3\t甲丙", "4\tabc")
    plain = validate_table(path)
    assert codes(plain.remarks) == {"not-chinese": 1}
    report = validate_table(path, tokenizer=tmp_path / "vocab.txt")
    assert codes(report.remarks) == {"cut-caption": 1, "not-chinese": 1}
    assert lines(report, "cut-caption") == [(1, 0)]
    assert report.summary["captions"]["tokens_unknown"] == 2
    assert codes(validate_table(path, tokenizer=tmp_path / "vocab.txt", text_len=1).remarks) == {
        "cut-caption": 3, "not-chinese": 1
    }  # fmt: skip


def test_lattice_tables_are_checked_too(tmp_path):
    rows = [
        {"idx": str(n), "text": "甲" * length, "input_ids": [5] * length, "seq_len": length,
         "lex_ids": [], "pos_s": list(range(length)), "pos_e": list(range(length)),
         "image": {"bytes": content, "path": None}}
        for n, (length, content) in enumerate(
            [(3, base64.b64decode(noise(1))), (40, base64.b64decode(noise(2))), (4, b"x"),
             (5, None)])
    ]  # fmt: skip
    schema = LATTICE.append(IMAGE)
    with table_writer(tmp_path / "t.parquet", schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    report = validate_table(tmp_path / "t.parquet")
    assert codes(report.problems) == {"not-an-image": 1, "no-image": 1}
    (tmp_path / "shards").mkdir()
    for n in (1, 2):
        shutil.copy(tmp_path / "t.parquet", tmp_path / "shards" / f"{n}.parquet")
    shards = validate_table(tmp_path / "shards")
    assert codes(shards.problems) == {"not-an-image": 2, "no-image": 2, "duplicate-idx": 2}
    assert lines(shards, "duplicate-idx") == [(5, 1), (6, 2)]
    assert codes(report.remarks) == {"cut-caption": 1}
    assert lines(report, "cut-caption") == [(2, 0)]


def test_headers_alone_find_neither_damage_nor_near_duplicates(tmp_path):
    whole = base64.b64decode(noise(1))
    half = b64(whole[: len(whole) // 2])
    path = write(tmp_path / "t.tsv", f"1\t甲\t{noise(1)}", f"2\t乙\t{half}", "3\t丙\txx==")
    assert codes(validate_table(path, check_images="header").findings) == {"not-an-image": 1}
    assert codes(validate_table(path).findings) == {"not-an-image": 1, "damaged-image": 1}


@given(keys=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("甲乙丙")), max_size=30))
def test_repeats_are_counted_like_a_plain_count(tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("v") / "t.tsv"
    write(path, "first\t最先", *(f"{idx}\t{text}" for idx, text in keys))
    found = codes(validate_table(path, workers=1).findings)
    for code, column in (("duplicate-idx", 0), ("duplicate-caption", 1)):
        expected = sum(n - 1 for n in Counter(key[column] for key in keys).values())
        assert found.get(code, 0) == expected


def test_the_number_of_threads_changes_nothing(tmp_path):
    names = np.random.default_rng(3).integers(0, 25, 90)
    path = write(tmp_path / "t.tsv", *(f"{n}\t第{n % 9}\t{noise(int(n))}" for n in names))
    assert validate_table(path, workers=1).json() == validate_table(path, workers=4).json()


def test_json_contains_what_is_printed(tmp_path):
    path = write(tmp_path / "t.tsv", "1\t甲", "1\t乙", "2\t乙")
    read = json.loads(validate_table(path, show=1).json())
    assert read["rows"] == 3
    assert read["problems"] == [
        {"code": "duplicate-idx", "count": 1, "what": "rows that repeat an earlier idx",
         "first": [{"line": 2, "does": "repeats", "to": 1}]}
    ]  # fmt: skip
    assert [r["code"] for r in read["remarks"]] == ["duplicate-caption"]


def test_a_missing_an_empty_and_a_foreign_file_are_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        validate_table(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="is empty"):
        validate_table(write(tmp_path / "empty.tsv"))
    table = pa.table({"a": [1]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is not a lattice table"):
        validate_table(tmp_path / "a.parquet")
    assert codes(validate_table(write(tmp_path / "w.tsv", "1", "2")).problems) == {
        "wrong-column-count": 2
    }


def test_real_photographs_in_two_sizes_are_recognised(real_data):
    folder = real_data / "flickr8k-cn"
    report = validate_table(folder / "val224.tsv", against=folder / "val.tsv")
    assert set(codes(report.problems)) == {"shared-near-image"}
    assert codes(report.problems)["shared-near-image"] >= 245  # of 256; 251 when this was written
    report = validate_table(folder / "val.tsv", against=folder / "train.tsv")
    assert report.problems == []


def test_a_header_is_an_unusable_row(command, tmp_path):
    for header in ("idx\ttext", "ID\tCaption", "\ttext", "序号\t文本"):
        table = tmp_path / "t.tsv"
        table.write_text(f"{header}\n1\t一只猫\n", "utf-8")
        code, said, _ = command("data", "validate", table, "--strict")
        assert code == 1
        assert "unusable rows, header: 1\n      line 1: " in said
