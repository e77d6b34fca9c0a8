"""Check a TSV or lattice table before training: what is unusable, duplicated or leaking.

The table is read once; the peak is three times the memory of its `TableScan`. Findings are
*problems*, which cost rows or distort results, or *remarks*, which are often intended. Each lists
its first lines.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.constants import TEXT_LEN
from data.datasets.findings import Finding, own_findings, shared_findings
from data.datasets.table_scan import TableScan, TableScanner
from data.errors import ConfigError, InputError
from data.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ValidateReport:
    """The contents of a table, and the findings.

    Attributes:
        table: What was checked.
        against: The table it was compared with.
        summary: Counts and quantiles of captions and images.
        findings: All findings, with a count above 0.
    """

    table: Path
    against: Path | None
    summary: dict[str, Any]
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """Return the findings that cost rows or distort results."""
        return [f for f in self.findings if f.problem]

    @property
    def remarks(self) -> list[Finding]:
        """Return the other findings."""
        return [f for f in self.findings if not f.problem]

    def __str__(self) -> str:
        lines = _describe(self.table, self.summary)
        for title, found in (("Problems", self.problems), ("Remarks", self.remarks)):
            if found:
                lines += [f"{title}:", *map(str, found)]
        if not self.problems:
            lines.append("No problems.")
        return "\n".join(lines)

    def json(self) -> str:
        """Return summary and findings as JSON, for scripts."""
        found = {
            name: [
                {
                    "code": finding.code,
                    "count": finding.count,
                    "what": finding.what,
                    "first": [one._asdict() for one in finding.first],
                }
                for finding in findings
            ]
            for name, findings in (("problems", self.problems), ("remarks", self.remarks))
        }
        against = str(self.against) if self.against else None
        head = {"table": str(self.table), "against": against, **self.summary}
        return json.dumps({**head, **found}, ensure_ascii=False, indent=1)


def validate_table(
    table: Path,
    *,
    against: Path | None = None,
    tokenizer: Path | None = None,
    text_len: int = TEXT_LEN,
    check_images: str = "full",
    workers: int | None = None,
    show: int = 3,
) -> ValidateReport:
    """Check a table, and what it shares with another one.

    Args:
        table: A TSV (`idx, text[, imgbase64]`), or a lattice table in one file or a folder of them.
        against: Another table, such as the training set of a test set.
        tokenizer: A `vocab.txt` or a folder with one, to count the tokens of a TSV.
        text_len: Tokens that a model reads.
        check_images: `full` decodes every image; `header` reads sizes and finds neither damage nor
            near duplicates.
        workers: Threads that decode images; all cores if None.
        show: Number of lines listed per finding.

    Raises:
        InputError: A file is missing, empty, or neither a TSV nor a lattice table.
    """
    if check_images not in ("full", "header"):
        raise ConfigError(f"--check-images {check_images}: use full or header.")
    if against is not None and against.exists() and table.exists() and against.samefile(table):
        raise ConfigError(f"--against {against} is the table itself.")
    words = Tokenizer.load(tokenizer) if tokenizer is not None else None
    scanner = TableScanner(words, check_images, workers or os.cpu_count() or 1, show)
    found = scanner.scan(table)
    if not len(found) and not found.faults.count:
        raise InputError(f"{table} has no rows.")
    findings = own_findings(found, text_len, show)
    if against is not None:
        findings += shared_findings(found, scanner.scan(against), show)
    return ValidateReport(
        table=table,
        against=against,
        summary=_summary(found, text_len),
        findings=[f for f in findings if f.count],
    )


def _spread(values: NDArray[Any]) -> dict[str, float]:
    """Return minimum, median, 95 % quantile and maximum."""
    found = np.quantile(values, [0, 0.5, 0.95, 1])
    return {
        k: round(float(v), 3) for k, v in zip(("min", "median", "p95", "max"), found, strict=True)
    }


def _summary(scan: TableScan, text_len: int) -> dict[str, Any]:
    """Return the counts and quantiles of a table."""
    has_image = scan.has_image
    found: dict[str, Any] = {
        "rows": len(scan) + scan.faults.count,
        "usable_rows": len(scan),
        "captions": {"different": len(np.unique(scan.text))},
        "images": {"rows": int(has_image.sum())},
    }
    if len(scan):
        found["captions"]["characters"] = _spread(scan.characters)
    if (scan.tokens >= 0).any():
        found["captions"]["tokens"] = _spread(scan.tokens)
        found["captions"]["tokens_unknown"] = scan.unknown_tokens
        found["captions"][f"longer_than_{text_len}_tokens"] = int((scan.tokens > text_len).sum())
    if has_image.any():
        width, height = scan.width[has_image], scan.height[has_image]
        short, long = np.minimum(width, height), np.maximum(width, height)
        found["images"] |= {
            "different": len(np.unique(scan.sha[has_image])),
            "bytes": int(scan.num_bytes.sum()),
            "bytes_each": _spread(scan.num_bytes[has_image]),
            "formats": dict(scan.formats.most_common()),
            "shorter_side": _spread(short),
            "long_by_short": _spread(long / short),
        }
    return found


def _describe(table: Path, summary: dict[str, Any]) -> list[str]:
    """Return the lines of a summary."""
    captions, images = summary["captions"], summary["images"]
    lines = [f"{table}: {summary['rows']:,} rows, {summary['usable_rows']:,} of them usable"]
    lines.append(f"  captions       {captions['different']:,} different")
    lines += [
        f"    {name:<13}{_spread_text(captions[name])}"
        for name in ("characters", "tokens")
        if name in captions
    ]
    if "tokens_unknown" in captions:
        lines[-1] += f"; {captions['tokens_unknown']:,} unknown in all"
    if not images["rows"]:
        lines.append("  images         none")
        return lines
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in images["formats"].items())
    lines.append(
        f"  images         {images['rows']:,}, {images['different']:,} different, "
        f"{images['bytes'] / 1e6:,.1f} MB; {kinds}"
    )
    lines.append(f"    shorter side {_spread_text(images['shorter_side'])} pixels")
    lines.append(f"    long : short {_spread_text(images['long_by_short'])}")
    return lines


def _spread_text(spread: dict[str, float]) -> str:
    return (
        f"{spread['min']:g} to {spread['max']:g}, median {spread['median']:g}, "
        f"95 % up to {spread['p95']:g}"
    )
