"""Vocabularies as people have them: with repeated lines, and as transformers 5 saves them."""

import json

import pytest
from transformers import BertTokenizer

from data.errors import InputError
from data.tokenizer import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "北", "京", "穿", "a", "##a", "A"]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_tokenizer_saved_by_transformers_5_equals_its_vocabulary_file(tmp_path, vocab, lowercase):
    saved = tmp_path / "saved"
    BertTokenizer(
        vocab={t: i for i, t in enumerate(TOKENS)}, do_lower_case=lowercase
    ).save_pretrained(saved)
    (saved / "vocab.txt").unlink(missing_ok=True)
    folder, file = Tokenizer.load(saved), Tokenizer.load(saved / "tokenizer.json")
    assert folder.vocab == Tokenizer.load(vocab).vocab
    assert folder.fingerprint == file.fingerprint
    assert (folder.fingerprint == Tokenizer.load(vocab).fingerprint) == lowercase
    ids = next(folder.encode(["北京Aa"])).ids
    assert ids == ([5, 6, 8, 9] if lowercase else [5, 6, 10, 9])


def test_a_repeated_token_is_refused_with_both_lines(vocab):
    with vocab.open("a", encoding="utf-8") as file:
        file.write("穿\n龘龘\n")
    with pytest.raises(InputError, match=r"vocab.txt:12: the token '穿' repeats line 8"):
        Tokenizer.load(vocab)


def test_the_command_refuses_a_repeated_token_and_leaves_nothing(command, vocab, tmp_path):
    vocab.write_text(vocab.read_text(encoding="utf-8") + "穿\n", encoding="utf-8")
    captions, names, out = tmp_path / "c.tsv", tmp_path / "names.txt", tmp_path / "t.parquet"
    captions.write_text("1\t北京\n", encoding="utf-8")
    names.write_text("1\n北京\t0\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    code, _, err = command(
        "lattice", "build", captions, "--entities", names, "--tokenizer", vocab, "--out", out
    )
    assert (code, "vocab.txt:12" in err, err.count("\n")) == (2, True, 1)
    assert sorted(tmp_path.iterdir()) == before


def word_piece(vocab: dict[str, int]) -> str:
    model, normalizer = {"type": "WordPiece", "vocab": vocab}, {"type": "BertNormalizer"}
    return json.dumps({"model": model, "normalizer": normalizer})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a unknown tokenizer"),
        (json.dumps({"model": {"type": "BPE", "vocab": {}}}), "holds a BPE tokenizer"),
        (word_piece({"[PAD]": 0, "[UNK]": 2}), "ids of its 2 tokens"),
        (word_piece({"a": 0}), r"\[PAD\], \[UNK\] not among its 1 tokens"),
    ],
)
def test_another_tokenizer_json_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        Tokenizer.load(tmp_path)
