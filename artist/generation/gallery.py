"""One HTML page that shows prompts, what the lattice found in them, and the pictures they became.

The page stands alone: pictures are data URIs, there is no script, and a content security policy
forbids it to fetch anything. Every text that comes from outside is escaped. This module knows
nothing of models: it is given texts, spans and encoded pictures.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from data.errors import InputError
from data.images import check_image
from data.runs import atomic

_TOKENS_PER_LINE = 14  # a longer lattice is broken into lines
_LONG_PROMPT = 18  # characters; longer ones are set smaller
_SMALL_PICTURE = 128  # pixels; up to this size a picture is enlarged on the page


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded image (PNG, JPEG, WebP or GIF) and what is said under it.

    Attributes:
        content: The encoded bytes.
        caption: Such as its seed.
        right: Marks it with a tick or a cross; None leaves it unmarked.
    """

    content: bytes
    caption: str = ""
    right: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures made in one way, such as `with knowledge`."""

    label: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Entity:
    """An entity over the tokens `[start, end)`: its name and, perhaps, what it is."""

    start: int
    end: int
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One prompt and everything that came of it.

    Attributes:
        prompt: The text as given.
        tokens: The surfaces of its tokens; empty hides the lattice.
        entities: What the lattice matched; they may overlap.
        badges: Short remarks that stand out, such as `never seen in training`.
        note: A quiet remark beside the badges.
        rows: The pictures.
    """

    prompt: str
    tokens: Sequence[str] = ()
    entities: Sequence[Entity] = ()
    badges: Sequence[str] = ()
    note: str = ""
    rows: Sequence[PictureRow] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """A short paragraph with a heading, shown before the cards."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """Measured figures: the first column names what was measured.

    Attributes:
        title: The heading.
        header: One text per column.
        rows: As many cells each as the header.
        best: The row to set off, counted from 0.
        note: How it was measured.
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
    """Write the page to `path`, whole or not at all.

    Args:
        path: The HTML file.
        title: The heading, and the name of the page.
        subtitle: A sentence or two under it.
        cards: The prompts, in the order in which they are shown.
        notes: Paragraphs between the heading and the cards.
        table: Figures, shown after the notes.
        footer: Credits and licences, a paragraph per line.

    Raises:
        InputError: A picture is no image that browsers show.
    """
    page = _page(title, subtitle, cards, notes, table, footer)
    with atomic(path) as file:
        file.write(page)


def _page(
    title: str,
    subtitle: str,
    cards: Sequence[Card],
    notes: Sequence[Note],
    table: ComparisonTable | None,
    footer: str,
) -> str:
    pictures = [p for card in cards for row in card.rows for p in row.pictures]
    tally = f"{_count(len(cards), 'prompt')}, {_count(len(pictures), 'picture')}"
    parts = [notes_html(notes), table_html(table) if table is not None else "", cards_html(cards)]
    return html_page(
        title,
        "".join(parts),
        subtitle=subtitle,
        tally=tally,
        footer=footer,
        style=card_sizes(cards),
    )


def html_page(
    title: str,
    body: str,
    *,
    subtitle: str = "",
    tally: str = "",
    footer: str = "",
    style: str = "",
) -> str:
    """A page of our look that stands alone: no script, nothing fetched.

    Args:
        title: The heading, and the name of the page.
        body: Markup, such as `table_html` and `cards_html` give it.
        subtitle: A sentence or two under the heading.
        tally: A quiet line under that.
        footer: A paragraph per line.
        style: CSS after that of the gallery.
    """
    look = Path(__file__).with_name("gallery.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{look}{style}</style>\n</head>\n<body>\n",
        f'<header class="opening">\n<h1>{_text(title)}</h1>\n',
        f'<p class="subtitle">{_text(subtitle)}</p>\n' if subtitle else "",
        f'<p class="tally">{_text(tally)}</p>\n' if tally else "",
        "</header>\n",
        body,
        f'<footer class="closing">\n{_paragraphs(footer)}</footer>\n' if footer else "",
    ]
    return "".join(parts) + "</body>\n</html>\n"


def notes_html(notes: Sequence[Note]) -> str:
    """Notes side by side; nothing for none."""
    if not notes:
        return ""
    paragraphs = (f"<div><h2>{_text(n.title)}</h2>{_paragraphs(n.text)}</div>\n" for n in notes)
    return f'<section class="notes">\n{"".join(paragraphs)}</section>\n'


def cards_html(cards: Sequence[Card]) -> str:
    """Cards in a grid."""
    return f'<main class="cards">\n{"".join(map(_card, cards))}</main>\n'


def card_sizes(cards: Sequence[Card]) -> str:
    """How wide a picture and a card are on this page, as CSS."""
    rows = [row for card in cards for row in card.rows]
    widest = max((check_image(p.content)[0] for row in rows for p in row.pictures), default=0)
    picture = 160 if widest <= _SMALL_PICTURE else 240
    in_a_row = max((len(row.pictures) for row in rows), default=1)
    if in_a_row <= 1:  # rows of one picture stand side by side
        in_a_row = max((len(card.rows) for card in cards), default=1)
    beside = min(max(in_a_row, 2), 4)
    card = beside * picture + (beside - 1) * 20 + 50
    return f":root {{ --picture: {picture}px; --card: {card}px; }}\n"


