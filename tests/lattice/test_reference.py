"""What the reference finds, we find; on pure Chinese text the rows are identical."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.kg_folder import write_names
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows
from lattice.build import match_texts
from lattice.kernel import LatticeConfig
from tests.lattice.reference import make_trie, match_tokens, reference_row

PURE = re.compile(r"[\u4e00-\u9fff，。、！？；：“”（）《》 ]*")
PLAIN = LatticeConfig(bracket_aliases=False)


def rows_of(names: list[str], texts: list[str], tokenizer: Tokenizer, folder: Path, config=PLAIN):
    write_names(folder / "entity2id.txt", names)
    return match_texts(texts, names=folder, tokenizer=tokenizer, config=config).to_pylist()


def compare(names: list[str], texts: list[str], tokenizer: Tokenizer, folder: Path) -> int:
    """Check every text; how many were pure."""
    trie = make_trie(names)
    written = {i: token for token, i in tokenizer.vocab.items()}
    pure = 0
    for row in rows_of(names, texts, tokenizer, folder):
        tokens = [written[i] for i in row["input_ids"]]
        if PURE.fullmatch(row["text"]) and "[UNK]" not in tokens:
            pure += 1
            expected = reference_row(trie, tokens)
            assert {key: row[key] for key in expected} == expected, row["text"]
        n = row["seq_len"]
        ours = set(zip(row["pos_s"][n:], row["pos_e"][n:], row["lex_ids"], strict=True))
        assert ours >= set(match_tokens(trie, tokens)), row["text"]
    return pure


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kg")


LETTERS = "北京故宫博物院（）， "


@settings(max_examples=40)
@given(
    names=st.lists(st.text(LETTERS.strip(), max_size=5), max_size=20).filter(
        lambda names: any(len(name) > 1 for name in names)
    ),
    texts=st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=5),
)
def test_rows_equal_the_reference_on_random_chinese(names, texts, pieces, folder):
    assert compare(names, texts, pieces, folder) == len(texts)


@pytest.fixture(scope="module")
def captions(real_data) -> list[str]:
    rejects = Rejects()
    folder = real_data / "flickr8k-cn"
    files = [folder / "train.captions.tsv", folder / "val.captions.tsv"]
    return [row.fields[1] for file in files for row in read_rows(file, (2,), rejects)]


def heads_and_tails(file: Path) -> list[str]:
    rows = read_rows(file, (3,), Rejects())
    return list(dict.fromkeys(name for row in rows for name in (row.fields[0], row.fields[2])))


@pytest.mark.parametrize("graph", ["hownet.spo", "medical.spo"])
def test_rows_equal_the_reference_on_real_captions(graph, real_data, captions, pieces, tmp_path):
    names = heads_and_tails(real_data / "kg" / graph)
    pure = compare(names, captions, pieces, tmp_path)
    assert pure > 0.97 * len(captions)


def test_rows_equal_the_reference_with_the_names_of_jieba(captions, characters, tmp_path):
    import importlib.util

    found = importlib.util.find_spec("jieba")
    dictionary = Path(found.submodule_search_locations[0]) / "dict.txt"
    with dictionary.open(encoding="utf-8") as lines:
        names = [line.split(" ")[0] for line in lines]
    compare(names, captions[::3], characters, tmp_path)
