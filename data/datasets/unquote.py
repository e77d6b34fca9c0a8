"""Rewrite a TSV whose fields are quoted, as csv.writer, pandas and Excel write, without quotes."""

from dataclasses import dataclass
from pathlib import Path

from data.errors import ConfigError
from data.quoted_rows import records, unquoted
from data.runs import Run, StageReport, sha256
from data.tsv import bounded_lines, open_bytes


@dataclass(frozen=True, kw_only=True)
class UnquoteReport(StageReport):
    """The result of `unquote_tsv`.

    Attributes:
        counts: Lines read, rows written, rows changed.
    """

    counts: dict[str, int]

    def __str__(self) -> str:
        c = self.counts
        return (
            f"{self.outcome()}: {c['rows']:,} rows of {c['lines']:,} lines; quotes were removed "
            f"from {c['unquoted']:,}."
        )


def unquote_tsv(source: Path, out: Path, *, overwrite: bool = False) -> UnquoteReport:
    """Remove the quotes of quoted fields; other fields and rows stay as they are.

    Tabs and line ends in a quoted field become spaces.

    Args:
        source: The TSV, plain or gzip.
        out: The TSV to write.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: `source` cannot be read, or `out` is in the way.
    """
    with open_bytes(source) as file:
        if out.exists() and out.samefile(source):
            raise ConfigError(f"--out {out} is the input; choose another.")
        with Run.open(
            out, kind="tsv", settings={}, inputs={"rows": sha256(source)}, folder=False,
            overwrite=overwrite,
        ) as run:  # fmt: skip
            if run.finished is not None:
                return UnquoteReport(out=out, counts=run.finished.counts, already_finished=True)
            counts = {"lines": 0, "rows": 0, "unquoted": 0}
            with run.work.open("wb") as written:
                lines = (
                    line.removesuffix(b"\n").removesuffix(b"\r")
                    for line in bounded_lines(file, source)
                )
                for record in records(lines):
                    row = b"\n".join(record)
                    plain = unquoted(row)
                    written.write(plain + b"\n")
                    counts["lines"] += len(record)
                    counts["rows"] += 1
                    counts["unquoted"] += plain != row
            run.finish(counts)
            return UnquoteReport(out=out, counts=counts)
