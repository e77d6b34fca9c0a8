"""Inspection: the lattice of one sentence, explained and rendered, and statistics of a table.

`explain.explain_text` explains a sentence; `show.render` and `svg.lattice_svg` render it.
`stats.lattice_stats` computes the statistics.
"""

__all__ = ["explain", "show", "stats", "svg"]
