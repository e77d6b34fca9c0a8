"""Rows that look quoted are read as they are, counted, and can be rewritten without quotes."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.datasets.unquote import unquote_tsv
from data.kg_folder import read_names
from data.quoted_rows import QuotedRows, records, unquoted
from data.runs import read_manifest
from tests.data.encoded import b64

CAPTIONS = [("1", '写着"停"的牌子'), ("2", "一只猫"), ("3", '"北京"')]


def quoted(rows, quoting=csv.QUOTE_MINIMAL) -> str:
    """Return what csv.writer, and so pandas' to_csv, write."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(rows)
    return text.getvalue()


def counted(text: str) -> QuotedRows:
    found = QuotedRows()
    found.add_lines(text.encode(), 1)
    return found


@pytest.mark.parametrize(
    ("text", "count", "doubled"),
    [
        ('1\t"写着""停""的牌子"\n2\t猫\n', 1, 1),
        ('"1"\t"猫"\n"2"\t"狗"\n', 2, 0),
        ('1\t""\n', 1, 0),
        ('1\t"一\t二"\n', 1, 0),
        ('1\t"第一行\n第二行"\n2\t猫\n', 1, 0),
        ('1\t"第一行\n""中""\n第三行"\n', 1, 0),
        ('1\t"甲"\r\n2\t乙\r\n', 1, 0),
        ('1\t写着"停"的牌子\n', 0, 0),
        ('1\t"停"字牌\n2\t他说"停"\n', 0, 0),
        ('1\t"甲"和"乙"\n', 0, 0),
        ('1\t"没有结尾\n2\t他说"好"吗\n', 0, 0),
    ],
)
def test_quoted_rows_are_told_from_quotes_in_a_text(text, count, doubled):
    found = counted(text)
    assert (found.count, found.doubled) == (count, doubled)
    assert not found.count or found.first == 1


@given(
    rows=st.lists(
        st.tuples(st.text('1"', min_size=1, max_size=3), st.text('甲"\t\n', max_size=8)),
        min_size=1,
        max_size=6,
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_csv_writes_is_unquoted_to_what_was_given(rows, quoting):
    lines = quoted(rows, quoting).encode().removesuffix(b"\n").split(b"\n")
    found = [unquoted(b"\n".join(record)).decode() for record in records(lines)]
    assert found == ["\t".join(f.translate({9: " ", 10: " "}) for f in row) for row in rows]


def test_validate_says_how_many_rows_look_quoted_and_how_to_convert(command, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text(quoted(CAPTIONS), "utf-8")
    code, said, _ = command("data", "validate", table, "--strict")
    assert code == 1
    assert "rows that look quoted" in said
    assert "`cli.py data unquote` removes them): 2\n      line 1" in said
    assert "No problems" not in said
    found = json.loads(command("data", "validate", table, "--json")[1])["problems"]
    assert [(one["code"], one["count"]) for one in found] == [("quoted", 2)]

    plain = tmp_path / "plain.tsv"
    code, said, _ = command("data", "unquote", table, "--out", plain)
    assert (code, "from 2." in said) == (0, True)
    assert plain.read_text("utf-8") == "".join(f"{idx}\t{text}\n" for idx, text in CAPTIONS)
    # The third caption is in quotes itself.
    assert "No problems" in command("data", "validate", plain, "--strict")[1]
    assert "is finished and unchanged" in command("data", "unquote", table, "--out", plain)[1]


def test_a_text_in_quotes_of_its_own_is_a_remark(command, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text('1\t"停"\n2\t猫\n3\t狗\n', "utf-8")
    code, said, _ = command("data", "validate", table, "--strict")
    assert code == 0
    assert "No problems." in said
    assert "rows that look quoted" in said


def test_convert_train_and_build_say_it_too(command, tmp_path):
    triples = tmp_path / "t.tsv"
    rows = [(f'{n}"屏', "类", "手机") for n in (5, 6)]
    triples.write_text(quoted([*rows, ("折叠屏", "类", "手机")]), "utf-8")
    code, said, _ = command("kg", "train", triples, "--out", tmp_path / "kg", "--epochs", 1)
    assert code == 0
    assert "warning: 2 rows look quoted" in said
    assert "cli.py data unquote" in said
    assert read_manifest(tmp_path / "kg").counts["rows_that_look_quoted"] == 2
    assert '"5""屏"' in read_names(tmp_path / "kg" / "entity2id.txt"), "a TSV has no quotes"
    assert "2 rows look quoted" in command("kg", "clean", triples, "--out", tmp_path / "c.tsv")[1]

    captions = tmp_path / "captions.tsv"
    captions.write_text(quoted(CAPTIONS), "utf-8")
    common = ["--kg", tmp_path / "kg", "--min-length", 1]
    code, said, _ = command("lattice", "build", captions, "--out", tmp_path / "o.parquet", *common)
    assert (code, "warning: 2 rows look quoted" in said) == (0, True)
    assert pq.read_table(tmp_path / "o.parquet")["text"].to_pylist()[1] == "一只猫"
    more = tmp_path / "more.tsv"
    more.write_text("4\t猫\n", "utf-8")
    code, said, _ = command("lattice", "build", captions, more, "--out", tmp_path / "s", *common,
                            "--workers", 2)  # fmt: skip
    assert (code, "warning: 2 rows look quoted" in said) == (0, True)

    images = tmp_path / "images.tsv"
    image = b64(b"no image")
    images.write_text(quoted([(*row, image) for row in CAPTIONS]), "utf-8")
    code, said, _ = command("data", "convert", images, "--out", tmp_path / "c2.tsv",
                            "--no-images")  # fmt: skip
    assert (code, "warning: 2 rows look quoted" in said) == (0, True)


def test_an_unquoted_file_needs_no_unquoting(tmp_path):
    plain = tmp_path / "a.tsv"
    plain.write_bytes('1\t"甲"和"乙"\r\n2\t没有"\n\n3\t"开\n'.encode())
    report = unquote_tsv(plain, tmp_path / "b.tsv")
    assert report.counts == {"lines": 4, "rows": 4, "unquoted": 0}
    assert (tmp_path / "b.tsv").read_bytes() == plain.read_bytes().replace(b"\r", b"")


def test_prompts_say_it_and_a_header_is_no_prompt(tmp_path, caplog):
    from artist.generation.prompts import read_prompts

    (tmp_path / "p.tsv").write_text('idx\ttext\n1\t"写着""停""的牌子"\n', "utf-8")
    assert read_prompts(tmp_path / "p.tsv").idx == ["1"]
    assert "1 rows look quoted" in caplog.text
