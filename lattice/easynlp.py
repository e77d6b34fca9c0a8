"""EasyNLP's preprocessed TSV: lattice tables into it and out of it, byte for byte.

A row is `idx, text, lex_ids, pos_s, pos_e, seq_len`, perhaps followed by an image in base64. Lists
are numbers joined by single blanks; the position lists hold the tokens 0..seq_len-1 and then, for
each entity, its first and its last token. The columns mean what `data.schema.LATTICE` says.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from data.errors import ArtefactError, ConfigError, InputError, RowError
from data.images import check_image, decode_base64, decode_image
from data.kg_folder import open_names
from data.runs import Manifest, Run, StageReport, fingerprint, sha256
from data.schema import (
    IMAGE,
    LATTICE,
    open_shards,
    open_table,
    table_metadata,
    table_writer,
    with_metadata,
)
from data.tokenizer import Tokenizer, tokenizer_folder
from data.tsv import Rejects, Row, read_rows
from lattice.building.caption_reader import IMAGE_CHECKS
from lattice.matching.kernel import LatticeConfig, one_of
from lattice.matching.lexicon import names_file
from lattice.matching.vocabulary import kg_of

# How EasyNLP matches: no name without its bracket, no one-character names.
EASYNLP_CONFIG = LatticeConfig(bracket_aliases=False)
_PLAIN, _WITH_IMAGE = 6, 7  # columns
_LOOK_AHEAD = 100  # rows that decide whether the file has images
_ROW_GROUP = {_PLAIN: 65_536, _WITH_IMAGE: 500}
_GROUP_BYTES = 64 << 20  # of images, in a row group
_ALPHABETS = "image_base64"  # in a table's metadata: how its images were written


@dataclass(frozen=True, kw_only=True)
class ExchangeReport(StageReport):
    """What was imported or exported.

    Attributes:
        num_rows: Captions in it.
        num_rejected: Rows left out.
        rejected: How many for which reason.
        first_reject: Line and reason of the first.
        num_changed: Rows that an export would not give back byte for byte.
    """

    num_rows: int
    num_rejected: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    first_reject: str = ""
    num_changed: int = 0

    def __str__(self) -> str:
        if self.already_finished:
            return f"{self.outcome()}: {self.num_rows:,} captions."
        lines = [f"{self.out}: {self.num_rows:,} captions"]
        if self.num_rejected:
            said = ", ".join(f"{n:,} {reason}" for reason, n in self.rejected.items())
            lines.append(
                f"  {self.num_rejected:,} rows left out ({said}), kept in "
                f"{self.out.name}.rejects.tsv; first: {self.first_reject}"
            )
        if self.num_changed:
            lines.append(
                f"  {self.num_changed:,} rows are written in another way than `lattice export` "
                "writes them (blanks or base64); they mean the same"
            )
        return "\n".join(lines)


# --- out -----------------------------------------------------------------------------------------
def tsv_lines(rows: pa.RecordBatch, images: Sequence[str] | None = None) -> Iterator[str]:
    """EasyNLP's line for each row of a lattice table, with its line feed.

    Args:
        rows: Rows of a lattice table.
        images: Their images in base64, if they have any.
    """
    columns = [rows.column("idx").to_pylist(), rows.column("text").to_pylist()]
    columns += [
        [" ".join(map(str, numbers)) for numbers in rows.column(name).to_pylist()]
        for name in ("lex_ids", "pos_s", "pos_e")
    ]
    columns.append([str(n) for n in rows.column("seq_len").to_pylist()])
    if images is not None:
        columns.append(images)
    return ("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def export_table(table: Path, out: Path, *, overwrite: bool = False) -> ExchangeReport:
    """Write a lattice table, or a folder of its shards, as EasyNLP's preprocessed TSV.

    Raises:
        ToolkitError: It is not a lattice table, or the output is in the way.
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
        try:
            with run.work.open("w", encoding="utf-8", newline="\n") as file:
                for rows, images in _table_rows(files):
                    file.writelines(tsv_lines(rows, images))
                    count += rows.num_rows
        except OSError as error:
            run.work.unlink(missing_ok=True)
            raise ArtefactError(f"{out} cannot be written: {error.strerror or error}.") from None
        run.finish({"rows": count})
    return ExchangeReport(out=out, num_rows=count)


def _table_rows(files: Sequence[Path]) -> Iterator[tuple[pa.RecordBatch, list[str] | None]]:
    for path in files:
        file = open_table(path, LATTICE, optional=(IMAGE,))
        has_images = IMAGE.name in file.schema_arrow.names
        names = [*LATTICE.names, *([IMAGE.name] if has_images else [])]
        written = _Base64(table_metadata(file.schema_arrow).get(_ALPHABETS, ""))
        for rows in file.iter_batches(_ROW_GROUP[_WITH_IMAGE], columns=names):
            images = None
            if has_images:
                contents = rows.column(IMAGE.name).field("bytes").to_pylist()
                images = [written.encode(content or b"") for content in contents]
            yield rows, images


class _Base64:
    """One way to write base64: `urlsafe` or not, `unpadded` or not."""

    def __init__(self, said: str = "") -> None:
        self.said = said
        self._altchars = b"-_" if "urlsafe" in said else None
        self._padded = "unpadded" not in said

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Base64":
        """The way in which texts are written; only some show it."""
        ways = {"urlsafe" for text in texts if set("-_") & set(text)}
        ways |= {"unpadded" for text in texts if len(text) % 4}
        return cls(" ".join(sorted(ways)))

    def encode(self, content: bytes) -> str:
        """The content in this way."""
        text = base64.b64encode(content, self._altchars).decode()
        return text if self._padded else text.rstrip("=")


