"""The files that every generated world has: a graph, training captions and held-out captions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data.tsv import Rejects, read_rows


@dataclass(frozen=True, kw_only=True)
class WorldFolder:
    """A folder with `triples.tsv`, `train.tsv` and `valid.tsv`.

    Attributes:
        folder: The folder that contains them.
    """

    folder: Path

    @property
    def triples(self) -> Path:
        """The graph, with all entities: `head<TAB>relation<TAB>tail`."""
        return self.folder / "triples.tsv"

    @property
    def train(self) -> Path:
        """Captions and images of the training names: `idx<TAB>text<TAB>image in base64`."""
        return self.folder / "train.tsv"

    @property
    def valid(self) -> Path:
        """Captions and images of the held-out names, in the same format."""
        return self.folder / "valid.tsv"


def read_table(path: Path, columns: int) -> list[list[str]]:
    """Return the fields of all rows of a TSV below its header."""
    return [row.fields for row in read_rows(path, {columns}, Rejects(), header=True)][1:]


def write_tsv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    """Write rows as UTF-8, separated by tabs and `\\n`, without quoting."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)
