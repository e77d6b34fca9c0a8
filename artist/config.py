"""How models are trained and sampled: settings, defaults and limits. Imports no torch.

The sizes of a model are `artist.gpt.GPTConfig`, beside the model.
"""

from dataclasses import asdict, dataclass
from typing import Any

from data.errors import ConfigError, did_you_mean
from data.select import check_policy

FUSIONS = ("lattice", "easynlp", "none")
OPTIMIZERS = ("adamw", "muon")
EASYNLP_ENTITIES = 10  # entity slots of the released fusion
KEEP = ("best", "last")
CFG_SCHEDULES = ("constant", "linear", "cosine")
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
_HOW_NOT_WHAT = (
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
            (see `artist.muon`) and everything else by AdamW.
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
        return {k: v for k, v in asdict(self).items() if k not in _HOW_NOT_WHAT}

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


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a code is chosen from its distribution.

    Attributes:
        temperature: Divides the logits; 1.0 is the model's own distribution.
        top_k: Keep the k likeliest codes, and all that tie with the k-th. None means off.
        top_p: Keep the likeliest codes that together hold this probability. None means off.
        cfg_scale: Classifier-free guidance, logits = without + scale * (with - without), where
            `without` sees an empty caption. 1.0 means off. (Ho and Salimans 2022.) Only a model
            trained with caption dropout knows the empty caption.
        cfg_schedule: How the scale goes from the first code to the last: `constant`; `linear`, from
            1 up to `cfg_scale`; `cosine`, the same slowly at both ends. The first codes lay out the
            picture, and strong guidance there makes pictures alike. (Chang et al. 2023, Muse.)
    """

    temperature: float = 1.0
    top_k: int | None = 100
    top_p: float | None = None
    cfg_scale: float = 1.0
    cfg_schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.cfg_schedule not in CFG_SCHEDULES:
            raise ConfigError(
                f"cfg_schedule={self.cfg_schedule!r} is unknown; use one of "
                f"{', '.join(CFG_SCHEDULES)}."
            )
        if self.temperature <= 0:
            raise ConfigError(
                f"temperature={self.temperature} must be positive; for the likeliest "
                "code at each step use top_k=1."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"top_k={self.top_k} must be at least 1; leave it out to turn it off."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must lie in (0, 1].")


FID_LIKE = ("pytorch-fid", "clean-fid", "torch-fidelity")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a model and its pictures are measured; every figure depends on some of this.

    Attributes:
        shuffles: How many times vectors are dealt to the wrong entities.
        draw: Draw so many captions for image metrics and text match; None means all.
        fid_like: Whose resizing FID, KID and IS follow; see `artist.image_metrics.prepare`.
        kid_subsets: Random subsets that KID is the mean over.
        kid_subset_size: Pictures in each.
        is_splits: Parts that the Inception score is the mean over.
        candidates: Captions each picture chooses among in R-precision, its own included.
        examples: Captions shown in each part of the report.
        batch_size: Captions or pictures that go through a model at once.
        precision: Of the GPT: `auto`, `bf16` or `fp32`.
        seed: Of shuffling, drawing and subsets.
    """

    shuffles: int = 5
    draw: int | None = None
    fid_like: str = "pytorch-fid"
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    is_splits: int = 10
    candidates: int = 100
    examples: int = 6
    batch_size: int = 32
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fid_like not in FID_LIKE:
            raise ConfigError(
                f"fid_like={self.fid_like!r} is unknown; use one of {', '.join(FID_LIKE)}."
            )
        least = {"shuffles": 0, "examples": 0, "draw": 2, "kid_subset_size": 2, "candidates": 2}
        for name in (*least, "kid_subsets", "is_splits", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < least.get(name, 1):
                raise ConfigError(f"{name}={value} must be at least {least.get(name, 1)}.")
