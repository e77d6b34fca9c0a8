"""Import and export of EasyNLP's preprocessed TSV, byte for byte."""

import base64
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artist.models.config import GPTConfig
from artist.tables.lattice_rows import Batches, RowsConfig, read_rows
from data.kg_folder import write_names
from data.schema import LATTICE, open_table
from data.tokenizer import SPECIAL_TOKENS
from lattice.building.easynlp_tsv import export_table, import_table
from tests.lattice.reference import make_trie, reference_row
from tests.lattice.samples import encoded, image_bytes

NAMES = ["北京", "故宫", "北京故宫", "手机", "手机壳", "狗"]


@pytest.fixture
def kg(tmp_path):
    folder = tmp_path / "kg"
    folder.mkdir()
    write_names(folder / "entity2id.txt", NAMES)
    return folder


@pytest.fixture
def vocabulary(tmp_path, characters):
    characters.save(tmp_path)
    return tmp_path / "vocab.txt"


@pytest.fixture
def round_trip(command, kg, vocabulary, write, tmp_path):
    """Import and export a TSV; return exit code, output, table and exported bytes."""

    def run(content, *options):
        source, table, out = write("in.tsv", content), tmp_path / "t.parquet", tmp_path / "out.tsv"
        into = ["lattice", "import", source, "--kg", kg, "--tokenizer", vocabulary]
        code, stdout, err = command(*into, "--out", table, "--overwrite", *options)
        if code:
            return code, err, table, b""
        code, _, err = command("lattice", "export", table, "--out", out, "--overwrite")
        assert code == 0, err
        return code, stdout, table, out.read_bytes()

    return run


def row(idx, text, entities, image=None) -> str:
    """Return a line as EasyNLP writes it; entities are (id, first, last)."""
    tokens = list(range(len(text)))
    columns = [
        idx,
        text,
        " ".join(str(e[0]) for e in entities),
        " ".join(map(str, tokens + [e[1] for e in entities])),
        " ".join(map(str, tokens + [e[2] for e in entities])),
        str(len(tokens)),
        *([image] if image else []),
    ]
    return "\t".join(columns) + "\n"


def test_rows_of_the_reference_are_reproduced_byte_for_byte(round_trip):
    trie = make_trie(NAMES)
    content = ""
    for n, text in enumerate(["北京故宫的手机壳", "一只猫", "故宫故宫", "“北京”，null"]):
        tokens = [*"“北京”，", "n", "##u", "##l", "##l"] if n == 3 else list(text)
        found = reference_row(trie, tokens)
        lists = [" ".join(map(str, found[name])) for name in ("lex_ids", "pos_s", "pos_e")]
        content += "\t".join([f"00{n}", text, *lists, str(found["seq_len"])]) + "\n"
    code, stdout, _, out = round_trip(content)
    assert code == 0
    assert out.decode() == content
    assert "differ from what `lattice export` writes" not in stdout


def test_an_imported_table_is_the_table_that_build_writes(
    round_trip, command, kg, vocabulary, write, tmp_path
):
    captions = write("captions.tsv", "1\t北京故宫的手机壳\n2\t一只猫\n3\t我的手机，北 京\n")
    build = ["lattice", "build", captions, "--kg", kg, "--tokenizer", vocabulary]
    tsv, table = tmp_path / "built.tsv", tmp_path / "built.parquet"
    assert command(*build, "--no-bracket-aliases", "--out", table)[0] == 0
    assert command(*build, "--no-bracket-aliases", "--format", "tsv", "--out", tsv)[0] == 0
    _, _, imported, exported = round_trip(tsv.read_bytes())
    assert exported == tsv.read_bytes()
    assert pq.read_table(imported).equals(pq.read_table(table), check_metadata=True)
    assert export_table(table, tmp_path / "again.tsv").num_rows == 3
    assert (tmp_path / "again.tsv").read_bytes() == tsv.read_bytes()


def variants(seed: int) -> list[str]:
    """Return one image in each variant of base64."""
    content = image_bytes(seed=seed)
    plain = base64.b64encode(content).decode()
    urlsafe = base64.urlsafe_b64encode(content).decode()
    return [plain, urlsafe, plain.rstrip("="), urlsafe.rstrip("=")]


