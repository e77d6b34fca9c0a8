"""The settings of `kg train`, their defaults and bounds. Imports nothing heavy."""

from dataclasses import asdict, dataclass
from typing import Any

from data.errors import ConfigError, did_you_mean

LOSSES = ("nssa", "margin")
CHECKPOINTS = ("checkpoint.safetensors", "best.safetensors")  # in the folder of an unfinished run


@dataclass(frozen=True, kw_only=True)
class KGConfig:
    """The settings that determine the vectors.

    Attributes:
        dim: Length of a vector.
        epochs: Passes over the triples; None: as many as a graph of this size needs.
        batch_size: Triples a step; None: by the size of the graph.
        learning_rate: Of row-wise AdaGrad on vectors of length `scale`; falls linearly to 0.
        num_negatives: Corrupted triples for each true one.
        loss: `nssa` (self-adversarial, Sun et al. 2019) or `margin` (Bordes et al. 2013).
        margin: The loss's margin, in units of the trained vectors; None: the loss's default.
        p_norm: 1 or 2: the norm in ||h + r - t||.
        scale: Length of entity vectors while they are trained. They are saved with length 1 and
            the relations divided likewise, which leaves every ranking as it is; the loss needs
            the length, because on the unit sphere all distances are too alike for its sigmoid.
            0: vectors move freely, and are saved as they are.
        chunk_size: Triples that share their negatives.
        min_tail_count: See `kg.reading.triples.read_triples`.
        valid_fraction: Share of the triples held out for measuring, at most `max_valid`; 0: none.
        max_valid: See `valid_fraction`.
        learn_held_out: Once it is measured, train a graph of up to a million triples again on all
            of them, as long as was best: a name's only telling triple may be among those held out.
            Triples that an OpenKE folder sets apart are never learned.
        freeze_known: Where a run begins with the vectors of an earlier one: leave those as they
            are, so that what was trained on them stays valid, and learn only the new names; else
            the known ones move too.
        patience: Stop after so many measurements without a better one; 0: never.
        seed: The same seed gives the same vectors on one machine.
    """

    dim: int = 100
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1.0
    num_negatives: int = 64
    loss: str = "nssa"
    margin: float | None = None
    p_norm: int = 2
    scale: float = 10.0
    chunk_size: int = 256
    min_tail_count: int = 2
    valid_fraction: float = 0.05
    max_valid: int = 2000
    learn_held_out: bool = True
    freeze_known: bool = True
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "num_negatives", "chunk_size", "min_tail_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        if self.loss not in LOSSES:
            near = did_you_mean(self.loss, LOSSES)
            raise ConfigError(f"loss={self.loss!r} is none of {', '.join(LOSSES)}{near}.")
        if self.p_norm not in (1, 2):
            raise ConfigError(f"p_norm={self.p_norm}: 1 or 2 are possible.")
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"valid_fraction={self.valid_fraction} must be in [0, 1).")
        if self.learning_rate <= 0 or self.scale < 0 or self.max_valid < 0 or self.patience < 0:
            raise ConfigError("learning_rate must be positive; scale, max_valid, patience not < 0.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)
