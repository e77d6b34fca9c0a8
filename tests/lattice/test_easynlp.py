"""EasyNLP's preprocessed TSV comes in and goes out byte for byte."""

import base64
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artist.models.config import GPTConfig
from artist.tables.lattice_rows import Batches, read_rows
from data.kg_folder import write_names
from data.schema import LATTICE, open_table
from data.tokenizer import SPECIAL_TOKENS
from lattice.easynlp import export_table, import_table
from tests.lattice.reference import make_trie, reference_row
from tests.lattice.samples import encoded, picture

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
def there_and_back(command, kg, vocabulary, write, tmp_path):
    """Import a TSV and export it: what both said, the table, and the exported bytes."""

    def run(content, *options):
        source, table, out = write("in.tsv", content), tmp_path / "t.parquet", tmp_path / "out.tsv"
        into = ["lattice", "import", source, "--kg", kg, "--tokenizer", vocabulary]
        code, said, err = command(*into, "--out", table, "--overwrite", *options)
        if code:
            return code, err, table, b""
        code, _, err = command("lattice", "export", table, "--out", out, "--overwrite")
        assert code == 0, err
        return code, said, table, out.read_bytes()

    return run


def row(idx, text, entities, image=None) -> str:
    """A line as EasyNLP writes it; entities are (id, first, last)."""
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


def test_what_the_reference_writes_comes_back_byte_for_byte(there_and_back):
    trie = make_trie(NAMES)
    content = ""
    for n, text in enumerate(["北京故宫的手机壳", "一只猫", "故宫故宫", "“北京”，null"]):
        tokens = [*"“北京”，", "n", "##u", "##l", "##l"] if n == 3 else list(text)
        found = reference_row(trie, tokens)
        lists = [" ".join(map(str, found[name])) for name in ("lex_ids", "pos_s", "pos_e")]
        content += "\t".join([f"00{n}", text, *lists, str(found["seq_len"])]) + "\n"
    code, said, _, out = there_and_back(content)
    assert code == 0
    assert out.decode() == content
    assert "written in another way" not in said


def test_an_imported_table_is_the_table_that_build_writes(
    there_and_back, command, kg, vocabulary, write, tmp_path
):
    captions = write("captions.tsv", "1\t北京故宫的手机壳\n2\t一只猫\n3\t我的手机，北 京\n")
    build = ["lattice", "build", captions, "--kg", kg, "--tokenizer", vocabulary]
    tsv, table = tmp_path / "built.tsv", tmp_path / "built.parquet"
    assert command(*build, "--no-bracket-aliases", "--out", table)[0] == 0
    assert command(*build, "--no-bracket-aliases", "--format", "tsv", "--out", tsv)[0] == 0
    _, _, imported, exported = there_and_back(tsv.read_bytes())
    assert exported == tsv.read_bytes()
    assert pq.read_table(imported).equals(pq.read_table(table), check_metadata=True)
    assert export_table(table, tmp_path / "again.tsv").num_rows == 3
    assert (tmp_path / "again.tsv").read_bytes() == tsv.read_bytes()


def ways(seed: int) -> list[str]:
    """One picture in each way of writing base64."""
    content = picture(seed=seed)
    plain = base64.b64encode(content).decode()
    urlsafe = base64.urlsafe_b64encode(content).decode()
    return [plain, urlsafe, plain.rstrip("="), urlsafe.rstrip("=")]


@pytest.mark.parametrize("way", range(4))
def test_images_come_back_in_the_base64_they_came_in(there_and_back, way):
    images = [ways(seed)[way] for seed in range(4)]
    content = "".join(row(str(n), "北京的狗", [(0, 0, 1)], i) for n, i in enumerate(images))
    _, said, table, out = there_and_back(content)
    assert out.decode() == content
    assert pq.read_table(table)["image"].to_pylist()[2]["bytes"] == picture(seed=2)
    assert "written in another way" not in said


