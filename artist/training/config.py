"""How a GPT is trained: settings, defaults and limits. Imports no torch."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from artist.models.config import VQGANConfig
from data.errors import ConfigError, did_you_mean
from data.select import check_policy

OPTIMIZERS = ("adamw", "muon")
KEEP = ("best", "last")
SCHEDULES = ("cosine", "linear")
SIZES = {
    "nano": {"n_layer": 2, "n_head": 2, "n_embd": 64},  # to try things out
    "tiny": {"n_layer": 4, "n_head": 3, "n_embd": 192},  # for CPUs and demos
    "small": {"n_layer": 8, "n_head": 8, "n_embd": 512},
    "base": {"n_layer": 12, "n_head": 12, "n_embd": 768},  # EasyNLP's base
    "large": {"n_layer": 24, "n_head": 16, "n_embd": 1024},  # EasyNLP's large
}
# Recipes under one name; what they leave out keeps its default.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # What the released code trains with: no averaging, no guidance, decay to nothing.
    "easynlp": {
        "optimizer": "adamw",
        "learning_rate": 4e-5,
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 1e-4,
        "schedule": "linear",
        "warmup": 0.1,
        "final_learning_rate": 0.0,
        "grad_clip": 1.0,
        "dropout": 0.0,
        "caption_dropout": 0.0,
        "ema_decay": 0.0,
    },
}
# These change how a run is done, not what it learns.
_NOT_LEARNING = (
    "micro_batch_size",
    "checkpoint_activations",
    "compile",
    "checkpoint_seconds",
    "keep_checkpoints",
    "preview_every",
    "tensorboard",
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained; its sizes are `GPTConfig`'s.

    What is below `seed` changes how a run is done and not what it learns (up to float rounding, and
    the random numbers of dropout), so that an unfinished run may go on with other values.

    Attributes:
        size: A name in `SIZES`.
        fusion: `lattice`, `easynlp` or `none`.
        text_len: Text tokens a caption may have; longer ones are cut.
        max_entities: Entities a caption may bring; EasyNLP's fusion has 10.
        entity_policy: Which ones, where a caption has more: `first` (EasyNLP's), `longest` or
            `leftmost-longest`; see `data.select`.
        dropout: Of embeddings and residual branches. Attention weights are not dropped: that
            would rule out the fused kernels and cost a third of a step on CPUs.
        epochs: Passes over the table.
        max_steps: Stop after so many steps even so; None means off.
        batch_size: Captions a step, over all processes.
        optimizer: `adamw`; or `muon`, which moves the blocks' matrices by orthogonalised momentum
            (see `artist.training.muon`) and everything else by AdamW.
        learning_rate: AdamW's at the top of the schedule; Muon's is ten times it.
        schedule: How it falls after the warm-up: `cosine` (half a wave) or `linear`.
        warmup: Share of the steps in which the learning rate rises.
        final_learning_rate: What it falls to, as a share of `learning_rate`.
        weight_decay: Of matrices only.
        betas: AdamW's.
        eps: AdamW's.
        grad_clip: Largest norm of the gradient.
        caption_dropout: Share of captions replaced by the empty one, for guidance.
        label_smoothing: Share of each target spread over all codes; validation does without.
        ema_decay: Of the averaged weights that are validated and kept; 0 means off.
        validations: How many times a run measures the validation loss, evenly spaced.
        keep: Which weights the model folder gets: `best` on the validation rows, or the `last`.
        patience: Stop after so many validations without a better one; None means off.
        precision: `auto`, `bf16`, `fp16` (on a GPU, with loss scaling) or `fp32`.
        seed: Of everything.
        micro_batch_size: Captions that go through the model at once, in each process; None means
            all of its share of the step's.
        checkpoint_activations: Compute the blocks again in the backward pass instead of keeping
            what they computed: less memory, about a third more time.
        compile: Run the model through `torch.compile`.
        checkpoint_seconds: Time between two checkpoints.
        keep_checkpoints: How many of them are kept while the run is unfinished.
        preview_every: Steps between two picture grids of the same prompts; None means off.
        tensorboard: Write event files as well.
    """

    size: str = "base"
    fusion: str = "lattice"
    text_len: int = 32
    max_entities: int = 32
    entity_policy: str = "first"
    dropout: float = 0.1
    epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup: float = 0.1
    final_learning_rate: float = 0.05
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    grad_clip: float = 1.0
    caption_dropout: float = 0.1
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    validations: int = 10
    keep: str = "best"
    patience: int | None = None
    precision: str = "auto"
    seed: int = 0

    micro_batch_size: int | None = None
    checkpoint_activations: bool = False
    compile: bool = False
    checkpoint_seconds: float = 300.0
    keep_checkpoints: int = 1
    preview_every: int | None = None
    tensorboard: bool = False

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "TrainConfig":
        """A recipe of `PRESETS`, with some of its values changed.

        Raises:
            ConfigError: There is no such recipe.
        """
        if name not in PRESETS:
            near = did_you_mean(name, PRESETS)
            raise ConfigError(f"preset={name!r} is unknown{near}; use {' or '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **changes})

    @property
    def learning(self) -> dict[str, Any]:
        """The settings that shape what is learned; with others it would be another run."""
        return {k: v for k, v in asdict(self).items() if k not in _NOT_LEARNING}

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size={self.size!r} is unknown; use one of {', '.join(SIZES)}.")
        choices = (("optimizer", OPTIMIZERS), ("keep", KEEP), ("schedule", SCHEDULES))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is unknown; use {' or '.join(known)}."
                )
        check_policy("entity_policy", self.entity_policy)
        if self.fusion == "easynlp" and self.entity_policy != "first":
            raise ConfigError(
                f"entity_policy={self.entity_policy!r} does not go with fusion easynlp: "
                "the released code takes the first."
            )
        for name in (
            *("epochs", "max_steps", "batch_size", "validations", "text_len", "max_entities"),
            *("micro_batch_size", "keep_checkpoints", "preview_every"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1.")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size={self.batch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}."
            )
        for name in ("caption_dropout", "label_smoothing", "ema_decay", "warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must lie in [0, 1).")


VQGAN_PRESETS = ("small", "base")


@dataclass(frozen=True, kw_only=True)
class VQGANTrainConfig:
    """What kind of VQGAN to train, and how.

    Attributes:
        preset: `small` for CPUs and small pictures; `base` is taming-transformers' architecture.
        resolution: Images are cropped to squares and scaled to this side.
        downsample: Pixels per code and side: 4, 8 or 16.
        ch: Width of the first level; None means the preset's.
        codebook_size: Number of codes; None means the preset's.
        steps: Steps of the optimizer.
        batch_size: Images a step.
        learning_rate: AdamW's at its top; Muon's is five times it.
        plain_share: Of the `base` preset: share of the steps before the codebook comes in.
        adversarial: Weight of the patch discriminator's loss; 0 means off.
        adversarial_start: Share of the steps after which it comes in.
        perceptual: Weight of the perceptual loss, where VGG16's weights are given.
        commitment: How strongly latents are drawn to their codes.
        flip: Whether half of the images are mirrored while training.
        valid_share: Share of the images held out (at most 256) where no others are given.
        checkpoint_seconds: Time between two checkpoints.
        precision: `auto`, `bf16`, `fp16` (on a GPU) or `fp32`.
        seed: Of everything.
        validations: Measurements on held-out images per run, evenly spaced.
        keep_checkpoints: Checkpoints that are kept while the run is unfinished.
        preview_every: Steps between two grids of reconstructions; None means off.
        tensorboard: Write event files as well.
    """

    preset: str = "small"
    resolution: int = 64
    downsample: int = 8
    ch: int | None = None
    codebook_size: int | None = None
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    plain_share: float = 0.12
    adversarial: float = 0.0
    adversarial_start: float = 0.7
    perceptual: float = 0.5
    commitment: float = 0.25
    flip: bool = True
    valid_share: float = 0.05
    checkpoint_seconds: float = 300.0
    precision: str = "auto"
    seed: int = 0

    validations: int = 5
    keep_checkpoints: int = 1
    preview_every: int | None = None
    tensorboard: bool = False

    @property
    def learning(self) -> dict[str, Any]:
        """The settings that shape what is learned; with others it would be another run."""
        without = set(_NOT_LEARNING) | {"validations"}
        without.discard("checkpoint_seconds")  # manifests of the first version hold it
        return {k: v for k, v in asdict(self).items() if k not in without}

    def __post_init__(self) -> None:
        if self.preset not in VQGAN_PRESETS:
            raise ConfigError(
                f"preset={self.preset!r} is unknown; use {' or '.join(VQGAN_PRESETS)}."
            )
        if self.downsample not in (4, 8, 16):
            raise ConfigError(f"downsample={self.downsample}: use 4, 8 or 16.")
        for name in ("steps", "batch_size", "validations", "keep_checkpoints", "preview_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1.")
        for name in ("plain_share", "adversarial_start", "valid_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must lie in [0, 1).")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate={self.learning_rate} must be above 0.")
        self.model_config()  # refuses sizes that do not fit

    def model_config(self) -> VQGANConfig:
        """The sizes of the model."""
        if self.preset == "base":
            levels = {4: (1, 2, 4), 8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}
            ch = self.ch or 128
            return VQGANConfig(
                resolution=self.resolution,
                ch=ch,
                ch_mult=levels[self.downsample],
                attn_resolutions=(16,),
                codebook_size=self.codebook_size or 16_384,
                norm_groups=math.gcd(ch, 32),
            )
        ch = self.ch or 128
        return VQGANConfig(
            resolution=self.resolution,
            ch=ch,
            ch_mult=(1,),
            num_res_blocks=1,
            attn_resolutions=(),
            z_channels=64,
            codebook_size=self.codebook_size or 1024,
            codebook_embed_dim=32,
            # torch's kernels are several times faster on groups of 16 channels and multiples
            norm_groups=max(1, ch // 16),
            patch_size=self.downsample,
        )
