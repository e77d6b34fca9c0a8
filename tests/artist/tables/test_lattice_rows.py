"""Batches of lattice tables: padding, truncation, spans, order."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artist.models.config import GPTConfig
from artist.tables.lattice_rows import Batches, RowsConfig, read_rows, rows_from_table
from artist.training.config import TrainConfig
from data.errors import ConfigError, SchemaError
from data.schema import CODES, LATTICE

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=8, text_len=4, image_len=2, entity_dim=3)
READING = RowsConfig(text_len=4, pad_id=0, max_entities=4)
VECTORS = np.arange(30, dtype=np.float32).reshape(10, 3)


def row(idx: str, length: int, entities: list[tuple[int, int, int]], codes=(1, 2)) -> dict:
    """Return a table row; entities are (id, first token, last token)."""
    tokens = list(range(length))
    return {
        "idx": idx,
        "text": idx,
        "input_ids": [10 + t for t in tokens],
        "seq_len": length,
        "lex_ids": [e[0] for e in entities],
        "pos_s": tokens + [e[1] for e in entities],
        "pos_e": tokens + [e[2] for e in entities],
        "codes": list(codes),
    }


def table(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=LATTICE.append(CODES))


def batches(*rows: dict, max_entities: int = 32) -> Batches:
    found = rows_from_table(table(*rows), replace(READING, max_entities=max_entities))
    return Batches(found, VECTORS, CONFIG)


def test_short_captions_are_padded_and_long_ones_truncated():
    batch = batches(row("a", 2, []), row("b", 6, [])).get(np.array([0, 1]))
    assert batch.conditioning.token_ids.tolist() == [[10, 11, 0, 0], [10, 11, 12, 13]]
    assert batch.codes.tolist() == [[1, 2], [1, 2]]
    assert batch.conditioning.entities.vectors.shape == (2, 0, 3)


def test_inclusive_ends_become_half_open_and_are_truncated_with_the_text():
    batch = batches(row("a", 6, [(5, 0, 1), (6, 3, 5), (7, 4, 5)])).get(np.array([0]))
    assert batch.conditioning.entities.covers[0].tolist() == [
        [True, True, False, False],
        [
            False,
            False,
            False,
            True,
        ],  # truncated; the third entity begins after the text
    ]
    assert batch.conditioning.entities.vectors[0].tolist() == VECTORS[[5, 6]].tolist()


def test_the_first_entities_are_kept_by_default():
    found = batches(row("a", 4, [(1, 0, 1), (2, 1, 2), (3, 2, 3)]), max_entities=2)
    assert found.rows.entity_ids.tolist() == [1, 2]


def test_padding_slots_cover_no_token():
    batch = batches(row("a", 4, [(1, 0, 1)]), row("b", 4, [(2, 0, 0), (3, 1, 3)])).get(
        np.array([1, 0])
    )
    assert batch.conditioning.entities.covers.any(-1).tolist() == [[True, True], [True, False]]


def test_rows_of_a_batch_equal_single_rows():
    rows = [row(str(n), 4, [(n, 0, n % 4)] * (n % 3)) for n in range(7)]
    whole = batches(*rows)
    chosen = whole.get(np.array([5, 2])).conditioning
    for place, n in enumerate([5, 2]):
        alone = whole.get(np.array([n])).conditioning
        K = alone.entities.covers.shape[1]
        assert torch.equal(chosen.token_ids[place], alone.token_ids[0])
        assert torch.equal(chosen.entities.covers[place, :K], alone.entities.covers[0])
        assert torch.equal(chosen.entities.vectors[place, :K], alone.entities.vectors[0])


def test_easynlp_batches_have_all_slots():
    found = rows_from_table(
        table(row("a", 4, [])), RowsConfig(text_len=4, pad_id=0, max_entities=10)
    )
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=8, text_len=4, entity_dim=3, fusion="easynlp", max_entities=10
    )
    entities = Batches(found, VECTORS, config).get(np.array([0])).conditioning.entities
    assert entities.covers.shape == (1, 10, 4)
    assert torch.equal(entities.vectors[0, 3], torch.from_numpy(VECTORS[0]))


def test_a_model_without_fusion_gets_no_entities_and_accepts_any_graph():
    found = rows_from_table(table(row("a", 4, [(1, 0, 1)])), READING)
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, text_len=4, entity_dim=77, fusion="none")
    assert Batches(found, VECTORS, config).get(
        np.array([0])
    ).conditioning.entities.covers.shape == (1, 0, 4)


def test_an_epoch_has_every_row_once_in_an_order_by_seed_and_epoch():
    found = batches(*(row(str(n), 1, []) for n in range(50)))
    orders = [tuple(found.epoch_order(seed, epoch)) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 3
    assert tuple(found.epoch_order(0, 1)) == orders[1]


def test_an_entity_beyond_the_graph_is_refused():
    with pytest.raises(SchemaError, match="the KG has only 10"):
        batches(row("a", 2, [(10, 0, 1)]))


def test_vectors_of_another_width_are_refused():
    found = rows_from_table(table(row("a", 2, [])), READING)
    with pytest.raises(SchemaError, match="have 5 dimensions"):
        Batches(found, np.zeros((4, 5), dtype=np.float32), CONFIG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pa.table({"id": [1]}), "Write one with"),
        (table(row("a", 2, [(1, 0, 1)]) | {"pos_e": [0, 1]}), r"seq_len \+ len\(lex_ids\)"),
        (table(), "has no rows"),
    ],
    ids=["other columns", "spans that contradict the entities", "no rows"],
)
def test_invalid_tables_are_refused(tmp_path, content, message):
    pq.write_table(content, tmp_path / "t.parquet")
    with pytest.raises(SchemaError, match=message):
        read_rows(tmp_path / "t.parquet", READING)


def test_the_policy_selects_among_the_entities_within_text_len():
    # Tokens 0..3 are read; the last entity, the longest, begins after them.
    entities = [(1, 0, 0), (2, 0, 1), (3, 1, 3), (4, 2, 2), (5, 4, 9)]
    wanted = {"first": [1, 2], "longest": [2, 3], "leftmost-longest": [2, 4]}
    for policy, ids in wanted.items():
        found = rows_from_table(
            table(row("a", 10, entities)), replace(READING, max_entities=2, policy=policy)
        )
        assert found.entity_ids.tolist() == ids, policy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entity_policy": "longst"}, 'did you mean "longest"'),
        ({"entity_policy": "longest", "fusion": "easynlp"}, "the released code takes the first"),
    ],
)
def test_invalid_policies_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)
