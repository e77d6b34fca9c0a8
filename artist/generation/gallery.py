"""An HTML page of prompts, the entities matched in them, and the generated images.

The page is self-contained; see `artist.generation.pages`. This module depends on no model: it is
given texts, spans and encoded images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

from artist.generation.pages import template_environment, write_page
from data.images import check_image

_TOKENS_PER_LINE = 14  # longer lattices are broken into lines
_SMALL_IMAGE = 128  # pixels; images up to this width are displayed at 160 CSS pixels, others at 240


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    """An encoded image (PNG, JPEG, WebP or GIF) and its caption.

    Attributes:
        content: The encoded bytes.
        caption: Text below the image.
        right: Adds a tick or a cross; None adds no mark.
    """

    content: bytes
    caption: str = ""
    right: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """Images of one kind, such as `with knowledge`."""

    label: str
    images: Sequence[GalleryImage]


@dataclass(frozen=True, kw_only=True)
class Entity:
    """An entity that covers the tokens `[start, end)`: its name and optionally its type."""

    start: int
    end: int
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A prompt with its lattice and images.

    Attributes:
        prompt: The text.
        tokens: The surfaces of its tokens; empty hides the lattice.
        entities: The matched entities; they may overlap.
        badges: Short highlighted remarks, such as `never seen in training`.
        note: A remark next to the badges.
        rows: The images.
    """

    prompt: str
    tokens: Sequence[str] = ()
    entities: Sequence[Entity] = ()
    badges: Sequence[str] = ()
    note: str = ""
    rows: Sequence[ImageRow] = ()

    @property
    def is_single(self) -> bool:
        """Whether every row has one image, so that rows fit next to each other."""
        return all(len(row.images) == 1 for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Note:
    """A short paragraph with a heading, before the cards."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """A table of figures; the first column labels the rows.

    Attributes:
        title: The heading.
        header: One text per column.
        rows: Cells, one per column.
        best: Index of the row to highlight.
        note: Text below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None
    note: str = ""


def write_gallery(
    path: Path,
    *,
    title: str,
    subtitle: str = "",
    cards: Sequence[Card],
    notes: Sequence[Note] = (),
    table: ComparisonTable | None = None,
    footer: str = "",
) -> None:
    """Write the page atomically.

    Args:
        path: The HTML file.
        title: Heading and title of the page.
        subtitle: A sentence or two below it.
        cards: The prompts, in display order.
        notes: Paragraphs between the heading and the cards.
        table: Figures, after the notes.
        footer: Credits and licences, a paragraph per line.

    Raises:
        InputError: An image has a format that browsers do not display.
    """
    write_page(
        path,
        gallery_environment(),
        "gallery.html.j2",
        title=title,
        subtitle=subtitle,
        cards=cards,
        num_images=sum(len(row.images) for card in cards for row in card.rows),
        notes=notes,
        table=table,
        footer=footer,
        sizes=card_sizes(cards),
    )


@cache
def gallery_environment(*folders: Path) -> Environment:
    """Return a template environment with the parts of a gallery; see `template_environment`."""
    environment = template_environment(*folders)
    environment.globals["lattice_lines"] = lattice_lines
    return environment


class CardSizes(NamedTuple):
    """Display width of an image and of a card, in CSS pixels."""

    image: int
    card: int


def card_sizes(cards: Sequence[Card]) -> CardSizes:
    """Return the display widths for a page of these cards."""
    rows = [row for card in cards for row in card.rows]
    widest = max((check_image(i.content)[0] for row in rows for i in row.images), default=0)
    image = 160 if widest <= _SMALL_IMAGE else 240
    columns = max((len(row.images) for row in rows), default=1)
    if columns <= 1:  # rows of one image are placed next to each other
        columns = max((len(card.rows) for card in cards), default=1)
    columns = min(max(columns, 2), 4)
    return CardSizes(image, columns * image + (columns - 1) * 20 + 50)


class Bar(NamedTuple):
    """An entity in a line: grid row `lane`, grid columns `[first, last)`, all from 1."""

    entity: Entity
    lane: int
    first: int
    last: int
    starts_earlier: bool  # in a line above
    ends_later: bool  # in a line below


class LatticeLine(NamedTuple):
    """A line of tokens, each with whether an entity covers it, and the bars above it."""

    bars: list[Bar]
    num_lanes: int
    tokens: list[tuple[str, bool]]


def lattice_lines(tokens: Sequence[str], entities: Sequence[Entity]) -> list[LatticeLine]:
    """Break a lattice into lines of up to 14 tokens."""
    for entity in entities:
        assert 0 <= entity.start < entity.end <= len(tokens), f"{entity} is outside of {tokens}"
    return [
        _line(tokens, entities, begin, min(begin + _TOKENS_PER_LINE, len(tokens)))
        for begin in range(0, len(tokens), _TOKENS_PER_LINE)
    ]


def _line(tokens: Sequence[str], entities: Sequence[Entity], begin: int, end: int) -> LatticeLine:
    """Lay out tokens `[begin, end)`; the longest entities get the lanes nearest to the tokens."""
    here = [e for e in entities if e.start < end and e.end > begin]
    lanes: list[list[Entity]] = []
    for entity in sorted(here, key=lambda e: (e.start - e.end, e.start)):
        free = (lane for lane in lanes if not any(_overlap(entity, other) for other in lane))
        lane = next(free, None)
        if lane is None:
            lanes.append([entity])
        else:
            lane.append(entity)
    bars = [
        Bar(
            entity,
            lane=number,
            first=max(entity.start, begin) - begin + 1,
            last=min(entity.end, end) - begin + 1,
            starts_earlier=entity.start < begin,
            ends_later=entity.end > end,
        )
        for number, lane in enumerate(reversed(lanes), 1)
        for entity in sorted(lane, key=lambda e: e.start)
    ]
    covered = [any(e.start <= n < e.end for e in here) for n in range(begin, end)]
    return LatticeLine(bars, len(lanes), list(zip(tokens[begin:end], covered, strict=True)))


def _overlap(a: Entity, b: Entity) -> bool:
    return a.start < b.end and b.start < a.end
