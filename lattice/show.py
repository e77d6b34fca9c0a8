"""A lattice as a drawing for the terminal: tokens in a row, entities as bars beneath them."""

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

_DIM, _BOLD, _CYAN, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"


class Bar(NamedTuple):
    """An entity over tokens `[start, end)` and what is written beside it."""

    start: int
    end: int
    label: str


def draw(
    surfaces: Sequence[str], bars: Sequence[Bar], width: int = 100, colour: bool = False
) -> str:
    """The drawing, without a line break at its end.

    Args:
        surfaces: What each token stands for.
        bars: Entities, ordered by start.
        width: Columns of the terminal; a longer caption is wrapped between tokens.
        colour: Whether tokens without an entity are dimmed and labels coloured.
    """
    if not surfaces:
        return "(no tokens)"
    return "\n\n".join(
        _draw_line(surfaces, bars, begin, end, colour) for begin, end in _wrap(surfaces, width)
    )


def columns(text: str) -> int:
    """How many terminal columns a text takes: two for each wide character, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _wrap(surfaces: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Ranges of tokens that fit a line, at least one token each."""
    lines: list[tuple[int, int]] = []
    begin, used = 0, 0
    for n, surface in enumerate(surfaces):
        need = columns(surface) + 1
        if n > begin and used + need > width:
            lines.append((begin, n))
            begin, used = n, 0
        used += need
    return [*lines, (begin, len(surfaces))]


def _draw_line(
    surfaces: Sequence[str], bars: Sequence[Bar], begin: int, end: int, colour: bool
) -> str:
    """Tokens `[begin, end)` and the bars that touch them; a bar that goes on has an open end."""
    left = [0]
    for surface in surfaces[begin:end]:
        left.append(left[-1] + columns(surface) + 1)
    here = [bar for bar in bars if bar.start < end and bar.end > begin]
    covered = {t for bar in here for t in range(bar.start, bar.end)}
    words = [
        _paint(surface, _BOLD if n in covered else _DIM, colour)
        for n, surface in enumerate(surfaces[begin:end], begin)
    ]
    lines = [" ".join(words)]
    for (start, stop), same in groupby(here, key=lambda bar: (bar.start, bar.end)):
        from_column = left[max(start, begin) - begin]
        to_column = left[min(stop, end) - begin] - 1
        middle = "─" * (to_column - from_column - 2)
        ends = ("╰" if start >= begin else "─") + middle + ("╯" if stop <= end else "─")
        bar = ends if to_column - from_column > 1 else "╵"
        label = ", ".join(bar.label for bar in same)
        lines.append(" " * from_column + bar + " " + _paint(label, _CYAN, colour))
    return "\n".join(lines)


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_PLAIN}" if colour else text
