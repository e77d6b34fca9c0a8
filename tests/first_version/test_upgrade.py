"""Artefacts of the first version are read by this one, or refused with what makes them anew.

`artefacts.tar.xz` was written by the commands of commit 9591d51: `kg train`, `lattice build`,
`artist vqgan train`, `artist finetune` (which encodes the table) and `artist predict`, on the input
of tests/small_world.py with the smallest sizes.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.kg_folder import read_names, read_vectors
from data.runs import verify


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    with tarfile.open(Path(__file__).with_name("artefacts.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_manifests_are_verified(first):
    for name in ("kg", "train.parquet", "train.codes.parquet", "model", "predictions"):
        assert verify(first / name).files


def test_a_graph_and_a_table_are_read(first, command):
    assert len(read_names(first / "kg" / "entity2id.txt")) == len(read_vectors(first / "kg")) == 13
    table = first / "train.parquet"
    for words in (
        ["kg", "nearest", "老虎", "--kg", first / "kg"],
        ["kg", "stats", first / "kg"],
        ["lattice", "stats", table, "--kg", first / "kg"],
        ["lattice", "export", table, "--out", first / "easynlp.tsv"],
        ["data", "validate", first / "train.codes.parquet"],
    ):
        code, said, error = command(*words)
        assert (code, said != "") == (0, True), error


def test_a_model_generates_and_is_evaluated(first, command):
    (first / "test.tsv").write_text("a/../1\t一只老虎\nb\t没有实体\n", "utf-8")
    common = ["--model", first / "model", "--kg", first / "kg"]
    code, _, error = command("artist", "predict", first / "test.tsv", *common, "--out",
                             first / "new", "--precision", "fp32")  # fmt: skip
    assert code == 0, error
    new, old = (sorted((first / name / "images").iterdir()) for name in ("new", "predictions"))
    assert len(new) == len(old) == 2
    for one, other in zip(new, old, strict=True):
        pixels = [np.asarray(Image.open(path), int) for path in (one, other)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 4, "the same codes, decoded in fp32"
    words = ["artist", "evaluate", first / "train.parquet", *common, "--out", first / "evaluation"]
    code, said, error = command(*words)
    assert code == 0, error
    assert "Nats per code" in said


def test_codes_are_refused_with_the_command_that_makes_them_anew(first, command):
    words = ["artist", "evaluate", first / "train.codes.parquet", "--model", first / "model"]
    code, _, error = command(*words, "--kg", first / "kg", "--out", first / "e")
    assert code == 2
    assert "Encode the images again with `cli.py artist encode" in error
