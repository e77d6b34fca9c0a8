"""The errors a user can cause, and can mend. Everything else is a bug and keeps its traceback."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class ToolkitError(Exception):
    """Something in the user's world is wrong: `cli.main` prints the one line and exits 2."""


class ConfigError(ToolkitError):
    """An option or a configuration value cannot be used."""


class InputError(ToolkitError):
    """A file or folder that was given cannot be read, or does not hold what it should."""


@dataclass(frozen=True, order=True, slots=True)
class SkipReason:
    """Why a row is skipped.

    Attributes:
        kind: The same text for all rows with the same fault; rejects are counted by it.
        detail: What is wrong with this row.
    """

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class RowError(InputError):
    """One row, or its image, cannot be used; a reader of many rows skips it and counts `reason`."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.reason = SkipReason(kind, detail)

    def __str__(self) -> str:
        return str(self.reason)


class SchemaError(InputError):
    """A table has other columns, types or versions than its reader expects."""


class ArtefactError(ToolkitError):
    """An output is in the way, is damaged, or belongs to another run."""


class Interrupted(ToolkitError):  # noqa: N818 (it is no error of anybody's)
    """The user stopped a run; what was done is saved. `cli.main` exits 130."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause such as `; did you mean "lattice"?`, or nothing when no known word is near."""
    near = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
