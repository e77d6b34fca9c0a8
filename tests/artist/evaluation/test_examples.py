"""The captions and images that a report shows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artist.evaluation.examples import choose, clip_parts
from artist.evaluation.image_sets import CaptionedImage
from artist.evaluation.likelihood import GIVEN, NONE, Likelihood


def likelihood(given_: list[float], none: list[float] | None) -> Likelihood:
    rows = {GIVEN: np.array(given_)} | ({NONE: np.array(none)} if none is not None else {})
    return Likelihood(
        groups={},
        image_len=4,
        codebook_size=8,
        shuffles=0,
        shuffle_spread=None,
        other_kg_known=None,
        rows=rows,
        positions=np.zeros(4),
        images=np.arange(len(given_)),
        clustered="",
    )


def test_extremes_of_likelihood_and_of_the_gain_by_entities_are_shown():
    found = likelihood([3, 1, 2, 5, 4, 6], [3.5, 1, 2, 5, 3.1, 6])
    parts = {part.title: part.rows for part in choose(found, np.arange(6), 1)}
    assert parts == {
        "Most likely": [1],
        "Least likely": [5],
        "Where the entities helped most": [0],
        "Where the entities harmed most": [4],
    }
    parts = choose(likelihood([3, 1, 2], None), np.arange(3), 1)
    assert [part.title for part in parts] == ["Most likely", "Least likely"]


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.integers(0, 5))
def test_no_caption_is_shown_twice_and_only_first_captions_of_an_image_are(losses, count):
    found = likelihood(losses, losses[::-1])
    first = np.arange(0, len(losses), 2)
    shown = [row for part in choose(found, first, count) for row in part.rows]
    assert len(shown) == len(set(shown)) == min(4 * count, len(first))
    assert set(shown) <= set(first.tolist())


def test_the_best_and_the_worst_matching_images_are_shown_once_each():
    pixels = np.zeros((4, 4, 3), np.uint8)
    images = [CaptionedImage(idx, None if idx == "a" else f"图{idx}", pixels) for idx in "abcda"]
    scores = {"a": 30.0, "b": 10.0, "c": 20.0, "d": 5.0}
    best, worst = clip_parts(images, {"a": "象"}, scores, 2)
    assert [card.prompt for card in best.cards] == ["象", "图c"]
    assert [card.note for card in worst.cards] == ["score 5.00", "score 10.00"]
    (only,) = clip_parts(images, {"a": "象"}, {"a": 30.0}, 2)
    assert len(only.cards) == 1
