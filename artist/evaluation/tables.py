"""The figures of an evaluation as tables for Markdown and HTML, and as lines of text."""

import math
from collections.abc import Sequence
from pathlib import Path

from artist.evaluation.clip_score import TextMatch
from artist.evaluation.confidence_intervals import Interval
from artist.evaluation.fid_kid_is import SMALL, ImageMetrics, Spread
from artist.evaluation.findings import Findings, NotMeasured
from artist.evaluation.likelihood import CAPTION, GIVEN, NONE, OTHER_KG, SHUFFLED, Likelihood
from artist.evaluation.reconstruction import Reconstruction
from artist.generation.gallery import ComparisonTable

INPUTS = {  # the model's input, as given and under each control
    GIVEN: "own caption and entities",
    NONE: "no entities",
    SHUFFLED: "vectors of wrong entities",
    OTHER_KG: "vectors of another graph",
    CAPTION: "another image's caption",
}
SHORT = {
    NONE: "no entities",
    SHUFFLED: "wrong vectors",
    OTHER_KG: "other graph",
    CAPTION: "other caption",
}
GROUPS = {
    "all": "all captions",
    "with entity": "with an entity",
    "unseen entity": "with an entity unseen in training",
    "seen entities only": "with seen entities only",
    "without entity": "without entities",
}
_DAGGER = "†"


def plus_minus(value: Interval, digits: int = 3, *, sign: bool = False) -> str:
    """Format an interval as `5.202 ± 0.055`; only the mean if the half-width is NaN."""
    rounded = round(value.mean, digits) + 0.0  # never -0.0000
    mean = f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"
    return mean if math.isnan(value.half_width) else f"{mean} ± {value.half_width:.{digits}f}"


def _spread(value: Spread, digits: int, factor: float = 1.0) -> str:
    return f"{factor * value.mean:.{digits}f} ({factor * value.std:.{digits}f})"


def tables(found: Findings) -> list[ComparisonTable]:
    """Return a table for everything that was measured, in the order of the report."""
    result = []
    if found.likelihood is not None:
        result += [likelihood_table(found.likelihood), knowledge_table(found.likelihood)]
    if found.images is not None:
        result.append(image_table(found.images, found.images_ceiling))
    if found.match is not None:
        result.append(match_table(found.match, found.match_ceiling))
    if found.reconstruction is not None:
        result.append(reconstruction_table(found.reconstruction))
    return [table for table in result if table is not None]


def likelihood_table(found: Likelihood) -> ComparisonTable:
    """Return nats per code and per image over all captions, as given and under each control."""
    group = found.groups["all"]
    rows = []
    for name, loss in group.losses.items():
        cost = group.costs.get(name)
        each = Interval(*(found.image_len * value for value in loss))
        rows.append(
            [
                INPUTS[name],
                plus_minus(loss),
                plus_minus(each, 1),
                plus_minus(cost, 4, sign=True) if cost is not None else "",
            ]
        )
    rows.append(["none (uniform over codes)", f"{found.chance:.3f}", "", ""])
    shuffled = ""
    if found.shuffles > 1 and found.shuffle_spread is not None:
        shuffled = (
            f" Vectors were shuffled {found.shuffles} times; the standard deviation between the "
            f"means, {found.shuffle_spread:.4f}, is included in the interval."
        )
    return ComparisonTable(
        title="Likelihood of the true images",
        header=["model input", "nats per code", "nats per image", "cost, nats per code"],
        rows=rows,
        best=0,
        note=f"{group.captions} captions of {group.pictures} images, {found.image_len} codes per "
        f"image; lower is better. ± is the half-width of a 95 % interval, {found.clustered}. A "
        f"cost is the difference to the first row, paired by caption.{shuffled}",
    )


def knowledge_table(found: Likelihood) -> ComparisonTable | None:
    """Return the cost of each control by group; None if the model uses no entities."""
    controls = [name for name in (NONE, SHUFFLED, OTHER_KG) if name in found.rows]
    if not controls:
        return None
    rows = [
        [
            GROUPS[name],
            str(group.captions),
            plus_minus(group.losses[GIVEN]),
            *(plus_minus(group.costs[c], 4, sign=True) for c in controls),
        ]
        for name, group in found.groups.items()
    ]
    known = ""
    if found.other_kg_known is not None:
        known = (
            f" The other graph has the names of {100 * found.other_kg_known:.0f} % of the entities."
        )
    return ComparisonTable(
        title="Contribution of the knowledge graph",
        header=["captions", "n", "as given", *(f"cost: {SHORT[c]}" for c in controls)],
        rows=rows,
        note="Nats per code; a positive cost means that the knowledge helped. With wrong vectors "
        f"the entities keep their positions and exchange their vectors.{known}",
    )


