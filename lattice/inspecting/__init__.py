"""Inspection: the lattice of one sentence, explained and rendered, and statistics of a table."""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from lattice.inspecting.explain import Explanation, explain_text
    from lattice.inspecting.show import render
    from lattice.inspecting.stats import LatticeStats, lattice_stats, save_stats_plot
    from lattice.inspecting.svg import lattice_svg, save_lattice

__all__ = [
    "Explanation",
    "LatticeStats",
    "explain_text",
    "lattice_stats",
    "lattice_svg",
    "render",
    "save_lattice",
    "save_stats_plot",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Explanation": "lattice.inspecting.explain",
        "LatticeStats": "lattice.inspecting.stats",
        "explain_text": "lattice.inspecting.explain",
        "lattice_stats": "lattice.inspecting.stats",
        "lattice_svg": "lattice.inspecting.svg",
        "render": "lattice.inspecting.show",
        "save_lattice": "lattice.inspecting.svg",
        "save_stats_plot": "lattice.inspecting.stats",
    },
)
