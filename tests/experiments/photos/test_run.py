"""Run the experiment on generated photographs by the real command; the judge on its own."""

import json

import numpy as np
import pytest

from data.errors import ConfigError
from data.runs import read_manifest
from experiments.photos.config import PhotosConfig
from experiments.photos.judge import Judge, load_pixels, train_judge
from experiments.photos.photo_folder import VAL, read_photo_folder
from experiments.photos.report import MEASURES, PHOTOGRAPHS, VQGAN
from experiments.photos.run import run_photos
from tests.experiments.photos.photographs import write_photographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos") / "data")


def test_the_command_runs_every_stage_and_resumes(folder, tmp_path, command):
    words = ["proof", "photos", "--data", folder, "--out", tmp_path / "out", "--scale", "small",
             "--folds", "0,1", "--steps", 3, "--vqgan-steps", 3, "--device", "cpu"]  # fmt: skip
    code, said, error = command(*words)
    assert code == 0, error
    assert "### Images of unseen classes" in said
    home = tmp_path / "out" / "opaque"
    content = json.loads((home / "photos.json").read_text(encoding="utf-8"))
    rows = [PHOTOGRAPHS, VQGAN, "lattice", "none", "shuffled"]
    assert list(content["images"]) == rows
    for row in rows:
        assert set(content["images"][row]) == set(MEASURES)
    assert list(content["differences"]) == ["none", "shuffled"]
    for arm in rows[2:]:
        (value,) = content["by_seed"][arm]["auc_cnn"]
        assert value == pytest.approx(content["images"][arm]["auc_cnn"]["value"])
    assert {one["classes"] for one in content["nats"]} >= {"unseen", "trained"}
    assert content["num_unseen"] == sum(one["num_classes"] for one in content["groups"]) == 4
    assert content["chance"]["group"] >= 0.5  # two classes per fold
    for name in ("photos.md", "photos.html", "photos.png"):
        assert (home / name).stat().st_size > 500
    assert "never seen in training" in (home / "photos.html").read_text(encoding="utf-8")
    photos = read_photo_folder(folder)
    model = read_manifest(home / "fold-1" / "models" / "seed-0" / "lattice")
    assert model.settings["train"]["max_steps"] == 3
    assert model.counts["rows"] == 8 * (12 - len(photos.unseen("1")))
    images = home / "fold-1" / "images" / "seed-0" / "none" / "images"
    assert len(list(images.iterdir())) == 2 * 2  # classes and images per class

    before = {p: p.stat().st_mtime_ns for p in home.parent.rglob("manifest.json")}
    code, again, error = command(*words)
    assert code == 0, error
    assert again.partition("CPU minutes")[0] == said.partition("CPU minutes")[0]
    assert {p: p.stat().st_mtime_ns for p in home.parent.rglob("manifest.json")} == before


def test_options_before_the_command_and_wrong_folds_are_refused(folder, tmp_path, command):
    code, _, error = command("proof", "--seed", 1, "photos", "--data", folder)
    assert (code, error.splitlines()[-1]) == (2, "error: --seed goes after `photos`.")
    words = ["proof", "photos", "--data", folder, "--out", tmp_path / "out", "--folds"]
    for folds, said in (("9", "fold '9' has 0 classes"), ("-", "never held out"), ("0,0", "once")):
        code, _, error = command(*words, folds)
        assert code == 2
        assert said in error.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_scale_gives_defaults_and_options_override_it():
    config = PhotosConfig.at_scale("small", steps=7)
    assert (config.steps, config.size) == (7, "nano")
    with pytest.raises(ConfigError, match="scale='smal' is unknown"):
        PhotosConfig.at_scale("smal")
    with pytest.raises(ConfigError, match="multiple of 16"):
        PhotosConfig(resolution=40)
    with pytest.raises(ConfigError, match="one seed or more"):
        run_photos("data", "out", seeds=())


def test_the_judge_finds_the_kind_of_photographs_and_no_kind_in_noise(folder, tmp_path):
    photos = read_photo_folder(folder)
    config = PhotosConfig.at_scale("small", judge_steps=60)
    options = {"config": config, "device": "cpu", "overwrite": False}
    train_judge(photos, tmp_path / "judge", **options)
    assert train_judge(photos, tmp_path / "judge", **options).already_finished
    judge = Judge(tmp_path / "judge", photos, config)
    every = np.arange(12)
    real = judge.measure_photographs(every, 4)
    pixels, labels = load_pixels(photos, VAL, config.resolution)
    again = judge.measure(pixels, labels)
    ones = np.ones((1, 12))
    for name, measure in real.items():
        assert again[name].values(ones) == pytest.approx(measure.values(ones), abs=1e-6), name
    assert real["group_cnn"].values(ones) > 0.9
    assert real["superclass_cnn"].values(ones) > 0.9
    assert real["group_ridge"].values(ones) > 0.9
    # Classes of one kind are alike: only the pairs of different kinds can be certain.
    assert real["auc_simple"].values(ones) > 0.75
    assert real["r2_simple"].values(ones) > 0.5
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    lost = judge.measure(noise, labels)
    assert lost["group_ridge"].values(ones) < 0.6
    assert lost["r2_simple"].values(ones) < 0.2