def image_table(found: ImageMetrics, ceiling: ImageMetrics | None) -> ComparisonTable:
    """Return FID, KID and IS with the settings they depend on."""

    def row(name: str, one: ImageMetrics) -> list[str]:
        mark = _DAGGER if one.small else ""
        kid = _spread(one.kid, 2, 1000) if one.kid is not None else "–"
        score = f"{_spread(one.inception_score, 2)}{mark}"
        return [name, str(one.n), f"{one.fid:.2f}{mark}", kid, score]

    rows = [row("images", found)]
    if ceiling is not None:
        rows.append(row("true images after reconstruction (ceiling)", ceiling))
    ours, theirs = found.settings, found.settings_reference
    small = (
        f" {_DAGGER} Fewer than {SMALL} images: FID falls and IS rises with the number of images; "
        "compare only at equal n."
        if found.small
        else ""
    )
    published = "the published file" if found.published_weights else "NOT the published file"
    return ComparisonTable(
        title="Images against the reference",
        header=["", "n", "FID", "KID × 1000", "IS"],
        rows=rows,
        note=f"Reference: {found.n_reference or 'an unknown number of'} images "
        f"({theirs.crop or 'unknown crop'}); images: {ours.crop}; resized as by "
        f"{ours.like}. Inception weights {ours.weights[:16]}…, {published}. KID: mean "
        f"(standard deviation) over {found.kid_subsets} subsets of {found.kid_subset_size}; IS: "
        f"over {found.is_splits} splits; neither is a confidence interval.{small}",
    )


def match_table(found: TextMatch, ceiling: TextMatch | None) -> ComparisonTable:
    """Return Chinese CLIP score and R-precision."""
    rows = [
        [
            name,
            str(one.n),
            plus_minus(one.score, 2),
            plus_minus(one.score_of_others, 2),
            plus_minus(one.r_precision),
        ]
        for name, one in (("images", found), ("true images (ceiling)", ceiling))
        if one is not None
    ]
    rows.append(["random choice", "", "", "", f"{found.chance:.3f}"])
    return ComparisonTable(
        title="Text-image match",
        header=["", "n", "score", "with other captions", "R-precision"],
        rows=rows,
        note="Score: 100 × cosine of image and caption. R-precision: share of the images closer to "
        f"their own caption than to {found.candidates - 1} captions of other images, in "
        f"expectation over all choices of these. ± as above. Chinese CLIP {found.clip[:16]}…",
    )


def reconstruction_table(found: Reconstruction) -> ComparisonTable:
    """Return the reconstruction quality and the use of the codebook."""
    rows = [["PSNR, dB", plus_minus(found.psnr, 2)]]
    if found.ssim is not None:
        rows.append(["SSIM", plus_minus(found.ssim)])
    rows += [
        ["codes used", f"{found.codes_used} of {found.codebook_size}"],
        ["perplexity of the codes", f"{found.perplexity:.0f}"],
    ]
    return ComparisonTable(
        title="Reconstruction of the true images",
        header=["upper bound for generated images", ""],
        rows=rows,
        note=f"{found.pictures} images of {found.side} × {found.side} pixels. PSNR and SSIM "
        "(Wang et al. 2004; Gaussian window of 11, sigma 1.5, per channel) are means over images.",
    )


