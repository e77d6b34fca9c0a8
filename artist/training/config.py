"""How a GPT and a VQGAN are trained: settings, defaults and limits. Imports no torch."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from artist.models.config import EASYNLP_ENTITIES, FUSIONS, VQGANConfig
from data.constants import POLICIES, TEXT_LEN
from data.errors import ConfigError, did_you_mean
from data.options import Option, Precision, Seed, Setting, check_fields, from_dict

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
# Recipes; what they leave out keeps its default.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The settings of the released code: no averaging, no guidance, decay to 0.
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
# These change how a run is executed, not what it learns.
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
    """How the GPT is trained; its architecture is `GPTConfig`'s.

    The fields below `seed` change how a run is executed and not what it learns (up to float
    rounding and the random numbers of dropout), so an unfinished run can continue with other
    values.
    """

    size: Annotated[str, Option("Model size.", choices=tuple(SIZES))] = "base"
    fusion: Annotated[
        str,
        Option(
            "How entity vectors enter the model: lattice (attention over the entities of each "
            "token), easynlp (the released code) or none.",
            choices=FUSIONS,
        ),
    ] = "lattice"
    text_len: Annotated[int, Option("Text tokens per caption; longer captions are cut.", min=1)] = (
        TEXT_LEN
    )
    max_entities: Annotated[
        int, Option(f"Entities per caption; {EASYNLP_ENTITIES} with fusion easynlp.", min=1)
    ] = 32
    entity_policy: Annotated[
        str, Option("Entities to keep where a caption has more.", choices=POLICIES)
    ] = "first"
    # Attention weights are not dropped: that would rule out the fused kernels and cost a third of a
    # step on CPUs.
    dropout: Annotated[
        float, Option("Dropout of embeddings and residual branches.", min=0, below=1)
    ] = 0.1
    epochs: Annotated[int, Option("Passes over the table.", min=1)] = 10
    max_steps: Annotated[int | None, Option("Stop after N steps.", min=1)] = None
    batch_size: Annotated[int, Option("Captions per step, over all processes.", min=1)] = 64
    # Muon updates the matrices of the blocks by orthogonalised momentum (`artist.training.muon`)
    # and everything else by AdamW.
    optimizer: Annotated[
        str, Option("adamw, or muon: fewer steps for small models.", choices=OPTIMIZERS)
    ] = "adamw"
    learning_rate: Annotated[
        float, Option("Peak learning rate of AdamW; Muon's is ten times it.", above=0)
    ] = 3e-4
    schedule: Annotated[
        str, Option("Decay of the learning rate after the warm-up.", choices=SCHEDULES)
    ] = "cosine"
    warmup: Annotated[
        float, Option("Share of the steps in which the learning rate rises.", min=0, below=1)
    ] = 0.1
    final_learning_rate: Annotated[
        float, Option("Final learning rate, as a share of the peak.", min=0)
    ] = 0.05
    weight_decay: Annotated[float, Option("Weight decay of matrices.", min=0)] = 0.01
    betas: Annotated[tuple[float, float], Setting("Betas of AdamW.", min=0, below=1)] = (0.9, 0.95)
    eps: Annotated[float, Setting("Epsilon of AdamW.", above=0)] = 1e-8
    grad_clip: Annotated[float, Option("Largest norm of the gradient.", above=0)] = 1.0
    caption_dropout: Annotated[
        float,
        Option(
            "Share of captions replaced by the empty one, which guidance needs.", min=0, below=1
        ),
    ] = 0.1
    name_dropout: Annotated[
        float,
        Option(
            "Share of entity names replaced by [UNK] at first; falls to 0 at the end. The model "
            "learns to draw a name by the graph alone, and draws names never seen in training so. "
            "Fusion lattice only.",
            min=0,
            below=1,
        ),
    ] = 0.0
    text_scale: Annotated[
        float,
        Option(
            "Factor on text embeddings. Above 1 (30) names are learned faster, and those that only "
            "the graph describes are drawn less surely; use it with --name-dropout.",
            above=0,
        ),
    ] = 1.0
    # Not in validation.
    label_smoothing: Annotated[
        float, Option("Share of each target spread over all codes.", min=0, below=1)
    ] = 0.0
    ema_decay: Annotated[
        float,
        Option(
            "Decay of the averaged weights, which are validated and saved; 0: off.", min=0, below=1
        ),
    ] = 0.999
    validations: Annotated[int, Option("Validations per run, evenly spaced.", min=1)] = 10
    keep: Annotated[str, Option("Weights to save: best on --valid, or last.", choices=KEEP)] = (
        "best"
    )
    patience: Annotated[
        int | None, Option("Stop after N validations without improvement.", min=1)
    ] = None
    precision: Precision = "auto"
    seed: Seed = 0

    micro_batch_size: Annotated[
        int | None,
        Option("Captions per forward pass and process; lower it when memory runs out.", min=1),
    ] = None
    checkpoint_activations: Annotated[
        bool, Option("Recompute activations: less memory for about a third more time.")
    ] = False
    compile: Annotated[
        bool, Option("Compile the model: takes minutes, then steps are faster on a GPU.")
    ] = False
    checkpoint_seconds: Annotated[float, Option("Seconds between two checkpoints.", min=0)] = 300.0
    keep_checkpoints: Annotated[
        int, Option("Checkpoints kept until the run is finished.", min=1)
    ] = 1
    preview_every: Annotated[
        int | None,
        Option("Generate images of the same prompts every N steps, into previews/.", min=1),
    ] = None
    tensorboard: Annotated[bool, Option("Also write event files, into tensorboard/.")] = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.fusion == "easynlp" and self.entity_policy != "first":
            raise ConfigError(
                f"entity_policy={self.entity_policy!r} does not go with fusion easynlp: "
                "the released code takes the first."
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size={self.batch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}."
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "TrainConfig":
        """Return a recipe of `PRESETS` with some of its values changed.

        Fusion `easynlp` has `EASYNLP_ENTITIES` slots unless `max_entities` is given.

        Raises:
            ConfigError: The recipe or a setting is unknown, or a value cannot be used.
        """
        if name not in PRESETS:
            near = did_you_mean(name, PRESETS) or "."
            raise ConfigError(f"preset={name!r} is unknown; use {' or '.join(PRESETS)}{near}")
        if changes.get("fusion") == "easynlp":
            changes.setdefault("max_entities", EASYNLP_ENTITIES)
        return from_dict(cls, {**PRESETS[name], **changes})

    def num_steps(self, rows: int) -> int:
        """Return the steps of a run over a table with `rows` rows."""
        steps = self.epochs * (rows // min(self.batch_size, rows))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def learning(self) -> dict[str, Any]:
        """Return the settings that shape what is learned; with others it would be another run."""
        values = {k: v for k, v in asdict(self).items() if k not in _NOT_LEARNING}
        # Manifests of the first version lack these settings; its trainings equal these values.
        before = {"name_dropout": 0.0, "text_scale": 1.0}
        return {k: v for k, v in values.items() if k not in before or v != before[k]}


VQGAN_PRESETS = ("small", "base")


@dataclass(frozen=True, kw_only=True)
class VQGANTrainConfig:
    """Architecture and training of a VQGAN. None means the preset's value."""

    preset: Annotated[
        str,
        Option("small: for CPUs; base: taming-transformers' architecture.", choices=VQGAN_PRESETS),
    ] = "small"
    resolution: Annotated[
        int, Option("Side of the images in pixels; they are cropped to squares.", min=8)
    ] = 64
    downsample: Annotated[int, Option("Pixels per code, per side.", choices=(4, 8, 16))] = 8
    ch: Annotated[
        int | None, Option("Channels of the first level; by default the preset's.", min=1)
    ] = None
    codebook_size: Annotated[
        int | None, Option("Number of codes; by default the preset's.", min=2)
    ] = None
    steps: Annotated[int, Option("Training steps.", min=1)] = 2000
    batch_size: Annotated[int, Option("Images per step.", min=1)] = 32
    learning_rate: Annotated[
        float, Option("Peak learning rate of AdamW; Muon's is five times it.", above=0)
    ] = 1e-3
    plain_share: Annotated[
        float,
        Setting("Share of the steps without quantization; preset base only.", min=0, below=1),
    ] = 0.12
    adversarial: Annotated[
        float, Option("Weight of the patch discriminator's loss; 0: off.", min=0)
    ] = 0.0
    adversarial_start: Annotated[
        float,
        Setting("Share of the steps without the discriminator's loss.", min=0, below=1),
    ] = 0.7
    perceptual: Annotated[float, Option("Weight of the perceptual loss, with --vgg.", min=0)] = 0.5
    commitment: Annotated[float, Setting("Weight of the commitment loss.", min=0)] = 0.25
    flip: Annotated[bool, Option("Do not mirror images in training.", flag="--no-flip")] = True
    valid_share: Annotated[
        float,
        Setting("Share of the images held out (at most 256), without --valid.", min=0, below=1),
    ] = 0.05
    checkpoint_seconds: Annotated[float, Option("Seconds between two checkpoints.", min=0)] = 300.0
    precision: Precision = "auto"
    seed: Seed = 0

    validations: Annotated[int, Option("Validations per run, evenly spaced.", min=1)] = 5
    keep_checkpoints: Annotated[
        int, Option("Checkpoints kept until the run is finished.", min=1)
    ] = 1
    preview_every: Annotated[
        int | None, Option("Write a grid of reconstructions every N steps, into previews/.", min=1)
    ] = None
    tensorboard: Annotated[bool, Option("Also write event files, into tensorboard/.")] = False

    @property
    def learning(self) -> dict[str, Any]:
        """Return the settings that shape what is learned; with others it would be another run."""
        without = set(_NOT_LEARNING) | {"validations"}
        without.discard("checkpoint_seconds")  # manifests of the first version hold it
        return {k: v for k, v in asdict(self).items() if k not in without}

    def __post_init__(self) -> None:
        check_fields(self)
        self.model_config()  # refuses sizes that do not fit

    def model_config(self) -> VQGANConfig:
        """Return the sizes of the model."""
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
