"""`artist vqgan train`: train a VQGAN on a table of images and write its folder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from artist.formats.image_tokenizer_folder import save_image_tokenizer
from artist.formats.vgg import load_vgg
from artist.models.perceptual import LEAST_RESOLUTION
from artist.training.config import VQGANTrainConfig
from artist.training.process_group import ProcessGroup, open_shared_run, process_group
from artist.training.trainer import Trainer, TrainerConfig
from artist.training.vqgan_task import DecodedImages, VQGANTask
from data import schema
from data.errors import ConfigError, InputError, RowError, SkipReason
from data.images import decode_base64, decode_image, encode_png, square
from data.runs import StageReport, fingerprint
from data.seeds import stream
from data.tsv import Rejects, read_rows

RECONSTRUCTIONS = "reconstructions.png"
_PIXELS = "pixels.u8"  # decoded images, (n, size, size, 3); deleted when the run is finished
_VALID_PIXELS = f"valid.{_PIXELS}"
_MAX_HELD_OUT = 256
_BATCH = 32  # rows of a table that are read at once


@dataclass(frozen=True, kw_only=True)
class VQGANReport(StageReport):
    """Result of a training; PSNR and SSIM are those of reconstructions from codes."""

    parameters: int
    steps: int
    images: int
    valid_images: int
    rejected: dict[str, int] = field(default_factory=dict)
    psnr: float
    ssim: float
    train_psnr: float
    codes_used: int
    codebook_size: int
    image_len: int
    seconds: float

    def __str__(self) -> str:
        done = self.outcome(f"took {self.seconds:.0f} s")
        text = (
            f"{done}: {self.parameters / 1e6:.1f} M parameters, {self.steps} steps on "
            f"{self.images} images, each {self.image_len} codes.\n"
            f"On {self.valid_images} images held out: PSNR {self.psnr:.2f} dB (training images "
            f"{self.train_psnr:.2f}), SSIM {self.ssim:.3f}, {self.codes_used} of "
            f"{self.codebook_size} codes used. Look at {self.out / RECONSTRUCTIONS}."
        )
        for reason, count in sorted(self.rejected.items()):
            text += f"\n  rejected {count}: {reason}"
        return text


def train_vqgan(
    table: Path,
    out: Path,
    *,
    config: VQGANTrainConfig,
    valid: Path | None = None,
    vgg: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> VQGANReport:
    """Train a VQGAN on the images of a table and write it as a folder.

    Under torchrun all processes call this; each returns the report.

    Args:
        table: A lattice table with images, a folder of its shards, or a TSV of
            `idx, text, imgbase64`.
        out: The VQGAN folder.
        config: Model and training settings.
        valid: The same for images to measure on; by default some of `table` are held out.
        vgg: Weights of VGG16, for a perceptual loss; None: without it.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace the output of another run.

    Raises:
        InputError: No image is usable, or `vgg` is not VGG16.
        ArtefactError: Another run's output exists.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
    """
    if vgg is not None and config.resolution < LEAST_RESOLUTION:
        raise ConfigError(f"VGG16 needs images of at least {LEAST_RESOLUTION} pixels.")
    with process_group(device) as processes:
        inputs = {}
        if processes.local_rank == 0:
            given = (("table", table), ("valid", valid), ("vgg", vgg))
            inputs = {name: fingerprint(path) for name, path in given if path}
        settings = {**config.learning, "device": processes.device.type}
        with open_shared_run(
            processes, out, kind="vqgan", settings=settings, inputs=inputs, overwrite=overwrite
        ) as run:
            if run.finished:
                return VQGANReport(out=out, **run.finished, already_finished=True)
            perceptual = load_vgg(vgg) if vgg is not None else None
            images = load_images(processes, table, valid, run.work, config)
            task = VQGANTask(
                images, config, processes=processes, perceptual=perceptual, folder=run.work
            )
            trainer = Trainer(task, TrainerConfig.of(config, config.steps), run.work)
            trainer.run()
            counts = {**_counts(trainer, task), "rejected": images.rejected}
            if processes.is_leader:
                save_image_tokenizer(run.work, task.model)
                (run.work / RECONSTRUCTIONS).write_bytes(encode_png(task.reconstructions()))
                trainer.checkpoints.clear()
                for name in (_PIXELS, _VALID_PIXELS):
                    (run.work / name).unlink(missing_ok=True)
                run.finish(counts)
            processes.barrier()
    return VQGANReport(out=out, **counts)


def _counts(trainer: Trainer, task: VQGANTask) -> dict[str, Any]:
    """Return the counts of the manifest."""
    reached = task.measure(task.held_out)
    some = task.train_rows[:: max(1, len(task.train_rows) // _MAX_HELD_OUT)]
    return {
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "steps": trainer.step,
        "images": len(task.train_rows),
        "valid_images": len(task.held_out),
        "psnr": round(reached["psnr"], 3),
        "ssim": round(reached["ssim"], 4),
        "train_psnr": round(task.measure(task.pixels[some])["psnr"], 3),
        "codes_used": int(reached["codes_used"]),
        "codebook_size": task.model.codebook_size,
        "image_len": task.model.image_len,
        "seconds": round(trainer.seconds, 1),
    }


def load_images(
    processes: ProcessGroup,
    table: Path,
    valid: Path | None,
    folder: Path,
    config: VQGANTrainConfig,
    limit: int | None = None,
) -> DecodedImages:
    """Decode the images of the tables into files that all processes map.

    Raises:
        InputError: There are fewer than two images.
    """
    size, rejects = config.resolution, Rejects()

    def decode() -> tuple[int, int, dict[str, int]]:
        count = _write_pixels(table, folder / _PIXELS, size, rejects, limit)
        held_out = 0
        if valid is not None:
            held_out = _write_pixels(valid, folder / _VALID_PIXELS, size, rejects, limit)
        elif count < 2:
            raise InputError(f"{table} contains {count} image; at least 2 are needed.")
        return count, held_out, dict(rejects.reasons)

    counted = processes.broadcast(processes.run_on_leader(decode))
    assert counted is not None  # the leader's
    count, held_out_count, rejected = counted
    pixels = _map_pixels(folder / _PIXELS, count, size)
    train_rows = np.arange(count)
    if valid is not None:
        held_out = _map_pixels(folder / _VALID_PIXELS, held_out_count, size)[:_MAX_HELD_OUT]
    else:
        order = np.random.default_rng(stream(config.seed, "held out")).permutation(train_rows)
        number = max(1, min(_MAX_HELD_OUT, round(config.valid_share * count)))
        held_out, train_rows = pixels[np.sort(order[:number])], np.sort(order[number:])
    return DecodedImages(pixels, train_rows, held_out, rejected)


def _map_pixels(path: Path, count: int, size: int) -> NDArray[np.uint8]:
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(count, size, size, 3))


def _write_pixels(table: Path, target: Path, size: int, rejects: Rejects, limit: int | None) -> int:
    """Write the usable images of a table, up to `limit`, as pixels; return their number.

    Raises:
        InputError: No image is usable.
    """
    count = 0
    with target.open("wb") as file:
        for line, content in tqdm(_image_bytes(table, rejects), unit="image", disable=None):
            try:
                file.write(square(decode_image(content), size).tobytes())
                count += 1
            except RowError as error:
                rejects.add(line, error.reason, "")
            if count == limit:
                break
    if not count:
        raise InputError(f"{table} contains no usable image ({rejects.first or 'it is empty'}).")
    return count


def _image_bytes(table: Path, rejects: Rejects) -> Iterator[tuple[int, bytes]]:
    """Yield row number and encoded image of a lattice table, or of a TSV `idx, text, imgbase64`."""
    if table.is_dir() or schema.is_parquet(table):
        source = schema.open_shards(table, schema.LATTICE, [schema.IMAGE])
        if schema.IMAGE.name not in source.schema_arrow.names:
            raise InputError(
                f"{table} has no images. Build it with `cli.py lattice build` from a TSV whose "
                "third column is a base64 image, or give that TSV."
            )
        line = 0
        for batch in source.iter_batches(_BATCH, columns=[schema.IMAGE.name]):
            for content in batch.column(0).field("bytes").to_pylist():
                line += 1
                if content is None:
                    rejects.add(line, SkipReason("no image"), "")
                else:
                    yield line, content
        return
    for row in read_rows(table, {3}, rejects):
        try:
            yield row.line, decode_base64(row.fields[2])
        except RowError as error:
            rejects.add(row.line, error.reason, row.fields[0])
