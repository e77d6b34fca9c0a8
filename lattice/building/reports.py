"""What building and exchanging tables share: reports, metadata, and the end of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import ArtefactError
from data.quoted_rows import quoted_note
from data.runs import Manifest, Run, StageReport
from data.tokenizer import Tokenizer, tokenizer_folder
from data.tsv import Rejects
from lattice.config import LatticeConfig

_REJECTS = ".rejects.tsv"


@dataclass(frozen=True, kw_only=True)
class TableReport(StageReport):
    """The result of a run that writes captions.

    Attributes:
        num_rows: Captions in it.
        num_rejected: Rejected rows of the input.
        rejected: Their number by reason.
        first_reject: Line and reason of the first.
        quoted: The line about rows that look quoted, if any.
    """

    num_rows: int
    num_rejected: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    first_reject: str = ""
    quoted: str = ""

    def up_to_date(self, suffix: str = "") -> str:
        """Return the line for an unchanged output."""
        return f"{self.outcome()}: {self.num_rows:,} captions{suffix}."

    def rejected_lines(self, file: str) -> list[str]:
        """Return the lines on quoted and rejected rows; `file` is the stem of the rejects' file."""
        lines = [f"  {self.quoted}"] if self.quoted else []
        if self.num_rejected:
            lines.append(
                f"  {self.num_rejected:,} rows rejected ({listed(self.rejected)}), kept in "
                f"{file}{_REJECTS}; first: {self.first_reject}"
            )
        return lines


def table_fields(out: Path, manifest: Manifest, already_finished: bool) -> dict[str, Any]:
    """Return the fields of `TableReport` from the manifest of a table."""
    counts = manifest.counts
    return {
        "out": out,
        "num_rows": counts["rows"],
        "num_rejected": counts["rejected"],
        "rejected": counts["reasons"],
        "first_reject": counts["first_reject"],
        "quoted": quoted_note(counts),
        "already_finished": already_finished,
    }


def lattice_metadata(
    kg_fingerprint: str, tokenizer: Tokenizer, config: LatticeConfig
) -> dict[str, Any]:
    """Return the metadata of a lattice table.

    `tokenizer_fingerprint`, `kg_fingerprint` (empty if the names are not from a KG folder), and
    `settings`: the `LatticeConfig` as JSON, with which other texts are matched the same way.
    """
    return {
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "kg_fingerprint": kg_fingerprint,
        "settings": config.settings(),
    }


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise `ArtefactError` instead of an `OSError`, which names `out`."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(f"{out} cannot be written: {error.strerror or error}.") from None


def rejects_of(run: Run) -> Rejects:
    """Return the rejected rows of a run, which are kept next to its table."""
    return Rejects(run.companion(_REJECTS))


def finish_table(run: Run, counts: dict[str, Any], rejects: Rejects) -> Manifest:
    """Finish the run of a single file; remove the rejected rows of a replaced run."""
    manifest = run.finish(counts)
    if not rejects.count:
        run.out.with_name(run.out.name + _REJECTS).unlink(missing_ok=True)
    return manifest


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Save the tokenizer of the table `out` next to it."""
    folder = tokenizer_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)


def listed(counts: dict[str, int]) -> str:
    """Return counts as a line."""
    return ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in counts.items())
