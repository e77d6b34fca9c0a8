"""What an evaluation is: what it was given, what it found, what it left out. Plain values only."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artist.evaluation.clip_score import TextMatch
from artist.evaluation.config import EvaluateConfig
from artist.evaluation.image_metrics import ImageMetrics
from artist.evaluation.likelihood import Likelihood
from artist.evaluation.reconstruction import Reconstruction
from artist.generation.config import SamplingConfig
from data.errors import ConfigError
from data.kg_folder import kg_fingerprint
from data.runs import StageReport, fingerprint, versions


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is measured and by what; everything may be missing, but not all at once.

    Attributes:
        table: A lattice table with images, or with the codes of the model's VQGAN.
        model: The model folder.
        kg: The KG folder it was trained with.
        train_table: The table it was trained on, to know which entities it has seen; models of this
            toolkit know that themselves.
        other_kg: Another KG folder, for a control.
        pictures: Pictures to measure instead of drawing some; see `PictureSet`.
        reference: What pictures are compared with, instead of the table's own; or statistics.
        inception: File of the weights behind FID, KID and IS.
        clip: Folder of a Chinese CLIP.
    """

    table: Path | None = None
    model: Path | None = None
    kg: Path | None = None
    train_table: Path | None = None
    other_kg: Path | None = None
    pictures: Path | None = None
    reference: Path | None = None
    inception: Path | None = None
    clip: Path | None = None

    def __post_init__(self) -> None:
        if self.model is not None and self.table is None:
            raise ConfigError("a model is measured on captions: give a lattice table as TABLE.")
        if self.model is None and self.pictures is None:
            raise ConfigError(
                "there is nothing to measure: give --model and a TABLE, or --pictures."
            )
        if self.model is None and self.inception is None and self.clip is None:
            raise ConfigError("pictures are measured by --inception FILE or --clip FOLDER.")
        for name in ("kg", "train_table", "other_kg"):
            if self.model is None and getattr(self, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} says nothing without a --model.")

    def fingerprints(self) -> dict[str, str]:
        """A name for the content of each that was given."""
        found = {}
        for name, path in vars(self).items():
            if path is not None:
                found[name] = (kg_fingerprint if name.endswith("kg") else fingerprint)(path)
        return found


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """Something that was left out, and what would get it."""

    what: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was measured; None where it was not.

    Attributes:
        likelihood: See `artist.evaluation.likelihood`.
        reconstruction: Of the table's pictures through the model's VQGAN.
        images: FID, KID and IS of the pictures against the reference.
        images_ceiling: The same of the table's pictures through the VQGAN: no model that draws
            with it does better.
        match: Pictures and their captions.
        match_ceiling: The table's own pictures and their captions.
    """

    likelihood: Likelihood | None = None
    reconstruction: Reconstruction | None = None
    images: ImageMetrics | None = None
    images_ceiling: ImageMetrics | None = None
    match: TextMatch | None = None
    match_ceiling: TextMatch | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation, whole.

    Attributes:
        sources: What was measured.
        inputs: Fingerprints of the sources.
        config: How.
        sampling: How pictures were drawn.
        findings: What was found.
        not_measured: What was left out.
        warnings: What a reader of the figures must know.
        versions: Of the software.
        out: Where it is written; None where it is not.
    """

    sources: Sources
    inputs: dict[str, str]
    config: EvaluateConfig
    sampling: SamplingConfig
    findings: Findings
    not_measured: list[NotMeasured]
    warnings: list[str]
    versions: dict[str, str] = field(default_factory=versions)
    out: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Every option that shaped the figures."""
        return {**asdict(self.config), **asdict(self.sampling)}

    def __str__(self) -> str:
        from artist.evaluation.tables import summary

        return "\n".join(summary(self))


@dataclass(frozen=True, kw_only=True)
class Unchanged(StageReport):
    """An evaluation that was finished before."""

    already_finished: bool = True
    summary: list[str]

    def __str__(self) -> str:
        return "\n".join([f"{self.outcome()}:", *self.summary])