# --- in ------------------------------------------------------------------------------------------
def import_table(
    tsv: Path,
    out: Path,
    *,
    names: Path,
    tokenizer: Path,
    check_images: str = "full",
    overwrite: bool = False,
) -> ExchangeReport:
    """Read EasyNLP's preprocessed TSV into a lattice table, its matches as they are.

    Entities keep the order of the file, which decides what a model keeps of too many. Token ids
    are not in the file; they come from the tokenizer, and a row whose `seq_len` is not the
    tokenizer's is rejected.

    Args:
        tsv: The file, plain or gzip.
        out: The table.
        names: The KG folder or `entity2id.txt` that its entity ids count in.
        tokenizer: The `vocab.txt` it was made with, or a folder with one.
        check_images: `full` decodes every image once; `header` only reads its size.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: An input is missing or useless, or the output is in the way.
    """
    one_of("check_images", check_images, IMAGE_CHECKS)
    loaded = Tokenizer.load(tokenizer)
    if out.exists() and tsv.exists() and out.samefile(tsv):
        raise ConfigError(f"--out {out} is an input; choose another.")
    inputs = {
        "tsv": fingerprint(tsv),
        "names": sha256(names_file(names)),
        "kg": kg_of(names),
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
        rejects = Rejects(run.beside(".rejects.tsv"))
        reader = _Reader(tsv, loaded, len(open_names(names_file(names))), check_images, rejects)
        metadata = {
            "tokenizer_fingerprint": loaded.fingerprint,
            "kg_fingerprint": kg_of(names),
            "settings": asdict(EASYNLP_CONFIG),
        }
        try:
            _write(reader, run.work, metadata)
            folder = tokenizer_folder(out)
            folder.mkdir(exist_ok=True)
            loaded.save(folder)
        except OSError as error:
            raise ArtefactError(f"{out} cannot be written: {error.strerror or error}.") from None
        counts = {
            "rows_in": reader.counts["rows"] + rejects.count,
            "rows": reader.counts["rows"],
            "rejected": rejects.count,
            "reasons": dict(rejects.reasons),
            "first_reject": rejects.first,
            "changed": reader.counts["changed"],
        }
        manifest = run.finish(counts, companions=(".rejects.tsv",))
        if not rejects.count:
            out.with_name(out.name + ".rejects.tsv").unlink(missing_ok=True)
        return _import_report(out, manifest)


def _import_report(out: Path, manifest: Manifest, already_finished: bool = False) -> ExchangeReport:
    counts = manifest.counts
    return ExchangeReport(
        out=out,
        num_rows=counts["rows"],
        num_rejected=counts["rejected"],
        rejected=counts["reasons"],
        first_reject=counts["first_reject"],
        num_changed=counts["changed"],
        already_finished=already_finished,
    )


class _Good(NamedTuple):
    """A row that can be used: the columns of the table, and whether export gives it back."""

    values: dict[str, Any]
    exact: bool


class _Reader:
    """The rows of a file, checked."""

    def __init__(
        self, tsv: Path, tokenizer: Tokenizer, num_names: int, check_images: str, rejects: Rejects
    ) -> None:
        self._tsv, self._tokenizer, self._num_names = tsv, tokenizer, num_names
        self._look = decode_image if check_images == "full" else check_image
        self._rejects = rejects
        self.counts: Counter[str] = Counter()
        head = list(islice(read_rows(tsv, (_PLAIN, _WITH_IMAGE), Rejects()), _LOOK_AHEAD))
        forms = Counter(len(row.fields) for row in head)
        self.written = _Base64.of([r.fields[-1] for r in head if len(r.fields) == _WITH_IMAGE])
        self.columns = _WITH_IMAGE if forms[_WITH_IMAGE] > forms[_PLAIN] else _PLAIN

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """The usable rows, as many at once as a row group holds."""
        part: list[dict[str, Any]] = []
        held = 0
        for values in self._rows():
            part.append(values)
            held += len(values[IMAGE.name]["bytes"]) if IMAGE.name in values else 0
            if len(part) == _ROW_GROUP[self.columns] or held > _GROUP_BYTES:
                yield part
                part, held = [], 0
        if part:
            yield part

    def _rows(self) -> Iterator[dict[str, Any]]:
        found = read_rows(self._tsv, (self.columns,), self._rejects)
        while part := list(islice(found, 256)):  # the tokenizer likes company
            tokens = self._tokenizer.encode([row.fields[1] for row in part])
            for row, (ids, _) in zip(part, tokens, strict=True):
                try:
                    good = self._check(row, ids)
                except RowError as error:
                    self._rejects.add(row.line, error.reason, "\t".join(row.fields))
                    continue
                self.counts["rows"] += 1
                self.counts["changed"] += not good.exact
                yield good.values

    def _check(self, row: Row, ids: list[int]) -> _Good:
        """The row as values.

        Raises:
            RowError: It cannot be used.
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
                "pos_s and pos_e must hold 0..seq_len-1 and then one number for each entity",
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
            again.append(self.written.encode(content))
        return _Good(values, again == row.fields)


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
    more = {_ALPHABETS: reader.written.said} if reader.columns == _WITH_IMAGE else {}
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
            "perhaps an image, separated by tabs; give the tokenizer it was made with."
        )
