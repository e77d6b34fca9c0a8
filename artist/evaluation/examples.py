"""Captions worth looking at: the model's best and worst, and where knowledge mattered most.

Each is shown with its true picture, that picture through the VQGAN, and what the model draws with
its entities, without them, and with wrong vectors, all from one seed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from artist.evaluation.image_sets import Picture as Seen
from artist.evaluation.inputs import Inputs
from artist.evaluation.likelihood import (
    GIVEN,
    NONE,
    SHUFFLED,
    Likelihood,
    has_unseen,
    shuffled_vectors,
)
from artist.evaluation.reconstruction import Reconstruction, decoded
from artist.generation.config import SamplingConfig
from artist.generation.gallery import Card, Picture, PictureRow
from artist.generation.predict import Artist, picture_seed, prompt_card
from data.images import encode_png


class Part(NamedTuple):
    """A part of the report: its heading, what was chosen, and the cards."""

    title: str
    note: str
    cards: list[Card]


class _Choice(NamedTuple):
    title: str
    note: str
    rows: list[int]


def choose(found: Likelihood, first_rows: NDArray[np.int64], count: int) -> list[_Choice]:
    """The rows of each part, `count` in each, every picture once, none in two parts."""
    given = found.rows[GIVEN][first_rows]
    wanted = [
        ("Most likely", "Lowest loss: what the model finds easiest.", given),
        ("Least likely", "Highest loss: what surprises it most.", -given),
    ]
    if NONE in found.rows:
        saved = found.rows[NONE][first_rows] - given
        chosen = "Chosen for being extreme: among many captions some differ by chance."
        wanted += [
            ("Where the entities helped most", chosen, -saved),
            ("Where the entities harmed most", chosen, saved),
        ]
    taken: set[int] = set()
    parts = []
    for title, note, order in wanted:
        ranked = first_rows[np.argsort(order, kind="stable")].tolist()
        rows = [row for row in ranked if row not in taken][:count]
        taken.update(rows)
        if rows:
            parts.append(_Choice(title, note, rows))
    return parts


def examples(
    inputs: Inputs,
    found: Likelihood,
    reconstruction: Reconstruction | None,
    *,
    count: int,
    sampling: SamplingConfig,
    seed: int,
) -> list[Part]:
    """The parts of the report, with pictures."""
    choices = choose(found, inputs.first_rows, count)
    rows = sorted({row for choice in choices for row in choice.rows})
    if not rows:
        return []
    pictures = dict(_pictures(inputs, rows, sampling, seed))
    near = _by_row(inputs, reconstruction)
    return [
        Part(
            choice.title,
            choice.note,
            [_card(inputs, found, row, pictures[row], near) for row in choice.rows],
        )
        for choice in choices
    ]


def _by_row(inputs: Inputs, reconstruction: Reconstruction | None) -> dict[int, float]:
    """PSNR of the first row of each picture."""
    if reconstruction is None:
        return {}
    return dict(zip(inputs.first_rows.tolist(), reconstruction.psnr_of.tolist(), strict=True))


def _pictures(
    inputs: Inputs, rows: list[int], sampling: SamplingConfig, seed: int
) -> Iterator[tuple[int, list[PictureRow]]]:
    """Each row's pictures, by row."""
    true = _true_pictures(inputs, rows) if inputs.has_images else {}
    codes = inputs.rows.codes[np.array(rows)]
    again = dict(zip(rows, decoded(inputs.model.image_tokenizer, codes), strict=True))
    drawn = {
        label: dict(zip(rows, made, strict=True))
        for label, made in _draw(inputs, rows, sampling, seed)
    }
    for row in rows:
        shown = {"true picture": true.get(row), "through the VQGAN": again[row]}
        shown |= {label: made[row] for label, made in drawn.items()}
        yield (
            row,
            [
                PictureRow(label=label, pictures=[Picture(content=encode_png(pixels))])
                for label, pixels in shown.items()
                if pixels is not None
            ],
        )


def _true_pictures(inputs: Inputs, rows: list[int]) -> Mapping[int, NDArray[np.uint8]]:
    pairs = zip(inputs.first_rows.tolist(), inputs.originals(), strict=True)
    wanted = set(rows)
    return {row: picture.pixels for row, picture in pairs if row in wanted}


def _draw(
    inputs: Inputs, rows: list[int], sampling: SamplingConfig, seed: int
) -> Iterable[tuple[str, NDArray[np.uint8]]]:
    """Pictures (B, H, W, 3) of the rows for each way of telling, all from the same seeds."""
    seeds = [picture_seed(seed, inputs.rows.idx[row], 0) for row in rows]
    artist = Artist(inputs.model, inputs.vectors)
    if inputs.model.gpt.config.fusion == "none":
        yield "drawn", artist.draw(inputs.rows, rows, seeds, sampling)
        return
    yield "drawn with entities", artist.draw(inputs.rows, rows, seeds, sampling)
    yield "without", artist.draw(inputs.rows, rows, seeds, sampling, use_entities=False)
    wrong = Artist(inputs.model, shuffled_vectors(inputs.rows, inputs.vectors, seed))
    yield "with wrong vectors", wrong.draw(inputs.rows, rows, seeds, sampling)


def _card(
    inputs: Inputs,
    found: Likelihood,
    row: int,
    pictures: list[PictureRow],
    psnr_of: Mapping[int, float],
) -> Card:
    notes = [f"{found.rows[GIVEN][row]:.3f} nats per code"]
    for name, label in ((NONE, "without entities"), (SHUFFLED, "with wrong vectors")):
        if name in found.rows:
            notes.append(f"{found.rows[name][row] - found.rows[GIVEN][row]:+.4f} {label}")
    if row in psnr_of:
        notes.append(f"VQGAN {psnr_of[row]:.1f} dB")
    badges = []
    if inputs.seen_entities is not None and has_unseen(inputs.rows, inputs.seen_entities)[row]:
        badges.append("entity never seen in training")
    return prompt_card(
        inputs.model,
        inputs.rows,
        row,
        inputs.names,
        rows=pictures,
        badges=badges,
        note="; ".join(notes),
    )


def matches(
    pictures: Iterable[Seen], captions: Mapping[str, str], scores: Mapping[str, float], count: int
) -> list[Part]:
    """The pictures that match their captions best and worst, by a CLIP's score.

    Args:
        pictures: The set that was scored, read again.
        captions: For pictures that do not tell theirs, by idx.
        scores: By idx.
        count: How many of each.
    """
    ranked = sorted(scores, key=lambda idx: -scores[idx])
    best = ranked[:count]
    worst = [idx for idx in ranked[::-1][:count] if idx not in best]
    wanted, cards = {*best, *worst}, dict[str, Card]()
    for picture in pictures:
        if picture.idx in wanted and picture.idx not in cards:
            content = Picture(content=encode_png(picture.pixels))
            cards[picture.idx] = Card(
                prompt=picture.text or captions[picture.idx],
                note=f"score {scores[picture.idx]:.2f}",
                rows=[PictureRow(label="", pictures=[content])],
            )
    parts = (
        Part("Best matches", "Highest Chinese CLIP score.", [cards[idx] for idx in best]),
        Part("Worst matches", "Lowest Chinese CLIP score.", [cards[idx] for idx in worst]),
    )
    return [part for part in parts if part.cards]
