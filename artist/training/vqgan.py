"""Training a VQGAN on one's own pictures: the loop, readable from top to bottom.

The `small` preset starts from closed forms (see `vqgan_start`) and has its codebook from the first
step; `base` trains a plain autoencoder for some steps, whose latents k-means turns into the first
codebook. Codes then are moving averages of the latents they stand for (van den Oord et al. 2017,
appendix A.1), and codes that nothing uses are moved to where latents are.

Every random choice of a step comes from a seed derived from the run's seed and the step's number:
a run that was killed and resumed equals one that was not, bit for bit on one machine.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from artist.device import choose_device, choose_dtype
from artist.formats.image_tokenizer_folder import save_image_tokenizer
from artist.models.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    reconstruction_loss,
)
from artist.models.image_tokenizer import channels_last, from_uint8, to_uint8
from artist.models.perceptual import LEAST_RESOLUTION, VGGFeatures, load_vgg
from artist.models.psnr_ssim import psnr, ssim
from artist.models.vqgan import VQGAN, AttnBlock, ResnetBlock
from artist.training.config import VQGANTrainConfig
from artist.training.muon import Muon
from artist.training.vqgan_init import k_means, start_as_identity, start_from_patches
from data import schema
from data.errors import (
    ConfigError,
    InputError,
    Interrupted,
    RowError,
    SkipReason,
    ToolkitError,
)
from data.images import decode_base64, decode_image, encode_png, square
from data.runs import Run, atomic, fingerprint
from data.seeds import stream
from data.signals import stop_signals
from data.tsv import Rejects, read_rows

SHEET = "reconstructions.png"
METRICS = "metrics.jsonl"
_CHECKPOINT = "checkpoint.pt"
_PIXELS = "pixels.u8"  # the decoded images, (n, size, size, 3); gone when the run is finished
_MUON_RATE = 5.0  # Muon's learning rate as a multiple of AdamW's
_WARMUP_STEPS = 50
_SAMPLE_PATCHES = 40_000  # patches that the start and k-means look at
_CODE_DECAY = 0.98  # of the moving averages that codes are
_FIRST_COUNT = 4.0  # how much the first codebook weighs in them
_REVIVE_STEPS = 100  # a code unused for so many steps is dead
_REVIVE_UNTIL = 0.8  # share of the steps after which the codebook is left to settle
_DECODE_BATCH = 32
_MOST_HELD_OUT = 256
_VALIDATIONS = 5


@dataclass(frozen=True, kw_only=True)
class VQGANReport:
    """What a training reached; pictures are measured through their codes, as a GPT sees them."""

    out: Path
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
    unchanged: bool = False

    def __str__(self) -> str:
        done = "is finished and unchanged" if self.unchanged else f"took {self.seconds:.0f} s"
        text = (
            f"{self.out} {done}: {self.parameters / 1e6:.1f} M parameters, {self.steps} steps on "
            f"{self.images} images, each {self.image_len} codes.\n"
            f"On {self.valid_images} images held out: PSNR {self.psnr:.2f} dB (training images "
            f"{self.train_psnr:.2f}), SSIM {self.ssim:.3f}, {self.codes_used} of "
            f"{self.codebook_size} codes used. Look at {self.out / SHEET}."
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

    Args:
        table: A lattice table with images, or a TSV of `idx, text, imgbase64`.
        out: The VQGAN folder.
        config: What to train, and how.
        valid: The same for images to measure by; without it some of `table` are held out.
        vgg: VGG16's weights, for a perceptual loss; None: without it.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace another run's output.

    Raises:
        InputError: There are no usable images, or `vgg` is none.
        ArtefactError: An output is in the way.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
    """
    on = choose_device(device)
    inputs = {"table": fingerprint(table)}
    inputs |= {name: fingerprint(p) for name, p in (("valid", valid), ("vgg", vgg)) if p}
    if vgg is not None and config.resolution < LEAST_RESOLUTION:
        raise ConfigError(f"VGG16 needs pictures of {LEAST_RESOLUTION} pixels at least.")
    settings = {**asdict(config), "device": on.type}
    with Run.open(out, kind="vqgan", settings=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.finished:
            return VQGANReport(out=out, **run.finished.counts, unchanged=True)
        eye = load_vgg(vgg) if vgg is not None else None
        rejects = Rejects()
        pixels = _read_pixels(table, run.work / _PIXELS, config.resolution, rejects)
        train_rows = np.arange(len(pixels))
        if valid is not None:
            valid_file = run.work / f"valid.{_PIXELS}"
            held_out = _read_pixels(valid, valid_file, config.resolution, rejects)[:_MOST_HELD_OUT]
        else:
            if len(pixels) < 2:
                raise InputError(f"{table} holds {len(pixels)} image; at least 2 are needed.")
            order = np.random.default_rng(stream(config.seed, "held out")).permutation(train_rows)
            count = max(1, min(_MOST_HELD_OUT, round(config.valid_share * len(pixels))))
            held_out, train_rows = pixels[np.sort(order[:count])], np.sort(order[count:])
        trainer = VQGANTrainer(
            pixels, train_rows, held_out, config, device=on, folder=run.work, eye=eye
        )
        counts = trainer.run() | {"rejected": dict(rejects.reasons)}
        save_image_tokenizer(run.work, trainer.model)
        (run.work / SHEET).write_bytes(encode_png(trainer.sheet()))
        for name in (_CHECKPOINT, _PIXELS, f"valid.{_PIXELS}"):
            (run.work / name).unlink(missing_ok=True)
        run.finish(counts)
    return VQGANReport(out=out, **counts)


class VQGANTrainer:
    """The state of a training and its loop.

    Args:
        pixels: All images, (n, size, size, 3).
        train_rows: Which of them to train on.
        held_out: Images to measure by, (m, size, size, 3).
        config: How.
        device: Where.
        folder: Where checkpoints and metrics go.
        eye: Sees how different pictures look; None: pixels and edges alone count.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        train_rows: NDArray[np.int64],
        held_out: NDArray[np.uint8],
        config: VQGANTrainConfig,
        *,
        device: torch.device,
        folder: Path,
        eye: VGGFeatures | None = None,
    ) -> None:
        self.pixels, self.train_rows, self.held_out = pixels, train_rows, held_out
        self.config, self.device, self.folder = config, device, folder
        self.dtype = choose_dtype(config.precision, device)
        torch.manual_seed(stream(config.seed, "weights"))
        self.model = VQGAN(config.model_config())
        self.judge = PatchDiscriminator()
        self.eye = eye
        for module in (self.model, self.judge, *([eye] if eye is not None else [])):
            channels_last(module.to(device))
        self.muon, self.adam = _optimizers(self.model, config.learning_rate)
        self.judge_adam = torch.optim.AdamW(
            self.judge.parameters(), lr=config.learning_rate / 2, betas=(0.5, 0.9), weight_decay=0
        )
        one_level = len(self.model.config.ch_mult) == 1
        self.plain_steps = 0 if one_level else max(1, round(config.plain_share * config.steps))
        self.judge_from = round(config.adversarial_start * config.steps)
        table = self.model.quantize.embedding.weight
        self.code_counts = torch.zeros(len(table), device=device)
        self.code_sums = torch.zeros_like(table, requires_grad=False)
        self.times_used = torch.zeros(self.model.config.codebook_size, device=device)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    def run(self) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; what it reached."""
        self._resume()
        config = self.config
        validate_every = math.ceil(config.steps / _VALIDATIONS)
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        with (
            stop_signals() as stopped,
            tqdm(total=config.steps, initial=self.step, unit="step", disable=None) as bar,
        ):
            while self.step < config.steps:
                loss = self._train_step()
                self.step += 1
                bar.update()
                bar.set_postfix({"loss": f"{loss:.3f}", **self._last_measured()})
                if self.step % validate_every == 0 and self.step > self.plain_steps:
                    self._note(self.measure(self.held_out), loss)
                if stopped or time.monotonic() - saved > config.checkpoint_seconds:
                    self.seconds = time.monotonic() - began
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    raise Interrupted(
                        f"stopped at step {self.step} of {config.steps}; the checkpoint is in "
                        f"{self.folder}. Repeat the command to go on."
                    )
        reached = self.measure(self.held_out)
        some = self.train_rows[:: max(1, len(self.train_rows) // _MOST_HELD_OUT)]
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.step,
            "images": len(self.train_rows),
            "valid_images": len(self.held_out),
            "psnr": round(reached["psnr"], 3),
            "ssim": round(reached["ssim"], 4),
            "train_psnr": round(self.measure(self.pixels[some])["psnr"], 3),
            "codes_used": int(reached["codes_used"]),
            "codebook_size": self.model.config.codebook_size,
            "image_len": self.model.config.image_len,
            "seconds": round(time.monotonic() - began, 1),
        }

    def _train_step(self) -> float:
        """One step of the optimizers; the loss of its batch, without the judge's."""
        config, model = self.config, self.model
        quantising = self.step >= self.plain_steps
        if self.step == 0:
            self._start()
        elif self.step == self.plain_steps:
            self._start_codebook()
        model.train()
        self._set_learning_rates()
        images = self._images()  # (B, 3, H, W)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            latents = model.latents(images).float()  # (B, D, h, w)
            if quantising:
                codes = model.quantise(latents.detach())  # (B, h*w)
                quantised = model.lookup(codes).detach()
                pictures = model.decode_latents(latents + (quantised - latents).detach())
            else:
                pictures = model.decode_latents(latents)
            pictures = pictures.float()
            loss = reconstruction_loss(pictures, images)
            if self.eye is not None:
                loss = loss + config.perceptual * self.eye.distance(pictures, images)
            judging = config.adversarial > 0 and self.step >= self.judge_from
            fooling = -self.judge(pictures).float().mean() if judging else loss.new_zeros(())
        if quantising:
            loss = loss + config.commitment * F.mse_loss(latents, quantised)
        total = loss + config.adversarial * fooling
        total.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        if not math.isfinite(norm):
            raise ToolkitError(
                f"the loss at step {self.step} is {float(loss.detach())} (gradient norm {norm}). "
                "Nothing was saved of this step. Lower --learning-rate (now "
                f"{config.learning_rate:g})."
            )
        for optimizer in (self.muon, self.adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if judging:
            self._teach_judge(images, pictures.detach())
        if quantising:
            self._tend_codebook(latents.detach(), codes)
        return float(loss.detach())

    def _teach_judge(self, images: Tensor, pictures: Tensor) -> None:
        self.judge_adam.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = discriminator_loss(self.judge(images), self.judge(pictures))
        loss.backward()  # type: ignore[no-untyped-call]
        self.judge_adam.step()

    @torch.no_grad()
    def _start(self) -> None:
        """Before the first step: the closed-form start, where the model allows it."""
        start_as_identity(self.model)
        if not self.plain_steps:
            start_from_patches(self.model, self._sample(), self._generator("start"))
            self._adopt_codebook()

    @torch.no_grad()
    def _start_codebook(self) -> None:
        """After the plain steps: k-means over latents, so that codes begin where latents are."""
        self.model.eval()
        parts = [
            self.model.encode_latents(images)
            for images in torch.split(self._sample(), _DECODE_BATCH)
        ]
        rows = _rows(torch.cat(parts))
        table = self.model.quantize.embedding.weight
        table.copy_(k_means(rows, len(table), rounds=8, generator=self._generator("k-means")))
        self._adopt_codebook()

    def _sample(self) -> Tensor:
        """Training images (B, 3, H, W), as many as have about `_SAMPLE_PATCHES` codes."""
        count = max(1, _SAMPLE_PATCHES // self.model.config.image_len)
        generator = self._generator("sample")
        order = torch.randperm(len(self.train_rows), generator=generator)[:count].numpy()
        return self._to_device(self.pixels[self.train_rows[np.sort(order)]])

    def _adopt_codebook(self) -> None:
        """Let the moving averages begin at the codebook as it is."""
        self.code_counts.fill_(_FIRST_COUNT)
        self.code_sums.copy_(_FIRST_COUNT * self.model.quantize.embedding.weight)

    @torch.no_grad()
    def _tend_codebook(self, latents: Tensor, codes: Tensor) -> None:
        """Codes are moving averages of their latents; dead ones move to latents of this batch."""
        table = self.model.quantize.embedding.weight
        rows, codes = _rows(latents), codes.flatten()
        counts = torch.bincount(codes, minlength=len(table)).float()
        sums = torch.zeros_like(table).index_add_(0, codes, rows)
        self.code_counts.lerp_(counts, 1 - _CODE_DECAY)
        self.code_sums.lerp_(sums, 1 - _CODE_DECAY)
        table.copy_(self.code_sums / self.code_counts.clamp(min=1e-5)[:, None])
        self.times_used += counts
        if (self.step + 1) % _REVIVE_STEPS or self.step > _REVIVE_UNTIL * self.config.steps:
            return
        dead = (self.times_used == 0).nonzero().flatten()
        drawn = torch.randint(len(rows), (len(dead),), generator=self._generator("revive"))
        table[dead] = rows[drawn.to(rows.device)]
        self.code_counts[dead] = 1.0
        self.code_sums[dead] = table[dead]
        self.times_used.zero_()

    def _images(self) -> Tensor:
        """The images of this step, (B, 3, H, W) in [-1, 1]."""
        generator = self._generator("batch")
        size = self.config.batch_size
        chosen = torch.randint(len(self.train_rows), (size,), generator=generator).numpy()
        batch = self.pixels[self.train_rows[chosen]]
        if self.config.flip:
            mirrored = torch.rand(size, generator=generator).numpy() < 0.5
            batch[mirrored] = batch[mirrored, :, ::-1]
        return self._to_device(batch)

    def _to_device(self, pixels: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(np.array(pixels)).to(self.device)
        return from_uint8(batch.permute(0, 3, 1, 2))  # (B, 3, H, W), laid out channels last

    def _generator(self, use: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream(self.config.seed, use, self.step))

    def _set_learning_rates(self) -> None:
        """A short linear warm-up, then half a cosine down to a hundredth."""
        share = 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))
        rate = self.config.learning_rate * max(0.01, share)
        rate *= min(1.0, (self.step + 1) / _WARMUP_STEPS)
        for optimizer, factor in ((self.muon, _MUON_RATE), (self.adam, 1.0)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate

    @torch.inference_mode()
    def _reconstruct(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) of 0..255 and codes (B, h*w), as encoding and drawing give them."""
        self.model.eval()
        pictures, codes = [], []
        for begin in range(0, len(pixels), _DECODE_BATCH):
            images = self._to_device(pixels[begin : begin + _DECODE_BATCH])
            codes.append(self.model.encode(images))
            pictures.append(to_uint8(self.model.decode(codes[-1])).cpu())
        return torch.cat(pictures), torch.cat(codes).cpu()

    def measure(self, pixels: NDArray[np.uint8]) -> dict[str, float]:
        """PSNR and SSIM of pictures through their codes, and how many codes they use."""
        pictures, codes = self._reconstruct(pixels)
        originals = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
        return {
            "psnr": float(psnr(pictures, originals).mean()),
            "ssim": float(ssim(pictures, originals).mean()),
            "codes_used": float(len(torch.unique(codes))),
        }

    def sheet(self, count: int = 32, columns: int = 8) -> NDArray[np.uint8]:
        """Held-out originals, below each row of them their reconstructions."""
        chosen = np.linspace(0, len(self.held_out) - 1, min(count, len(self.held_out))).astype(int)
        originals = self.held_out[chosen]
        pictures = self._reconstruct(originals)[0].permute(0, 2, 3, 1).numpy()
        bands = []
        for begin in range(0, len(chosen), columns):
            for images in (originals, pictures):
                row = list(images[begin : begin + columns])
                row += [np.full_like(originals[0], 255)] * (columns - len(row))
                bands.append(np.concatenate(row, axis=1))
        return np.concatenate(bands)

    def _note(self, measured: dict[str, float], loss: float) -> None:
        self.curve.append({"step": self.step, "loss": loss, **measured})
        with atomic(self.folder / METRICS) as file:
            file.writelines(json.dumps(point) + "\n" for point in self.curve)

    def _last_measured(self) -> dict[str, str]:
        return {"psnr": f"{self.curve[-1]['psnr']:.2f}"} if self.curve else {}

    def _stateful(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "judge": self.judge,
            "muon": self.muon,
            "adam": self.adam,
            "judge_adam": self.judge_adam,
        }

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._stateful().items()}
        state |= {
            "step": self.step,
            "seconds": self.seconds,
            "times_used": self.times_used,
            "code_counts": self.code_counts,
            "code_sums": self.code_sums,
            "curve": self.curve,
        }
        with atomic(self.folder / _CHECKPOINT, "wb") as file:
            torch.save(state, file)

    def _resume(self) -> None:
        path = self.folder / _CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]
        self.times_used = state["times_used"]
        self.code_counts, self.code_sums = state["code_counts"], state["code_sums"]


def _optimizers(model: VQGAN, learning_rate: float) -> tuple[Muon, torch.optim.AdamW]:
    """Muon inside the blocks; AdamW for the outer layers, norms and biases; codes need none.

    Muon moves a weight at full speed however small its gradient, which would undo the start that
    the outer layers have.
    """
    model.quantize.requires_grad_(False)
    blocks = [m for m in model.modules() if isinstance(m, ResnetBlock | AttnBlock)]
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 4]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return Muon(matrices, lr=_MUON_RATE * learning_rate), adam


def _rows(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2)  # (B, D, h, w) -> (B*h*w, D)


def _read_pixels(table: Path, target: Path, size: int, rejects: Rejects) -> NDArray[np.uint8]:
    """The usable images of a table, (n, size, size, 3), in a file that is mapped, not loaded.

    Raises:
        InputError: There are none.
    """
    count = 0
    with target.open("wb") as file:
        for line, content in tqdm(_image_bytes(table, rejects), unit="image", disable=None):
            try:
                file.write(square(decode_image(content), size).tobytes())
                count += 1
            except RowError as error:
                rejects.add(line, error.reason, "")
    if not count:
        raise InputError(f"{table} holds no usable image ({rejects.first or 'it is empty'}).")
    return np.memmap(target, dtype=np.uint8, mode="r", shape=(count, size, size, 3))


def _image_bytes(table: Path, rejects: Rejects) -> Iterator[tuple[int, bytes]]:
    """Row number and encoded image, of a lattice table or of a TSV `idx, text, imgbase64`.

    The table may be a folder of shards.
    """
    if table.is_dir() or schema.is_parquet(table):
        source = schema.open_shards(table, schema.LATTICE, [schema.IMAGE])
        if schema.IMAGE.name not in source.schema_arrow.names:
            raise InputError(
                f"{table} has no images. Build it with `cli.py lattice build` from a TSV whose "
                "third column is a base64 image, or give that TSV."
            )
        line = 0
        for batch in source.iter_batches(_DECODE_BATCH, columns=[schema.IMAGE.name]):
            for content in _bytes_of(batch.column(0)):
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


def _bytes_of(images: Any) -> Iterable[bytes | None]:
    """The `bytes` of an Arrow column of images."""
    values: Iterable[bytes | None] = images.field("bytes").to_pylist()
    return values
