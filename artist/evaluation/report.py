"""The HTML report of an evaluation: verdicts, tables, plots, and captions with images.

The page is self-contained; see `artist.generation.pages`.
"""

from collections.abc import Sequence
from pathlib import Path

from artist.evaluation.examples import Part
from artist.evaluation.plots import codebook_plot, costs_plot, places_plot, spread_plot
from artist.evaluation.results import Evaluation
from artist.evaluation.tables import tables, verdicts
from artist.generation.gallery import Note, card_sizes, gallery_environment
from artist.generation.pages import write_page

TEMPLATES = Path(__file__).with_name("templates")


def write_report(path: Path, evaluation: Evaluation, parts: Sequence[Part]) -> None:
    """Write the page atomically."""
    found = evaluation.findings
    model = evaluation.sources.model
    subject = model.name if model is not None else str(evaluation.sources.pictures)
    lines = verdicts(found.likelihood) if found.likelihood is not None else []
    write_page(
        path,
        gallery_environment(TEMPLATES),
        "report.html.j2",
        title=f"Evaluation of {subject}",
        subtitle=_subtitle(evaluation),
        notes=[Note(title="In words", text="\n".join(lines))] if lines else [],
        warnings=evaluation.warnings,
        tables=tables(found),
        plots=_plots(evaluation),
        report_parts=parts,
        not_measured=evaluation.not_measured,
        footer=_footer(evaluation),
        sizes=card_sizes([card for part in parts for card in part.cards]),
    )


def _subtitle(evaluation: Evaluation) -> str:
    found, table = evaluation.findings, evaluation.sources.table
    if found.likelihood is not None and table is not None:
        group = found.likelihood.groups["all"]
        return f"On {group.captions} captions of {group.pictures} images, from {table.name}."
    return "Images against a reference."


def _plots(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return title and SVG of each plot."""
    found = evaluation.findings
    plots: list[tuple[str, str]] = []
    if found.likelihood is not None:
        plots += [
            ("Cost of each control", costs_plot(found.likelihood)),
            ("Captions by their loss", spread_plot(found.likelihood)),
            ("Loss by position in the image", places_plot(found.likelihood)),
        ]
    if found.reconstruction is not None:
        plots.append(("Use of the codebook", codebook_plot(found.reconstruction)))
    return [(title, _with_unique_ids(svg, n)) for n, (title, svg) in enumerate(plots) if svg]


def _with_unique_ids(svg: str, number: int) -> str:
    """Prefix the ids of an SVG: several on one page must not share ids."""
    for before in ('id="', "url(#", 'href="#'):
        svg = svg.replace(before, f"{before}p{number}-")
    return svg


def _footer(evaluation: Evaluation) -> str:
    config = evaluation.config
    inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in evaluation.inputs.items())
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    return "\n".join(
        (
            f"Fingerprints: {inputs}.",
            f"Seed {config.seed}, {config.precision}; generated with {evaluation.sampling}.",
            f"{versions}.",
            "All figures and settings are in evaluation.json, figures per caption in captions.tsv.",
        )
    )
