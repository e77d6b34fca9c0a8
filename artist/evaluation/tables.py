"""The figures of an evaluation as tables, for Markdown and HTML alike, and as lines of text."""

import math
from collections.abc import Sequence

from artist.evaluation.image_metrics import SMALL, ImageMetrics, Spread
from artist.evaluation.intervals import Interval
from artist.evaluation.likelihood import CAPTION, GIVEN, NONE, OTHER_KG, SHUFFLED, Likelihood
from artist.evaluation.reconstruction import Reconstruction
from artist.evaluation.results import Evaluation
from artist.generation.gallery import ComparisonTable

WAYS = {  # of telling a model about a picture
    GIVEN: "its own caption and entities",
    NONE: "no entities",
    SHUFFLED: "vectors of wrong entities",
    OTHER_KG: "vectors of another graph",
    CAPTION: "another picture's caption",
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
    """`5.202 ± 0.055`; without a half-width where there is none."""
    rounded = round(value.mean, digits) + 0.0  # never -0.0000
    mean = f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"
    return mean if math.isnan(value.half_width) else f"{mean} ± {value.half_width:.{digits}f}"


def _spread(value: Spread, digits: int, factor: float = 1.0) -> str:
    return f"{factor * value.mean:.{digits}f} ({factor * value.std:.{digits}f})"


def tables(evaluation: Evaluation) -> list[ComparisonTable]:
    """All tables that there is something for, in the order of the report."""
    found = evaluation.findings
    result = []
    if found.likelihood is not None:
        result += [likelihood_table(found.likelihood), knowledge_table(found.likelihood)]
    if found.images is not None:
        result.append(image_table(found.images, found.images_ceiling))
    if found.match is not None:
        result.append(match_table(evaluation))
    if found.reconstruction is not None:
        result.append(reconstruction_table(found.reconstruction))
    return [table for table in result if table is not None]


def likelihood_table(found: Likelihood) -> ComparisonTable:
    """Nats per code and per picture, for each way of telling, over all captions."""
    group = found.groups["all"]
    rows = []
    for name, loss in group.losses.items():
        cost = group.costs.get(name)
        each = Interval(*(found.image_len * value for value in loss))
        rows.append(
            [
                WAYS[name],
                plus_minus(loss),
                plus_minus(each, 1),
                plus_minus(cost, 4, sign=True) if cost is not None else "",
            ]
        )
    rows.append(["nothing (all codes alike)", f"{found.chance:.3f}", "", ""])
    shuffled = ""
    if found.shuffles > 1 and found.shuffle_spread is not None:
        shuffled = (
            f" Vectors were dealt out {found.shuffles} times; their means differ by "
            f"{found.shuffle_spread:.4f} (standard deviation), which is in the interval."
        )
    return ComparisonTable(
        title="How likely the model finds the true pictures",
        header=["told to the model", "nats per code", "nats per picture", "cost, nats per code"],
        rows=rows,
        best=0,
        note=f"{group.captions} captions of {group.pictures} pictures, {found.image_len} codes a "
        "picture; lower is better. ± is the half-width of a 95 % interval over pictures. A cost is "
        f"the difference to the first row, paired by caption.{shuffled}",
    )


def knowledge_table(found: Likelihood) -> ComparisonTable | None:
    """What each control costs, by group of captions; None where the model has no knowledge."""
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
            f" The other graph knows {100 * found.other_kg_known:.0f} % of the entities by name."
        )
    return ComparisonTable(
        title="What knowledge is worth",
        header=["captions", "n", "as told", *(f"cost: {SHORT[c]}" for c in controls)],
        rows=rows,
        note="Nats per code; a positive cost means that the knowledge helped. Wrong vectors leave "
        f"the entities in their places and change what they say.{known}",
    )


def image_table(found: ImageMetrics, ceiling: ImageMetrics | None) -> ComparisonTable:
    """FID, KID and IS, with all that they depend on."""

    def row(name: str, one: ImageMetrics) -> list[str]:
        mark = _DAGGER if one.small else ""
        kid = _spread(one.kid, 2, 1000) if one.kid is not None else "–"
        score = f"{_spread(one.inception_score, 2)}{mark}"
        return [name, str(one.n), f"{one.fid:.2f}{mark}", kid, score]

    rows = [row("pictures", found)]
    if ceiling is not None:
        rows.append(row("true pictures through the VQGAN (ceiling)", ceiling))
    ours, theirs = found.settings, found.settings_reference
    small = (
        f" {_DAGGER} Fewer than {SMALL} pictures: FID falls and IS rises as their number "
        "grows; compare only with figures from the same number."
        if found.small
        else ""
    )
    published = "the published file" if found.published_weights else "NOT the published file"
    return ComparisonTable(
        title="Pictures against the reference",
        header=["", "n", "FID", "KID × 1000", "IS"],
        rows=rows,
        note=f"Reference: {found.n_reference or 'an unknown number of'} pictures "
        f"({theirs.crop or 'cut in an unknown way'}); pictures: {ours.crop}; resized as "
        f"{ours.like} does. Inception weights {ours.weights[:16]}…, {published}. KID: mean "
        f"(standard deviation) over {found.kid_subsets} subsets of {found.kid_subset_size}; IS: "
        f"over {found.is_splits} splits; neither is an interval.{small}",
    )


