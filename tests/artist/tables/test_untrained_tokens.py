"""Captions with tokens that no training caption has are reported, with the tokens."""

import logging

import numpy as np
import pyarrow.parquet as pq

from artist.evaluation.config import EvaluateConfig, Sources
from artist.evaluation.evaluator import evaluate
from artist.evaluation.results import Evaluation
from artist.formats.model_folder import read_seen_tokens
from artist.generation.config import PredictConfig
from artist.generation.predict import predict
from artist.tables.lattice_rows import RowsConfig, read_rows
from artist.tables.untrained_tokens import untrained_tokens
from data.tokenizer import Tokenizer
from tests.artist.world import make_world, train


def test_only_tokens_that_no_training_caption_has_are_listed(tmp_path):
    world = make_world(tmp_path, rows=16)
    rows = read_rows(world.valid, RowsConfig(text_len=6, pad_id=0, max_entities=4))
    tokenizer = Tokenizer.load(world.tokenizer)
    used = rows.tokens(tokenizer.vocab_size)
    assert set(used) == set(rows.bert_ids.ravel())
    assert untrained_tokens(rows, tokenizer, used) == ""
    assert untrained_tokens(rows, tokenizer, None) == ""
    new = used[-1]
    captions = int((rows.bert_ids == new).any(1).sum())
    found = untrained_tokens(rows, tokenizer, used[:-1])
    assert found.startswith(f"{captions} of 16 captions contain tokens that no training caption")
    assert f"{tokenizer.token(new)} (1 in all)" in found
    assert "... (" in untrained_tokens(rows, tokenizer, np.zeros(0, np.int64))


def test_evaluation_and_prediction_warn_of_tokens_that_were_never_trained(tmp_path, caplog):
    few, many = make_world(tmp_path / "few", rows=2), make_world(tmp_path / "many", rows=16)
    model = tmp_path / "model"
    train(few, model, max_steps=1, validations=1, batch_size=2)
    letters = {letter for text in pq.read_table(few.train)["text"].to_pylist() for letter in text}
    tokenizer = Tokenizer.load(few.tokenizer)
    seen = read_seen_tokens(model)
    assert seen is not None
    assert {tokenizer.token(n) for n in seen} - {"[PAD]"} == letters
    found = evaluate(
        Sources(table=many.valid, model=model, kg=many.kg),
        config=EvaluateConfig(shuffles=0, examples=0),
    )
    assert isinstance(found, Evaluation)
    assert any("tokens that no training caption contains" in text for text in found.warnings)
    captions = pq.read_table(many.valid).drop_columns(["codes"])
    options = {"model": model, "kg": many.kg, "config": PredictConfig()}
    with caplog.at_level(logging.WARNING):
        known = captions.filter([set(text) <= letters for text in captions["text"].to_pylist()])
        predict(known, out=tmp_path / "known", **options)
        assert "no training caption" not in caplog.text
        predict(captions.slice(0, 8), out=tmp_path / "some", **options)
    assert "captions contain tokens that no training caption contains" in caplog.text
