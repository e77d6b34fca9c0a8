"""Datasets of TSV rows `idx<TAB>text<TAB>base64`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from data.datasets.captions import join_words
from data.datasets.config import SetOptions
from data.datasets.file_names import files_of_split, list_files, only_one
from data.datasets.samples import ImageTextDataset, Sample
from data.errors import InputError
from data.images import decode_base64
from data.runs import sha256
from data.tsv import Rejects, read_rows


@dataclass
class TsvDataset(ImageTextDataset):
    """Rows of `idx<TAB>text<TAB>base64`, the format of this toolkit and of EasyNLP."""

    path: Path
    options: SetOptions
    format: str = "tsv"
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.description = f"tsv: rows of {self.path}"

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """See `ImageTextDataset`."""
        wide = (3,) if self.options.with_images else (2, 3)
        for line, fields in read_rows(self.path, wide, rejects):
            image = partial(decode_base64, fields[2]) if self.options.with_images else None
            text = join_words(fields[1]) if self.options.join_words else fields[1]
            yield Sample(line, fields[0], text, image, line)

    def inputs(self) -> dict[str, str]:
        """See `ImageTextDataset`."""
        return {"rows": sha256(self.path)}


def find_tsv(
    source: Path, options: SetOptions, images: Path | None, ids: Path | None
) -> TsvDataset | None:
    """Return a TSV of rows, or the one of the split in a folder."""
    if images is not None or ids is not None or options.captions == "first":
        return None
    if source.is_file():
        return TsvDataset(source, options) if _columns(source) == 3 else None
    files = [f for f in files_of_split(list_files(source, 1), options.split) if f.suffix == ".tsv"]
    whole = [f for f in files if _columns(f) == 3]
    return TsvDataset(only_one(whole, "file of rows", "SOURCE"), options) if whole else None


def _columns(path: Path) -> int:
    """Return the number of columns that most of the first rows have; 0 if unreadable."""
    try:
        head = [len(row.fields) for row in islice(read_rows(path, (1, 2, 3), Rejects()), 20)]
    except InputError:
        return 0
    return max(head, key=head.count, default=0)
