"""Export predictions as a submission to MUGE's text-to-image task.

The task (https://tianchi.aliyun.com/muge, E-commerce text to image) requires `T2I_test.tsv`: one
line per id of its test set, the id, a tab, and one image in base64. The format is that of its
baseline (https://github.com/MUGE-2021/image-generation-baseline): standard alphabet, PNG.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from artist.formats.predictions import PREDICTIONS
from data.errors import ArtefactError, ConfigError, InputError
from data.images import decode_base64, decode_image, split_images
from data.runs import Run, StageReport, fingerprint, sha256
from data.tsv import Rejects, bounded_lines, read_rows

_NAMED = 3  # ids listed in a message


class _Span(NamedTuple):
    """Byte range of a row in the file of predictions."""

    begin: int
    size: int


@dataclass(frozen=True, kw_only=True)
class MugeReport(StageReport):
    """Result of `export_muge`."""

    rows: int
    left_out: int

    def __str__(self) -> str:
        text = f"{self.outcome()}: {self.rows:,} ids, one image each."
        if self.left_out:
            text += f" Predictions of other ids, left out: {self.left_out:,}."
        return text


def export_muge(
    predictions: Path,
    out: Path,
    *,
    ids: Path | None = None,
    pick: int = 1,
    overwrite: bool = False,
) -> MugeReport:
    """Write a submission to MUGE's text-to-image task.

    Args:
        predictions: A folder written by `artist predict`, or a TSV of `idx, text, gen_imgbase64`
            (also EasyNLP's).
        out: The TSV to write, `id<TAB>base64`.
        ids: A file whose first column lists the ids to submit, in order (MUGE's `T2I_test.tsv` or
            `T2I_test.text.tsv`); without it all predictions, in their order.
        pick: Which image of an id with several, from 1.
        overwrite: Replace another run's output.

    Raises:
        ConfigError: `pick` is below 1.
        InputError: An id has no image, two rows, or an image that cannot be decoded. (An incomplete
            submission would be scored as it is.)
    """
    if pick < 1:
        raise ConfigError(f"--pick {pick}: images are counted from 1.")
    table = predictions / PREDICTIONS if predictions.is_dir() else predictions
    spans = _spans(table)
    wanted = _ids(ids) if ids is not None else list(spans)
    missing = [idx for idx in wanted if idx not in spans]
    if missing:
        raise InputError(
            f"{table} has no image for {len(missing):,} of {len(wanted):,} ids of {ids}: "
            f"{', '.join(missing[:_NAMED])}{' ...' * (len(missing) > _NAMED)}."
        )
    settings: dict[str, Any] = {"pick": pick, "ordered": ids is not None}
    inputs = {"predictions": fingerprint(table)} | ({"ids": sha256(ids)} if ids else {})
    with Run.open(out, kind="muge-submission", settings=settings, inputs=inputs, folder=False,
                  overwrite=overwrite) as run:  # fmt: skip
        if run.finished is not None:
            return MugeReport(out=out, **run.finished.counts, already_finished=True)
        try:
            with _opened(table) as source, run.work.open("wb") as file:
                for idx in wanted:
                    source.seek(spans[idx].begin)
                    row = source.read(spans[idx].size).decode("utf-8").rstrip("\r\n")
                    image = _image(row, pick, f"{table}, idx {idx}")
                    file.write(f"{idx}\t".encode() + base64.b64encode(image) + b"\n")
        except OSError as error:
            raise ArtefactError(f"{out} cannot be written: {error.strerror}.") from None
        counts = {"rows": len(wanted), "left_out": len(spans) - len(wanted)}
        run.finish(counts)
    return MugeReport(out=out, rows=counts["rows"], left_out=counts["left_out"])


def _spans(table: Path) -> dict[str, _Span]:
    """Return the byte range of each id's row."""
    spans: dict[str, _Span] = {}
    begin = 0
    with _opened(table) as file:
        for line, raw in enumerate(bounded_lines(file, table), 1):
            name, tab, rest = raw.partition(b"\t")
            try:
                idx = name.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{table}, line {line}: not UTF-8.") from None
            if not tab or b"\t" not in rest:
                raise InputError(
                    f"{table}, line {line}: expected the columns idx, text, gen_imgbase64."
                )
            if idx in spans:
                raise InputError(f"{table}, line {line}: idx {idx} occurs in an earlier row.")
            spans[idx] = _Span(begin, len(raw))
            begin += len(raw)
    if not spans:
        raise InputError(f"{table} is empty.")
    return spans


def _opened(table: Path) -> BinaryIO:
    """Open the file; rows are read at random positions, so it cannot be compressed."""
    try:
        return table.open("rb")
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror}.") from None


def _ids(path: Path) -> list[str]:
    """Return the first column of a file, with unique ids."""
    rejects = Rejects()
    found = [fields[0].strip() for _, fields in read_rows(path, (1, 2, 3), rejects)]
    if rejects.count:
        raise InputError(f"{path}, {rejects.first}.")
    if len({*found}) != len(found):
        raise InputError(f"{path} lists an id twice.")
    return found


def _image(row: str, pick: int, where: str) -> bytes:
    """Return the encoded image number `pick` of a row of predictions."""
    try:
        listed = split_images(row.rpartition("\t")[2])
        if len(listed) < pick:
            raise InputError(f"it has {len(listed)} images, fewer than --pick {pick}")
        content = decode_base64(listed[pick - 1])
        decode_image(content)
    except InputError as error:
        raise InputError(f"{where}: {error}.") from None
    return content
