"""The result of an evaluation: sources, settings, findings, warnings. Plain values only."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artist.evaluation.config import EvaluateConfig, Sources
from artist.evaluation.findings import Findings, NotMeasured
from artist.evaluation.tables import summary
from artist.generation.config import SamplingConfig
from data.runs import StageReport, versions


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A complete evaluation.

    Attributes:
        sources: What was measured.
        inputs: Fingerprints of the sources.
        config: How it was measured.
        sampling: How images were generated.
        findings: The measured values.
        not_measured: What was left out.
        warnings: Caveats for readers of the figures.
        versions: Versions of the software.
        out: The folder it is written to, or None.
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
        """All options that affect the figures."""
        return {**asdict(self.config), **self.sampling.as_dict()}

    @property
    def summary(self) -> list[str]:
        """The lines that the command prints."""
        return summary(self.findings, self.warnings, self.not_measured, self.out)

    def __str__(self) -> str:
        return "\n".join(self.summary)


@dataclass(frozen=True, kw_only=True)
class Unchanged(StageReport):
    """An evaluation that an earlier run finished."""

    already_finished: bool = True
    summary: list[str]

    def __str__(self) -> str:
        return "\n".join([f"{self.outcome()}:", *self.summary])
