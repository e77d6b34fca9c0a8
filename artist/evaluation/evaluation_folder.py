"""The output folder of an evaluation.

evaluation.json   settings, fingerprints, versions, all figures, what was not measured
table.md          the tables in Markdown
captions.tsv      figures per caption, for further analysis
report.html       tables, plots and images; written by `artist.evaluation.report`
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artist.evaluation.controls import has_unseen
from artist.evaluation.inputs import Inputs
from artist.evaluation.results import Evaluation
from artist.evaluation.tables import markdown, tables, verdicts
from data.errors import ArtefactError
from data.runs import atomic, write_json

JSON, TABLES, CAPTIONS, REPORT = "evaluation.json", "table.md", "captions.tsv", "report.html"
_VERSION = 1


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json` and `table.md` into an existing folder."""
    content = {
        "version": _VERSION,
        "summary": evaluation.summary,
        "sources": {k: str(v) for k, v in vars(evaluation.sources).items() if v is not None},
        "inputs": evaluation.inputs,
        "settings": evaluation.settings,
        "versions": evaluation.versions,
        "findings": plain(evaluation.findings),
        "not_measured": plain(evaluation.not_measured),
        "warnings": evaluation.warnings,
    }
    write_json(folder / JSON, content)
    with atomic(folder / TABLES) as file:
        file.write(as_markdown(evaluation))


def as_markdown(evaluation: Evaluation) -> str:
    """Return the tables, the verdicts and the warnings in Markdown."""
    parts = [markdown(table) for table in tables(evaluation.findings)]
    found = evaluation.findings.likelihood
    lines = [*(verdicts(found) if found is not None else []), *evaluation.warnings]
    if lines:
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def read_summary(folder: Path) -> list[str]:
    """Return the summary of a finished evaluation.

    Raises:
        ArtefactError: The folder's JSON cannot be read.
    """
    try:
        content = json.loads((folder / JSON).read_text(encoding="utf-8"))
        return [str(line) for line in content["summary"]]
    except (OSError, ValueError, KeyError) as error:
        raise ArtefactError(f"{folder / JSON} cannot be read: {error}.") from None


def plain(value: Any) -> Any:
    """Convert a value for JSON: named tuples as objects, NaN as null, no fields with repr=False."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = {f.name: getattr(value, f.name) for f in fields(value) if f.repr}
        return {name: plain(one) for name, one in shown.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(one) for name, one in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_captions(
    folder: Path,
    evaluation: Evaluation,
    inputs: Inputs,
    clip_of: Mapping[str, float],
    clusters: Sequence[str],
) -> None:
    """Write `captions.tsv`: a header and a line per caption; empty cells where not measured."""
    found, rows = evaluation.findings, inputs.rows
    assert found.likelihood is not None
    columns: dict[str, Sequence[Any]] = {
        "idx": rows.idx,
        "text": rows.texts,
        "picture": found.likelihood.images.tolist(),
        "cluster": clusters,
        "entities": np.diff(rows.first_entity).tolist(),
    }
    seen = inputs.seen_entities
    if seen is not None:
        columns["unseen_entity"] = has_unseen(rows, seen).astype(int).tolist()
    for name, losses in found.likelihood.rows.items():
        columns[f"nats_{name}"] = [f"{loss:.6f}" for loss in losses]
    if found.reconstruction is not None:
        order = {int(inputs.groups[row]): n for n, row in enumerate(inputs.first_rows)}
        positions = [order[group] for group in inputs.groups.tolist()]
        columns["psnr"] = [f"{v:.3f}" for v in found.reconstruction.psnr_of[positions]]
        if len(found.reconstruction.ssim_of):
            columns["ssim"] = [f"{v:.4f}" for v in found.reconstruction.ssim_of[positions]]
    if clip_of:
        columns["clip_score"] = [f"{clip_of[i]:.3f}" if i in clip_of else "" for i in rows.idx]
    with atomic(folder / CAPTIONS) as file:
        file.write("\t".join(columns) + "\n")
        for row in zip(*columns.values(), strict=True):
            file.write("\t".join(map(str, row)) + "\n")
