"""EasyNLP's preprocessed TSV: export and import of lattice tables, byte for byte.

A row is `idx, text, lex_ids, pos_s, pos_e, seq_len`, optionally followed by an image in base64.
Lists are numbers separated by single spaces; the position lists contain the tokens 0..seq_len-1,
then the first (`pos_s`) and last (`pos_e`) token of each entity. The columns are defined in
`data.schema.LATTICE`.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from data.errors import ConfigError, InputError, RowError
from data.images import check_image, decode_base64, decode_image
from data.kg_folder import open_names
from data.options import ImageCheck, check_value
from data.runs import Manifest, Run, fingerprint, sha256
from data.schema import (
    IMAGE,
    LATTICE,
    open_shards,
    open_table,
    table_metadata,
    table_writer,
    with_metadata,
)
from data.tokenizer import Tokenizer
from data.tsv import Rejects, Row, read_rows
from lattice.building import reports
from lattice.config import LatticeConfig
from lattice.matching.lexicon import names_file
from lattice.matching.vocabulary import kg_fingerprint_of

# EasyNLP's rules: no bracket aliases, no one-character names.
EASYNLP_CONFIG = LatticeConfig(bracket_aliases=False)
_PLAIN, _WITH_IMAGE = 6, 7  # columns
_LOOK_AHEAD = 100  # rows that determine whether the file has images
_ROW_GROUP = {_PLAIN: 65_536, _WITH_IMAGE: 500}
_GROUP_BYTES = 64 << 20  # of images, in a row group
_ALPHABETS = "image_base64"  # in a table's metadata: the base64 variant of its images


@dataclass(frozen=True, kw_only=True)
class ExchangeReport(reports.TableReport):
    """The result of an import or export.

    Attributes:
        num_changed: Rows that an export does not reproduce byte for byte.
    """

    num_changed: int = 0

    def __str__(self) -> str:
        if self.already_finished:
            return self.up_to_date()
        lines = [f"{self.out}: {self.num_rows:,} captions", *self.rejected_lines(self.out.name)]
        if self.num_changed:
            lines.append(
                f"  {self.num_changed:,} rows differ from what `lattice export` writes (spaces or "
                "base64); their meaning is the same"
            )
        return "\n".join(lines)


# --- export ------------------------------------------------------------------------------------
def tsv_lines(rows: pa.RecordBatch, images: Sequence[str] | None = None) -> Iterator[str]:
    """Yield EasyNLP's line for each row, with its line feed.

    Args:
        rows: Rows of a lattice table.
        images: Their images in base64, if the table has images.
    """
    columns = [rows.column("idx").to_pylist(), rows.column("text").to_pylist()]
    columns += [
        [_joined(numbers) for numbers in rows.column(name).to_pylist()]
        for name in ("lex_ids", "pos_s", "pos_e")
    ]
    columns.append([str(n) for n in rows.column("seq_len").to_pylist()])
    if images is not None:
        columns.append(images)
    return ("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def export_table(table: Path, out: Path, *, overwrite: bool = False) -> ExchangeReport:
    """Write a lattice table, or a folder of its shards, as EasyNLP's preprocessed TSV.

    Raises:
        ToolkitError: `table` is not a lattice table, or `out` belongs to another run.
    """
    files = open_shards(table, LATTICE, optional=(IMAGE,)).files
    if any(out.exists() and out.samefile(file) for file in files):
        raise ConfigError(f"--out {out} is an input; choose another.")
    inputs = {"table": fingerprint(table)}
    with Run.open(
        out, kind="easynlp-tsv", settings={}, inputs=inputs, folder=False, overwrite=overwrite
    ) as run:
        if run.finished is not None:
            return ExchangeReport(
                out=out, num_rows=run.finished.counts["rows"], already_finished=True
            )
        count = 0
        with reports.writing(out), run.work.open("w", encoding="utf-8", newline="\n") as file:
            for rows, images in _table_rows(files):
                file.writelines(tsv_lines(rows, images))
                count += rows.num_rows
        run.finish({"rows": count})
    return ExchangeReport(out=out, num_rows=count)


def _table_rows(files: Sequence[Path]) -> Iterator[tuple[pa.RecordBatch, list[str] | None]]:
    for path in files:
        file = open_table(path, LATTICE, optional=(IMAGE,))
        has_images = IMAGE.name in file.schema_arrow.names
        names = [*LATTICE.names, *([IMAGE.name] if has_images else [])]
        variant = _Base64(table_metadata(file.schema_arrow).get(_ALPHABETS, ""))
        for rows in file.iter_batches(_ROW_GROUP[_WITH_IMAGE], columns=names):
            images = None
            if has_images:
                contents = rows.column(IMAGE.name).field("bytes").to_pylist()
                images = [variant.encode(content or b"") for content in contents]
            yield rows, images


class _Base64:
    """A variant of base64: `urlsafe` or not, `unpadded` or not."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._altchars = b"-_" if "urlsafe" in name else None
        self._padded = "unpadded" not in name

    @classmethod
    def detect(cls, texts: Sequence[str]) -> "_Base64":
        """Return the variant of texts, of which only some may show it."""
        names = {"urlsafe" for text in texts if set("-_") & set(text)}
        names |= {"unpadded" for text in texts if len(text) % 4}
        return cls(" ".join(sorted(names)))

    def encode(self, content: bytes) -> str:
        """Return the content in this variant."""
        text = base64.b64encode(content, self._altchars).decode()
        return text if self._padded else text.rstrip("=")


