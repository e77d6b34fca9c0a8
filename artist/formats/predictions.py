"""Files of a predictions folder, and its TSV."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from data.runs import atomic
from data.tsv import one_line

PREDICTIONS = "predictions.tsv"  # idx, text, gen_imgbase64
IMAGES = "images"
GALLERY = "gallery.html"
SCORES = "scores.tsv"  # with re-ranking only


def write_predictions(
    path: Path, idx: Sequence[str], texts: Sequence[str], files: Sequence[Sequence[Path]]
) -> None:
    """Write `idx, text, gen_imgbase64`; several images per row are a JSON list.

    Args:
        path: The TSV.
        idx: Ids of the rows.
        texts: Prompts of the rows.
        files: Image files of each row.
    """
    with atomic(path) as file:
        for name, text, row in zip(idx, texts, files, strict=True):
            images = [base64.b64encode(f.read_bytes()).decode() for f in row]
            cell = images[0] if len(images) == 1 else json.dumps(images)
            file.write(f"{one_line(name)}\t{one_line(text)}\t{cell}\n")
