"""A dry run says what a training will take, and leaves nothing behind."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from artist.training.dry_run import dry_run_finetune
from artist.training.gpt_training import finetune
from data.errors import SchemaError
from data.images import encode_png
from data.kg_folder import ENTITY_NAMES, write_names
from data.schema import IMAGE, with_metadata
from tests.artist.world import NAMES, QUICK, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world")


def everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def dry(world: World, **changes: object):
    config = replace(QUICK, **changes)
    return dry_run_finetune(
        world.train, valid=world.valid, kg=world.kg, vqgan=world.vqgan, config=config
    )


def test_it_tells_what_the_run_will_take_and_writes_nothing(world, tmp_path):
    before = everything(tmp_path)
    told = dry(world)
    assert everything(tmp_path) == before
    done = finetune(
        world.train, valid=world.valid, kg=world.kg, vqgan=world.vqgan,
        out=tmp_path / "model", config=QUICK,
    )  # fmt: skip
    assert (told.parameters, told.total_steps, told.rows) == (done.parameters, done.steps, 16)
    assert told.whole_seconds == pytest.approx(
        12 * told.step_seconds + 3 * told.validation_seconds, rel=1e-6
    )
    assert told.peak_bytes > 50e6
    said = str(told)
    assert "4 steps per epoch, 12 in total" in said
    assert "The whole run will take about" in said
    assert "Nothing was written." in said


def test_images_that_are_not_encoded_yet_are_counted_in(world, tmp_path):
    image = {"bytes": encode_png(np.zeros((8, 8, 3), np.uint8)), "path": None}
    for path in (world.train, world.valid):
        table = pq.read_table(path)
        schema = with_metadata(table.drop_columns("codes").schema.append(IMAGE), {})
        rows = [{**row, "image": image} for row in table.to_pylist()]
        for row in rows:
            del row["codes"]
        pq.write_table(table.from_pylist(rows, schema=schema), path)
    told = dry(world)
    assert told.encoding_seconds > 0
    assert "Encoding the images first takes" in str(told)
    assert not list(world.train.parent.glob("*.codes-*"))


def test_it_finds_what_training_would_find(world, tmp_path):
    other = tmp_path / "kg"
    shutil.copytree(world.kg, other)
    write_names(other / ENTITY_NAMES, NAMES[::-1])
    with pytest.raises(SchemaError, match=r"world/train\.parquet was built with another KG"):
        dry_run_finetune(world.train, valid=world.valid, kg=other, vqgan=world.vqgan, config=QUICK)
    assert not list(tmp_path.rglob("*partial*"))