@pytest.mark.parametrize("variant", range(4))
def test_images_keep_their_variant_of_base64(round_trip, variant):
    images = [variants(seed)[variant] for seed in range(4)]
    content = "".join(row(str(n), "北京的狗", [(0, 0, 1)], i) for n, i in enumerate(images))
    _, stdout, table, out = round_trip(content)
    assert out.decode() == content
    assert pq.read_table(table)["image"].to_pylist()[2]["bytes"] == image_bytes(seed=2)
    assert "differ from what `lattice export` writes" not in stdout


def test_rows_that_an_export_changes_are_counted(round_trip):
    lines = [
        row("1", "北京故宫", [(0, 0, 1), (2, 0, 3)]),
        row("2", "北京故宫", [(2, 0, 3)]).replace("0 1 2 3 0", "0 1  2 3 00"),
        row("3", "北京", []).replace("0 1\t2", "0 1 \t2"),
    ]
    code, stdout, _, out = round_trip("\ufeff" + "".join(lines).replace("\n", "\r\n"))
    assert code == 0
    assert "2 rows differ from what" in stdout
    assert out.decode() == lines[0] + row("2", "北京故宫", [(2, 0, 3)]) + row("3", "北京", [])


def test_the_goldens_of_the_reference_are_reproduced_with_their_meaning(golden, kg, tmp_path):
    cases = json.loads((golden / "words_mat.json").read_text(encoding="utf-8"))["rows"]
    letters = list(dict.fromkeys(c for case in cases for c in case["text"]))
    vocab = tmp_path / "letters.txt"
    vocab.write_text("\n".join([*SPECIAL_TOKENS, *letters]) + "\n", encoding="utf-8")
    largest = max(int(i) for case in cases for i in case["lex_id"].split())
    write_names(kg / "entity2id.txt", [f"名{n}" for n in range(largest + 1)])
    keys = ("text", "lex_id", "pos_s", "pos_e", "token_len")
    content = "".join(
        "\t".join([str(n), *(c[k] for k in keys)]) + "\n" for n, c in enumerate(cases)
    )
    source, table, out = tmp_path / "in.tsv", tmp_path / "t.parquet", tmp_path / "out.tsv"
    source.write_text(content, encoding="utf-8")
    assert import_table(source, table, names=kg, tokenizer=vocab).num_rejected == 0
    export_table(table, out)
    assert out.read_text(encoding="utf-8") == content

    rows = read_rows(table, RowsConfig(text_len=32, pad_id=0, max_entities=10))
    vectors = np.arange(largest + 1, dtype=np.float32)[:, None]  # each vector is its id
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=8, entity_dim=1, fusion="easynlp", max_entities=10
    )
    entities = Batches(rows, vectors, config).get(np.arange(len(cases))).conditioning.entities
    words_mat = entities.vectors[:, :, 0].long()[:, :, None] * entities.covers
    for n, case in enumerate(cases):
        assert words_mat[n].tolist() == case["words_mat"], case["text"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2\t北京\t0\t0 1 0\t0 1 1\t3\n", "seq_len is not the tokenizer's: 3, expected 2"),
        ("2\t北京\t0\t0 1 0\t0 1 1\tx\n", "seq_len is not a list of numbers: 'x'"),
        ("2\t北京\t0\t0 1 0\t0 1 1\t\n", "seq_len is not a number: ''"),
        ("2\t北京\t-1\t0 1 0\t0 1 1\t2\n", "lex_ids is not a list of numbers: '-1'"),
        ("2\t北京\t1.0\t0 1 0\t0 1 1\t2\n", "lex_ids is not a list of numbers: '1.0'"),
        ("2\t北京\t0\t0 1\t0 1 1\t2\n", "positions do not fit: "),
        ("2\t北京\t0\t1 0 0\t0 1 1\t2\n", "positions do not fit: "),
        ("2\t北京\t0\t0 1 0\t0 1 2\t2\n", "entity outside the caption: tokens 0 to 2"),
        ("2\t北京\t0\t0 1 1\t0 1 0\t2\n", "entity outside the caption: tokens 1 to 0"),
        ("2\t北京\t6\t0 1 0\t0 1 1\t2\n", "unknown entity: id 6 of 6 names"),
        ("2\t北京\n", "wrong column count: 2, expected 6"),
        ("2\t\t\t\t\t0\n", None),
        ("2\t北京\t0\t0 1 0\t0 1 1\t2\tAAAA\n", "wrong column count: 7, expected 6"),
        ("\n", "blank line"),
    ],
)
def test_a_bad_row_is_kept_with_line_and_reason(round_trip, line, reason):
    good = row("1", "北京", [(0, 0, 1)])
    code, stdout, table, out = round_trip(good + line + good)
    assert code == 0
    rejects = table.with_name(table.name + ".rejects.tsv")
    if reason is None:  # a caption without tokens is a row
        assert out.decode() == good + line + good
    else:
        assert out.decode() == good + good
        number, why, kept = rejects.read_text(encoding="utf-8").rstrip("\n").split("\t")
        assert number == "2"
        assert why.startswith(reason)
        assert kept == line.rstrip("\n").replace("\t", "\\t")
        assert "1 rows rejected" in stdout


