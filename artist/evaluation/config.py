"""How a model and its images are measured: settings, defaults and limits. Imports no torch."""

from dataclasses import dataclass

from data.errors import ConfigError

FID_LIKE = ("pytorch-fid", "clean-fid", "torch-fidelity")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a model and its pictures are measured; every figure depends on some of this.

    Attributes:
        shuffles: How many times vectors are dealt to the wrong entities.
        draw: Draw so many captions for image metrics and text match; None means all.
        fid_like: Whose resizing FID, KID and IS follow; see
            `artist.evaluation.fid_kid_is.prepare`.
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
