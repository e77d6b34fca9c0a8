"""Families of models: predict and the gallery use the pipeline protocol only."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from artist.generation import pipeline_protocol
from artist.generation.config import PredictConfig, SamplingConfig
from artist.generation.pipeline_protocol import load_pipeline
from artist.generation.predict import predict
from artist.tables.lattice_rows import Rows, RowsConfig, rows_from_table
from data.errors import ArtefactError, ConfigError
from data.images import encode_png
from data.runs import read_manifest
from data.schema import LATTICE
from data.tokenizer import Tokenizer
from tests.artist.world import World, make_world


class Flat:
    """A family without codes or KG: its images have one colour, given by the seed."""

    kg_fingerprint = ""
    resolution = 8
    text_len = 4

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder, *, kg, device, precision, compile):
        assert (kg, device.type, precision, compile) == (None, "cpu", "auto", False)
        return cls(Tokenizer.load(folder / "vocab.txt"))

    def rows(self, table) -> Rows:
        pad_id = self.tokenizer.pad_id
        config = RowsConfig(text_len=self.text_len, pad_id=pad_id, max_entities=0)
        return rows_from_table(table, config)

    def draw(self, rows, chosen, seeds, sampling):
        assert isinstance(sampling, SamplingConfig)
        assert len(chosen) == len(seeds)
        return np.stack([np.full((8, 8, 3), seed % 256, np.uint8) for seed in seeds])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), rows=3)


@pytest.fixture
def model(world, tmp_path, monkeypatch) -> Path:
    module = ModuleType("flat_family")
    module.Flat = Flat
    monkeypatch.setitem(sys.modules, "flat_family", module)
    monkeypatch.setitem(pipeline_protocol.PIPELINES, "flat", ("flat_family", "Flat"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "flat"}))
    (folder / "vocab.txt").write_bytes(world.tokenizer.read_bytes())
    return folder


def test_predict_accepts_a_model_of_another_family(world, model, tmp_path):
    prompts = pq.read_table(world.valid).select(LATTICE.names)
    out = tmp_path / "out"
    report = predict(
        prompts, model=model, kg=None, out=out, config=PredictConfig(num_images=2), device="cpu"
    )
    assert (report.prompts, report.images) == (3, 6)
    files = sorted((out / "images").iterdir())
    for file in files:
        image = Image.open(file)
        assert image.getpixel((0, 0)) == (int(image.info["seed"]) % 256,) * 3
    assert "6 images" in (out / "gallery.html").read_text("utf-8")
    assert read_manifest(out).counts["images"] == 6


def test_completing_images_is_refused_for_a_family_without_codes(world, model, tmp_path):
    prompts = pq.read_table(world.valid).select(LATTICE.names)
    given = [encode_png(np.zeros((8, 8, 3), np.uint8))] * 3
    with pytest.raises(ConfigError, match="this model cannot complete images"):
        predict(
            prompts,
            model=model,
            kg=None,
            out=tmp_path / "out",
            images=given,
            config=PredictConfig(keep_top=0.5),
            device="cpu",
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_type_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "artist-toolkid"}))
    with pytest.raises(ArtefactError, match='did you mean "artist-toolkit"'):
        load_pipeline(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtefactError, match="has no model_type"):
        load_pipeline(tmp_path)