def test_a_damaged_image_is_kept_with_line_and_reason(round_trip):
    good = row("1", "北京", [(0, 0, 1)], encoded())
    bad = row("2", "北京", [(0, 0, 1)], encoded(64, cut=-200))
    code, _, table, out = round_trip(good + bad)
    assert (code, out.decode()) == (0, good)
    assert "damaged image" in table.with_name(table.name + ".rejects.tsv").read_text()
    code, _, _, out = round_trip(good + bad, "--check-images", "header")
    assert (code, out.decode()) == (0, good + bad)


def test_another_tokenizer_or_plain_captions_are_one_clear_error(round_trip, tmp_path):
    code, err, _, _ = round_trip("1\t北京\t0\t0 1 0\t0 1 1\t3\n")
    assert code == 2
    assert "pass the tokenizer it was produced with" in err
    assert err.count("\n") == 1
    code, err, _, _ = round_trip("1\t北京\n2\t故宫\n")
    assert (code, "wrong column count: 2, expected 6" in err) == (2, True)
    assert not list(tmp_path.glob("t.parquet*"))


def test_inputs_are_never_overwritten(command, kg, vocabulary, write):
    tsv = write("in.tsv", row("1", "北京", [(0, 0, 1)]))
    into = ["lattice", "import", tsv, "--kg", kg, "--tokenizer", vocabulary, "--overwrite"]
    code, _, err = command(*into, "--out", tsv)
    assert (code, "is an input" in err) == (2, True)
    assert command(*into, "--out", tsv.with_name("t.parquet"))[0] == 0
    out = ["lattice", "export", tsv.with_name("t.parquet"), "--overwrite", "--out"]
    code, _, err = command(*out, tsv.with_name("t.parquet"))
    assert (code, "is an input" in err) == (2, True)
    open_table(tsv.with_name("t.parquet"), LATTICE)


def test_a_finished_file_is_kept(round_trip, command, tmp_path):
    round_trip(row("1", "北京", [(0, 0, 1)]))
    out = ["lattice", "export", tmp_path / "t.parquet", "--out", tmp_path / "out.tsv"]
    code, stdout, _ = command(*out)
    assert (code, "is finished and unchanged: 1 captions" in stdout) == (0, True)


LETTERS = st.sampled_from("北京故宫手机壳的狗")


@settings(max_examples=30)
@given(data=st.data())
def test_any_lattice_of_characters_is_reproduced(data, characters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    write_names(folder / "entity2id.txt", NAMES)
    characters.save(folder)
    lines = []
    for n, text in enumerate(data.draw(st.lists(st.text(LETTERS, min_size=1), min_size=1))):
        place = st.integers(0, len(text) - 1)
        spans = st.tuples(place, place, st.integers(0, len(NAMES) - 1))
        drawn = data.draw(st.lists(spans, max_size=5))
        ordered = sorted((min(a, b), max(a, b), i) for a, b, i in drawn)
        lines.append(row(str(n), text, [(i, a, b) for a, b, i in ordered]))
    source, table, out = folder / "in.tsv", folder / "t.parquet", folder / "out.tsv"
    source.write_text("".join(lines), encoding="utf-8")
    import_table(source, table, names=folder, tokenizer=folder)
    export_table(table, out)
    assert out.read_text(encoding="utf-8") == "".join(lines)
