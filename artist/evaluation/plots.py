"""The plots of an evaluation, as SVG."""

import math
from collections.abc import Sequence
from textwrap import fill

import numpy as np

from artist.evaluation.likelihood import GIVEN, NONE, OTHER_KG, SHUFFLED, Likelihood
from artist.evaluation.reconstruction import Reconstruction
from artist.evaluation.tables import GROUPS, SHORT
from data.plot import COLOURS, new_figure, style, to_svg

_GREY = "#7a7a7a"


def costs_plot(found: Likelihood) -> str:
    """Plot the cost of each control by group, with intervals; empty without controls."""
    controls = [name for name in (NONE, SHUFFLED, OTHER_KG) if name in found.rows]
    groups = [name for name in GROUPS if name in found.groups and name != "without entity"]
    if not controls:
        return ""
    step = 0.8 / len(controls)
    with style():
        figure = new_figure()
        axes = figure.subplots()
        axes.axvline(0, color="#999999", linewidth=0.8)
        for n, control in enumerate(controls):
            for place, group in enumerate(groups):
                cost = found.groups[group].costs[control]
                label = f"cost: {SHORT[control]}" if place == 0 else None
                axes.errorbar(
                    cost.mean,
                    place + (n - (len(controls) - 1) / 2) * step,
                    xerr=0.0 if math.isnan(cost.half_width) else cost.half_width,
                    fmt="o",
                    color=COLOURS[n],
                    markersize=5,
                    capsize=3,
                    linewidth=1.4,
                    label=label,
                )
        # In two lines: the fonts of a browser are wider than those that matplotlib measures.
        labels = [f"{fill(GROUPS[g], 13)} ({found.groups[g].captions})" for g in groups]
        axes.set_yticks(range(len(groups)), labels)
        axes.invert_yaxis()
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("cost, nats per code (above 0: knowledge helped)")
        figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        return to_svg(figure)


def spread_plot(found: Likelihood) -> str:
    """Plot a histogram of the loss per caption."""
    values = found.rows[GIVEN]
    with style():
        figure = new_figure()
        axes = figure.subplots()
        axes.hist(values, bins=min(40, max(5, len(values) // 5)), color=COLOURS[0])
        axes.axvline(found.chance, color=COLOURS[1], linewidth=1, linestyle="--")
        axes.annotate(
            "uniform",
            (found.chance, 0.94),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            color=COLOURS[1],
            fontsize=9,
        )
        axes.set(xlabel="nats per code, by caption", ylabel="captions")
        return to_svg(figure)


def places_plot(found: Likelihood) -> str:
    """Plot nats per code at each position of the image; empty if the codes are not a square."""
    side = math.isqrt(len(found.positions))
    if side * side != len(found.positions):
        return ""
    with style():
        figure = new_figure()
        axes = figure.subplots()
        grid = found.positions.reshape(side, side)
        mesh = axes.pcolormesh(grid, cmap="viridis", edgecolors="face", linewidth=0.2)
        axes.invert_yaxis()
        axes.set(aspect="equal", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.colorbar(mesh, ax=axes, label="nats per code", shrink=0.85)
        return to_svg(figure)


def codebook_plot(found: Reconstruction) -> str:
    """Plot the frequency of each code, most frequent first, and uniform use for comparison."""
    shares = np.sort(found.counts)[::-1] / found.counts.sum()
    used: Sequence[float] = shares[shares > 0].tolist()
    with style():
        figure = new_figure()
        axes = figure.subplots()
        axes.plot(range(1, len(used) + 1), used, color=COLOURS[0])
        axes.axhline(1 / found.codebook_size, color=_GREY, linewidth=1, linestyle="--")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="codes, most frequent first",
            ylabel="share (dashed: uniform use)",
        )
        return to_svg(figure)
