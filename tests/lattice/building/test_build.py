"""Caption file to lattice table, with the real command."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.kg_folder import write_names
from data.runs import read_manifest
from data.schema import IMAGE, LATTICE, open_table, table_metadata
from data.tokenizer import Tokenizer
from lattice.building.build import match_texts
from lattice.building.caption_reader import CAPTIONS
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.vocabulary import load_vocabulary
from tests.lattice.samples import encoded, rejects_of

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "手机", "手机壳", "狗"]


def rows(out):
    return pq.read_table(out).to_pylist()


def test_the_table_has_its_entities_and_its_settings(build, tmp_path):
    code, stdout, _, out = build("1\t北 京故宫的iPhone15手机壳\n007\t一只猫\n")
    assert code == 0
    assert "2 captions" in stdout
    first, second = rows(out)
    assert first["idx"] == "1"
    assert first["text"] == "北 京故宫的iPhone15手机壳"
    n = first["seq_len"]
    assert first["pos_s"][:n] == first["pos_e"][:n] == list(range(n))
    spans = zip(first["lex_ids"], first["pos_s"][n:], first["pos_e"][n:], strict=True)
    assert [(NAMES[i], s, e) for i, s, e in spans] == [
        ("北京", 0, 1),
        ("北京故宫", 0, 3),
        ("故宫", 2, 3),
        ("iPhone", 5, 10),
        ("手机", 13, 14),
        ("手机壳", 13, 15),
    ]
    assert (second["idx"], second["lex_ids"], second["seq_len"]) == ("007", [], 3)

    metadata = table_metadata(open_table(out, LATTICE).schema_arrow)
    tokenizer = Tokenizer.load(tmp_path / "out.parquet.tokenizer")
    assert metadata["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert metadata["kg_fingerprint"] == ""
    assert LatticeConfig(**json.loads(metadata["settings"])) == LatticeConfig()
    counts = read_manifest(out).counts
    assert (counts["rows_in"], counts["rows"], counts["entities"]) == (2, 2, 6)
    assert counts["lexicon"]["too_short"] == 1


def test_a_vocabulary_that_does_not_fit_the_captions_is_reported(build, tmp_path):
    vocabulary = tmp_path / "english.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n", encoding="utf-8")
    content = "1\t北京故宫\n2\tcat\n"
    _, stdout, _, out = build(content, "--tokenizer", vocabulary)
    assert "warning: 80 % of the tokens are [UNK]" in stdout
    assert "Without --tokenizer, a character vocabulary is generated" in stdout
    assert read_manifest(out).counts["unknown_tokens"] == 4
    _, stdout, _, out = build(content, "--overwrite")
    assert "[UNK]" not in stdout
    assert read_manifest(out).counts["unknown_tokens"] == 0


def test_texts_without_a_file_get_the_same_rows(build, names, tmp_path):
    texts = ["北京故宫", "iPhone手机壳", "", "😀故宫[MASK]"]
    *_, out = build("".join(f"{n}\t{t}\n" for n, t in enumerate(texts) if t))
    table = match_texts(texts, names=names, tokenizer=tmp_path / "out.parquet.tokenizer")
    assert [row for row in table.to_pylist() if row["text"]] == rows(out)
    assert table.schema.metadata == open_table(out, LATTICE).schema_arrow.metadata


def test_images_are_checked_and_stored_unchanged(build):
    good = encoded()
    png = encoded(format="PNG")
    lines = [
        f"a\t北京\t{good}",
        f"b\t故宫\t{png.replace('+', '-').replace('/', '_').rstrip('=')}",
        "c\t故宫\t!!!!",
        f"d\t故宫\t{encoded(64, cut=-200)}",
        "e\t故宫\t",
        "f\t故宫",
        f"g\t手机\t{base64.b64encode(b'no image').decode()}",
    ]
    code, stdout, _, out = build("\n".join(lines) + "\n")
    assert code == 0
    assert [row["idx"] for row in rows(out)] == ["a", "b"]
    stored = [row["image"]["bytes"] for row in rows(out)]
    assert stored == [base64.b64decode(good), base64.b64decode(png)]
    reasons = {int(line): reason for line, reason, _ in rejects_of(out)}
    assert reasons.keys() == {3, 4, 5, 6, 7}
    assert reasons[3].startswith("invalid base64")
    assert reasons[4].startswith("damaged image: ")
    assert reasons[5] == "empty image"
    assert reasons[6].startswith("wrong column count")
    assert reasons[7].startswith("not an image")
    assert "5 rows rejected" in stdout
    open_table(out, LATTICE, optional=[IMAGE])


def test_a_truncated_image_passes_if_only_headers_are_read(build):
    code, *_, out = build(f"d\t故宫\t{encoded(64, cut=-200)}\n", "--check-images", "header")
    assert code == 0
    assert len(rows(out)) == 1


def test_images_are_read_in_small_row_groups(build):
    image = encoded()
    code, *_, out = build("".join(f"{n}\t北京\t{image}\n" for n in range(1200)))
    assert code == 0
    groups = pq.ParquetFile(out).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [500, 500, 200]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_odd_captions_are_unchanged(build, ending):
    texts = ['"北京', "NA", "null", "故\u2028宫\u0085北京", "[MASK]北京", "=1+1", "'"]
    texts.append("北京\x0b故宫")
    content = "\ufeff" + ending.join(f"007\t{text}" for text in texts)
    code, stdout, _, out = build(content)
    assert code == 0
    assert [row["text"] for row in rows(out)] == texts
    assert {row["idx"] for row in rows(out)} == {"007"}
    assert f"{len(texts) - 1} rows repeat the idx" in stdout


def test_bad_rows_are_kept_with_line_and_reason(build):
    content = (
        b"1\t\xe5\x8c\x97\xe4\xba\xac\n2\n3\t\xff\xfe\n\n4\t \n5\ta\tb\tc\n6\t\xe2\x80\x8b\n"
        b"7\ta\x00b\n8\t\xe6\x95\x85\xe5\xae\xab\n"
    )
    code, stdout, _, out = build(content)
    assert code == 0
    assert [row["idx"] for row in rows(out)] == ["1", "8"]
    found = {int(n): reason.partition(":")[0] for n, reason, _ in rejects_of(out)}
    assert found == {
        2: "wrong column count",
        3: "not UTF-8",
        4: "blank line",
        5: "empty caption",
        6: "wrong column count",
        7: "caption without a token",
        8: "NUL character",
    }
    assert "line 2" in stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokenizer", "nothing"], "nothing does not exist"),
        (["--tokenizer", "corpus.tsv"], "is not a BERT vocabulary"),
        (["--kg", "kg"], "either --kg FOLDER or --entities"),
        (["--mentions", "nothing"], "nothing does not exist"),
        (["--min-length", "0"], "min_length=0"),
        (["--max-entities", "0"], "max_entities=0"),
    ],
)
def test_invalid_options_are_one_clear_error(build, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err, _ = build("1\t北京\n", *options)
    assert code == 2
    assert message in err


def test_missing_inputs_are_one_clear_error(command, names, tmp_path):
    missing = tmp_path / "missing"
    out = tmp_path / "out"
    code, _, err = command("lattice", "build", missing, "--entities", names, "--out", out)
    assert (code, "missing does not exist" in err) == (2, True)
    code, _, err = command("lattice", "build", names, "--kg", missing, "--out", out)
    assert (code, "Give a KG folder" in err) == (2, True)
    code, _, err = command("lattice", "build", tmp_path, "--entities", names, "--out", out)
    assert (code, "is a folder" in err) == (2, True)


def test_a_finished_table_is_kept_and_that_of_another_run_is_not_replaced(build, tmp_path):
    build("1\t北京\n")
    code, stdout, _, out = build("1\t北京\n")
    assert (code, "is finished and unchanged" in stdout) == (0, True)
    before = out.read_bytes()
    code, _, err, _ = build("1\t故宫\n")
    assert code == 2
    assert "belongs to another run (its input corpus was different)" in err
    assert out.read_bytes() == before
    code, _, _, _ = build("1\t故宫\n", "--overwrite")
    assert code == 0
    assert rows(out)[0]["text"] == "故宫"


def test_a_table_belongs_to_one_training_of_its_kg(command, names, write, tmp_path):
    vectors = tmp_path / "entity_vectors.safetensors"
    vectors.write_bytes(b"one")
    corpus, out = write("corpus.tsv", "1\t北京\n"), tmp_path / "tables" / "out.parquet"
    build = ["lattice", "build", corpus, "--entities", names, "--out", out]
    assert command(*build)[0] == 0
    first = table_metadata(open_table(out, LATTICE).schema_arrow)["kg_fingerprint"]
    assert first
    vectors.write_bytes(b"another")
    code, _, err = command(*build)
    assert (code, "its input kg was different" in err) == (2, True)
    assert command(*build, "--overwrite")[0] == 0
    assert table_metadata(open_table(out, LATTICE).schema_arrow)["kg_fingerprint"] != first


def test_rejects_of_a_replaced_run_are_removed(build):
    *_, out = build("1\t北京\n2\n")
    assert len(rejects_of(out)) == 1
    build("1\t北京\n", "--overwrite")
    assert not out.with_name(out.name + ".rejects.tsv").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_aborted_run_leaves_no_output(build, error, monkeypatch, tmp_path):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("lattice.building.chunks._ParquetWriter.close", fail)
        code, _, err, _ = build("1\t北京\n")
    assert code == (2 if isinstance(error, OSError) else 130)
    if code == 2:
        assert "No space left" in err
    assert not list(tmp_path.glob("out.parquet*"))
    assert build("2\t故宫\n")[0] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        ("一\n二\n".encode(), "none of its 2 rows can be used; the first is line 1: wrong column"),
        (b"1\t2\t3\t4\n", "wrong column count: 4, expected 2 as most"),
        ("".join(f"{n}\t北京的故宫\n" for n in range(50)).encode("gbk"), "iconv -f GB18030"),
        (f"1\t北京\t{'x' * 9}\n".encode(), "invalid base64"),
    ],
)
def test_an_unusable_corpus_is_one_clear_error_without_output(build, content, message, tmp_path):
    code, out, err, _ = build(content)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.glob("out.parquet*"))
    assert not list(tmp_path.glob("*.partial"))
    assert build("1\t北京\n")[0] == 0, "a failed run does not affect the next"


def test_an_input_is_never_overwritten(command, names, write):
    corpus = write("corpus.tsv", "1\t北京\n")
    arguments = ["lattice", "build", corpus, "--entities", names, "--out", corpus, "--overwrite"]
    code, _, err = command(*arguments)
    assert (code, "is an input" in err) == (2, True)
    assert corpus.read_text(encoding="utf-8") == "1\t北京\n"


def test_tsv_rows_equal_the_reference(build, tmp_path):
    image = encoded()
    code, *_, out = build(f"1\t北京的狗\t{image}\n", "--format", "tsv")
    assert code == 0
    assert out.read_text(encoding="utf-8") == (
        f"1\t北京的狗\t0\t0 1 2 3 0\t0 1 2 3 1\t4\t{image}\n"
    )


def test_max_entities_keeps_the_first_or_the_longest_in_text_order(build):
    text = "1\t北京故宫手机壳\n2\t北京\n"
    *_, out = build(text, "--max-entities", "2")
    kept = [[NAMES[i] for i in row["lex_ids"]] for row in rows(out)]
    assert kept == [["北京", "北京故宫"], ["北京"]]
    *_, out = build(text, "--max-entities", "2", "--policy", "longest", "--overwrite")
    kept = [[NAMES[i] for i in row["lex_ids"]] for row in rows(out)]
    assert kept == [["北京故宫", "手机壳"], ["北京"]]


def test_jieba_drops_matches_that_cross_words_and_no_others(names, tmp_path, characters):
    write_names(names, ["研究生", "究生", "生命", "研究", "研究生命", "的起"])
    text = ["研究生命的起源"]  # 研究 | 生命 | 的 | 起源
    config = LatticeConfig(segment="jieba")
    [row] = match_texts(text, names=names, tokenizer=characters, config=config).to_pylist()
    assert sorted(row["lex_ids"]) == [2, 3, 4]


def test_mentions_name_several_entities_and_are_required_again(names, write, characters):
    mentions = write("m2e.tsv", "帝都\t北京\n帝都\t故宫\n")
    given = {"names": names, "tokenizer": characters}
    table = match_texts(["帝都"], mentions=mentions, **given)
    assert table.to_pylist()[0]["lex_ids"] == [0, 1]
    config = LatticeConfig(**json.loads(table_metadata(table.schema)["settings"]))
    with pytest.raises(Exception, match="the same one is needed here"):
        match_texts(["帝都"], config=config, **given)


def test_traditional_captions_match_simplified_names_and_keep_their_tokens(build, tmp_path):
    text = "1\t北京故宮的手機殼\n"
    *_, out = build(text)
    [plain] = rows(out)
    *_, out = build(text, "--fold-variants", "--overwrite")
    [folded] = rows(out)
    assert [NAMES[i] for i in plain["lex_ids"]] == ["北京"]
    assert [NAMES[i] for i in folded["lex_ids"]] == ["北京", "北京故宫", "故宫", "手机", "手机壳"]
    assert folded["input_ids"] == plain["input_ids"]
    assert folded["text"] == "北京故宮的手機殼"


def test_a_table_contains_all_that_matches_other_texts_the_same_way(build, names, write, tmp_path):
    write_names(names, ["北京", "手机（通信）", "手机", "照片", "手机"])
    stop = write("stop.txt", "照片\n")
    options = ("--fold-variants", "--senses", "all", "--stop-names", stop)
    *_, out = build("1\t北京的手機照片\n", *options)
    stop.unlink()
    [row] = rows(out)
    assert row["lex_ids"] == [0, 1, 2, 4]
    metadata = table_metadata(open_table(out, LATTICE).schema_arrow)
    config = LatticeConfig(**json.loads(metadata["settings"]))
    assert (config.fold_variants, config.senses, config.stop_names) == (True, "all", ("照片",))
    given = {"names": names, "tokenizer": tmp_path / "out.parquet.tokenizer", "config": config}
    assert match_texts(["北京的手機照片"], **given).to_pylist()[0]["lex_ids"] == [0, 1, 2, 4]
    assert (
        build("1\t北京的手機照片\n", *options[:3])[0] == 2
    )  # the settings of the finished table differ


def test_default_tables_equal_those_of_earlier_versions():
    assert LatticeConfig().settings() == {
        "min_length": 2,
        "max_length": 128,
        "bracket_aliases": True,
        "max_senses": 8,
        "segment": "none",
        "max_entities": None,
        "policy": "first",
        "mentions_sha256": "",
    }


def test_the_kernel_has_no_side_effects(names, characters):
    config = LatticeConfig()
    kernel = LatticeKernel(characters, load_vocabulary(names, characters, config), config)
    batch = pa.RecordBatch.from_pylist(
        [{"idx": str(n), "text": t} for n, t in enumerate(["北京", "iPhone x", "狗"] * 3)],
        schema=CAPTIONS,
    )
    whole = kernel(batch)
    assert whole == kernel(batch)
    pieces = [kernel(batch.slice(n, 2)) for n in range(0, 9, 2)]
    assert pa.Table.from_batches(pieces).to_pylist() == whole.to_pylist()


def test_text_that_is_not_unicode_is_one_clear_error(command, names):
    code, _, err = command("lattice", "show", "北京\udce4", "--entities", names)
    assert (code, "is not valid Unicode" in err) == (2, True)
