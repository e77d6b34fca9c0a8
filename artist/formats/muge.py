"""Predictions as MUGE's text-to-image task wants them handed in.

The task (https://tianchi.aliyun.com/muge, E-commerce text to image) asks for `T2I_test.tsv`: for
each id of its test set one line of the id, a tab, and one picture in base64. So writes its baseline
(https://github.com/MUGE-2021/image-generation-baseline): standard alphabet, PNG.
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

_NAMED = 3  # ids that a message names


class _Place(NamedTuple):
    """Where the row of an id lies in the file of predictions."""

    begin: int
    size: int


@dataclass(frozen=True, kw_only=True)
class MugeReport(StageReport):
    """What was written."""

    rows: int
    left_out: int

    def __str__(self) -> str:
        said = f"{self.outcome()}: {self.rows:,} ids, one picture each."
        if self.left_out:
            said += f" Predictions of other ids, left out: {self.left_out:,}."
        return said


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
        predictions: What `artist predict` wrote, or a TSV of `idx, text, gen_imgbase64` (EasyNLP's
            too).
        out: The TSV to write, `id<TAB>base64`.
        ids: A file whose first column names every id to hand in, in order (MUGE's `T2I_test.tsv` or
            `T2I_test.text.tsv`); without it all predictions, in their order.
        pick: Which of several pictures of an id, from 1.
        overwrite: Replace another run's output.

    Raises:
        InputError: An id has no picture, two rows or a picture that cannot be decoded. (A
            submission with holes would be scored as it is.)
    """
    if pick < 1:
        raise ConfigError(f"--pick {pick}: pictures are counted from 1.")
    table = predictions / PREDICTIONS if predictions.is_dir() else predictions
    places = _places(table)
    wanted = _ids(ids) if ids is not None else list(places)
    missing = [idx for idx in wanted if idx not in places]
    if missing:
        raise InputError(
            f"{table} has no picture for {len(missing):,} of {len(wanted):,} ids of {ids}: "
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
                    source.seek(places[idx].begin)
                    row = source.read(places[idx].size).decode("utf-8").rstrip("\r\n")
                    picture = _picture(row, pick, f"{table}, idx {idx}")
                    file.write(f"{idx}\t".encode() + base64.b64encode(picture) + b"\n")
        except OSError as error:
            raise ArtefactError(f"{out} cannot be written: {error.strerror}.") from None
        counts = {"rows": len(wanted), "left_out": len(places) - len(wanted)}
        run.finish(counts)
    return MugeReport(out=out, rows=counts["rows"], left_out=counts["left_out"])


def _places(table: Path) -> dict[str, _Place]:
    """Where the row of each id lies."""
    places: dict[str, _Place] = {}
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
                    f"{table}, line {line}: predictions are rows of idx, text and gen_imgbase64."
                )
            if idx in places:
                raise InputError(f"{table}, line {line}: idx {idx} has another row before.")
            places[idx] = _Place(begin, len(raw))
            begin += len(raw)
    if not places:
        raise InputError(f"{table} is empty.")
    return places


def _opened(table: Path) -> BinaryIO:
    """The file itself: rows are read from it at random, so it cannot be packed."""
    try:
        return table.open("rb")
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror}.") from None


def _ids(path: Path) -> list[str]:
    """The first column of a file."""
    rejects = Rejects()
    found = [fields[0].strip() for _, fields in read_rows(path, (1, 2, 3), rejects)]
    if rejects.count:
        raise InputError(f"{path}, {rejects.first}.")
    if len({*found}) != len(found):
        raise InputError(f"{path} names an id twice.")
    return found


def _picture(row: str, pick: int, where: str) -> bytes:
    """The picture of a row of predictions that was asked for."""
    try:
        listed = split_images(row.rpartition("\t")[2])
        if len(listed) < pick:
            raise InputError(f"it has {len(listed)} pictures, --pick {pick} asks for more")
        content = decode_base64(listed[pick - 1])
        decode_image(content)
    except InputError as error:
        raise InputError(f"{where}: {error}.") from None
    return content
