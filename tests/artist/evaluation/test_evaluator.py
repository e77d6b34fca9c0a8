"""`evaluate` measures everything that its sources allow, and lists what they do not."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artist.evaluation import evaluator as evaluate_module
from artist.evaluation.config import EvaluateConfig, Sources
from artist.evaluation.evaluator import evaluate
from artist.evaluation.likelihood import CAPTION, GIVEN, NONE, OTHER_KG, SHUFFLED
from artist.evaluation.reconstruction import measure_reconstruction
from artist.evaluation.results import Evaluation, Unchanged
from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.generation.config import SamplingConfig
from artist.tables.config import EncodeConfig
from artist.tables.encode import encode_table
from data.errors import ArtefactError, ConfigError, InputError, SchemaError, ToolkitError
from data.images import decode_image, encode_png, square
from data.opencv_resize import opencv_square
from data.schema import CODES, IMAGE, table_writer
from tests.artist.evaluation.test_clip_score import save_clip
from tests.artist.evaluation.test_inception import random_inception
from tests.artist.world import NAMES, World, make_world, train

CONFIG = EvaluateConfig(examples=1, shuffles=2, kid_subsets=3, is_splits=2)
SAMPLING = SamplingConfig(top_k=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), rows=8)
    train(made, made.kg.parent / "model", max_steps=2, validations=1)
    return made


@pytest.fixture(scope="module")
def model(world: World) -> Path:
    return world.kg.parent / "model"


def with_images(world: World, path: Path, broken: int = -1, side: int = 8) -> Path:
    """The validation captions with images instead of codes: each image has two captions."""
    table = pq.read_table(world.valid)
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 256, (side, side, 3)).astype(np.uint8)) for _ in range(4)]
    images = [{"bytes": pngs[n // 2], "path": None} for n in range(len(table))]
    if broken >= 0:
        images[broken]["bytes"] = pngs[0][:40]
    table = table.drop_columns([CODES.name]).append_column(IMAGE, pa.array(images, IMAGE.type))
    with table_writer(path, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.fixture(scope="module")
def table(world: World) -> Path:
    return with_images(world, world.kg.parent / "images.parquet")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(random_inception().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def measure(table: Path | None = None, **given: object) -> Evaluation | Unchanged:
    """Evaluate with CONFIG and SAMPLING; keywords are sources or further arguments."""
    sources = {name: given.pop(name) for name in Sources.__dataclass_fields__ if name in given}
    arguments = {"config": CONFIG, "sampling": SAMPLING, **given}
    return evaluate(Sources(table=table, **sources), **arguments)  # type: ignore[arg-type]


def run(table: Path | None = None, **given: object) -> Evaluation:
    found = measure(table, **given)
    assert isinstance(found, Evaluation)
    return found


def test_a_model_and_a_table_are_enough_and_the_rest_is_listed_with_its_option(world, model, table):
    found = run(table, model=model, kg=world.kg)
    likelihood, reconstruction = found.findings.likelihood, found.findings.reconstruction
    assert likelihood is not None
    assert (likelihood.groups["all"].captions, likelihood.groups["all"].pictures) == (8, 4)
    assert set(likelihood.rows) == {GIVEN, NONE, SHUFFLED, CAPTION}
    assert reconstruction is not None
    assert reconstruction.pictures == 4
    assert reconstruction.ssim is None  # eight pixels: SSIM's window does not fit
    missing = {m.how.split()[0] for m in found.not_measured}
    assert missing == {"--other-kg", "--inception", "--clip"}
    message = str(found)
    assert "8 captions, 8 with an entity, of 4 images" in message
    assert all(f"give {option}" in message for option in missing)
    assert any(re.match(r"only \d clusters by entity: ", text) for text in found.warnings)


def test_codes_alone_give_the_likelihood_and_no_reconstruction(world, model):
    found = run(world.valid, model=model, kg=world.kg)
    assert found.findings.likelihood is not None
    assert found.findings.reconstruction is None
    assert any("--keep-images" in m.how for m in found.not_measured)


def test_seen_entities_come_from_the_model_folder_or_from_the_training_table(
    world, model, tmp_path
):
    from_table = run(world.valid, model=model, kg=world.kg, train_table=world.train)
    from_model = run(world.valid, model=model, kg=world.kg)
    sizes = [
        {name: group.captions for name, group in found.findings.likelihood.groups.items()}
        for found in (from_model, from_table)
        if found.findings.likelihood is not None
    ]
    assert sizes[0] == sizes[1]
    assert "unseen entity" in sizes[0]
    shutil.copytree(model, tmp_path / "older")
    (tmp_path / "older" / "seen_entities.safetensors").unlink()
    older = run(world.valid, model=tmp_path / "older", kg=world.kg)
    assert older.findings.likelihood is not None
    assert "unseen entity" not in older.findings.likelihood.groups
    assert any("--train-table" in m.how for m in older.not_measured)
    (tmp_path / "older" / "seen_entities.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"seen_entities\.safetensors cannot be read"):
        run(world.valid, model=tmp_path / "older", kg=world.kg)


def test_captions_with_unseen_entities_are_a_group(world, model, tmp_path):
    table = pq.read_table(world.train)
    seen = set(table["lex_ids"].combine_chunks().flatten().to_pylist()[:3])
    kept = [n for n, ids in enumerate(table["lex_ids"].to_pylist()) if set(ids) <= seen]
    path = tmp_path / "train.parquet"
    with table_writer(path, table.schema) as writer:
        writer.write_table(table.take(kept))
    found = run(world.valid, model=model, kg=world.kg, train_table=path)
    known = [set(ids) <= seen for ids in pq.read_table(world.valid)["lex_ids"].to_pylist()]
    assert found.findings.likelihood is not None
    groups = found.findings.likelihood.groups
    assert groups["seen entities only"].captions == sum(known) > 0
    assert groups["unseen entity"].captions == len(known) - sum(known) > 0
    assert any("not the table in the model's manifest" in w for w in found.warnings)
    again = run(world.valid, model=model, kg=world.kg, train_table=world.train)
    assert not any("manifest" in w for w in again.warnings)


def other_graph(world: World, folder: Path, dim: int = 100) -> Path:
    from safetensors.numpy import save_file

    from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, write_names

    folder.mkdir()
    write_names(folder / ENTITY_NAMES, [*NAMES[4:], "别的"])
    vectors = np.random.default_rng(0).normal(size=(5, dim)).astype(np.float32)
    save_file({VECTORS_KEY: vectors}, folder / VECTORS)
    return folder


def test_all_sources_together_give_a_complete_folder(world, model, table, weights, clip, tmp_path):
    out = tmp_path / "evaluation"
    sources = {
        "model": model,
        "kg": world.kg,
        "train_table": world.train,
        "other_kg": other_graph(world, tmp_path / "other"),
        "inception": weights,
        "clip": clip,
        "out": out,
        "save_reference": tmp_path / "reference.npz",
    }
    found = run(table, **sources)
    assert not found.not_measured
    results = found.findings
    assert results.likelihood is not None
    assert OTHER_KG in results.likelihood.rows
    assert results.images is not None
    assert (results.images.n, results.images.n_reference) == (8, 4)
    assert results.images.small
    assert results.images.fid > 0.01
    assert results.images.inception_score.mean > 1
    assert results.images_ceiling is not None
    assert results.images_ceiling.n == 4
    assert results.match is not None
    assert results.match.n == 8
    assert results.match_ceiling is not None
    assert results.match_ceiling.n == 4

    content = json.loads((out / "evaluation.json").read_text())
    assert content["findings"]["images"]["fid"] == pytest.approx(results.images.fid)
    assert content["findings"]["images"]["settings"]["like"] == "pytorch-fid"
    assert len(content["findings"]["images"]["settings"]["weights"]) == 64
    loss = results.likelihood.groups["all"].losses[GIVEN]
    written = content["findings"]["likelihood"]["groups"]["all"]["losses"][GIVEN]
    assert written == pytest.approx(loss._asdict())
    assert content["settings"]["seed"] == 0
    assert set(content["inputs"]) == {
        "table", "model", "kg", "train_table", "other_kg", "inception", "clip"
    }  # fmt: skip
    assert "torch" in content["versions"]

    paper = (out / "table.md").read_text()
    for line in ("own caption and entities", "FID", "†", "R-precision", "PSNR, dB", "NOT the publ"):
        assert line in paper
    widths = [{row.count("|") for row in part} for part in markdown_tables(paper)]
    assert len(widths) == 5
    assert all(len(width) == 1 for width in widths)

    captions = [line.split("\t") for line in (out / "captions.tsv").read_text().splitlines()]
    assert len(captions) == 9
    assert {len(row) for row in captions} == {len(captions[0])}
    first = dict(zip(*captions[:2], strict=True))
    assert float(first["nats_given"]) == pytest.approx(results.likelihood.rows[GIVEN][0], abs=1e-5)
    assert float(first["clip_score"]) != 0
    generated = (out / "predictions.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in generated] == [str(n) for n in range(8)]

    page = (out / "report.html").read_text()
    assert page.count('<article class="card">') == 6  # four by likelihood, two by CLIP
    assert page.index("Best matches") < page.index("Worst matches")
    assert page.count("data:image/png;base64,") >= 4 * 5
    assert not re.search(r'(src|href)="(?!data:|#|https://)', page)
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for used in re.findall(r"url\(#([^)]+)\)", page):
        assert used in ids

    before = (out / "report.html").stat().st_mtime_ns
    again = measure(table, **sources)
    assert "is finished and unchanged" in str(again)
    assert "FID" in str(again)
    assert (out / "report.html").stat().st_mtime_ns == before
    with pytest.raises(ArtefactError, match="contains no statistics"):
        measure(table, **{**sources, "save_reference": tmp_path / "other.npz"})

    reused = run(
        pictures=out / "predictions.tsv",
        reference=tmp_path / "reference.npz",
        inception=weights,
    )
    assert reused.findings.images is not None
    assert reused.findings.images.fid == pytest.approx(results.images.fid, rel=1e-4)
    assert reused.findings.images.kid == pytest.approx(results.images.kid, rel=1e-3)

    whole = run(table, pictures=out / "predictions.tsv", inception=weights, out=tmp_path / "again")
    assert whole.findings.images is not None  # without a model each row's image is used whole
    assert (whole.findings.images.n, whole.findings.images.n_reference) == (8, 8)
    assert whole.findings.images.settings_reference.crop == "whole image"
    assert "Images against the reference" in (tmp_path / "again" / "report.html").read_text()


def markdown_tables(text: str) -> list[list[str]]:
    parts = text.split("### ")[1:]
    return [[line for line in part.splitlines() if line.startswith("|")] for part in parts]


def test_a_run_that_failed_late_keeps_its_generated_images(
    world, model, table, clip, tmp_path, monkeypatch
):
    out = tmp_path / "evaluation"
    sources = {"model": model, "kg": world.kg, "clip": clip, "out": out}
    write = evaluate_module.write_report

    def fail(*_: object) -> None:
        raise RuntimeError("the machine went away")

    monkeypatch.setattr(evaluate_module, "write_report", fail)
    with pytest.raises(RuntimeError, match="went away"):
        run(table, **sources)
    assert not out.exists()
    generated = sorted((tmp_path / "evaluation.partial" / "images").iterdir())
    assert len(generated) == 8
    times = [path.stat().st_mtime_ns for path in generated]
    monkeypatch.setattr(evaluate_module, "write_report", write)
    run(table, **sources)
    assert [p.stat().st_mtime_ns for p in sorted((out / "images").iterdir())] == times


def test_the_same_seed_gives_the_same_figures(world, model, table, clip):
    sources = {"model": model, "kg": world.kg, "clip": clip}
    config = replace(CONFIG, draw=3)
    first, again = (run(table, **sources, config=config) for _ in range(2))
    assert str(first) == str(again)
    assert first.findings.match is not None
    assert first.findings.match.n == 3
    other = run(table, **sources, config=replace(config, seed=1))
    assert other.findings.match != first.findings.match


def test_a_model_without_knowledge_needs_no_graph(world, tmp_path):
    out = tmp_path / "model"
    train(world, out, fusion="none", max_steps=1, validations=1)
    found = run(world.valid, model=out, out=tmp_path / "evaluation")
    assert found.findings.likelihood is not None
    assert set(found.findings.likelihood.rows) == {GIVEN, CAPTION}
    assert not any("--other-kg" in m.how for m in found.not_measured)
    assert (
        "Contribution of the knowledge graph"
        not in (tmp_path / "evaluation" / "report.html").read_text()
    )


def test_a_broken_image_of_the_table_is_left_out_everywhere_and_counted(world, model, tmp_path):
    found = run(with_images(world, tmp_path / "b.parquet", broken=3), model=model, kg=world.kg)
    assert found.findings.likelihood is not None
    assert found.findings.likelihood.groups["all"].captions == 7
    assert found.findings.reconstruction is not None
    assert any(w.startswith("1 images of b.parquet cannot be read") for w in found.warnings)


@pytest.mark.parametrize("resize", ["antialias", "easynlp"])
def test_originals_are_resized_as_they_were_for_their_codes(world, model, tmp_path, resize):
    path = with_images(world, tmp_path / "large.parquet", side=21)
    encode_table(
        path,
        tmp_path / "codes.parquet",
        vqgan=world.vqgan,
        config=EncodeConfig(keep_images=True, resize=resize),
    )
    found = run(tmp_path / "codes.parquet", model=model, kg=world.kg)
    vqgan = load_image_tokenizer(world.vqgan)
    first = pq.read_table(path)["image"][0].as_py()["bytes"]
    image = decode_image(first)
    pixels = opencv_square(np.asarray(image), 8) if resize == "easynlp" else square(image, 8)
    codes = np.array([pq.read_table(tmp_path / "codes.parquet")["codes"][0].as_py()], np.uint16)
    want = measure_reconstruction(vqgan, codes, [pixels]).psnr.mean
    assert found.findings.reconstruction is not None
    assert found.findings.reconstruction.psnr_of[0] == pytest.approx(want, abs=1e-3)


def test_images_need_no_model(table, clip, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for n in range(3):
        pixels = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
        (folder / f"{n}.png").write_bytes(encode_png(pixels))
    found = run(table, pictures=folder, clip=clip, out=tmp_path / "evaluation")
    assert found.findings.match is not None  # captions by idx, the names of the files
    assert found.findings.match.n == 3
    assert found.findings.likelihood is None
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert page.count('<article class="card">') == 2
    alone = run(pictures=folder, clip=clip)
    assert alone.findings.match is None
    assert any("TSV of idx, text and image" in m.how for m in alone.not_measured)


def test_impossible_measurements_are_refused(world, model, table, weights, tmp_path):
    for sources, message in (
        ({}, "there is nothing to measure"),
        ({"model": model}, "give a lattice table as TABLE"),
        ({"pictures": tmp_path}, "--inception FILE or --clip FOLDER"),
        ({"pictures": tmp_path, "inception": weights, "kg": world.kg}, "--kg has no effect"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(**sources)
    with pytest.raises(ConfigError, match="this model uses entities"):
        run(table, model=model)
    with pytest.raises(ConfigError, match=r"must end in \.npz"):
        run(table, model=model, kg=world.kg, save_reference=tmp_path / "stats")
    with pytest.raises(ConfigError, match="--save-reference needs --inception"):
        run(table, model=model, kg=world.kg, save_reference=tmp_path / "stats.npz")
    (tmp_path / "stats.npz").write_bytes(b"kept")
    with pytest.raises(ArtefactError, match=r"stats\.npz exists"):
        run(pictures=table, inception=weights, save_reference=tmp_path / "stats.npz")
    assert (tmp_path / "stats.npz").read_bytes() == b"kept"
    with pytest.raises(ToolkitError, match="another KG"):
        run(table, model=model, kg=other_graph(world, tmp_path / "another"))
    with pytest.raises(SchemaError, match="dimensions"):
        run(
            table,
            model=model,
            kg=world.kg,
            other_kg=other_graph(world, tmp_path / "narrow", dim=7),
        )


def test_wrong_weights_are_refused_before_anything_is_measured(world, model, table, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"weights\.pth"):
        run(
            table,
            model=model,
            kg=world.kg,
            inception=tmp_path / "weights.pth",
            out=tmp_path / "evaluation",
        )
    assert not (tmp_path / "evaluation").exists()


def test_intervals_are_clustered_by_a_file_of_classes_and_another_file_is_another_run(
    world, model, tmp_path
):
    classes, out = tmp_path / "classes.tsv", tmp_path / "evaluation"
    classes.write_text("".join(f"{n}\t{'ab'[n % 2]}\n" for n in range(8)), encoding="utf-8")
    config = replace(CONFIG, cluster_by=str(classes))
    found = run(world.valid, model=model, kg=world.kg, out=out, config=config)
    likelihood = found.findings.likelihood
    assert likelihood is not None
    assert likelihood.groups["all"].clusters == 2
    assert "intervals clustered by classes (2) and image (" in str(found)
    header, *lines = (out / "captions.tsv").read_text(encoding="utf-8").splitlines()
    column = header.split("\t").index("cluster")
    assert [line.split("\t")[column] for line in lines] == list("abababab")
    classes.write_text("".join(f"{n}\ta\n" for n in range(8)), encoding="utf-8")
    with pytest.raises(ArtefactError, match="its input cluster_by was different"):
        run(world.valid, model=model, kg=world.kg, out=out, config=config)
