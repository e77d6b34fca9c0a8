"""CLIP score and R-precision by a Chinese CLIP (Yang et al. 2022).

    N images, each with a caption   E embedding width

The score is the cosine similarity of an image and its caption, times 100. R-precision (Xu et al.
2018, AttnGAN) is the share of images closer to their own caption than to 99 captions of other
images; here its expectation over all choices of those 99 is computed, without random sampling.

Figures of different CLIPs are not comparable. The embeddings come from a
`TextImageScorer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from artist.evaluation.confidence_intervals import Interval, interval

CANDIDATES = 100  # captions per image in R-precision, its own included


@dataclass(frozen=True, kw_only=True)
class TextMatch:
    """Text-image match of a set of images. Field names are JSON keys.

    Attributes:
        n: Number of images.
        score: 100 times the cosine similarity of each image and its caption.
        score_of_others: The same with captions of other images: a lower bound.
        r_precision: Share of the images closest to their own caption among the candidates.
        candidates: Captions per image, its own included.
        chance: R-precision of a random choice.
        clip: Fingerprint of the CLIP.
    """

    n: int
    score: Interval
    score_of_others: Interval
    r_precision: Interval
    candidates: int
    chance: float
    clip: str


def match(
    images: Tensor,
    texts: Tensor,
    captions: Sequence[str],
    *,
    clip: str,
    candidates: int = CANDIDATES,
    clusters: NDArray[np.int64] | None = None,
) -> tuple[TextMatch, NDArray[np.float64]]:
    """Return score and R-precision, and the score of each image (N,).

    Args:
        images: Unit vectors (N, E).
        texts: Unit vectors (N, E) of their captions.
        captions: The captions; equal ones are never candidates for each other.
        clip: Fingerprint of the CLIP.
        candidates: Captions per image; reduced where fewer captions exist.
        clusters: Cluster of each image (N,), for the intervals, in addition to equal captions.
    """
    same = np.unique(np.asarray(captions), return_inverse=True)[1]
    own = 100 * (images * texts).sum(1).double().numpy()  # (N,)
    chosen, floor = np.empty(len(own)), np.empty(len(own))
    rivals = min(candidates - 1, int(len(own) - np.bincount(same).max()))
    for begin in range(0, len(own), 1024):  # (1024, N) at a time
        part = slice(begin, begin + 1024)
        scores = 100 * (images[part] @ texts.T).double().numpy()
        other = same[part, None] != same[None, :]
        # `own` comes from another product, so equal vectors may differ in the last bits.
        won = (other & (scores < own[part, None] - 1e-4)).sum(1)
        chosen[part] = _all_beaten(won, other.sum(1), rivals)
        floor[part] = (scores * other).sum(1) / np.maximum(other.sum(1), 1)
    groups = same if clusters is None else np.stack([clusters, same], axis=1)
    found = TextMatch(
        n=len(own),
        score=interval(own, groups),
        score_of_others=interval(floor, groups) if rivals else Interval(np.nan, np.nan),
        r_precision=interval(chosen, groups),
        candidates=rivals + 1,
        chance=1 / (rivals + 1),
        clip=clip,
    )
    return found, own


def _all_beaten(
    won: NDArray[np.int64], others: NDArray[np.int64], rivals: int
) -> NDArray[np.float64]:
    """Return the probability (N,) that `rivals` captions drawn from `others` are all among `won`.

    It is won! / (won - rivals)! over others! / (others - rivals)!: a product of quotients.
    """
    chance = np.ones(len(won))
    for n in range(rivals):
        chance *= np.maximum(won - n, 0) / np.maximum(others - n, 1)
    return chance
