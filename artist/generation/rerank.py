"""Re-ranking: keep the images of a prompt with the highest text-image score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from artist.generation.text_image_scorer import TextImageScorer
from data.runs import atomic
from data.tsv import one_line


@dataclass(frozen=True)
class Candidate:
    """A generated image of a prompt.

    Attributes:
        file: The image file.
        number: Number of the image, which determines its seed.
        score: 100 times the cosine of image and prompt.
    """

    file: Path
    number: int
    score: float


def rank(
    scorer: TextImageScorer, texts: Sequence[str], files: Sequence[Sequence[Path]]
) -> list[list[Candidate]]:
    """Return the images of each text, highest score first; ties keep their order."""
    text_vectors = scorer.texts(texts)  # (N, E)
    ranked = []
    for vector, row in zip(text_vectors, files, strict=True):
        images = scorer.images(np.asarray(Image.open(file).convert("RGB")) for file in row)
        scores = (100 * images @ vector).tolist()
        found = [Candidate(f, n, s) for n, (f, s) in enumerate(zip(row, scores, strict=True))]
        ranked.append(sorted(found, key=lambda c: -c.score))
    return ranked


def write_scores(
    path: Path, idx: Sequence[str], ranked: Sequence[Sequence[Candidate]], kept: int
) -> None:
    """Write a TSV with a header: id, number, score and rank of each image, and if it is kept."""
    with atomic(path) as file:
        file.write("idx\tnumber\tclip_score\trank\tkept\n")
        for name, row in zip(idx, ranked, strict=True):
            for place, one in enumerate(row, 1):
                cells = (one_line(name), one.number, f"{one.score:.3f}", place, int(place <= kept))
                file.write("\t".join(map(str, cells)) + "\n")
