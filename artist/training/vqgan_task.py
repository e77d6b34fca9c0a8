"""Train a VQGAN on images: reconstruction, commitment, optionally a discriminator.

The `small` preset is initialised in closed form (see `vqgan_init`) and uses its codebook from the
first step; `base` first trains a plain autoencoder for some steps, and k-means over its latents
gives the first codebook. Codes are moving averages of the latents assigned to them (van den Oord et
al. 2017, appendix A.1), and unused codes are moved to latents.

    B batch   D codebook_embed_dim   N codebook_size   h x w grid of codes
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from artist.models.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    reconstruction_loss,
)
from artist.models.image_tokenizer import channels_last, from_uint8, to_uint8
from artist.models.perceptual import VGGFeatures
from artist.models.psnr_ssim import psnr, ssim
from artist.models.vqgan import VQGAN, AttnBlock, ResnetBlock
from artist.training.config import VQGANTrainConfig
from artist.training.muon import Muon
from artist.training.preview import write_preview
from artist.training.process_group import ProcessGroup
from artist.training.task import Phase, Task
from artist.training.vqgan_init import k_means, start_as_identity, start_from_patches
from data.errors import ConfigError
from data.seeds import stream

_MUON_RATE = 5.0  # Muon's learning rate as a multiple of AdamW's
_WARMUP_STEPS = 50
_GRAD_CLIP = 1.0
_SAMPLE_PATCHES = 40_000  # patches that the initialisation and k-means use
_CODE_DECAY = 0.98  # of the moving averages
_FIRST_COUNT = 4.0  # weight of the first codebook in them
_REVIVE_STEPS = 100  # a code unused for this many steps is moved
_REVIVE_UNTIL = 0.8  # share of the steps after which codes are no longer moved
_DECODE_BATCH = 32


@dataclass(frozen=True)
class ImageBatch:
    """Images (B, 3, H, W) in [-1, 1]."""

    images: Tensor

    @property
    def num_rows(self) -> int:
        """Images of the batch."""
        return len(self.images)

    def to(self, device: torch.device) -> "ImageBatch":
        """Return the batch on another device."""
        return ImageBatch(self.images.to(device))


class GeneratorLoss(nn.Module):
    """The loss of encoder and decoder; stores tensors of its last batch for the rest of the step.

    Args:
        model: The trained model.
        config: Weights of the terms.
        discriminator: Not trained by this loss, so not a submodule.
        perceptual: Network of the perceptual loss, or None.

    Attributes:
        quantise: Whether latents pass through the codebook.
        adversarial: Weight of the adversarial term; 0 before the discriminator starts.
        reported: Last loss without the adversarial term.
        latents: Last latents (B, D, h, w).
        codes: Last codes (B, h*w), if quantised.
        images: Last images and their reconstructions.
    """

    def __init__(
        self,
        model: VQGAN,
        config: VQGANTrainConfig,
        discriminator: PatchDiscriminator,
        perceptual: VGGFeatures | None,
    ) -> None:
        super().__init__()
        self.model, self.config = model, config
        self._networks = (discriminator, perceptual)
        self.quantise, self.adversarial = True, 0.0
        self.reported = torch.zeros(())
        self.latents, self.codes = torch.zeros(0), torch.zeros(0)
        self.images = (torch.zeros(0), torch.zeros(0))

    def forward(self, batch: ImageBatch) -> Tensor:
        """Return a scalar."""
        model, images = self.model, batch.images
        discriminator, perceptual = self._networks
        latents = model.latents(images).float()  # (B, D, h, w)
        if self.quantise:
            self.codes = model.quantise(latents.detach())  # (B, h*w)
            quantised = model.lookup(self.codes).detach()
            decoded = model.decode_latents(latents + (quantised - latents).detach())
        else:
            decoded = model.decode_latents(latents)
        decoded = decoded.float()
        loss = reconstruction_loss(decoded, images)
        if perceptual is not None:
            loss = loss + self.config.perceptual * perceptual.distance(decoded, images)
        generator_loss = loss.new_zeros(())
        if self.adversarial:
            generator_loss = -discriminator(decoded).float().mean()
        if self.quantise:
            with torch.autocast(images.device.type, enabled=False):
                loss = loss + self.config.commitment * F.mse_loss(latents, quantised)
        self.reported, self.latents = loss.detach(), latents.detach()
        self.images = (images, decoded.detach())
        return loss + self.adversarial * generator_loss


class DiscriminatorLoss(nn.Module):
    """The loss of the discriminator on the images and reconstructions of the generator's phase."""

    def __init__(self, discriminator: PatchDiscriminator, generator: GeneratorLoss) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._generator = (generator,)  # not a submodule

    def forward(self, batch: ImageBatch) -> Tensor:
        """Return a scalar; the batch is that of the generator's phase."""
        images, decoded = self._generator[0].images
        return discriminator_loss(self.discriminator(images), self.discriminator(decoded))


