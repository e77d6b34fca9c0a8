"""Token spans equal the reference's `words_mat` [10, 32] (EasyNLP, commit a4ee956)."""

import json

import numpy as np
import pyarrow as pa
import pytest

from artist.models.config import GPTConfig
from artist.tables.lattice_rows import Batches, RowsConfig, rows_from_table
from data.schema import LATTICE

pytestmark = pytest.mark.parity


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split()]


def test_spans_cut_to_the_text_equal_words_mat(golden):
    cases = json.loads((golden / "words_mat.json").read_text())["rows"]
    assert len(cases) == 5
    table = pa.Table.from_pylist(
        [
            {
                "idx": str(n),
                "text": case["text"],
                "input_ids": [ord(c) % 21000 + 1 for c in case["text"]],
                "seq_len": int(case["token_len"]),
                "lex_ids": numbers(case["lex_id"]),
                "pos_s": numbers(case["pos_s"]),
                "pos_e": numbers(case["pos_e"]),
            }
            for n, case in enumerate(cases)
        ],
        schema=LATTICE,
    )
    rows = rows_from_table(table, RowsConfig(text_len=32, pad_id=0, max_entities=10))
    # Vectors contain their own id, so that the ids in a batch can be checked.
    largest = int(rows.entity_ids.max())
    vectors = np.arange(largest + 1, dtype=np.float32)[:, None]
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=8, entity_dim=1, fusion="easynlp", max_entities=10
    )
    batch = Batches(rows, vectors, config).get(np.arange(5))
    spelled = batch.conditioning.entities.vectors[:, :, 0].long()  # (B, K)
    words_mat = spelled[:, :, None] * batch.conditioning.entities.covers  # (B, K, T)
    for n, case in enumerate(cases):
        assert words_mat[n].tolist() == case["words_mat"], case["text"]
        assert batch.conditioning.token_ids[n].tolist() == case["text_ids_unshifted_char_hash"]
