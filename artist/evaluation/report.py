"""The page of an evaluation: what it means in words, the tables, the plots, captions with pictures.

It stands alone, as the gallery does, and looks like it.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from artist.evaluation.examples import Part
from artist.evaluation.plots import (
    codebook_plot,
    costs_plot,
    places_plot,
    spread_plot,
)
from artist.evaluation.results import Evaluation
from artist.evaluation.tables import tables, verdicts
from artist.generation.gallery import (
    Note,
    card_sizes,
    cards_html,
    html_page,
    notes_html,
    table_html,
)
from artist.generation.predict import describe
from data.runs import atomic


def write_report(path: Path, evaluation: Evaluation, parts: Sequence[Part]) -> None:
    """Write the page to `path`, whole or not at all."""
    found = evaluation.findings
    model = evaluation.sources.model
    subject = model.name if model is not None else str(evaluation.sources.pictures)
    said = verdicts(found.likelihood) if found.likelihood is not None else []
    body = [
        notes_html([Note(title="In words", text="\n".join(said))]) if said else "",
        _warnings(evaluation),
        *(table_html(table) for table in tables(evaluation.findings)),
        _plots(evaluation),
        *(_part(part) for part in parts),
        _not_measured(evaluation),
    ]
    cards = [card for part in parts for card in part.cards]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    page = html_page(
        f"Evaluation of {subject}",
        "".join(body),
        subtitle=_subtitle(evaluation),
        footer=_footer(evaluation),
        style=style + card_sizes(cards),
    )
    with atomic(path) as file:
        file.write(page)


def _subtitle(evaluation: Evaluation) -> str:
    found, table = evaluation.findings, evaluation.sources.table
    if found.likelihood is not None and table is not None:
        group = found.likelihood.groups["all"]
        return f"On {group.captions} captions of {group.pictures} pictures, from {table.name}."
    return "Pictures against a reference."


def _warnings(evaluation: Evaluation) -> str:
    if not evaluation.warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in evaluation.warnings)
    return f'<section class="beware"><h2>Beware</h2><ul>{lines}</ul></section>\n'


def _plots(evaluation: Evaluation) -> str:
    found = evaluation.findings
    plots: list[tuple[str, str]] = []
    if found.likelihood is not None:
        plots += [
            ("What each control costs", costs_plot(found.likelihood)),
            ("Captions by their loss", spread_plot(found.likelihood)),
            ("Loss by place in the picture", places_plot(found.likelihood)),
        ]
    if found.reconstruction is not None:
        plots.append(("Use of the codebook", codebook_plot(found.reconstruction)))
    drawn = [
        f'<figure class="plot"><figcaption>{escape(title)}</figcaption>{_apart(svg, n)}</figure>\n'
        for n, (title, svg) in enumerate(plots)
        if svg
    ]
    return f'<section class="plots">\n{"".join(drawn)}</section>\n' if drawn else ""


def _apart(svg: str, number: int) -> str:
    """The SVG with names of its own: several on one page must not share ids."""
    for before, after in (('id="', ""), ("url(#", ""), ('href="#', "")):
        svg = svg.replace(before, f"{before}p{number}-{after}")
    return svg


def _part(part: Part) -> str:
    return (
        f'<section class="part"><h2>{escape(part.title)}</h2><p>{escape(part.note)}</p></section>\n'
        + cards_html(part.cards)
    )


def _not_measured(evaluation: Evaluation) -> str:
    if not evaluation.not_measured:
        return ""
    rows = "".join(
        f"<dt>{escape(m.what)}</dt><dd>{escape(m.how)}</dd>" for m in evaluation.not_measured
    )
    return f'<section class="missing"><h2>Not measured</h2><dl>{rows}</dl></section>\n'


def _footer(evaluation: Evaluation) -> str:
    inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in evaluation.inputs.items())
    config = evaluation.config
    return "\n".join(_lines(inputs, evaluation, config.seed, config.precision))


def _lines(inputs: str, evaluation: Evaluation, seed: int, precision: str) -> Iterable[str]:
    yield f"Fingerprints: {inputs}."
    yield f"Seed {seed}, {precision}; drawn with {describe(evaluation.sampling)}."
    yield ", ".join(f"{name} {version}" for name, version in evaluation.versions.items()) + "."
    yield "All figures and settings are in evaluation.json, each caption's own in captions.tsv."
