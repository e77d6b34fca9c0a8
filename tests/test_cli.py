"""The commands of the README, one after another, on generated data."""

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from artist.formats.model_folder import load_model
from artist.generation.artist_pipeline import Artist
from artist.models.image_tokenizer import from_uint8
from data.kg_folder import read_vectors
from data.runs import read_manifest
from pipeline import ArtistPipeline
from tests.artist.evaluation.test_clip_score import save_clip
from tests.conftest import ROOT
from tests.small_world import NAMES, png, write_inputs

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages up to a trained model, by the real commands in fresh interpreters."""
    folder = tmp_path_factory.mktemp("runs")
    write_inputs(folder)
    kg, table, valid = folder / "kg", folder / "train.parquet", folder / "val.parquet"
    steps = [
        ["kg", "train", folder / "triples.tsv", "--out", kg, "--epochs", 3],
        ["lattice", "build", folder / "train.tsv", "--kg", kg, "--out", table],
        ["lattice", "build", folder / "val.tsv", "--kg", kg, "--out", valid,
         "--tokenizer", f"{table}.tokenizer"],
        ["artist", "vqgan", "train", table, "--out", folder / "vqgan", "--resolution", 16,
         "--downsample", 4, "--ch", 16, "--codebook-size", 16, "--steps", 6, "--batch-size", 4],
        ["artist", "finetune", table, "--valid", valid, "--kg", kg, "--vqgan", folder / "vqgan",
         "--out", folder / "model", "--size", "nano", "--text-len", 8, "--max-steps", 3,
         "--batch-size", 4, "--validations", 1],
    ]  # fmt: skip
    for words in steps:
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert done.stdout
        assert "Traceback" not in done.stderr
    return folder


def test_the_commands_of_the_readme_generate_images(runs, command, tmp_path):
    out = tmp_path / "pictures"
    words = ["artist", "predict", runs / "test.tsv", "--model", runs / "model", "--kg",
             runs / "kg", "--out", out, "--num-images", 2, "--seed", 7]  # fmt: skip
    code, said, _ = command(*words)
    assert code == 0
    assert "4 images of 2 prompts (1 with a known entity)" in said
    rows = [line.split("\t") for line in (out / "predictions.tsv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["a/../1", "一只老虎"], ["b", "没有实体"]]
    files = sorted((out / "images").iterdir())
    assert len(files) == 4
    for row, pair in zip(rows, (files[:2], files[2:]), strict=True):
        for text, file in zip(json.loads(row[2]), pair, strict=True):
            assert base64.b64decode(text) == file.read_bytes()
            image = Image.open(io.BytesIO(file.read_bytes()))
            assert image.size == (16, 16)
            assert image.info["prompt"] == row[1]
    assert "老虎" in (out / "gallery.html").read_text(encoding="utf-8")
    assert read_manifest(out).inputs["kg"] == read_manifest(runs / "kg").fingerprint

    code, said, _ = command(*words)
    assert code == 0
    assert "is finished and unchanged" in said


def test_an_image_depends_on_its_row_and_seed_and_not_on_other_rows(runs, command, tmp_path):
    common = ["--model", runs / "model", "--kg", runs / "kg", "--precision", "fp32"]
    both, one, other = tmp_path / "both", tmp_path / "one", tmp_path / "other"
    (tmp_path / "one.tsv").write_text("b\t没有实体\n", encoding="utf-8")
    assert command("artist", "predict", runs / "test.tsv", *common, "--out", both)[0] == 0
    assert command("artist", "predict", tmp_path / "one.tsv", *common, "--out", one)[0] == 0
    command("artist", "predict", tmp_path / "one.tsv", *common, "--out", other, "--seed", 1)
    second = (both / "predictions.tsv").read_text().splitlines()[1]
    assert (one / "predictions.tsv").read_text().splitlines() == [second]
    assert (other / "predictions.tsv").read_text().splitlines() != [second]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_steps_generate_the_same_images(runs, command, tmp_path):
    common = ["artist", "predict", runs / "test.tsv", "--model", runs / "model", "--kg",
              runs / "kg", "--precision", "fp32", "--num-images", 3, "--batch-size", 4]  # fmt: skip
    assert command(*common, "--out", tmp_path / "plain")[0] == 0
    code, _, error = command(*common, "--compile", "--out", tmp_path / "compiled")
    assert code == 0
    assert "does not work" not in error
    plain, compiled = (
        (tmp_path / name / "predictions.tsv").read_text() for name in ("plain", "compiled")
    )
    assert compiled == plain


def test_the_upper_half_of_given_images_is_kept_and_the_rest_is_generated(runs, command, tmp_path):
    rows = [f"a\t一只老虎\t{png((200, 0, 0))}", f"b\t没有实体\t{png((0, 0, 200))}"]
    (tmp_path / "images.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = ["artist", "predict", tmp_path / "images.tsv", "--model", runs / "model", "--kg",
             runs / "kg", "--keep-top", 0.5, "--num-images", 2]  # fmt: skip
    out = tmp_path / "completed"
    assert command(*words, "--out", out)[0] == 0
    page = (out / "gallery.html").read_text(encoding="utf-8")
    assert page.count("given") >= 2
    assert page.count("completed") >= 2
    assert len(list((out / "images").iterdir())) == 4
    assert read_manifest(out).settings["keep_top"] == 0.5

    artist = Artist(load_model(runs / "model"), read_vectors(runs / "kg"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    images = from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    whole = artist.model.image_tokenizer.encode(images)
    assert torch.equal(artist.top_codes(pixels, 0.5), whole[:, : whole.shape[1] // 2])

    code, _, error = command(*words[:2], runs / "test.tsv", *words[3:], "--out", tmp_path / "no")
    assert code == 2
    assert "line 1: wrong column count" in error
    code, _, error = command("artist", "predict", "--text", "老虎", *words[3:], "--out", "no")
    assert code == 2
    assert "images to complete come from a TSV" in error
    (tmp_path / "images.tsv").write_text("a\t老虎\tAAAA\n", encoding="utf-8")
    code, _, error = command(*words, "--out", tmp_path / "no")
    assert code == 2
    assert "line 1: not an image" in error


def test_python_generates_the_same_images_as_the_command(runs, command, tmp_path):
    words = ["artist", "predict", "--text", "一只老虎", "--text", "没有实体", "--model",
             runs / "model", "--kg", runs / "kg", "--num-images", 2, "--cfg-scale", 1.5,
             "--seed", 3, "--out", tmp_path / "out"]  # fmt: skip
    assert command(*words)[0] == 0
    files = sorted((tmp_path / "out" / "images").iterdir())
    artist = ArtistPipeline.from_pretrained(runs / "model", kg=runs / "kg")
    one, other = artist(["一只老虎", "没有实体"], num_images=2, cfg_scale=1.5, seed=3)
    assert [np.asarray(Image.open(f)).tolist() for f in files] == [
        np.asarray(image).tolist() for image in (*one, *other)
    ]
    again = artist("一只老虎", num_images=2, cfg_scale=1.5, seed=3)
    assert [np.asarray(p).tolist() for p in again] == [np.asarray(p).tolist() for p in one]
    half = artist("一只老虎", image=again[0], keep_top=0.5)
    assert half[0].size == again[0].size


def test_images_can_be_webp(runs, command, tmp_path):
    words = ["artist", "predict", "--text", "一只老虎", "--model", runs / "model", "--kg",
             runs / "kg", "--image-format", "webp", "--out", tmp_path / "out"]  # fmt: skip
    assert command(*words)[0] == 0
    (file,) = (tmp_path / "out" / "images").iterdir()
    assert Image.open(io.BytesIO(file.read_bytes())).format == "WEBP"
    cell = (tmp_path / "out" / "predictions.tsv").read_text().split("\t")[2]
    assert base64.b64decode(cell) == file.read_bytes()
    assert "data:image/webp" in (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    code, _, error = command(*words[:-3], "jpg2000", "--out", tmp_path / "no")
    assert code == 2
    assert "use png or webp" in error


def test_of_many_candidates_those_that_match_the_prompt_best_are_kept(runs, command, tmp_path):
    clip = save_clip(tmp_path / "clip")
    words = ["artist", "predict", runs / "test.tsv", "--model", runs / "model", "--kg", runs / "kg",
             "--num-images", 2, "--candidates", 5, "--temperature", 2]  # fmt: skip
    out = tmp_path / "out"
    code, _, error = command(*words, "--clip", clip, "--out", out)
    assert code == 0, error
    header, *rows = [line.split("\t") for line in (out / "scores.tsv").read_text().splitlines()]
    assert header == ["idx", "number", "clip_score", "rank", "kept"]
    assert len(rows) == 10
    kept = [row for row in rows if row[4] == "1"]
    for prompt in range(2):
        scores = [float(row[2]) for row in rows[5 * prompt : 5 * prompt + 5]]
        assert scores == sorted(scores, reverse=True)
    names = {f.name for f in (out / "images").iterdir()}
    assert len(names) == 4
    assert all(any(n.endswith(f"_{row[1]}.png") for n in names) for row in kept)
    assert "CLIP" in (out / "gallery.html").read_text(encoding="utf-8")

    # The same seed generates the same images without a CLIP.
    plain = tmp_path / "plain"
    command("artist", "predict", runs / "test.tsv", *words[3:7], "--num-images", 5,
            "--temperature", 2, "--out", plain)  # fmt: skip
    for name in names:
        assert (out / "images" / name).read_bytes() == (plain / "images" / name).read_bytes()

    code, _, error = command(*words, "--out", tmp_path / "no")
    assert code == 2
    assert "go together" in error
    code, _, error = command(*words[:-4], "--candidates", 1, "--clip", clip, "--out", "no")
    assert code == 2
    assert "fewer than num_images" in error


def test_prompts_can_be_matched_by_a_compiled_vocabulary(runs, command, tmp_path):
    compiled = tmp_path / "names"
    words = ["--tokenizer", runs / "model", "--out", compiled]
    code, _, error = command("lattice", "compile", "--kg", runs / "kg", *words)
    assert code == 0, error
    words = ["artist", "predict", "--text", "一只老虎", "--model", runs / "model", "--kg",
             runs / "kg"]  # fmt: skip
    code, said, error = command(*words, "--entities", compiled, "--out", tmp_path / "out")
    assert code == 0, error
    assert "1 with a known entity" in said


def test_a_model_without_knowledge_needs_no_graph(runs, command, tmp_path):
    painter = runs / "painter"
    words = ["artist", "finetune", runs / "train.parquet", "--valid", runs / "val.parquet",
             "--kg", runs / "kg", "--vqgan", runs / "vqgan", "--size", "nano", "--epochs", 1,
             "--fusion", "none"]  # fmt: skip
    code, _, error = command(*words, "--out", painter)
    assert code == 0, error
    words = ["artist", "predict", "--text", "一只老虎"]
    code, said, error = command(*words, "--model", painter, "--out", tmp_path / "out")
    assert code == 0, error
    assert "0 with a known entity" in said
    code, _, error = command(*words, "--model", runs / "model", "--out", tmp_path / "no")
    assert code == 2
    assert "give its KG folder as --kg" in error


def test_generation_resumes_after_an_interruption_with_the_same_result(runs, command, tmp_path):
    words = ["artist", "predict", runs / "test.tsv", "--model", runs / "model", "--kg", runs / "kg",
             "--num-images", 3, "--batch-size", 2]  # fmt: skip
    assert command(*words, "--out", tmp_path / "whole")[0] == 0
    out = tmp_path / "half"
    assert command(*words, "--out", out)[0] == 0
    # What a killed run leaves: the partial folder with run.json and some of the images.
    partial = tmp_path / "half.partial"
    out.rename(partial)
    manifest = json.loads((partial / "manifest.json").read_text())
    (partial / "run.json").write_text(
        json.dumps({k: manifest[k] for k in ("kind", "settings", "inputs")})
    )
    for name in ("manifest.json", "predictions.tsv", "gallery.html"):
        (partial / name).unlink()
    kept, *gone = sorted((partial / "images").iterdir())
    for path in gone:
        path.unlink()
    before = kept.stat().st_mtime_ns
    assert command(*words, "--out", out)[0] == 0
    assert (out / "images" / kept.name).stat().st_mtime_ns == before
    assert (out / "predictions.tsv").read_bytes() == (
        tmp_path / "whole" / "predictions.tsv"
    ).read_bytes()


def test_a_finished_stage_reports_it_and_does_nothing(runs, command):
    before = (runs / "train.parquet").stat().st_mtime_ns
    code, said, _ = command("lattice", "build", runs / "train.tsv", "--kg", runs / "kg", "--out",
                            runs / "train.parquet")  # fmt: skip
    assert code == 0
    assert "finished" in said
    assert (runs / "train.parquet").stat().st_mtime_ns == before


def test_encoding_keeps_the_rows_and_evaluating_reads_them(runs, command, tmp_path):
    codes = tmp_path / "val.codes.parquet"
    code, said, _ = command("artist", "encode", runs / "val.parquet", "--vqgan", runs / "vqgan",
                            "--out", codes)  # fmt: skip
    assert code == 0, said
    table = pq.read_table(codes)
    assert table["idx"].to_pylist() == pq.read_table(runs / "val.parquet")["idx"].to_pylist()
    assert {len(row) for row in table["codes"].to_pylist()} == {16}
    code, said, _ = command("artist", "evaluate", codes, "--model", runs / "model", "--kg",
                            runs / "kg")  # fmt: skip
    assert code == 0
    assert "4 captions, 4 with an entity" in said
    assert all(name in said for name in ("given", "none", "shuffled"))
    assert "Not measured: reconstruction" in said


def test_an_ablation_keeps_its_losses_and_a_false_graph_has_a_command(runs, command, tmp_path):
    words = ["artist", "ablate", runs / "train.parquet", "--valid", runs / "val.parquet", "--kg",
             runs / "kg", "--vqgan", runs / "vqgan", "--size", "nano", "--max-steps", 1,
             "--arms", "lattice,none", "--num-seeds", 1, "--caption-dropout", 0.2, "--ema-decay", 0,
             "--keep", "last", "--cluster-by", "text"]  # fmt: skip
    code, said, _ = command(*words, "--dry-run", "--out", tmp_path / "ablation")
    assert code == 0, said
    assert "The 2 trainings will take about" in said
    assert not (tmp_path / "ablation").exists()
    code, said, wrong = command(*words, "--out", tmp_path / "ablation")
    assert code == 0, wrong
    assert "clustered by text (4) and image" in said
    used = read_manifest(tmp_path / "ablation" / "seed-0" / "none").settings["train"]
    assert (used["caption_dropout"], used["ema_decay"], used["keep"]) == (0.2, 0, "last")
    assert set(pq.read_table(tmp_path / "ablation" / "losses.parquet")["cluster"].to_pylist()) == {
        f"一个{name}" for name in list(NAMES)[:4]
    }
    false = tmp_path / "false"
    code, said, _ = command("kg", "shuffle", runs / "kg", "--table", runs / "train.parquet",
                            "--seed", 1, "--out", false)  # fmt: skip
    assert code == 0
    assert "9 of 13 entities have the vector of another one" in said
    code, said, _ = command("artist", "evaluate", runs / "val.parquet", "--model", runs / "model",
                            "--kg", runs / "kg", "--other-kg", false)  # fmt: skip
    assert code == 0
    assert "other_kg" in said


def test_an_evaluation_with_images_is_written_once(runs, command, tmp_path):
    words = ["artist", "evaluate", runs / "val.parquet", "--model", runs / "model", "--kg",
             runs / "kg", "--train-table", runs / "train.parquet", "--examples", 1,
             "--out", tmp_path / "evaluation"]  # fmt: skip
    code, said, _ = command(*words)
    assert code == 0, said
    assert "PSNR" in said
    assert f"Report: {tmp_path / 'evaluation' / 'report.html'}" in said
    assert {p.name for p in (tmp_path / "evaluation").iterdir()} == {
        "evaluation.json", "table.md", "captions.tsv", "report.html", "manifest.json"
    }  # fmt: skip
    code, said, _ = command(*words)
    assert code == 0
    assert "is finished and unchanged" in said
    code, _, wrong = command(*words, "--seed", 1)
    assert code == 2
    assert "belongs to another run (seed was 0, now 1)" in wrong
    code, _, wrong = command("artist", "evaluate")
    assert code == 2
    assert "there is nothing to measure" in wrong


def test_nearest_and_show_print_what_they_found(runs, command):
    code, said, _ = command("kg", "nearest", "西兰花", "--kg", runs / "kg", "--count", 3)
    assert code == 0
    assert len(said.strip().splitlines()) >= 3
    code, said, _ = command("kg", "nearest", "西兰花", "老虎", "--kg", runs / "kg", "--count", 1)
    assert code == 0
    assert said.index("nearest to 西兰花") < said.index("nearest to 老虎")
    code, said, _ = command("lattice", "show", "一只老虎和大象", "--kg", runs / "kg")
    assert code == 0
    assert "老虎" in said
    assert "大象" in said


def test_a_single_sentence_is_enough(runs, command, tmp_path):
    code, said, _ = command("artist", "predict", "--text", "一颗绿色的西兰花在生长", "--model",
                            runs / "model", "--kg", runs / "kg", "--out", tmp_path / "out",
                            "--cfg-scale", 2)  # fmt: skip
    assert code == 0
    assert "1 images of 1 prompts" in said


BAD = {
    "no prompts": (["artist", "predict"], "give a TSV of prompts, or --text"),
    "missing prompts": (["artist", "predict", "none.tsv"], "none.tsv does not exist"),
    "empty prompts": (["artist", "predict", "empty.tsv"], "empty.tsv is empty"),
    "prompts without idx": (["artist", "predict", "one_column.tsv"], "line 1: wrong column count"),
    "prompts in GBK": (["artist", "predict", "gbk.tsv"], "line 1: not UTF-8"),
    "no images": (["artist", "predict", "--text", "x", "--num-images", "0"], "at least 1"),
    "cold": (["artist", "predict", "--text", "x", "--temperature", "0"], "must be above 0"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_prompts_are_one_clear_line(runs, command, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("empty.tsv").write_bytes(b"")
    Path("one_column.tsv").write_text("一只老虎\n", encoding="utf-8")
    Path("gbk.tsv").write_bytes("1\t一只老虎\n2\tok\n".encode("gbk"))
    code, out, error = command(
        *words, "--model", runs / "model", "--kg", runs / "kg", "--out", "new"
    )
    assert code == 2
    assert not out
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert said in error
    assert not list(tmp_path.glob("new*"))


def damaged(folder: Path, name: str) -> Path:
    """A copy of a folder in which one file is cut in half."""
    copy = folder.with_name(f"{folder.name}-damaged-{name}")
    shutil.copytree(folder, copy)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    return copy


def test_a_missing_a_foreign_and_a_damaged_model_are_one_clear_line(runs, command, tmp_path):
    out = tmp_path / "out"
    for model, wanted in [
        (tmp_path / "none", "is not a model folder"),
        (runs / "kg", "is not a model folder"),
        (damaged(runs / "model", "model.safetensors"), "cannot be read"),
        (damaged(runs / "model", "config.json"), "is not JSON"),
    ]:
        code, _, error = command("artist", "predict", "--text", "老虎", "--model", model, "--kg",
                                 runs / "kg", "--out", out)  # fmt: skip
        assert code == 2, error
        assert wanted in error
        assert error.count("\n") == 1
        assert not out.exists()


def test_a_model_refuses_another_graph_than_its_own(runs, command, tmp_path):
    (tmp_path / "t.tsv").write_text("老虎\t类别\t动物\n大象\t类别\t动物\n" * 3, encoding="utf-8")
    code, _, error = command("kg", "train", tmp_path / "t.tsv", "--out", tmp_path / "kg",
                             "--epochs", 1)  # fmt: skip
    assert code == 0, error
    code, _, error = command("artist", "predict", "--text", "老虎", "--model", runs / "model",
                             "--kg", tmp_path / "kg", "--out", tmp_path / "out")  # fmt: skip
    assert code == 2
    assert "another KG" in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": "none.parquet"}, "none.parquet does not exist"),
        ({"table": "train.tsv"}, "is not a readable Parquet file"),
        ({"table": "kg/triples.parquet"}, "is not a lattice table: column idx is missing"),
        ({"--kg": "none"}, "none"),
        ({"--vqgan": "none"}, "none does not exist"),
        ({"--vqgan": "kg"}, "not a folder of an image tokenizer"),
        ({"--size": "huge"}, "use one of nano"),
        ({"--fusion": "latice"}, "use one of lattice, easynlp, none"),
        ({"--out": "kg"}, "belongs to another run"),
    ],
)
def test_wrong_inputs_of_finetune_are_one_clear_line(runs, command, monkeypatch, change, said):
    monkeypatch.chdir(runs)
    words = {"table": "train.parquet", "--valid": "val.parquet", "--kg": "kg", "--vqgan": "vqgan",
             "--out": "new", "--size": "nano", "--max-steps": "1", **change}  # fmt: skip
    flat = [words.pop("table"), *(part for pair in words.items() for part in pair)]
    code, out, error = command("artist", "finetune", *flat)
    assert code == 2, out + error
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (runs / "new").exists()


def test_a_dry_run_writes_nothing_and_options_override_a_preset(runs, command, tmp_path):
    words = ["artist", "finetune", runs / "train.parquet", "--valid", runs / "val.parquet",
             "--kg", runs / "kg", "--vqgan", runs / "vqgan", "--out", tmp_path / "model",
             "--size", "nano", "--text-len", 8, "--max-steps", 2, "--batch-size", 4,
             "--preset", "easynlp", "--learning-rate", 0.001]  # fmt: skip
    code, said, error = command(*words, "--dry-run")
    assert code == 0, error
    assert "The whole run will take about" in said
    assert not list(tmp_path.iterdir())
    (tmp_path / "prompts.tsv").write_text("a\t一只老虎\n", encoding="utf-8")
    prompts = ["--preview-every", 2, "--preview-prompts", tmp_path / "prompts.tsv"]
    code, said, error = command(*words, *prompts)
    assert code == 0, error
    settings = read_manifest(tmp_path / "model").settings["train"]
    assert (settings["learning_rate"], settings["eps"]) == (0.001, 1e-6)
    assert (settings["schedule"], settings["ema_decay"]) == ("linear", 0.0)
    assert (tmp_path / "model" / "previews" / "step-00000002.png").exists()


def test_a_dry_run_of_the_image_tokenizer_writes_nothing(runs, command, tmp_path):
    words = ["artist", "vqgan", "train", runs / "train.parquet", "--out", tmp_path / "vqgan",
             "--resolution", 16, "--downsample", 4, "--ch", 16, "--codebook-size", 16,
             "--batch-size", 4, "--dry-run"]  # fmt: skip
    code, said, error = command(*words)
    assert code == 0, error
    assert "The whole run will take about" in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_the_shells_error_and_no_traceback(command):
    code, _, error = command("artist", "finetune", "--epoch", 3)
    assert code == 2
    assert "--epoch" in error


def test_the_doctor_names_versions_and_devices(command):
    code, said, _ = command("doctor")
    assert code == 0
    assert "torch" in said
    assert "cores" in said
