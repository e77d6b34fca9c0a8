"""Render an explained text as SVG: a line of tokens, entities above it, dropped matches below.

Text is stored as text and rendered in the viewer's fonts; its width is estimated.
"""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from data.plot import COLOURS
from data.runs import save_text
from lattice.inspecting.explain import Explanation, Match
from lattice.inspecting.show import Line, columns, in_line, label_of, lanes_of, lines_of, notes_of

_WIDTH = 1100.0  # pixels of a line of tokens
_MARGIN = 28.0
_SIZE, _TOKEN = 21.0, 40.0  # font size of tokens; height of a token's box
_GAP = 6.0  # between tokens; the pieces of one word touch
_BAR, _BAR_STEP = 24.0, 31.0  # height of a bar; distance of bars
_DROPPED_STEP, _NOTE_STEP, _LINE_GAP = 21.0, 22.0, 36.0
_FONTS = "'Noto Sans CJK SC','Source Han Sans SC','PingFang SC','Microsoft YaHei',sans-serif"
_STYLE = f"""
text {{ font-family: {_FONTS}; dominant-baseline: central; }}
.token {{ fill: #f4f5f7; stroke: #dfe2e6; }}
.word {{ font-size: {_SIZE:g}px; text-anchor: middle; fill: #a3a8b0; }}
.covered {{ fill: #1d2430; }}
.name {{ font-size: 13px; text-anchor: middle; fill: #ffffff; }}
.dropped {{ fill: none; stroke: #b3b8c0; stroke-width: 1.4; stroke-dasharray: 3 3; }}
.reason {{ font-size: 12px; fill: #8b9099; }}
.note {{ font-size: 13px; fill: #555c66; }}
"""


def save_lattice(found: Explanation, path: Path) -> None:
    """Write the rendering to an SVG file."""
    save_text(path, lattice_svg(found))


def lattice_svg(found: Explanation) -> str:
    """Return the rendering as an SVG document."""
    canvas = _Canvas()
    y = _MARGIN
    widths = [_text_width(s, _SIZE) + (19 if columns(s) > 1 else 13) + _GAP for s in found.surfaces]
    for line in lines_of(found, widths, _WIDTH) if found.surfaces else []:
        y = _render_line(canvas, found, line, widths, y) + _LINE_GAP
    for n, note in enumerate(notes_of(found)):
        canvas.text(note, _MARGIN, y + n * _NOTE_STEP, "note", 13)
    return canvas.document(found.text)


