"""How well pictures match their captions, by a Chinese CLIP (Yang et al. 2022) given as a folder.

    N pictures, each with a caption   E width of the common space

The score is the cosine of a picture and its caption, times 100. R-precision (Xu et al. 2018,
AttnGAN) asks whether a picture's own caption is nearer to it than 99 captions of other pictures;
here its expectation over all choices of those 99 is computed, so nothing is drawn at random.

Both belong to one CLIP: figures of two CLIPs never compare. This file knows nothing of models that
draw; whoever wants to re-rank candidates asks `ClipScorer.images` and `ClipScorer.texts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from artist.evaluation.intervals import Interval, interval

CANDIDATES = 100  # captions that a picture is compared with, its own among them


@dataclass(frozen=True, kw_only=True)
class TextMatch:
    """How well pictures match their captions.

    Attributes:
        n: Pictures.
        score: 100 times the cosine of each picture and its caption.
        score_of_others: The same with a caption of another picture: the floor.
        r_precision: Share of the pictures that are nearest to their own caption among candidates.
        candidates: Captions each is compared with, its own among them.
        chance: R-precision of a blind choice.
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
) -> tuple[TextMatch, NDArray[np.float64]]:
    """Score and R-precision, and the score of each picture (N,).

    Args:
        images: Unit vectors (N, E).
        texts: Unit vectors (N, E) of their captions.
        captions: The captions; equal ones are no rivals of each other.
        clip: Fingerprint of the CLIP.
        candidates: How many captions each picture is compared with; fewer where there are fewer.
    """
    same = np.unique(np.asarray(captions), return_inverse=True)[1]
    own = 100 * (images * texts).sum(1).double().numpy()  # (N,)
    chosen, floor = np.empty(len(own)), np.empty(len(own))
    rivals = min(candidates - 1, int(len(own) - np.bincount(same).max()))
    for begin in range(0, len(own), 1024):  # (1024, N) at a time
        part = slice(begin, begin + 1024)
        scores = 100 * (images[part] @ texts.T).double().numpy()
        other = same[part, None] != same[None, :]
        # Computed by another product than `own`, equal vectors may differ in the last bits.
        won = (other & (scores < own[part, None] - 1e-4)).sum(1)
        chosen[part] = _all_beaten(won, other.sum(1), rivals)
        floor[part] = (scores * other).sum(1) / np.maximum(other.sum(1), 1)
    found = TextMatch(
        n=len(own),
        score=interval(own, same),
        score_of_others=interval(floor, same) if rivals else Interval(np.nan, np.nan),
        r_precision=interval(chosen, same),
        candidates=rivals + 1,
        chance=1 / (rivals + 1),
        clip=clip,
    )
    return found, own


def _all_beaten(
    won: NDArray[np.int64], others: NDArray[np.int64], rivals: int
) -> NDArray[np.float64]:
    """The chance that `rivals` captions drawn from `others` are all among the `won` (N,).

    That is won! / (won - rivals)! over the same of others: a product of `rivals` quotients.
    """
    chance = np.ones(len(won))
    for n in range(rivals):
        chance *= np.maximum(won - n, 0) / np.maximum(others - n, 1)
    return chance
