"""A dry run reports memory and time of a training, and writes nothing."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from artist.training.dry_run import dry_run_finetune
from artist.training.training_inputs import text_len_warning
from data.errors import SchemaError
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, write_names
from data.schema import IMAGE, with_metadata
from tests.artist.world import NAMES, QUICK, World, make_world, train


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world")


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def dry(world: World, **changes: object):
    config = replace(QUICK, **changes)
    return dry_run_finetune(world.train, **world.inputs, config=config)


def test_a_dry_run_reports_what_the_run_takes_and_writes_nothing(world, tmp_path):
    before = everything(tmp_path)
    report = dry(world)
    assert everything(tmp_path) == before
    done = train(world, tmp_path / "model")
    assert (report.parameters, report.total_steps, report.rows) == (done.parameters, done.steps, 16)
    assert report.whole_seconds == pytest.approx(
        12 * report.step_seconds + 3 * report.validation_seconds, rel=1e-6
    )
    assert report.peak_bytes > 50e6
    text = str(report)
    assert "4 steps per epoch, 12 in total" in text
    assert "The whole run will take about" in text
    assert "Nothing was written." in text


def test_a_dry_run_names_captions_that_are_mostly_padding_and_the_size_of_the_vocabulary(
    world, caplog
):
    text_len_warning.cache_clear()
    with caplog.at_level(logging.WARNING):
        report = dry(world)
        assert "padding" not in caplog.text
        dry(world, text_len=32)
    assert "the longest caption has 3 tokens and the model reads 32" in caplog.text
    assert "With --text-len 3 it is smaller and faster" in caplog.text
    tokens = len(world.tokenizer.read_text(encoding="utf-8").splitlines())
    assert report.vocabulary_parameters == tokens * 64
    share = 100 * tokens * 64 / report.parameters
    text = f"{share:.0f} % of the parameters are embeddings of the {tokens} tokens"
    assert text in str(report)


def test_the_time_to_encode_images_is_included(world, tmp_path):
    image = {"bytes": encode_png(np.zeros((8, 8, 3), np.uint8)), "path": None}
    for path in (world.train, world.valid):
        table = pq.read_table(path)
        schema = with_metadata(table.drop_columns("codes").schema.append(IMAGE), {})
        rows = [{**row, "image": image} for row in table.to_pylist()]
        for row in rows:
            del row["codes"]
        pq.write_table(table.from_pylist(rows, schema=schema), path)
    report = dry(world)
    assert report.encoding_seconds > 0
    assert "Encoding the images first takes" in str(report)
    assert not list(world.train.parent.glob("*.codes-*"))


def test_a_dry_run_checks_the_inputs(world, tmp_path):
    other = tmp_path / "kg"
    shutil.copytree(world.kg, other)
    write_names(other / ENTITY_NAMES, NAMES[::-1])
    with pytest.raises(SchemaError, match=r"world/train\.parquet was built with another KG"):
        dry(replace(world, kg=other))
    assert not list(tmp_path.rglob("*partial*"))