def test_rows_that_would_come_back_otherwise_are_counted(there_and_back):
    lines = [
        row("1", "北京故宫", [(0, 0, 1), (2, 0, 3)]),
        row("2", "北京故宫", [(2, 0, 3)]).replace("0 1 2 3 0", "0 1  2 3 00"),
        row("3", "北京", []).replace("0 1\t2", "0 1 \t2"),
    ]
    code, said, _, out = there_and_back("\ufeff" + "".join(lines).replace("\n", "\r\n"))
    assert code == 0
    assert "2 rows are written in another way" in said
    assert out.decode() == lines[0] + row("2", "北京故宫", [(2, 0, 3)]) + row("3", "北京", [])


def test_the_goldens_of_the_reference_come_back_and_mean_what_they_meant(golden, kg, tmp_path):
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

    rows = read_rows(table, text_len=32, pad_id=0, max_entities=10)
    vectors = np.arange(largest + 1, dtype=np.float32)[:, None]  # vectors that spell their id
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=8, entity_dim=1, fusion="easynlp", max_entities=10
    )
    entities = Batches(rows, vectors, config).get(np.arange(len(cases))).entities
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
def test_a_bad_row_is_kept_with_line_and_reason(there_and_back, line, reason):
    good = row("1", "北京", [(0, 0, 1)])
    code, said, table, out = there_and_back(good + line + good)
    assert code == 0
    rejects = table.with_name(table.name + ".rejects.tsv")
    if reason is None:  # a caption without tokens is a row of none
        assert out.decode() == good + line + good
    else:
        assert out.decode() == good + good
        number, why, kept = rejects.read_text(encoding="utf-8").rstrip("\n").split("\t")
        assert number == "2"
        assert why.startswith(reason)
        assert kept == line.rstrip("\n").replace("\t", "\\t")
        assert "1 rows left out" in said


def test_a_damaged_image_is_kept_with_line_and_reason(there_and_back):
    good = row("1", "北京", [(0, 0, 1)], encoded())
    bad = row("2", "北京", [(0, 0, 1)], encoded(64, cut=-200))
    code, _, table, out = there_and_back(good + bad)
    assert (code, out.decode()) == (0, good)
    assert "damaged image" in table.with_name(table.name + ".rejects.tsv").read_text()
    code, _, _, out = there_and_back(good + bad, "--check-images", "header")
    assert (code, out.decode()) == (0, good + bad)


def test_another_tokenizer_or_plain_captions_are_one_clear_error(there_and_back, tmp_path):
    code, err, _, _ = there_and_back("1\t北京\t0\t0 1 0\t0 1 1\t3\n")
    assert code == 2
    assert "give the tokenizer it was made with" in err
    assert err.count("\n") == 1
    code, err, _, _ = there_and_back("1\t北京\n2\t故宫\n")
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


def test_a_finished_file_is_left_alone(there_and_back, command, tmp_path):
    there_and_back(row("1", "北京", [(0, 0, 1)]))
    out = ["lattice", "export", tmp_path / "t.parquet", "--out", tmp_path / "out.tsv"]
    code, said, _ = command(*out)
    assert (code, "is finished and unchanged: 1 captions" in said) == (0, True)


LETTERS = st.sampled_from("北京故宫手机壳的狗")


@settings(max_examples=30)
@given(data=st.data())
def test_any_lattice_of_characters_comes_back(data, characters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    write_names(folder / "entity2id.txt", NAMES)
    characters.save(folder)
    lines = []
    for n, text in enumerate(data.draw(st.lists(st.text(LETTERS, min_size=1), min_size=1))):
        place = st.integers(0, len(text) - 1)
        spans = st.tuples(place, place, st.integers(0, len(NAMES) - 1))
        found = data.draw(st.lists(spans, max_size=5))
        lines.append(
            row(
                str(n),
                text,
                [
                    (i, *sorted(ab))
                    for *ab, i in sorted((min(a, b), max(a, b), i) for a, b, i in found)
                ],
            )
        )
    source, table, out = folder / "in.tsv", folder / "t.parquet", folder / "out.tsv"
    source.write_text("".join(lines), encoding="utf-8")
    import_table(source, table, names=folder, tokenizer=folder)
    export_table(table, out)
    assert out.read_text(encoding="utf-8") == "".join(lines)
