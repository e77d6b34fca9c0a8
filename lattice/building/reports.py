"""What building and exchanging tables report: the common part."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.runs import Manifest, StageReport


@dataclass(frozen=True, kw_only=True)
class TableReport(StageReport):
    """The result of a run that writes captions.

    Attributes:
        num_rows: Captions in it.
        num_rejected: Rejected rows of the input.
        rejected: Their number by reason.
        first_reject: Line and reason of the first.
    """

    num_rows: int
    num_rejected: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    first_reject: str = ""

    def up_to_date(self, suffix: str = "") -> str:
        """Return the line for an unchanged output."""
        return f"{self.outcome()}: {self.num_rows:,} captions{suffix}."

    def rejected_lines(self, file: str) -> list[str]:
        """Return the line on rejected rows, if any; `file` is the stem of their file."""
        if not self.num_rejected:
            return []
        return [
            f"  {self.num_rejected:,} rows rejected ({listed(self.rejected)}), kept in "
            f"{file}.rejects.tsv; first: {self.first_reject}"
        ]


def table_fields(out: Path, manifest: Manifest, already_finished: bool) -> dict[str, Any]:
    """Return the fields of `TableReport` from the manifest of a table."""
    counts = manifest.counts
    return {
        "out": out,
        "num_rows": counts["rows"],
        "num_rejected": counts["rejected"],
        "rejected": counts["reasons"],
        "first_reject": counts["first_reject"],
        "already_finished": already_finished,
    }


def listed(counts: dict[str, int]) -> str:
    """Return counts as a line."""
    return ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in counts.items())