# --- import ------------------------------------------------------------------------------------
def import_table(
    tsv: Path,
    out: Path,
    *,
    names: Path,
    tokenizer: Path,
    check_images: str = "full",
    overwrite: bool = False,
) -> ExchangeReport:
    """Import EasyNLP's preprocessed TSV as a lattice table, with its matches unchanged.

    Entities keep the order of the file, which determines the ones a model with a cap keeps. The
    file has no token ids; they come from the tokenizer, and a row with another `seq_len` is
    rejected.

    Args:
        tsv: The file, plain or gzip.
        out: The table.
        names: The KG folder or `entity2id.txt` of its entity ids.
        tokenizer: The `vocab.txt` it was produced with, or a folder with one.
        check_images: `full` decodes every image once; `header` only reads its size.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: An input is missing or unusable, or `out` belongs to another run.
    """
    check_value(ImageCheck, "check_images", check_images)
    loaded = Tokenizer.load(tokenizer)
    if out.exists() and tsv.exists() and out.samefile(tsv):
        raise ConfigError(f"--out {out} is an input; choose another.")
    inputs = {
        "tsv": fingerprint(tsv),
        "names": sha256(names_file(names)),
        "kg": kg_fingerprint_of(names),
        "tokenizer": loaded.fingerprint,
    }
    with Run.open(
        out,
        kind="lattice",
        settings={"from": "easynlp", "check_images": check_images},
        inputs=inputs,
        folder=False,
        overwrite=overwrite,
    ) as run:
        if run.finished is not None:
            return _import_report(out, run.finished, already_finished=True)
        rejects = reports.rejects_of(run)
        reader = _Reader(tsv, loaded, len(open_names(names_file(names))), check_images, rejects)
        with reports.writing(out):
            _write(reader, run.work, reports.lattice_metadata(inputs["kg"], loaded, EASYNLP_CONFIG))
            reports.save_tokenizer(loaded, out)
        counts = {
            "rows_in": reader.counts["rows"] + rejects.count,
            "rows": reader.counts["rows"],
            "rejected": rejects.count,
            "reasons": dict(rejects.reasons),
            "first_reject": rejects.first,
            "changed": reader.counts["changed"],
        }
        return _import_report(out, reports.finish_table(run, counts, rejects))


def _import_report(out: Path, manifest: Manifest, already_finished: bool = False) -> ExchangeReport:
    fields = reports.table_fields(out, manifest, already_finished)
    return ExchangeReport(**fields, num_changed=manifest.counts["changed"])


