"""Errors that a user can cause and fix. All other exceptions are bugs and keep their traceback."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

_LONGEST = 2500  # characters of a message, which can quote a damaged file


class ToolkitError(Exception):
    """Wrong input, option or file: `cli.main` prints one line and exits with 2."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[:2000]} [...] {text[-400:]}"


class ConfigError(ToolkitError):
    """An option or a configuration value cannot be used."""


class InputError(ToolkitError):
    """A given file or folder cannot be read, or has the wrong content."""


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
    """A table does not have the columns, types or version that its reader expects."""


class ArtefactError(ToolkitError):
    """An output already exists, is damaged, or belongs to another run."""


class Interrupted(ToolkitError):  # noqa: N818 (not an error)
    """The user stopped a run, and its state is saved; `cli.main` exits with 130."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a clause such as `; did you mean "lattice"?`, or "" if no known word is similar."""
    near = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
