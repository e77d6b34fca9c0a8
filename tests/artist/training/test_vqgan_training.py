import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.models.discriminator import reconstruction_loss
from artist.models.image_tokenizer import from_uint8
from artist.models.psnr_ssim import psnr, ssim
from artist.models.vqgan import VQGAN
from artist.training.config import VQGANTrainConfig
from artist.training.dry_run import dry_run_vqgan
from artist.training.muon import Muon, orthogonalise
from artist.training.process_group import ProcessGroup
from artist.training.trainer import Trainer, TrainerConfig
from artist.training.vqgan_init import k_means
from artist.training.vqgan_task import DecodedImages, VQGANTask
from artist.training.vqgan_training import RECONSTRUCTIONS, train_vqgan
from data import schema
from data.errors import ConfigError, InputError
from data.images import check_image, encode_png
from data.runs import read_manifest

SMALL = VQGANTrainConfig(
    resolution=16,
    downsample=4,
    ch=16,
    codebook_size=16,
    steps=12,
    batch_size=4,
    plain_share=0.25,
    adversarial=0.1,
    adversarial_start=0.5,
    precision="fp32",
)


def blobs(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    """Return images of one bright square on a plain background."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for image in images:
        image[:] = rng.integers(0, 128, 3)
        y, x = rng.integers(0, size // 2, 2)
        image[y : y + size // 2, x : x + size // 2] = rng.integers(128, 256, 3)
    return images


def write_tsv(path: Path, images: np.ndarray, more: list[str] | None = None) -> Path:
    lines = []
    for i, image in enumerate(images):
        lines.append(f"{i}\t图\t{base64.b64encode(encode_png(image)).decode()}")
    path.write_text("\n".join([*lines, *(more or [])]) + "\n")
    return path


def new_task(config: VQGANTrainConfig = SMALL) -> VQGANTask:
    images, alone = blobs(20), ProcessGroup(torch.device("cpu"))
    given = DecodedImages(images, np.arange(16), images[16:], {})
    return VQGANTask(given, config, processes=alone)


def new_trainer(folder: Path, config: VQGANTrainConfig = SMALL) -> tuple[VQGANTask, Trainer]:
    folder.mkdir(parents=True, exist_ok=True)
    task = new_task(config)
    settings = TrainerConfig.of(config, config.steps)
    return task, Trainer(task, settings, folder)


def same_weights(one: VQGAN, other: VQGAN) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_writes_a_folder_that_loads_and_a_report(tmp_path: Path) -> None:
    bad = ["x\t图\tnot base64!", "y\t图", f"z\t图\t{base64.b64encode(b'nonsense').decode()}"]
    table = write_tsv(tmp_path / "train.tsv", blobs(20), bad)
    report = train_vqgan(table, tmp_path / "vqgan", config=SMALL, device="cpu")
    assert report.images + report.valid_images == 20
    assert report.rejected == {"invalid base64": 1, "wrong column count": 1, "not an image": 1}
    model = load_image_tokenizer(tmp_path / "vqgan")
    assert model.config == SMALL.model_config()
    manifest = read_manifest(tmp_path / "vqgan")
    assert manifest.kind == "vqgan"
    assert manifest.counts["psnr"] == report.psnr
    assert sorted(manifest.files) == [
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        RECONSTRUCTIONS,
    ]
    assert check_image((tmp_path / "vqgan" / RECONSTRUCTIONS).read_bytes()) == (8 * 16, 2 * 16)
    lines = (tmp_path / "vqgan/metrics.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    assert [point["step"] for point in points if "psnr" in point] == [3, 6, 9, 12]
    assert [point["step"] for point in points if "gradient_norm" in point] == [*range(1, 13)]
    again = train_vqgan(table, tmp_path / "vqgan", config=SMALL, device="cpu")
    assert again.already_finished
    assert again.psnr == report.psnr


def test_held_out_images_of_another_table(tmp_path: Path) -> None:
    table = write_tsv(tmp_path / "train.tsv", blobs(8))
    valid = write_tsv(tmp_path / "valid.tsv", blobs(3, seed=1))
    report = train_vqgan(table, tmp_path / "vqgan", config=SMALL, valid=valid, device="cpu")
    assert (report.images, report.valid_images) == (8, 3)


@pytest.mark.parametrize("preset", ["small", "base"])
@pytest.mark.parametrize("stop_at", [2, 5, 8])
def test_a_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path, stop_at: int, preset: str
) -> None:
    config = replace(SMALL, preset=preset)
    whole, uninterrupted = new_trainer(tmp_path / "whole", config)
    uninterrupted.run()
    _, stopped = new_trainer(tmp_path / "stopped", config)
    stopped.take_steps(stop_at)
    stopped._save()
    again, resumed = new_trainer(tmp_path / "stopped", config)
    resumed.run()
    assert same_weights(whole.model, again.model)
    assert whole.measure(whole.held_out) == again.measure(again.held_out)
    assert resumed.step == uninterrupted.step == 12


def test_initial_weights_depend_on_the_seed() -> None:
    one, other = new_task(), new_task()
    assert same_weights(one.model, other.model)
    other = new_task(replace(SMALL, seed=1))
    assert not same_weights(one.model, other.model)


def test_the_initial_model_reconstructs_better_than_grey() -> None:
    started = new_task()
    grey = psnr(torch.full((4, 3, 16, 16), 100), torch.from_numpy(blobs(4)).permute(0, 3, 1, 2))
    started.initialise()
    assert started.measure(blobs(4))["psnr"] > float(grey.mean()) + 5


def test_models_of_several_levels_start_as_a_plain_autoencoder(tmp_path: Path) -> None:
    trained, trainer = new_trainer(tmp_path, replace(SMALL, preset="base", downsample=4))
    assert trained.plain_steps == 3
    trainer.run()
    rows = trained.model.quantize.embedding.weight
    assert rows.isfinite().all()
    assert len(rows.unique(dim=0)) == 16


def test_codes_move_to_their_latents_and_unused_ones_to_a_random_latent() -> None:
    trained = new_task()
    table = trained.model.quantize.embedding.weight
    with torch.no_grad():
        table.zero_()
        table[:, 0] = torch.arange(16.0)
    trained._reset_averages()
    latents = torch.zeros(1, 32, 2, 2)
    latents[:, 0] = 3.0
    latents[:, 1] = 1.0
    codes = torch.full((1, 4), 3)
    before = table.clone()
    trained.update_codebook(98, latents, codes)
    assert 0 < table[3, 1] < 1
    assert torch.equal(table[4], before[4])
    trained.config = replace(SMALL, steps=1000)  # a run of twelve steps ends before codes are moved
    trained.times_used.zero_()
    trained.update_codebook(99, latents, codes)
    assert torch.equal(table[4], latents[0, :, 0, 0])


def test_training_reduces_the_reconstruction_loss(tmp_path: Path) -> None:
    config = replace(SMALL, steps=80, adversarial=0.0, learning_rate=1e-3, flip=False)
    task, trainer = new_trainer(tmp_path, config)
    originals = from_uint8(torch.from_numpy(blobs(16)).permute(0, 3, 1, 2))
    task.initialise()
    losses = []
    for train in (lambda: None, trainer.run):
        train()
        decoded, _ = task.reconstruct(blobs(16))
        losses.append(float(reconstruction_loss(from_uint8(decoded), originals)))
    assert losses[1] < 0.95 * losses[0]


def test_previews_are_written_at_intervals(tmp_path: Path) -> None:
    table = write_tsv(tmp_path / "train.tsv", blobs(20))
    config = replace(SMALL, preview_every=6)
    train_vqgan(table, tmp_path / "vqgan", config=config, device="cpu")
    names = sorted(p.name for p in (tmp_path / "vqgan/previews").iterdir())
    assert names == ["step-00000006.png", "step-00000012.png"]
    assert check_image((tmp_path / "vqgan/previews" / names[0]).read_bytes()) == (128, 32)


def test_settings_of_the_loop_do_not_identify_a_run(tmp_path: Path) -> None:
    table = write_tsv(tmp_path / "train.tsv", blobs(20))
    train_vqgan(table, tmp_path / "vqgan", config=SMALL, device="cpu")
    again = replace(SMALL, preview_every=3, validations=2, keep_checkpoints=3)
    assert train_vqgan(table, tmp_path / "vqgan", config=again, device="cpu").already_finished


def test_a_dry_run_reports_memory_and_time_and_writes_nothing(tmp_path: Path) -> None:
    table = write_tsv(tmp_path / "train.tsv", blobs(20))
    report = dry_run_vqgan(table, config=SMALL, device="cpu")
    assert (report.total_steps, report.batch_size) == (12, 4)
    assert report.parameters == sum(p.numel() for p in new_task().model.parameters())
    assert report.whole_seconds > 12 * report.step_seconds
    assert "12 steps" in str(report)
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"preset": "smal"}, "small or base"),
        ({"downsample": 5}, "4, 8, 16"),
        ({"steps": 0}, "at least 1"),
        ({"resolution": 60}, "the nearest are 56 and 64"),
        ({"plain_share": 1.0}, "plain_share"),
        ({"learning_rate": 0.0}, "above 0"),
    ],
)
def test_invalid_settings_are_refused_with_advice(values: dict[str, object], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        VQGANTrainConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("downsample", [4, 8, 16])
@pytest.mark.parametrize("preset", ["small", "base"])
def test_presets_have_the_requested_downsampling(preset: str, downsample: int) -> None:
    config = VQGANTrainConfig(preset=preset, downsample=downsample, resolution=256)
    assert config.model_config().downsampling == downsample


def test_tables_without_usable_images_are_errors(tmp_path: Path) -> None:
    one = write_tsv(tmp_path / "one.tsv", blobs(1))
    none = write_tsv(tmp_path / "none.tsv", blobs(0), ["a\t图\tbm9uc2Vuc2U="])
    with pytest.raises(InputError, match="at least 2"):
        train_vqgan(one, tmp_path / "vqgan", config=SMALL, device="cpu")
    with pytest.raises(InputError, match="no usable image"):
        train_vqgan(none, tmp_path / "other", config=SMALL, device="cpu")
    with pytest.raises(InputError, match="does not exist"):
        train_vqgan(tmp_path / "nothing.tsv", tmp_path / "third", config=SMALL, device="cpu")


def test_images_of_a_folder_of_shards(tmp_path: Path) -> None:
    fields = schema.LATTICE.append(schema.IMAGE)
    lines = write_tsv(tmp_path / "t.tsv", blobs(20)).read_text(encoding="utf-8").splitlines()
    whole = [line.split("\t") for line in lines]
    (tmp_path / "shards").mkdir()
    for part in range(2):
        rows = [
            {name: [] for name in ("input_ids", "lex_ids", "pos_s", "pos_e")}
            | {"idx": idx, "text": text, "seq_len": 0}
            | {"image": {"bytes": base64.b64decode(image), "path": None}}
            for idx, text, image in whole[10 * part : 10 * part + 10]
        ]
        with schema.table_writer(tmp_path / "shards" / f"{part}.parquet", fields) as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema=fields))
    one = train_vqgan(tmp_path / "t.tsv", tmp_path / "one", config=SMALL, device="cpu")
    other = train_vqgan(tmp_path / "shards", tmp_path / "other", config=SMALL, device="cpu")
    assert (one.images, one.psnr) == (other.images, other.psnr)


def test_blurred_edges_cost_more_than_a_shift() -> None:
    sharp = torch.zeros(1, 3, 8, 8)
    sharp[..., 4:] = 1.0
    blurred = sharp.clone()
    blurred[..., 3:5] = 0.5
    shifted_mean = sharp + 0.125  # the same absolute error in pixels, edges intact
    assert reconstruction_loss(blurred, sharp) > reconstruction_loss(shifted_mean, sharp)


def test_k_means_finds_separate_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.eye(4)
    rows = centres.repeat(50, 1) + 0.05 * torch.randn(200, 4, generator=generator)
    found = k_means(rows, 12, 10, generator)
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.2


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_reduces_the_loss_of_a_convolution() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3)
    x, y = torch.randn(8, 3, 6, 6), torch.randn(8, 4, 4, 4)
    optimizer = Muon([layer.weight], lr=0.02)
    losses = []
    for _ in range(20):
        loss = (layer(x) - y).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_psnr_and_ssim_of_equal_and_different_images() -> None:
    images = torch.from_numpy(blobs(2)).permute(0, 3, 1, 2)
    assert psnr(images, images).min() > 90
    torch.testing.assert_close(ssim(images, images), torch.ones(2))
    one_off = images.to(torch.int16) + 1
    torch.testing.assert_close(psnr(one_off, images), torch.full((2,), 48.1308))
    noise = torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0))
    assert ssim(noise, images).max() < 0.3