class _Canvas:
    """Collects shapes and their extent."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._right = self._bottom = 0.0

    def _add(self, shape: str, right: float, bottom: float) -> None:
        self._shapes.append(shape)
        self._right, self._bottom = max(self._right, right), max(self._bottom, bottom)

    def box(
        self, x: float, y: float, width: float, height: float, css: str, title: str = ""
    ) -> None:
        tooltip = f"<title>{escape(title)}</title>" if title else ""
        self._add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {css}>'
            f"{tooltip}</rect>",
            x + width,
            y + height,
        )

    def text(self, text: str, x: float, y: float, css: str, size: float) -> None:
        half = 0.5 if css.split()[0] in ("word", "name") else 1.0  # these are centred
        self._add(
            f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>',
            x + half * _text_width(text, size),
            y + size / 2,
        )

    def bracket(self, left: float, right: float, y: float, title: str) -> None:
        path = f"M{left:.1f} {y:.1f}v6H{right:.1f}v-6"
        self._add(
            f'<path class="dropped" d="{path}"><title>{escape(title)}</title></path>', right, y + 6
        )

    def document(self, title: str) -> str:
        width, height = self._right + _MARGIN, self._bottom + _MARGIN
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}">\n<title>{escape(title)}</title>\n'
            f"<style>{_STYLE}</style>\n"
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="#ffffff"/>\n'
            + "\n".join(self._shapes)
            + "\n</svg>\n"
        )


def _text_width(text: str, size: float) -> float:
    """Return the estimated width: `size` per wide character, 0.56 of it per other."""
    return size * sum(1.0 if columns(c) == 2 else 0.56 * columns(c) for c in text)


def _render_line(
    canvas: _Canvas, found: Explanation, line: Line, widths: Sequence[float], top: float
) -> float:
    """Render a line of tokens with everything above and below it; return its lower edge."""
    left, right = _edges(found, line, widths)

    def span(match: Match) -> tuple[float, float]:
        return line.extent(match, left, right)

    chosen, dropped = in_line(found, line)
    bars = [list(same) for _, same in groupby(chosen, key=lambda m: (m.start, m.end))]
    levels = _levels([span(same[0]) for same in bars])
    tokens_y = top + (max(levels, default=-1) + 1) * _BAR_STEP + 4
    covered = {code for match in chosen for code in range(match.start, match.end)}
    for n, (same, level) in enumerate(zip(bars, levels, strict=True)):
        a, b = span(same[0])
        colour = COLOURS[n % len(COLOURS)]
        y = tokens_y - 4 - (level + 1) * _BAR_STEP + (_BAR_STEP - _BAR)
        canvas.box(a, y + 8, b - a, tokens_y + _TOKEN - y - 8, f'fill="{colour}" opacity="0.07"')
        label = "; ".join(label_of(found, match) for match in same)
        canvas.box(a, y, b - a, _BAR, f'rx="6" fill="{colour}"', label)
        names = label if len(same[0].entity_ids) > 1 else label.rpartition(" ")[0]
        canvas.text(_fitted(names, b - a - 8), (a + b) / 2, y + _BAR / 2 + 1, "name", 13)
    _render_tokens(canvas, found, line, widths, tokens_y, covered)

    y = tokens_y + _TOKEN + 10
    for reason, group in groupby(dropped, key=lambda m: m.reason):
        matches = list(group)
        lanes = lanes_of([span(m) for m in matches], 3)
        for match, lane in zip(matches, lanes, strict=True):
            a, b = span(match)
            tooltip = f"{match.surface}: {label_of(found, match)}, {reason}"
            canvas.bracket(a + 1, b - 1, y + lane * _DROPPED_STEP, tooltip)
        end = max(span(m)[1] for m, lane in zip(matches, lanes, strict=True) if lane == 0)
        canvas.text(reason, end + 10, y + 4, "reason", 12)
        y += (max(lanes) + 1) * _DROPPED_STEP
    return y


def _edges(
    found: Explanation, line: Line, widths: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return left and right edge of each code point of a line, within the boxes of the tokens."""
    left, right = [], []
    x = _MARGIN
    for n in range(line.first, line.end):
        surface = found.surfaces[n]
        box = widths[n] - _GAP
        shares = [columns(c) or 0.01 for c in surface]
        at = x
        for share in shares:
            left.append(at)
            at += box * share / sum(shares)
            right.append(at)
        x += _advance(found, n, widths)
    return left, right


def _advance(found: Explanation, n: int, widths: Sequence[float]) -> float:
    """Return the distance from the left edge of a token to that of the next."""
    joined = n + 1 < len(found.surfaces) and found.pieces[n + 1]
    return widths[n] - (_GAP if joined else 0)


def _levels(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return the level of each bar: short bars are low, overlapping bars have different levels."""
    levels = [0] * len(spans)
    placed: list[int] = []
    for n in sorted(range(len(spans)), key=lambda n: (spans[n][1] - spans[n][0], spans[n][0])):
        under = [
            levels[k] for k in placed if spans[k][0] < spans[n][1] and spans[n][0] < spans[k][1]
        ]
        levels[n] = max(under, default=-1) + 1
        placed.append(n)
    return levels


def _render_tokens(
    canvas: _Canvas,
    found: Explanation,
    line: Line,
    widths: Sequence[float],
    y: float,
    covered: set[int],
) -> None:
    x, code = _MARGIN, line.begin_code
    for n in range(line.first, line.end):
        surface = found.surfaces[n]
        box = widths[n] - _GAP
        canvas.box(x, y, box, _TOKEN, 'class="token" fill-opacity="0.55" rx="5"')
        css = "word covered" if code in covered else "word"
        canvas.text(surface, x + box / 2, y + _TOKEN / 2 + 1, css, _SIZE)
        x += _advance(found, n, widths)
        code += len(surface)


def _fitted(text: str, width: float) -> str:
    """Return the text, truncated with an ellipsis if it is too long for a bar."""
    if _text_width(text, 13) <= width:
        return text
    while text and _text_width(text + "…", 13) > width:
        text = text[:-1]
    return text + "…"
