"""Render an explained text for the terminal: a line of tokens, and the matches below it.

Each kept entity has a bar with its name next to it. Dropped matches are dimmed, one row per reason.
`·` between two tokens marks that the second continues the word.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from lattice.inspecting.explain import NAME, Explanation, Match

Position = TypeVar("Position", int, float)
_DIM, _BOLD, _CYAN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"


class Line(NamedTuple):
    """The tokens on one line.

    Attributes:
        first: First token.
        end: One past the last token.
        begin_code: First code point.
        end_code: One past the last code point.
    """

    first: int
    end: int
    begin_code: int
    end_code: int

    def extent(
        self, match: Match, left: Sequence[Position], right: Sequence[Position]
    ) -> tuple[Position, Position]:
        """Return the edges of a match on the line, from those of each code point of the line."""
        start, end = max(match.start, self.begin_code), min(match.end, self.end_code)
        return left[start - self.begin_code], right[end - self.begin_code - 1]


def render(found: Explanation, width: int = 100, colour: bool = False) -> str:
    """Return the rendering, without a final line break.

    Args:
        found: An explained text.
        width: Columns of the terminal; a longer text is broken between tokens.
        colour: Whether to use ANSI colours.
    """
    if not found.surfaces:
        return "(no tokens)"
    widths = [columns(surface) + 1 for surface in found.surfaces]
    parts = [_render_line(found, line, width, colour) for line in lines_of(found, widths, width)]
    notes = notes_of(found)
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def columns(text: str) -> int:
    """Return the terminal columns of a text: two per wide character, none for marks."""
    return sum(_column(c) for c in text)


def _column(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def lines_of(found: Explanation, widths: Sequence[float], width: float) -> list[Line]:
    """Break the tokens into lines no wider than `width`, of at least one token each."""
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
    """Return the entities of a match: each name with its id."""
    names = {claim.entity_id: claim.name for claim in found.claims[match.surface]}
    return ", ".join(f"{names[i]} {i}" for i in match.entity_ids)


def notes_of(found: Explanation) -> list[str]:
    """Return a note per surface that is not simply one name: its claims and their rules."""
    notes = []
    for surface in dict.fromkeys(m.surface for m in found.matches if not m.reason):
        claims = found.claims[surface]
        if len(claims) == 1 and claims[0].rule == NAME:
            continue
        holding = [f"{c.name} {c.entity_id} ({c.rule})" for c in claims if not c.lost]
        lost = [f"{c.name} {c.entity_id} ({c.rule}: {c.lost})" for c in claims if c.lost]
        note = f"{surface} = {', '.join(holding)}"
        notes.append(f"{note}; not {', '.join(lost)}" if lost else note)
    return notes


def lanes_of(spans: Iterable[tuple[float, float]], gap: float) -> list[int]:
    """Return a lane for each span, in order, so that no two spans touch; the lowest is first."""
    free: list[float] = []
    lanes = []
    for start, end in spans:
        lane = next((n for n, at in enumerate(free) if start >= at), len(free))
        free[lane:] = [end + gap, *free[lane + 1 :]]
        lanes.append(lane)
    return lanes


def in_line(found: Explanation, line: Line) -> tuple[list[Match], list[Match]]:
    """Return the kept matches that overlap the line, and the dropped ones, sorted by reason."""
    here = [m for m in found.matches if m.start < line.end_code and m.end > line.begin_code]
    dropped = sorted((m for m in here if m.reason), key=lambda m: m.reason)
    return [m for m in here if not m.reason], dropped


def _render_line(found: Explanation, line: Line, width: int, colour: bool) -> str:
    chosen, dropped = in_line(found, line)
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
    for (start, end), group in groupby(chosen, key=lambda m: (m.start, m.end)):
        same = list(group)
        from_column, to_column = line.extent(same[0], left, right)
        opening = "╰" if start >= line.begin_code else "─"
        closing = "╯" if end <= line.end_code else "─"
        bar = " " * from_column + _bar(to_column - from_column, opening, "─", closing)
        label = "; ".join(label_of(found, match) for match in same)
        rows.append((bar, _paint(label, _CYAN, colour)))
    for _, group in groupby(dropped, key=lambda m: m.reason):
        matches = list(group)
        rows += _dropped_rows(matches, [line.extent(m, left, right) for m in matches], colour)

    label_column = at + 2 if at + 2 <= width // 2 else 0
    return "\n".join([words, *(_labelled(bar, label, label_column, colour) for bar, label in rows)])


def _dropped_rows(
    group: Sequence[Match], spans: Sequence[tuple[int, int]], colour: bool
) -> list[tuple[str, str]]:
    """Return the rows of matches dropped for one reason, with a label on the first."""
    lanes = lanes_of(spans, 1)
    rows = []
    for lane in range(max(lanes) + 1):
        bars = ""
        for (start, end), where in zip(spans, lanes, strict=True):
            if where == lane:
                bars += " " * (start - len(bars)) + _bar(end - start, "╰", "╌", "╯")
        surfaces = dict.fromkeys(m.surface for m in group)
        label = f"✗ {group[0].reason}: {', '.join(surfaces)}" if lane == 0 else ""
        rows.append((_paint(bars, _DIM, colour), _paint(label, _DIM, colour)))
    return rows


def _bar(width: int, opening: str, middle: str, closing: str) -> str:
    return opening + middle * (width - 2) + closing if width > 1 else "╵"


def _labelled(bar: str, label: str, column: int, colour: bool) -> str:
    """Return a bar and its label, aligned at `column` where there is room, else after the bar."""
    plain = bar.replace(_DIM, "").replace(_PLAIN, "") if colour else bar
    return (bar + " " * max(1, column - len(plain)) + label).rstrip()


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_PLAIN}" if colour and text else text
