"""The stage and its commands, from a dump to neighbours."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cli
import kg.training.splits
import kg.training.train
import kg.training.trainer
from data.errors import ArtefactError, InputError, Interrupted
from data.kg_folder import read_names, read_vectors, write_names
from data.runs import verify
from data.schema import TRIPLES, open_table
from kg.config import KGConfig
from kg.tools.evaluate import eval_kg
from kg.tools.nearest import find_nearest
from kg.training.splits import hold_out
from kg.training.train import train_kg
from kg.training.warm_start import find_known

SMALL = KGConfig(dim=16, epochs=30, batch_size=256, valid_fraction=0.1)
KINDS = {"蔬菜": "菜", "乐器": "琴", "动物": "兽"}


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """Things of three kinds, some with a colour, and a few rows that cannot be used."""
    rows = []
    for kind, ending in KINDS.items():
        rows.append(f"{kind}\t上级\t东西\n")
        for n in range(40):
            name = f"{chr(0x4E00 + n)}{ending}"
            rows.append(f"{name}\t类别\t{kind}\n{name}\t颜色\t{'红绿蓝'[n % 3]}\n")
            rows.append(f"{name}\t简介\t一段只出现一次的话{name}。\n")
    rows.append("坏行\n")
    path = tmp_path_factory.mktemp("dump") / "triples.tsv"
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(dump, tmp_path_factory):
    out = tmp_path_factory.mktemp("kg") / "kg"
    report = train_kg(dump, out, config=SMALL, device="cpu")
    assert report.counts["literals_dropped"] == 120
    assert "MRR" in str(report)
    return out


def test_a_training_is_not_stopped_by_a_handful_of_triples(folder):
    counts = verify(folder).counts
    assert counts["triples_for_stopping"] == 0
    assert counts["triples_held_out"] == 24
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["best_epoch"] == SMALL.epochs
    assert metrics["num_triples"] == 24


def test_the_folder_is_whole_and_in_the_agreed_formats(folder):
    manifest = verify(folder)
    assert set(manifest.files) == {
        "entity2id.txt",
        "relation2id.txt",
        "entity_vectors.safetensors",
        "entity2vec.pt",
        "relation_vectors.safetensors",
        "triples.parquet",
        "held_out.parquet",
        "metrics.json",
        "rejects.tsv",
    }
    assert manifest.counts["rejected: wrong column count"] == 1
    assert "坏行" in (folder / "rejects.tsv").read_text(encoding="utf-8")
    names, vectors = read_names(folder / "entity2id.txt"), read_vectors(folder)
    assert vectors.shape == (len(names), 16)
    easynlp = torch.load(folder / "entity2vec.pt", weights_only=True)
    np.testing.assert_array_equal(easynlp.numpy(), vectors)
    table = open_table(folder / "triples.parquet", TRIPLES).read()
    assert len(table) == manifest.counts["triples"] == 243


def test_neighbours_are_of_the_same_kind(folder):
    right = 0
    for n in range(0, 40, 4):
        found = find_nearest(folder, f"{chr(0x4E00 + n)}菜", count=5).found
        assert [f.cosine for f in found] == sorted((f.cosine for f in found), reverse=True)
        right += sum(f.name.endswith("菜") for f in found)
    assert right >= 45


def test_an_unknown_name_is_offered_the_nearest_spelling(folder):
    with pytest.raises(InputError, match="did you mean 一"):
        find_nearest(folder, "一莱")
    assert find_nearest(folder, "#0").name == read_names(folder / "entity2id.txt")[0]


def easynlp(folder, names, vectors):
    folder.mkdir()
    write_names(folder / "entity2id.txt", names)
    torch.save(torch.tensor(vectors), folder / "entity2vec.pt")
    return folder


def test_easynlps_own_pair_of_files_is_a_kg_folder(tmp_path):
    rows = [[1.0, 0.0], [0.0, 2.0], [3.0, 0.1]]
    folder = easynlp(tmp_path / "kg", ["Ｔ恤", "乙", "丙"], rows)
    assert [n.name for n in find_nearest(folder, "Ｔ恤").found] == ["丙", "乙"]
    np.testing.assert_array_equal(read_vectors(folder), np.array(rows, np.float32))


def test_a_kg_folder_whose_files_do_not_fit_each_other_is_refused(tmp_path):
    short = easynlp(tmp_path / "short", ["甲", "乙"], [[1.0, 0.0]])
    with pytest.raises(InputError, match="2 names but 1 vectors"):
        find_nearest(short, "甲")
    broken = easynlp(tmp_path / "nan", ["甲", "乙"], [[1.0, 0.0], [float("nan"), 1.0]])
    for use in (lambda: find_nearest(broken, "甲"), lambda: read_vectors(broken)):
        with pytest.raises(InputError, match="NaN or infinite"):
            use()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("file", ["entity2id.txt", "triples.parquet"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    dump, tmp_path, monkeypatch, file
):
    out, work = tmp_path / "kg", tmp_path / "kg.partial"
    config = KGConfig(dim=4, epochs=1)

    def stopped(*_, **__):
        (work / file).symlink_to("/dev/full")
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(kg.training.splits, "read_triples", stopped)
        with pytest.raises(Interrupted):
            train_kg(dump, out, config=config, device="cpu")
    with pytest.raises(ArtefactError, match="disk is full"):
        train_kg(dump, out, config=config, device="cpu")
    assert not out.exists()
    (work / file).unlink()
    train_kg(dump, out, config=config, device="cpu")
    verify(out)


def test_nothing_is_done_twice(dump, folder):
    before = (folder / "manifest.json").read_bytes()
    report = train_kg(dump, folder, config=SMALL, device="cpu")
    assert report.already_finished
    assert (folder / "manifest.json").read_bytes() == before


def test_measuring_again_gives_the_same_figures_where_nothing_was_learned_since(dump, tmp_path):
    config = KGConfig(dim=8, epochs=5, valid_fraction=0.1, learn_held_out=False)
    report = train_kg(dump, tmp_path / "kg", config=config, device="cpu")
    again = eval_kg(tmp_path / "kg", device="cpu").metrics
    assert again["both"] == pytest.approx(report.metrics["both"])
    assert 0 < again["both"]["mrr"] < 1


def test_a_run_that_broke_off_after_reading_goes_on_and_ends_the_same(
    dump, folder, tmp_path, monkeypatch
):
    def broken(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(kg.training.train, "save_vectors", broken)
        with pytest.raises(OSError, match="no space"):
            train_kg(dump, tmp_path / "kg", config=SMALL, device="cpu")
    assert not (tmp_path / "kg").exists()
    monkeypatch.setattr(kg.training.splits, "read_triples", broken)  # it has been read already
    train_kg(dump, tmp_path / "kg", config=SMALL, device="cpu")
    assert verify(tmp_path / "kg").files == verify(folder).files


def test_without_held_out_triples_nothing_is_measured(dump, tmp_path):
    config = KGConfig(dim=8, epochs=2, valid_fraction=0)
    report = train_kg(dump, tmp_path / "kg", config=config, device="cpu")
    assert "not measured" in str(report)
    with pytest.raises(InputError, match="--triples"):
        eval_kg(tmp_path / "kg", device="cpu")
    report = eval_kg(tmp_path / "kg", triples=dump, device="cpu")
    assert report.metrics["num_triples"] == 243
    assert "243 given triples" in str(report)


@pytest.mark.parametrize(
    ("rows", "num_triples", "in_graph"),
    [
        ("一菜\t类别\t蔬菜\n一菜\t类别\t乐器\n", 2, 1),
        ("一菜\t颜色\t蔬菜\n", 1, 0),
        ("一菜\t类别\t蔬菜\n一菜\t颜色\t红\n蔬菜\t上级\t无人知道\n", 2, 2),
    ],
)
def test_given_triples_that_may_have_been_learned_are_told(
    folder, tmp_path, rows, num_triples, in_graph
):
    (tmp_path / "t.tsv").write_text(rows, encoding="utf-8")
    report = eval_kg(folder, triples=tmp_path / "t.tsv", device="cpu")
    assert f"{num_triples} given triples" in str(report)
    assert report.metrics["in_graph"] == in_graph
    assert (f"{in_graph} of them are in the graph" in str(report)) == bool(in_graph)


def test_given_triples_of_unknown_names_are_an_error(folder, tmp_path):
    (tmp_path / "t.tsv").write_text("无人\t类别\t知道\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.tsv has no triple whose names are all in"):
        eval_kg(folder, triples=tmp_path / "t.tsv", device="cpu")


def test_no_entity_or_relation_loses_its_last_triple():
    generator = np.random.default_rng(0)
    triples = np.unique(generator.integers(0, 30, (200, 3)), axis=0).astype(np.int32)
    train, held_out = hold_out(triples, 60, seed=0)
    assert len(train) + len(held_out) == len(triples)
    assert len(held_out) >= 40
    assert set(train[:, [0, 2]].ravel()) == set(triples[:, [0, 2]].ravel())
    assert set(train[:, 1]) == set(triples[:, 1])


def test_a_new_dump_keeps_the_vectors_of_known_names(dump, folder, tmp_path):
    newer = tmp_path / "newer.tsv"
    newer.write_text(
        dump.read_text(encoding="utf-8") + "仌菜\t类别\t蔬菜\n仌菜\t颜色\t红\n一菜\t味道\t蔬菜\n",
        encoding="utf-8",
    )
    report = train_kg(newer, tmp_path / "kg", config=SMALL, device="cpu", start=folder)
    assert report.counts["entity_kept"] == len(read_names(folder / "entity2id.txt"))
    assert report.counts["relation_kept"] == 3
    assert "kept from the older folder" in str(report)
    assert verify(tmp_path / "kg").inputs["from"] == verify(folder).fingerprint
    (old_names, old), (new_names, new) = (
        (read_names(path / "entity2id.txt"), read_vectors(path)) for path in (folder, report.out)
    )
    for name in old_names:
        np.testing.assert_array_equal(new[new_names.index(name)], old[old_names.index(name)])
    assert report.metrics["num_triples"] < report.counts["triples_held_out"]  # new names only
    near = [f.name for f in find_nearest(tmp_path / "kg", "仌菜", count=5).found]
    assert sum(name.endswith("菜") for name in near) >= 3
    with pytest.raises(InputError, match="--dim 16"):
        train_kg(newer, tmp_path / "b", config=KGConfig(dim=8), device="cpu", start=folder)


def test_known_names_are_found_however_either_folder_spells_them(folder, tmp_path):
    odd = shutil.copytree(folder, tmp_path / "odd")
    names = read_names(folder / "entity2id.txt")
    write_names(odd / "entity2id.txt", [f"\u3000{name}" for name in reversed(names)])
    for old, work in ((folder, odd), (odd, folder)):
        known = find_known(old, work, SMALL)
        assert known.new_ids["entity"].tolist() == list(range(len(names)))
        assert known.old_ids["entity"].tolist() == list(reversed(range(len(names))))


def test_a_stopped_run_is_finished_on_demand(dump, tmp_path, monkeypatch):
    before = kg.training.trainer._Training.before_step

    def stopped(self):
        if self.state.epoch == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        before(self)

    monkeypatch.setattr(kg.training.trainer._Training, "before_step", stopped)
    with pytest.raises(Interrupted, match="--finish-now"):
        train_kg(dump, tmp_path / "kg", config=SMALL, device="cpu")
    report = train_kg(dump, tmp_path / "kg", config=SMALL, device="cpu", finish_now=True)
    assert report.counts["finished_early"]
    assert report.counts["epochs_trained"] == 4
    assert not report.metrics["learned_since"]
    verify(tmp_path / "kg")


@pytest.mark.parametrize(
    "rows", ["甲\t是\t乙\n", "甲\t是\t乙\n乙\t是\t甲\n", "甲\t是\t甲\n乙\t是\t甲\n丙\t是\t甲\n"]
)
def test_graphs_too_small_to_split_are_trained_and_not_measured(rows, tmp_path):
    (tmp_path / "t.tsv").write_text(rows, encoding="utf-8")
    config = KGConfig(dim=4, epochs=2, min_tail_count=1)
    report = train_kg(tmp_path / "t.tsv", tmp_path / "kg", config=config, device="cpu")
    assert "not measured" in str(report)
    assert np.isfinite(read_vectors(tmp_path / "kg")).all()


def test_a_read_only_place_is_said(dump, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ArtefactError, match="Permission denied"):
        train_kg(dump, tmp_path / "kg", config=SMALL, device="cpu")


def test_the_commands_work_and_explain_their_errors(dump, folder, tmp_path):
    run = CliRunner().invoke
    result = run(cli.app, ["kg", "nearest", "一菜", "--kg", str(folder), "--count", "3"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    result = run(cli.app, ["kg", "eval", str(folder), "--device", "cpu"])
    assert "MRR" in result.stdout
    out = tmp_path / "kg"
    options = ["--out", str(out), "--dim", "8", "--epochs", "2", "--device", "cpu"]
    assert run(cli.app, ["kg", "train", str(dump), *options]).exit_code == 0
    assert json.loads((out / "metrics.json").read_text())["both"]["mrr"] > 0
    result = run(cli.app, ["kg", "train", str(dump), *options, "--seed", "1"])
    assert "seed was 0, now 1" in str(result.exception)
    result = run(cli.app, ["kg", "train", str(tmp_path / "none.tsv"), *options])
    assert "does not exist" in str(result.exception)