def markdown(table: ComparisonTable) -> str:
    """Format a table in Markdown, its best row in bold."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rules = line(["---", *["---:"] * (len(table.header) - 1)])
    body = []
    for number, row in enumerate(table.rows):
        bold = number == table.best
        body.append(line([f"**{cell}**" if bold and cell else cell for cell in row]))
    return "\n".join([f"### {table.title}", "", line(table.header), rules, *body, "", table.note])


def verdicts(found: Likelihood) -> list[str]:
    """Describe the costs in sentences."""
    sentences = []
    group = found.groups.get("with entity", found.groups["all"])
    for name, what in (
        (NONE, "Removing the entities"),
        (SHUFFLED, "Shuffling the entities' vectors"),
        (OTHER_KG, "Using another graph's vectors"),
    ):
        if name in group.costs:
            sentences.append(_verdict(what, group.costs[name], group.losses[GIVEN]))
    unseen = found.groups.get("unseen entity")
    if unseen is not None and NONE in unseen.costs:
        captions = "caption" if unseen.captions == 1 else "captions"
        what = f"On {unseen.captions} {captions} with entities unseen in training, this"
        sentences.insert(1, _verdict(what, unseen.costs[NONE], unseen.losses[GIVEN]))
    if CAPTION in found.rows:
        whole = found.groups["all"]
        sentences.append(
            _verdict("Giving another image's caption", whole.costs[CAPTION], whole.losses[GIVEN])
        )
    if sentences:
        sentences.append(
            "These figures describe one trained model, with intervals over captions. Whether "
            "training with knowledge is better than without needs several trainings of both."
        )
    return sentences


def _verdict(what: str, cost: Interval, loss: Interval) -> str:
    figure = f"{plus_minus(cost, 4, sign=True)} nats per code"
    if not cost.clear:
        return f"{what} makes no significant difference: {figure}."
    share = f"{100 * abs(cost.mean) / loss.mean:.2g} % of the loss"
    return f"{what} {'costs' if cost.mean > 0 else 'gains'} {figure}, {share}."


def summary(
    found: Findings, warnings: Sequence[str], missing: Sequence[NotMeasured], out: Path | None
) -> list[str]:
    """Return the lines that the command prints: figures, warnings, and what was not measured."""
    lines: list[str] = []
    if found.likelihood is not None:
        lines += _likelihood_lines(found.likelihood)
    if found.images is not None:
        one = found.images
        kid = f", KID × 1000 {_spread(one.kid, 2, 1000)}" if one.kid is not None else ""
        mark = f" (n < {SMALL}: compare only at equal n)" if one.small else ""
        lines.append(
            f"FID {one.fid:.2f}{kid}, IS {_spread(one.inception_score, 2)}; {one.n} images "
            f"against {one.n_reference}{mark}"
        )
        if found.images_ceiling is not None:
            lines.append(f"  true images after reconstruction: FID {found.images_ceiling.fid:.2f}")
    for name, match in (("images", found.match), ("true images", found.match_ceiling)):
        if match is not None:
            lines.append(
                f"Chinese CLIP, {name}: score {plus_minus(match.score, 2)} (other captions "
                f"{match.score_of_others.mean:.2f}), R-precision {plus_minus(match.r_precision)} "
                f"of {match.candidates}"
            )
    if found.reconstruction is not None:
        one_r = found.reconstruction
        ssim = f", SSIM {plus_minus(one_r.ssim)}" if one_r.ssim is not None else ""
        lines.append(
            f"Reconstruction: PSNR {plus_minus(one_r.psnr, 2)} dB{ssim}; {one_r.codes_used} of "
            f"{one_r.codebook_size} codes used, perplexity {one_r.perplexity:.0f}"
        )
    lines += [f"Warning: {warning}" for warning in warnings]
    lines += [f"Not measured: {m.what}; give {m.how}" for m in missing]
    if out is not None:
        lines.append(f"Report: {out / 'report.html'}")
    return lines


def _likelihood_lines(found: Likelihood) -> list[str]:
    group, with_entity = found.groups["all"], found.groups.get("with entity")
    lines = [
        f"{group.captions} captions, {with_entity.captions if with_entity else 0} with an entity, "
        f"of {group.pictures} images. Nats per code (chance {found.chance:.3f}; intervals "
        f"{found.clustered}):"
    ]
    for name, loss in group.losses.items():
        cost = group.costs.get(name)
        paired = f"   costs {plus_minus(cost, 4, sign=True)}" if cost is not None else ""
        lines.append(f"  {name:9} {plus_minus(loss, 4)}{paired}")
    for name in ("unseen entity", "seen entities only"):
        if name in found.groups and NONE in found.groups[name].costs:
            cost = found.groups[name].costs[NONE]
            lines.append(
                f"  {name} ({found.groups[name].captions}): none costs "
                f"{plus_minus(cost, 4, sign=True)}"
            )
    return lines