class DecodedImages(NamedTuple):
    """Images of a training, uint8, in memory or mapped.

    Attributes:
        pixels: All images (n, size, size, 3).
        train_rows: Row numbers of the images to train on.
        held_out: Images to measure on (m, size, size, 3).
        rejected: Reason -> number of unusable images.
    """

    pixels: NDArray[np.uint8]
    train_rows: NDArray[np.int64]
    held_out: NDArray[np.uint8]
    rejected: dict[str, int]


class VQGANTask(Task):
    """A VQGAN that learns to reconstruct images through its codes.

    Args:
        images: The images.
        config: Settings.
        processes: The processes that share the images of a step.
        perceptual: Network of the perceptual loss; None: pixels and edges only.
        folder: Folder of the run, for previews.
    """

    model: VQGAN

    def __init__(
        self,
        images: DecodedImages,
        config: VQGANTrainConfig,
        *,
        processes: ProcessGroup,
        perceptual: VGGFeatures | None = None,
        folder: Path | None = None,
    ) -> None:
        self.pixels, self.train_rows, self.held_out, _ = images
        self.config, self.processes, self.folder = config, processes, folder
        self.device, self.batch_size = processes.device, config.batch_size
        if self.batch_size % processes.size:
            raise ConfigError(
                f"{self.batch_size} images per step cannot be split evenly over {processes.size} "
                f"processes. Set --batch-size to a multiple of {processes.size}."
            )
        torch.manual_seed(stream(config.seed, "weights"))
        self.model = VQGAN(config.model_config())
        self.discriminator = PatchDiscriminator()
        networks = [self.model, self.discriminator, *([perceptual] if perceptual else [])]
        for network in networks:
            channels_last(network.to(self.device))
        self.modules = nn.ModuleDict({"vqgan": self.model, "discriminator": self.discriminator})
        self.learning_rate = config.learning_rate
        self.muon, self.adam = _optimizers(self.model, config.learning_rate)
        self.discriminator_adam = torch.optim.AdamW(
            self.discriminator.parameters(),
            lr=config.learning_rate / 2,
            betas=(0.5, 0.9),
            weight_decay=0,
        )
        self.optimizers = [self.muon, self.adam, self.discriminator_adam]
        one_level = len(self.model.config.ch_mult) == 1
        self.plain_steps = 0 if one_level else max(1, round(config.plain_share * config.steps))
        self.adversarial_from = round(config.adversarial_start * config.steps)
        self.generator_loss = GeneratorLoss(self.model, config, self.discriminator, perceptual)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self._generator = Phase(self.generator_loss, trained, [self.muon, self.adam], _GRAD_CLIP)
        self._discriminator = Phase(
            DiscriminatorLoss(self.discriminator, self.generator_loss),
            list(self.discriminator.parameters()),
            [self.discriminator_adam],
        )
        table = self.model.quantize.embedding.weight
        self.code_counts = torch.zeros(len(table), device=self.device)
        self.code_sums = torch.zeros_like(table, requires_grad=False)
        self.times_used = torch.zeros(self.model.codebook_size, device=self.device)

    def phases(self, step: int) -> Sequence[Phase]:
        """Return the generator's phase and, from its start, the discriminator's."""
        adversarial = self.config.adversarial > 0 and step >= self.adversarial_from
        return [self._generator, self._discriminator] if adversarial else [self._generator]

    def begin_step(self, step: int) -> None:
        """Initialise the model in the first step, the codebook after the plain steps."""
        if step == 0:
            self.initialise()
        elif step == self.plain_steps:
            self._initialise_codebook(step)
        loss = self.generator_loss
        loss.quantise = step >= self.plain_steps
        loss.adversarial = self.config.adversarial if len(self.phases(step)) > 1 else 0.0

    def end_step(self, step: int) -> None:
        """Update the codebook."""
        loss = self.generator_loss
        if loss.quantise:
            self.update_codebook(step, loss.latents, loss.codes)

    def reported_loss(self, loss: Tensor) -> Tensor:
        """Return the generator's loss without the adversarial term."""
        return self.generator_loss.reported

    def batches(self, step: int) -> Sequence[ImageBatch]:
        """Return this process's images of a step, sampled with replacement."""
        generator = self._random(step, "batch")
        size = self.batch_size
        chosen = torch.randint(len(self.train_rows), (size,), generator=generator).numpy()
        part = self.processes.shard(size)
        batch = self.pixels[self.train_rows[chosen[part]]]
        if self.config.flip:
            mirrored = (torch.rand(size, generator=generator).numpy() < 0.5)[part]
            batch[mirrored] = batch[mirrored, :, ::-1]
        return [ImageBatch(_to_images(batch))]

    def set_learning_rates(self, step: int) -> float:
        """Set a short linear warm-up, then half a cosine down to a hundredth; return AdamW's."""
        share = 0.5 * (1 + math.cos(math.pi * step / self.config.steps))
        rate = self.config.learning_rate * max(0.01, share)
        rate *= min(1.0, (step + 1) / _WARMUP_STEPS)
        for optimizer, factor in ((self.muon, _MUON_RATE), (self.adam, 1.0)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
        return rate

    def validate(self, step: int, dtype: torch.dtype) -> dict[str, float]:
        """Measure reconstructions of held-out images, once the codebook is in use."""
        return self.measure(self.held_out) if step > self.plain_steps else {}

    def preview(self, step: int, dtype: torch.dtype) -> NDArray[np.uint8]:
        """Write the reconstructions of held-out images."""
        pixels = self.reconstructions()
        if self.folder is not None:
            write_preview(self.folder, step, pixels)
        return pixels

    def state(self) -> dict[str, Any]:
        """Return the statistics of the codebook."""
        names = ("times_used", "code_counts", "code_sums")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `state()`."""
        for name, value in state.items():
            setattr(self, name, value)

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise the weights before the first step, in closed form where possible."""
        start_as_identity(self.model)
        if not self.plain_steps:
            start_from_patches(self.model, self._sample(0), self._random(0, "start"))
            self._reset_averages()

    @torch.no_grad()
    def _initialise_codebook(self, step: int) -> None:
        """Set the codebook by k-means over latents, after the plain steps."""
        self.model.eval()
        parts = torch.split(self._sample(step), _DECODE_BATCH)
        rows = _rows(torch.cat([self.model.encode_latents(images) for images in parts]))
        table = self.model.quantize.embedding.weight
        table.copy_(k_means(rows, len(table), rounds=8, generator=self._random(step, "k-means")))
        self._reset_averages()
        self.model.train()

    def _sample(self, step: int) -> Tensor:
        """Return training images (B, 3, H, W) that have about `_SAMPLE_PATCHES` codes."""
        count = max(1, _SAMPLE_PATCHES // self.model.image_len)
        generator = self._random(step, "sample")
        order = torch.randperm(len(self.train_rows), generator=generator)[:count].numpy()
        return _to_images(self.pixels[self.train_rows[np.sort(order)]], self.device)

    def _reset_averages(self) -> None:
        """Start the moving averages at the current codebook."""
        self.code_counts.fill_(_FIRST_COUNT)
        self.code_sums.copy_(_FIRST_COUNT * self.model.quantize.embedding.weight)

    @torch.no_grad()
    def update_codebook(self, step: int, latents: Tensor, codes: Tensor) -> None:
        """Move codes to the mean of their latents (B, D, h, w), unused ones to a random latent."""
        table = self.model.quantize.embedding.weight
        rows, codes = _rows(latents), codes.flatten()
        counts = torch.bincount(codes, minlength=len(table)).float()
        sums = torch.zeros_like(table).index_add_(0, codes, rows)
        self.processes.all_reduce(counts)
        self.processes.all_reduce(sums)
        self.code_counts.lerp_(counts, 1 - _CODE_DECAY)
        self.code_sums.lerp_(sums, 1 - _CODE_DECAY)
        table.copy_(self.code_sums / self.code_counts.clamp(min=1e-5)[:, None])
        self.times_used += counts
        if (step + 1) % _REVIVE_STEPS or step > _REVIVE_UNTIL * self.config.steps:
            return
        unused = (self.times_used == 0).nonzero().flatten()
        drawn = torch.randint(len(rows), (len(unused),), generator=self._random(step, "revive"))
        latents_drawn = rows[drawn.to(rows.device)]
        if not self.processes.is_leader:
            latents_drawn.zero_()
        table[unused] = self.processes.all_reduce(latents_drawn)  # the leader's, in all processes
        self.code_counts[unused] = 1.0
        self.code_sums[unused] = table[unused]
        self.times_used.zero_()

    def _random(self, step: int, use: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream(self.config.seed, use, step))

    @torch.inference_mode()
    def reconstruct(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Return reconstructions (B, 3, H, W), uint8, and their codes (B, h*w)."""
        self.model.eval()
        decoded, codes = [], []
        for begin in range(0, len(pixels), _DECODE_BATCH):
            images = _to_images(pixels[begin : begin + _DECODE_BATCH], self.device)
            codes.append(self.model.encode(images))
            decoded.append(to_uint8(self.model.decode(codes[-1])).cpu())
        return torch.cat(decoded), torch.cat(codes).cpu()

    def measure(self, pixels: NDArray[np.uint8]) -> dict[str, float]:
        """Return PSNR (dB) and SSIM of reconstructions, and the number of codes used."""
        decoded, codes = self.reconstruct(pixels)
        originals = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
        return {
            "psnr": float(psnr(decoded, originals).mean()),
            "ssim": float(ssim(decoded, originals).mean()),
            "codes_used": float(len(torch.unique(codes))),
        }

    def reconstructions(self, count: int = 32, columns: int = 8) -> NDArray[np.uint8]:
        """Return a grid (H, W, 3): rows of held-out originals, each above its reconstructions."""
        chosen = np.linspace(0, len(self.held_out) - 1, min(count, len(self.held_out))).astype(int)
        originals = self.held_out[chosen]
        decoded = self.reconstruct(originals)[0].permute(0, 2, 3, 1).numpy()
        bands = []
        for begin in range(0, len(chosen), columns):
            for images in (originals, decoded):
                row = list(images[begin : begin + columns])
                row += [np.full_like(originals[0], 255)] * (columns - len(row))
                bands.append(np.concatenate(row, axis=1))
        return np.concatenate(bands)


def _optimizers(model: VQGAN, learning_rate: float) -> tuple[Muon, torch.optim.AdamW]:
    """Return Muon for the blocks, AdamW for outer layers, norms and biases; codes need neither.

    Muon's steps do not shrink with the gradient, which would undo the initialisation of the outer
    layers.
    """
    model.quantize.requires_grad_(False)
    blocks = [m for m in model.modules() if isinstance(m, ResnetBlock | AttnBlock)]
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 4]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return Muon(matrices, lr=_MUON_RATE * learning_rate), adam


def _rows(latents: Tensor) -> Tensor:
    """Return the latent of each position."""
    return latents.permute(0, 2, 3, 1).flatten(0, 2)  # (B, D, h, w) -> (B*h*w, D)


def _to_images(pixels: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Return images (B, 3, H, W) in [-1, 1], channels last, of pixels (B, H, W, 3)."""
    return from_uint8(torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2))
