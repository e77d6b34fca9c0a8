"""Example captions for the report: extremes by likelihood, by the cost of a control, by CLIP score.

Each is shown with its true image, the reconstruction, and images generated with its entities,
without them, and with wrong vectors, all from one seed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from artist.evaluation.controls import has_unseen, shuffled_vectors
from artist.evaluation.image_sets import CaptionedImage
from artist.evaluation.inputs import Inputs
from artist.evaluation.likelihood import GIVEN, NONE, SHUFFLED, Likelihood
from artist.evaluation.reconstruction import Reconstruction, decoded
from artist.generation.artist_pipeline import Artist
from artist.generation.config import SamplingConfig
from artist.generation.gallery import Card, GalleryImage, ImageRow
from artist.generation.image_files import image_seed
from artist.generation.prompt_cards import prompt_card
from data.images import encode_png


class Part(NamedTuple):
    """A part of the report: heading, how the captions were chosen, and their cards."""

    title: str
    note: str
    cards: list[Card]


class _Choice(NamedTuple):
    """A part before its images are generated: heading, note, and rows of the table."""

    title: str
    note: str
    rows: list[int]


def choose(found: Likelihood, first_rows: NDArray[np.int64], count: int) -> list[_Choice]:
    """Return the rows of each part, at most `count` each; no image occurs twice."""
    given = found.rows[GIVEN][first_rows]
    wanted = [
        ("Most likely", "Lowest loss.", given),
        ("Least likely", "Highest loss.", -given),
    ]
    if NONE in found.rows:
        gain = found.rows[NONE][first_rows] - given
        note = "Extreme values: among many captions some differ by chance."
        wanted += [
            ("Where the entities helped most", note, -gain),
            ("Where the entities harmed most", note, gain),
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


def likelihood_parts(
    inputs: Inputs,
    found: Likelihood,
    reconstruction: Reconstruction | None,
    *,
    count: int,
    sampling: SamplingConfig,
    seed: int,
) -> list[Part]:
    """Return the parts of the report that are chosen by likelihood, with images."""
    choices = choose(found, inputs.first_rows, count)
    rows = sorted({row for choice in choices for row in choice.rows})
    if not rows:
        return []
    images = dict(_image_rows(inputs, rows, sampling, seed))
    psnr_of = _psnr_by_row(inputs, reconstruction)
    return [
        Part(
            choice.title,
            choice.note,
            [_card(inputs, found, row, images[row], psnr_of) for row in choice.rows],
        )
        for choice in choices
    ]


def _psnr_by_row(inputs: Inputs, reconstruction: Reconstruction | None) -> dict[int, float]:
    """Return the PSNR of each image by its first row."""
    if reconstruction is None:
        return {}
    return dict(zip(inputs.first_rows.tolist(), reconstruction.psnr_of.tolist(), strict=True))


def _image_rows(
    inputs: Inputs, rows: list[int], sampling: SamplingConfig, seed: int
) -> Iterator[tuple[int, list[ImageRow]]]:
    """Yield each row and its images."""
    originals = _originals(inputs, rows) if inputs.has_images else {}
    codes = inputs.rows.codes[np.array(rows)]
    reconstructions = dict(zip(rows, decoded(inputs.model.image_tokenizer, codes), strict=True))
    generated = {
        label: dict(zip(rows, made, strict=True))
        for label, made in _generate(inputs, rows, sampling, seed)
    }
    for row in rows:
        shown = {"true image": originals.get(row), "reconstruction": reconstructions[row]}
        shown |= {label: made[row] for label, made in generated.items()}
        yield (
            row,
            [
                ImageRow(label=label, images=[GalleryImage(content=encode_png(pixels))])
                for label, pixels in shown.items()
                if pixels is not None
            ],
        )


def _originals(inputs: Inputs, rows: list[int]) -> Mapping[int, NDArray[np.uint8]]:
    pairs = zip(inputs.first_rows.tolist(), inputs.originals(), strict=True)
    wanted = set(rows)
    return {row: image.pixels for row, image in pairs if row in wanted}


def _generate(
    inputs: Inputs, rows: list[int], sampling: SamplingConfig, seed: int
) -> Iterable[tuple[str, NDArray[np.uint8]]]:
    """Yield images (B, H, W, 3) of the rows as given and under each control, from equal seeds."""
    seeds = [image_seed(seed, inputs.rows.idx[row], 0) for row in rows]
    artist = Artist(inputs.model, inputs.vectors)
    if inputs.model.gpt.config.fusion == "none":
        yield "generated", artist.draw(inputs.rows, rows, seeds, sampling)
        return
    yield "with entities", artist.draw(inputs.rows, rows, seeds, sampling)
    yield "without entities", artist.draw(inputs.rows, rows, seeds, sampling, use_entities=False)
    wrong = Artist(inputs.model, shuffled_vectors(inputs.rows, inputs.vectors, seed))
    yield "with wrong vectors", wrong.draw(inputs.rows, rows, seeds, sampling)


def _card(
    inputs: Inputs,
    found: Likelihood,
    row: int,
    image_rows: list[ImageRow],
    psnr_of: Mapping[int, float],
) -> Card:
    notes = [f"{found.rows[GIVEN][row]:.3f} nats per code"]
    for name, label in ((NONE, "without entities"), (SHUFFLED, "with wrong vectors")):
        if name in found.rows:
            notes.append(f"{found.rows[name][row] - found.rows[GIVEN][row]:+.4f} {label}")
    if row in psnr_of:
        notes.append(f"PSNR {psnr_of[row]:.1f} dB")
    badges = []
    if inputs.seen_entities is not None and has_unseen(inputs.rows, inputs.seen_entities)[row]:
        badges.append("entity never seen in training")
    return prompt_card(
        inputs.model.tokenizer,
        inputs.model.gpt.config.text_len,
        inputs.rows,
        row,
        inputs.names,
        rows=image_rows,
        badges=badges,
        note="; ".join(notes),
    )


def clip_parts(
    images: Iterable[CaptionedImage],
    captions: Mapping[str, str],
    scores: Mapping[str, float],
    count: int,
) -> list[Part]:
    """Return the images with the highest and the lowest CLIP score.

    Args:
        images: The set that was scored, read again.
        captions: By idx, for images without a caption.
        scores: By idx.
        count: Images per part.
    """
    ranked = sorted(scores, key=lambda idx: -scores[idx])
    best = ranked[:count]
    worst = [idx for idx in ranked[::-1][:count] if idx not in best]
    wanted, cards = {*best, *worst}, dict[str, Card]()
    for image in images:
        if image.idx in wanted and image.idx not in cards:
            content = GalleryImage(content=encode_png(image.pixels))
            cards[image.idx] = Card(
                prompt=image.text or captions[image.idx],
                note=f"score {scores[image.idx]:.2f}",
                rows=[ImageRow(label="", images=[content])],
            )
    parts = (
        Part("Best matches", "Highest Chinese CLIP score.", [cards[idx] for idx in best]),
        Part("Worst matches", "Lowest Chinese CLIP score.", [cards[idx] for idx in worst]),
    )
    return [part for part in parts if part.cards]