class _Reader:
    """Reads and checks the rows of a file."""

    def __init__(
        self, tsv: Path, tokenizer: Tokenizer, num_names: int, check_images: str, rejects: Rejects
    ) -> None:
        self._tsv, self._tokenizer, self._num_names = tsv, tokenizer, num_names
        self._look = decode_image if check_images == "full" else check_image
        self._rejects = rejects
        self.counts: Counter[str] = Counter()
        head = list(islice(read_rows(tsv, (_PLAIN, _WITH_IMAGE), Rejects()), _LOOK_AHEAD))
        forms = Counter(len(row.fields) for row in head)
        self.base64 = _Base64.detect([r.fields[-1] for r in head if len(r.fields) == _WITH_IMAGE])
        self.columns = _WITH_IMAGE if forms[_WITH_IMAGE] > forms[_PLAIN] else _PLAIN

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the usable rows in row groups."""
        group: list[dict[str, Any]] = []
        num_bytes = 0
        for values in self._rows():
            group.append(values)
            num_bytes += len(values[IMAGE.name]["bytes"]) if IMAGE.name in values else 0
            if len(group) == _ROW_GROUP[self.columns] or num_bytes > _GROUP_BYTES:
                yield group
                group, num_bytes = [], 0
        if group:
            yield group

    def _rows(self) -> Iterator[dict[str, Any]]:
        found = read_rows(self._tsv, (self.columns,), self._rejects)
        while part := list(islice(found, 256)):  # the tokenizer is faster in batches
            tokens = self._tokenizer.encode([row.fields[1] for row in part])
            for row, (ids, _) in zip(part, tokens, strict=True):
                try:
                    values, exact = self._check(row, ids)
                except RowError as error:
                    self._rejects.add(row.line, error.reason, "\t".join(row.fields))
                    continue
                self.counts["rows"] += 1
                self.counts["changed"] += not exact
                yield values

    def _check(self, row: Row, ids: list[int]) -> tuple[dict[str, Any], bool]:
        """Return the columns of the table, and whether an export reproduces the row exactly.

        Raises:
            RowError: The row cannot be used.
        """
        idx, text, *fields = row.fields
        lex_ids, starts, lasts, [seq_len] = (
            _numbers(name, value)
            for name, value in zip(("lex_ids", "pos_s", "pos_e", "seq_len"), fields, strict=False)
        )
        if seq_len != len(ids):
            raise RowError("seq_len is not the tokenizer's", f"{seq_len}, expected {len(ids)}")
        positions = list(range(seq_len))
        if not (
            starts[:seq_len] == lasts[:seq_len] == positions
            and len(starts) == len(lasts) == seq_len + len(lex_ids)
        ):
            raise RowError(
                "positions do not fit",
                "pos_s and pos_e must be 0..seq_len-1 and then one number per entity",
            )
        for start, last, entity_id in zip(starts[seq_len:], lasts[seq_len:], lex_ids, strict=True):
            if not 0 <= start <= last < seq_len:
                raise RowError("entity outside the caption", f"tokens {start} to {last}")
            if entity_id >= self._num_names:
                raise RowError("unknown entity", f"id {entity_id} of {self._num_names} names")
        values: dict[str, Any] = {
            "idx": idx,
            "text": text,
            "input_ids": ids,
            "seq_len": seq_len,
            "lex_ids": lex_ids,
            "pos_s": starts,
            "pos_e": lasts,
        }
        again = [idx, text, *(_joined(values[n]) for n in ("lex_ids", "pos_s", "pos_e"))]
        again.append(str(seq_len))
        if self.columns == _WITH_IMAGE:
            content = decode_base64(fields[-1])
            self._look(content)
            values[IMAGE.name] = {"bytes": content, "path": None}
            again.append(self.base64.encode(content))
        return values, again == row.fields


def _numbers(name: str, text: str) -> list[int]:
    parts = text.split()
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise RowError(f"{name} is not a list of numbers", f"{text[:60]!r}")
    if name == "seq_len" and len(parts) != 1:
        raise RowError(f"{name} is not a number", f"{text[:60]!r}")
    return [int(part) for part in parts]


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def _write(reader: _Reader, work: Path, metadata: dict[str, Any]) -> None:
    schema = LATTICE if reader.columns == _PLAIN else LATTICE.append(IMAGE)
    more = {_ALPHABETS: reader.base64.name} if reader.columns == _WITH_IMAGE else {}
    schema = with_metadata(schema, {**metadata, **more})
    with table_writer(work, schema) as writer, tqdm(desc="import", unit=" rows", disable=None) as b:
        for part in reader.batches():
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
            b.update(len(part))
    if not reader.counts["rows"]:
        rejects = reader._rejects
        raise InputError(
            f"{reader._tsv}: none of its {rejects.count} rows can be used; the first is "
            f"{rejects.first}. A row is EasyNLP's idx, text, lex_ids, pos_s, pos_e, seq_len and "
            "optionally an image, separated by tabs; pass the tokenizer it was produced with."
        )
