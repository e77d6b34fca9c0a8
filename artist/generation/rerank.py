"""Of many pictures of a prompt, those that a Chinese CLIP finds nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from artist.generation.text_image_scorer import ClipScorer
from data.runs import atomic
from data.tsv import one_line


@dataclass(frozen=True)
class Candidate:
    """A picture of a prompt.

    Attributes:
        file: Where it lies.
        number: Which of the prompt's pictures it is; tells its seed.
        score: 100 times the cosine of picture and prompt.
    """

    file: Path
    number: int
    score: float


def rank(
    scorer: ClipScorer, texts: Sequence[str], files: Sequence[Sequence[Path]]
) -> list[list[Candidate]]:
    """The pictures of each text, best first; of equal ones the first drawn is first."""
    wanted = scorer.texts(texts)  # (N, E)
    ranked = []
    for text, row in zip(wanted, files, strict=True):
        pictures = scorer.images(np.asarray(Image.open(file).convert("RGB")) for file in row)
        scores = (100 * pictures @ text).tolist()
        found = [Candidate(f, n, s) for n, (f, s) in enumerate(zip(row, scores, strict=True))]
        ranked.append(sorted(found, key=lambda c: -c.score))
    return ranked


def write_scores(
    path: Path, idx: Sequence[str], ranked: Sequence[Sequence[Candidate]], kept: int
) -> None:
    """A TSV with a header: each picture's prompt, number, score, rank, and whether it was kept."""
    with atomic(path) as file:
        file.write("idx\tnumber\tclip_score\trank\tkept\n")
        for name, row in zip(idx, ranked, strict=True):
            for place, one in enumerate(row, 1):
                cells = (one_line(name), one.number, f"{one.score:.3f}", place, int(place <= kept))
                file.write("\t".join(map(str, cells)) + "\n")