def _card(card: Card) -> str:
    long = " long" if len(card.prompt) > _LONG_PROMPT else ""
    badges = "".join(f'<span class="badge">{_text(badge)}</span>' for badge in card.badges)
    note = f"<span>{_text(card.note)}</span>" if card.note else ""
    about = f'<p class="about">{badges}{note}</p>\n' if badges or note else ""
    single = all(len(row.pictures) == 1 for row in card.rows)
    rows = "".join(_row(row, "row single" if single else "row") for row in card.rows)
    rows = f'<div class="rows">{rows}</div>' if rows else ""
    return (
        '<article class="card">\n'
        f'<h2 class="prompt{long}" lang="zh-Hans" dir="auto">{_text(card.prompt)}</h2>\n'
        f"{about}{_lattice(card.tokens, card.entities)}"
        f"{rows}</article>\n"
    )


def _lattice(tokens: Sequence[str], entities: Sequence[Entity]) -> str:
    """The tokens in lines, above each line the entities that reach into it."""
    for entity in entities:
        assert 0 <= entity.start < entity.end <= len(tokens), f"{entity} is outside of {tokens}"
    if not tokens:
        return ""
    lines = [
        _line(tokens, entities, begin, min(begin + _TOKENS_PER_LINE, len(tokens)))
        for begin in range(0, len(tokens), _TOKENS_PER_LINE)
    ]
    return f'<div class="lattice" lang="zh-Hans">{"".join(lines)}</div>\n'


def _line(tokens: Sequence[str], entities: Sequence[Entity], begin: int, end: int) -> str:
    """Tokens `[begin, end)` as one grid: entities in lanes, the longest nearest to the tokens."""
    here = [e for e in entities if e.start < end and e.end > begin]
    lanes: list[list[Entity]] = []
    for entity in sorted(here, key=lambda e: (e.start - e.end, e.start)):
        free = (lane for lane in lanes if all(not _overlap(entity, other) for other in lane))
        lane = next(free, None)
        if lane is None:
            lanes.append([entity])
        else:
            lane.append(entity)
    bars = []
    for number, lane in enumerate(reversed(lanes), 1):
        for entity in sorted(lane, key=lambda e: e.start):
            first, last = max(entity.start, begin) - begin, min(entity.end, end) - begin
            cut = " from-before" * (entity.start < begin) + " goes-on" * (entity.end > end)
            note = f"<small>{_text(entity.note)}</small>" if entity.note else ""
            bars.append(
                f'<span class="entity{cut}" style="grid-area:{number}/{first + 1}/{number + 1}/'
                f'{last + 1}">{_text(entity.label)}{note}</span>'
            )
    cells = []
    for n, token in enumerate(tokens[begin:end]):
        covered = any(e.start <= begin + n < e.end for e in here)
        kind = "token covered" if covered else "token"
        cells.append(
            f'<span class="{kind}" style="grid-area:{len(lanes) + 1}/{n + 1}">{_text(token)}</span>'
        )
    return f'<div class="line">{"".join(bars + cells)}</div>'


def _overlap(a: Entity, b: Entity) -> bool:
    return a.start < b.end and b.start < a.end


def _row(row: PictureRow, kind: str) -> str:
    figures = "".join(_figure(picture, row.label) for picture in row.pictures)
    heading = f"<h3>{_text(row.label)}</h3>" if row.label else ""
    return f'<section class="{kind}">{heading}<div class="pictures">{figures}</div></section>\n'


def _figure(picture: Picture, label: str) -> str:
    width, height = check_image(picture.content)
    data = base64.b64encode(picture.content).decode("ascii")
    mark = {
        None: "",
        True: '<span class="right" role="img" aria-label="right">✓</span> ',
        False: '<span class="wrong" role="img" aria-label="wrong">✗</span> ',
    }[picture.right]
    said = mark + _text(picture.caption)
    below = f"<figcaption>{said}</figcaption>" if said else ""
    return (
        f'<figure><img src="data:{_media_type(picture.content)};base64,{data}" width="{width}" '
        f'height="{height}" loading="lazy" decoding="async" alt="{_text(label)}">'
        f"{below}</figure>"
    )


def table_html(table: ComparisonTable) -> str:
    """A table of figures with its heading and note."""
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    body = []
    for number, (name, *cells) in enumerate(table.rows):
        best = ' class="best"' if number == table.best else ""
        figures = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        body.append(f'<tr{best}><th scope="row">{_text(name)}</th>{figures}</tr>\n')
    return (
        f'<section class="measured">\n<h2>{_text(table.title)}</h2>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
        f"{_paragraphs(table.note)}</section>\n"
    )


def _media_type(content: bytes) -> str:
    for start, kind in (
        (b"\x89PNG", "png"),
        (b"\xff\xd8", "jpeg"),
        (b"GIF8", "gif"),
        (b"RIFF", "webp"),
    ):
        if content.startswith(start):
            return f"image/{kind}"
    raise InputError(
        f"a picture begins with {content[:4]!r}; browsers show PNG, JPEG, WebP and GIF."
    )


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LINK = re.compile(r"https?://[^\s<>\"'()（），。；]+[^\s<>\"'()（），。；.,;:]")


def _text(text: str) -> str:
    """Text that cannot become markup, in an element or in a quoted attribute."""
    return escape(_CONTROL.sub("\ufffd", text), quote=True)


def _paragraphs(text: str) -> str:
    """A paragraph per line, with addresses made into links."""
    return "".join(f"<p>{''.join(_linked(line))}</p>\n" for line in text.splitlines() if line)


def _linked(line: str) -> Iterable[str]:
    done = 0
    for found in _LINK.finditer(line):
        yield _text(line[done : found.start()])
        yield f'<a href="{_text(found[0])}">{_text(found[0])}</a>'
        done = found.end()
    yield _text(line[done:])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
