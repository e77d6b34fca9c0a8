"""Token ids equal the published ones (see golden/README.md)."""

import json

import pytest

from data.tokenizer import SPECIAL_TOKENS, Tokenizer

OFFSET, VOCAB_SIZE = 16_384, 21_128  # image codes come first; chinese-roberta-wwm-ext


@pytest.mark.parity
def test_a_published_caption_has_its_published_ids(golden, tmp_path):
    """The vocabulary is not included: the test puts each token at its published id."""
    example = json.loads((golden / "tokenizer_example.json").read_text(encoding="utf-8"))
    lines = [f"[unused{n}]" for n in range(VOCAB_SIZE)]
    lines[0] = "[PAD]"
    lines[100:104] = SPECIAL_TOKENS[1:]
    for character, token_id in zip(example["text"], example["input_ids"], strict=True):
        lines[token_id - OFFSET] = character
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokens = next(iter(Tokenizer.load(tmp_path).encode([example["text"]])))
    assert [token_id + OFFSET for token_id in tokens.ids] == example["input_ids"]
