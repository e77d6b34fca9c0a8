"""Plots as SVG with matplotlib: reproducible, with labels as text.

Figures are created without pyplot, so no global state changes. Text stays text in the SVG and uses
the fonts of the viewer: Chinese labels need no Chinese font on this machine.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.runs import save_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2f6f9f", "#c8553d", "#5b8c5a", "#8e6c8a", "#c99a2e", "#4f9d9d", "#7a7a7a", "#a44a6b")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "artist-toolkit",  # makes the ids inside reproducible
    "font.family": ["sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.unicode_minus": False,
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the common style in the block; axes take it when they are created."""
    import matplotlib
    from cycler import cycler

    look: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(look):
        yield


def new_figure(width: float = 6.4, height: float = 3.6) -> "Figure":
    """Return an empty figure, size in inches; call inside `style()`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: "Figure") -> str:
    """Return the figure as an `<svg>` element, reproducibly. Call inside `style()`."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # matplotlib measures labels with its own fonts, which lack Chinese characters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save_svg(figure: "Figure", path: Path) -> None:
    """Write the figure as an SVG file. Call inside `style()`."""
    save_text(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{to_svg(figure)}')
