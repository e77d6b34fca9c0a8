"""An explained text as a drawing for the terminal: tokens in a row, what names say of it beneath.

Entities that count have a bar of their own with their name beside it. What was dropped is drawn
faint, one row for each reason. `·` between two tokens says that the second goes on with the word.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from lattice.inspecting.explain import NAME, Explanation, Match

_DIM, _BOLD, _CYAN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"


class Line(NamedTuple):
    """Some of the tokens of a text, as many as fit a line.

    Attributes:
        first: The first of them.
        end: One past the last.
        begin_code: Code points before the first.
        end_code: Code points up to the last.
    """

    first: int
    end: int
    begin_code: int
    end_code: int


def draw(found: Explanation, width: int = 100, colour: bool = False) -> str:
    """The drawing, without a line break at its end.

    Args:
        found: What was found in a text.
        width: Columns of the terminal; a longer text is broken between tokens.
        colour: Whether to paint, or to draw with characters alone.
    """
    if not found.surfaces:
        return "(no tokens)"
    widths = [columns(surface) + 1 for surface in found.surfaces]
    parts = [_draw_line(found, line, width, colour) for line in lines_of(found, widths, width)]
    notes = notes_of(found)
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def columns(text: str) -> int:
    """How many terminal columns a text takes: two for each wide character, none for marks."""
    return sum(_column(c) for c in text)


def _column(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def lines_of(found: Explanation, widths: Sequence[float], width: float) -> list[Line]:
    """The tokens broken into lines that are no wider than `width`, at least one token each."""
    breaks, used = [0], 0.0
    for n, need in enumerate(widths):
        if n > breaks[-1] and used + need > width:
            breaks.append(n)
            used = 0.0
        used += need
    codes = [0]
    for surface in found.surfaces:
        codes.append(codes[-1] + len(surface))
    ends = [*breaks[1:], len(widths)]
    return [Line(a, b, codes[a], codes[b]) for a, b in zip(breaks, ends, strict=True)]


def label_of(found: Explanation, match: Match) -> str:
    """The entities of a match: each name with its id."""
    names = {claim.entity_id: claim.name for claim in found.claims[match.surface]}
    return ", ".join(f"{names[i]} {i}" for i in match.entity_ids)


def notes_of(found: Explanation) -> list[str]:
    """Who has each surface whose meaning is no matter of course, by which rule, and who lost it."""
    notes = []
    for surface in dict.fromkeys(m.surface for m in found.matches if not m.reason):
        claims = found.claims[surface]
        if len(claims) == 1 and claims[0].rule == NAME:
            continue
        said = [f"{c.name} {c.entity_id} ({c.rule})" for c in claims if not c.lost]
        hidden = [f"{c.name} {c.entity_id} ({c.rule}: {c.lost})" for c in claims if c.lost]
        note = f"{surface} = {', '.join(said)}"
        notes.append(f"{note}; not {', '.join(hidden)}" if hidden else note)
    return notes


def lanes_of(spans: Iterable[tuple[float, float]], gap: float) -> list[int]:
    """A lane for each span, in the order given, so that none touch; lanes are filled from 0."""
    free: list[float] = []
    lanes = []
    for start, end in spans:
        lane = next((n for n, at in enumerate(free) if start >= at), len(free))
        free[lane:] = [end + gap, *free[lane + 1 :]]
        lanes.append(lane)
    return lanes


def in_line(matches: Iterable[Match], line: Line) -> list[Match]:
    """Those matches that touch the line."""
    return [m for m in matches if m.start < line.end_code and m.end > line.begin_code]


def _draw_line(found: Explanation, line: Line, width: int, colour: bool) -> str:
    chosen = in_line((m for m in found.matches if not m.reason), line)
    dropped = in_line((m for m in found.matches if m.reason), line)
    covered = {c for match in chosen for c in range(match.start, match.end)}
    words, left, right = "", [], []  # the columns where each code point begins and ends
    code, at = line.begin_code, 0
    for n in range(line.first, line.end):
        if n > line.first:
            words += _paint("·", _DIM, colour) if found.pieces[n] else " "
            at += 1
        surface = found.surfaces[n]
        words += _paint(surface, _BOLD if code in covered else _DIM, colour)
        for letter in surface:
            left.append(at)
            at += _column(letter)
            right.append(at)
        code += len(surface)

    rows = []
    for (start, end), same in groupby(chosen, key=lambda m: (m.start, m.end)):
        from_column = left[max(start, line.begin_code) - line.begin_code]
        to_column = right[min(end, line.end_code) - line.begin_code - 1]
        opening = "╰" if start >= line.begin_code else "─"
        closing = "╯" if end <= line.end_code else "─"
        bar = " " * from_column + _bar(to_column - from_column, opening, "─", closing)
        label = "; ".join(label_of(found, match) for match in same)
        rows.append((bar, _paint(label, _CYAN, colour)))
    for reason, group in groupby(sorted(dropped, key=lambda m: m.reason), key=lambda m: m.reason):
        rows += _dropped_rows(list(group), reason, line, left, right, colour)

    beside = at + 2 if at + 2 <= width // 2 else 0
    return "\n".join([words, *(_beside(bar, label, beside, colour) for bar, label in rows)])


def _dropped_rows(
    group: Sequence[Match],
    reason: str,
    line: Line,
    left: Sequence[int],
    right: Sequence[int],
    colour: bool,
) -> list[tuple[str, str]]:
    """Rows of the matches that were dropped for one reason, said beside the first."""
    spans = [
        (
            left[max(m.start, line.begin_code) - line.begin_code],
            right[min(m.end, line.end_code) - line.begin_code - 1],
        )
        for m in group
    ]
    lanes = lanes_of(spans, 1)
    rows = []
    for lane in range(max(lanes) + 1):
        drawn = ""
        for (start, end), where in zip(spans, lanes, strict=True):
            if where == lane:
                drawn += " " * (start - len(drawn)) + _bar(end - start, "╰", "╌", "╯")
        surfaces = dict.fromkeys(m.surface for m in group)
        label = f"✗ {reason}: {', '.join(surfaces)}" if lane == 0 else ""
        rows.append((_paint(drawn, _DIM, colour), _paint(label, _DIM, colour)))
    return rows


def _bar(width: int, opening: str, middle: str, closing: str) -> str:
    return opening + middle * (width - 2) + closing if width > 1 else "╵"


def _beside(bar: str, label: str, column: int, colour: bool) -> str:
    """A bar and its label, at a column of its own where there is room, else behind the bar."""
    plain = bar.replace(_DIM, "").replace(_PLAIN, "") if colour else bar
    return (bar + " " * max(1, column - len(plain)) + label).rstrip()


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_PLAIN}" if colour and text else text