def match_table(evaluation: Evaluation) -> ComparisonTable:
    """Chinese CLIP score and R-precision."""
    found, ceiling = evaluation.findings.match, evaluation.findings.match_ceiling
    assert found is not None
    rows = [
        [
            name,
            str(one.n),
            plus_minus(one.score, 2),
            plus_minus(one.score_of_others, 2),
            plus_minus(one.r_precision),
        ]
        for name, one in (("pictures", found), ("true pictures (ceiling)", ceiling))
        if one is not None
    ]
    rows.append(["a blind choice", "", "", "", f"{found.chance:.3f}"])
    return ComparisonTable(
        title="Pictures and their captions",
        header=["", "n", "score", "with other captions", "R-precision"],
        rows=rows,
        note="Score: 100 × cosine of picture and caption. R-precision: share of the pictures that "
        f"are nearer to their own caption than to {found.candidates - 1} captions of others, in "
        f"expectation over all choices of those. ± as above. Chinese CLIP {found.clip[:16]}…",
    )


def reconstruction_table(found: Reconstruction) -> ComparisonTable:
    """What the VQGAN's codes keep of true pictures."""
    rows = [["PSNR, dB", plus_minus(found.psnr, 2)]]
    if found.ssim is not None:
        rows.append(["SSIM", plus_minus(found.ssim)])
    rows += [
        ["codes used", f"{found.codes_used} of {found.codebook_size}"],
        ["perplexity of the codes", f"{found.perplexity:.0f}"],
    ]
    return ComparisonTable(
        title="True pictures through the VQGAN",
        header=["the ceiling for all that is drawn", ""],
        rows=rows,
        note=f"{found.pictures} pictures of {found.side} × {found.side} pixels. PSNR and SSIM "
        "(Wang et al. 2004; a Gaussian window of 11, sigma 1.5, colours apart) are means over "
        "pictures.",
    )


def markdown(table: ComparisonTable) -> str:
    """A table in Markdown, its best row in bold."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rules = line(["---", *["---:"] * (len(table.header) - 1)])
    body = []
    for number, row in enumerate(table.rows):
        bold = number == table.best
        body.append(line([f"**{cell}**" if bold and cell else cell for cell in row]))
    return "\n".join([f"### {table.title}", "", line(table.header), rules, *body, "", table.note])


def verdicts(found: Likelihood) -> list[str]:
    """What the costs say in words, and no more than they say."""
    said = []
    group = found.groups.get("with entity", found.groups["all"])
    for name, what in (
        (NONE, "Taking the entities away"),
        (SHUFFLED, "Giving entities each other's vectors"),
        (OTHER_KG, "Giving them another graph's vectors"),
    ):
        if name in group.costs:
            said.append(_verdict(what, group.costs[name], group.losses[GIVEN]))
    unseen = found.groups.get("unseen entity")
    if unseen is not None and NONE in unseen.costs:
        what = f"On {unseen.captions} captions with entities that training never named, that"
        said.insert(1, _verdict(what, unseen.costs[NONE], unseen.losses[GIVEN]))
    if CAPTION in found.rows:
        whole = found.groups["all"]
        said.append(
            _verdict("Telling another picture's caption", whole.costs[CAPTION], whole.losses[GIVEN])
        )
    if said:
        said.append(
            "All this is about one trained model, with intervals over pictures: whether training "
            "with knowledge is better than without takes several trainings of both."
        )
    return said


def _verdict(what: str, cost: Interval, loss: Interval) -> str:
    figure = f"{plus_minus(cost, 4, sign=True)} nats per code"
    if not cost.clear:
        return f"{what} makes no difference that can be told: {figure}."
    share = f"{100 * abs(cost.mean) / loss.mean:.2g} % of the loss"
    return f"{what} {'costs' if cost.mean > 0 else 'gains'} {figure}, {share}."


def summary(evaluation: Evaluation) -> list[str]:
    """What is printed: the figures in short, what was left out, what to beware of."""
    found, lines = evaluation.findings, []
    if found.likelihood is not None:
        lines += _likelihood_lines(found.likelihood)
    if found.images is not None:
        one = found.images
        kid = f", KID × 1000 {_spread(one.kid, 2, 1000)}" if one.kid is not None else ""
        mark = f" (n < {SMALL}: compare only at equal n)" if one.small else ""
        lines.append(
            f"FID {one.fid:.2f}{kid}, IS {_spread(one.inception_score, 2)}; {one.n} pictures "
            f"against {one.n_reference}{mark}"
        )
        if found.images_ceiling is not None:
            lines.append(f"  true pictures through the VQGAN: FID {found.images_ceiling.fid:.2f}")
    for name, match in (("pictures", found.match), ("true pictures", found.match_ceiling)):
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
            f"VQGAN: PSNR {plus_minus(one_r.psnr, 2)} dB{ssim}; {one_r.codes_used} of "
            f"{one_r.codebook_size} codes used, perplexity {one_r.perplexity:.0f}"
        )
    lines += [f"Beware: {warning}" for warning in evaluation.warnings]
    lines += [f"Not measured: {m.what}; give {m.how}" for m in evaluation.not_measured]
    if evaluation.out is not None:
        lines.append(f"Look at {evaluation.out / 'report.html'}")
    return lines


def _likelihood_lines(found: Likelihood) -> list[str]:
    group, known = found.groups["all"], found.groups.get("with entity")
    lines = [
        f"{group.captions} captions, {known.captions if known else 0} with an entity, of "
        f"{group.pictures} pictures. Nats per code (chance {found.chance:.3f}):"
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
