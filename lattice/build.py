"""From a caption file to a lattice table, and from a few texts to the same rows.

The corpus streams through, so memory does not grow with it. A row that
cannot be used is counted, kept in `<out>.rejects.tsv` with its line and reason, and left out. The
tokenizer is written beside the table (`<out>.tokenizer/`), so a table says by itself what its ids
mean.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from data.artefact import Manifest, Run, fingerprint, sha256
from data.errors import ArtefactError, ConfigError, InputError
from data.schema import IMAGE, LATTICE, table_writer, with_metadata
from data.tokenizer import Tokenizer, tokenizer_folder, write_character_vocabulary
from data.tsv import Rejects, open_bytes
from lattice.corpus import CAPTIONS, IMAGE_CHECKS, Batch, hash_strings, read_captions
from lattice.easynlp import tsv_lines
from lattice.kernel import LatticeConfig, LatticeKernel, one_of
from lattice.lexicon import names_file
from lattice.segment import segmenter
from lattice.vocabulary import BACKENDS, Vocabulary, kg_of, load_vocabulary

__all__ = [
    "LatticeConfig",
    "LatticeReport",
    "TextMatcher",
    "build_lattice",
    "load_tokenizer",
    "match_texts",
    "table_metadata",
]

_FORMATS = ("parquet", "tsv")

_IMAGE_ROW_GROUP = 500  # rows; with images, training reads single row groups at random
_TEXT_ROW_GROUP = 65_536
_MAX_TRACKED = 16_000_000  # rows whose idx is remembered (8 bytes each) to find duplicates


@dataclass(frozen=True, kw_only=True)
class LatticeReport:
    """What `build_lattice` made.

    Attributes:
        out: The table.
        num_rows: Captions in it.
        num_rejected: Rows of the corpus left out.
        rejected: How many for which reason.
        first_reject: Line and reason of the first.
        num_entities: Entities matched, over all captions.
        num_with_entity: Captions with at least one.
        num_tokens: Tokens, over all captions.
        num_undecided: Captions that only the tokenizer itself could cut.
        num_duplicate_idx: Rows whose idx an earlier row has; they are kept.
        lexicon: What was read from the names, and what was left out.
        seconds: Time for the corpus, without loading names.
        unchanged: Whether the table had been there, finished, and nothing was done.
    """

    out: Path
    num_rows: int
    num_rejected: int
    rejected: dict[str, int]
    first_reject: str
    num_entities: int
    num_with_entity: int
    num_tokens: int
    num_undecided: int
    num_duplicate_idx: int
    lexicon: dict[str, int]
    seconds: float
    unchanged: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.unchanged:
            return f"{self.out} is finished and up to date: {self.num_rows:,} captions."
        rows = max(1, self.num_rows)
        lines = [
            f"{self.out}: {self.num_rows:,} captions in {self.seconds:.1f} s "
            f"({self.num_rows / max(self.seconds, 1e-9):,.0f} a second)",
            f"  {self.num_entities:,} entities, {self.num_entities / rows:.2f} a caption; "
            f"{100 * self.num_with_entity / rows:.1f} % of captions have one",
            f"  names: {_said(self.lexicon)}",
        ]
        if self.num_rejected:
            lines.append(
                f"  {self.num_rejected:,} rows left out ({_said(self.rejected)}), kept in "
                f"{self.out.name}.rejects.tsv; first: {self.first_reject}"
            )
        if self.num_duplicate_idx:
            lines.append(
                f"  warning: {self.num_duplicate_idx:,} rows repeat the idx of an earlier row; "
                "they are kept"
            )
        if self.num_undecided:
            lines.append(f"  {self.num_undecided:,} captions took the tokenizer's own, slower way")
        if not self.num_entities:
            lines.append("  warning: no caption holds an entity; are these the right names?")
        return "\n".join(lines)


def build_lattice(
    corpus: Path,
    out: Path,
    *,
    names: Path,
    tokenizer: Path | None = None,
    config: LatticeConfig | None = None,
    mentions: Path | None = None,
    format: str = "parquet",
    check_images: str = "full",
    backend: str = "auto",
    overwrite: bool = False,
) -> LatticeReport:
    """Match entity names in every caption of a file and write the lattice table.

    Args:
        corpus: `idx<TAB>text` or `idx<TAB>text<TAB>imgbase64`, plain or gzip. The form of the first
            hundred rows decides; rows of the other form are rejected.
        out: The table.
        names: A KG folder, an `entity2id.txt`, or a compiled vocabulary.
        tokenizer: A `vocab.txt` or a folder with one; None makes a character vocabulary.
        config: What is matched and stored.
        mentions: A file of `mention<TAB>entity`: further surfaces of entities.
        format: `tsv` writes EasyNLP's preprocessed rows instead of Parquet.
        check_images: `full` decodes every image once, so that a damaged one is found now and not in
            training; `header` only reads its size.
        backend: What matches: `ahocorasick`, `trie`, or `auto`; the table is the same.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: An input is missing or useless, or the output is in the way.
    """
    config = _with_mentions(config or LatticeConfig(), mentions)
    one_of("format", format, _FORMATS)
    one_of("backend", backend, BACKENDS)
    one_of("check_images", check_images, IMAGE_CHECKS)
    for source in (corpus, names_file(names), *([mentions] if mentions else [])):
        if out.exists() and source.exists() and out.samefile(source):
            raise ConfigError(f"--out {out} is an input; choose another.")
    if not corpus.is_file():
        open_bytes(corpus).close()  # says what is wrong with it
    loaded = load_tokenizer(tokenizer)
    settings = {**asdict(config), "format": format, "check_images": check_images}
    inputs = {
        "corpus": fingerprint(corpus),
        "names": sha256(names_file(names)),
        "kg": kg_of(names),  # the same names with other vectors are another KG
        "tokenizer": loaded.fingerprint,
    }
    with Run.open(
        out, kind="lattice", settings=settings, inputs=inputs, folder=False, overwrite=overwrite
    ) as run:
        if run.finished is not None:
            _save_tokenizer(loaded, out)
            return _report(out, run.finished, unchanged=True)
        try:
            vocabulary = load_vocabulary(names, loaded, config, mentions, backend)
            kernel = LatticeKernel(loaded, vocabulary, config)
            metadata = table_metadata(kg_of(names), loaded, config)
            rejects = Rejects(run.beside(".rejects.tsv"))
            writer = _TsvWriter if format == "tsv" else _ParquetWriter
            counts = _stream(corpus, run.work, kernel, rejects, check_images, metadata, writer)
            counts["lexicon"] = vocabulary.counts
            if config.segment != "none":
                counts["segmenter"] = segmenter().name
            _save_tokenizer(loaded, out)
        except OSError as error:
            _discard(run)
            raise ArtefactError(f"{out} cannot be written: {error.strerror or error}.") from None
        except BaseException:
            _discard(run)
            raise
        manifest = run.finish(counts, companions=(".rejects.tsv",))
        if not rejects.count:  # what a replaced run had rejected
            out.with_name(out.name + ".rejects.tsv").unlink(missing_ok=True)
        return _report(out, manifest)


def match_texts(
    texts: Sequence[str],
    *,
    names: Path,
    tokenizer: Path | Tokenizer,
    config: LatticeConfig | None = None,
    mentions: Path | None = None,
) -> pa.Table:
    """The lattice rows of a few texts; see `TextMatcher`, which keeps the names for more."""
    return TextMatcher(names, tokenizer=tokenizer, config=config, mentions=mentions)(texts)


class TextMatcher:
    """Finds the entities of a few texts at a time, as `build_lattice` would; names are read once.

    Args:
        names: A KG folder, an `entity2id.txt`, or a compiled vocabulary; None: no entities.
        tokenizer: A `vocab.txt`, a folder with one, or a loaded tokenizer.
        config: What is matched and stored; `LatticeConfig(**settings)` repeats a table's.
        mentions: A file of `mention<TAB>entity`.
    """

    def __init__(
        self,
        names: Path | None,
        *,
        tokenizer: Path | Tokenizer,
        config: LatticeConfig | None = None,
        mentions: Path | None = None,
    ) -> None:
        self._config = _with_mentions(config or LatticeConfig(), mentions)
        self._tokenizer = (
            tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer)
        )
        self._vocabulary = (
            load_vocabulary(names, self._tokenizer, self._config, mentions)
            if names is not None
            else Vocabulary.empty()
        )
        self._kernel = LatticeKernel(self._tokenizer, self._vocabulary, self._config)

    def __call__(self, texts: Sequence[str]) -> pa.Table:
        """The rows of `texts`, numbered from 0.

        Raises:
            InputError: A text is not valid Unicode.
        """
        for text in texts:
            if any("\ud800" <= letter < "\ue000" for letter in text):  # a shell that is not UTF-8
                raise InputError(f"the text {text!r} is not valid Unicode.")
        columns = [pa.array([str(n) for n in range(len(texts))]), pa.array(texts, pa.string())]
        batch = self._kernel(pa.RecordBatch.from_arrays(columns, schema=CAPTIONS))
        about = table_metadata(self._vocabulary.kg_fingerprint, self._tokenizer, self._config)
        return pa.Table.from_batches([batch]).cast(with_metadata(LATTICE, about))


def load_tokenizer(path: Path | None) -> Tokenizer:
    """The tokenizer at `path`, or the character tokenizer where there is none."""
    if path is not None:
        return Tokenizer.load(path)
    with tempfile.TemporaryDirectory() as folder:
        return Tokenizer.load(write_character_vocabulary(Path(folder)))


def table_metadata(
    kg_fingerprint: str, tokenizer: Tokenizer, config: LatticeConfig
) -> dict[str, Any]:
    """What a lattice table says of its making.

    `tokenizer_fingerprint`, `kg_fingerprint` (empty where the names are in no KG folder), and
    `settings`: the `LatticeConfig` as JSON, which matches other texts alike.
    """
    return {
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "kg_fingerprint": kg_fingerprint,
        "settings": asdict(config),
    }


def _with_mentions(config: LatticeConfig, mentions: Path | None) -> LatticeConfig:
    """The configuration with its mention file's sha256.

    Raises:
        ConfigError: It names another one already.
    """
    digest = fingerprint(mentions) if mentions else ""
    if config.mentions_sha256 not in ("", digest):
        raise ConfigError(
            f"{mentions} is not the mention file that the captions were matched with."
            if mentions
            else "The captions were matched with a mention file; the same one is needed here."
        )
    return replace(config, mentions_sha256=digest)


def _save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    folder = tokenizer_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)


def _stream(
    corpus: Path,
    work: Path,
    kernel: LatticeKernel,
    rejects: Rejects,
    check_images: str,
    metadata: dict[str, Any],
    writer: "type[_ParquetWriter] | type[_TsvWriter]",
) -> dict[str, Any]:
    """Run every batch of the corpus through the kernel into `work`; what was counted."""
    began = perf_counter()
    counts: Counter[str] = Counter()
    hashes: list[NDArray[np.uint64]] = []
    sink: _ParquetWriter | _TsvWriter | None = None
    bar = tqdm(desc="lattice", unit=" captions", disable=None)
    try:
        for batch in read_captions(corpus, rejects, check_images):
            table, undecided = kernel.run(batch.captions)
            table, encoded = _drop_tokenless(table, batch, rejects)
            if not table.num_rows:
                continue
            sink = sink or writer(work, with_metadata(table.schema, metadata))
            sink.write(table, encoded)
            entities = np.diff(table.column("lex_ids").offsets.to_numpy())
            counts["rows"] += table.num_rows
            counts["undecided"] += undecided
            counts["entities"] += int(entities.sum())
            counts["with_entity"] += int((entities > 0).sum())
            counts["tokens"] += int(np.sum(table.column("seq_len").to_numpy()))
            if counts["rows"] <= _MAX_TRACKED:
                hashes.append(hash_strings(table.column("idx")))
            bar.update(table.num_rows)
    finally:
        bar.close()
        if sink is not None:
            sink.close()
    if not counts["rows"]:
        if not rejects.count:
            raise InputError(f"{corpus} is empty.")
        raise InputError(
            f"{corpus}: none of its {rejects.count} rows can be used; the first is "
            f"{rejects.first}. A row is idx<TAB>text or idx<TAB>text<TAB>imgbase64."
        )
    seen = np.sort(np.concatenate(hashes))
    return {
        "rows_in": counts["rows"] + rejects.count,
        "rows": counts["rows"],
        "rejected": rejects.count,
        "reasons": dict(rejects.reasons),
        "first_reject": rejects.first,
        "duplicate_idx": int((seen[1:] == seen[:-1]).sum()),
        "duplicate_idx_checked_rows": len(seen),
        "entities": counts["entities"],
        "captions_with_entity": counts["with_entity"],
        "tokens": counts["tokens"],
        "undecided": counts["undecided"],
        "seconds": round(perf_counter() - began, 3),
    }


def _drop_tokenless(
    table: pa.RecordBatch, batch: Batch, rejects: Rejects
) -> tuple[pa.RecordBatch, list[str] | None]:
    """Without the captions that hold nothing the tokenizer keeps (control characters, say)."""
    kept = table.column("seq_len").to_numpy() > 0
    if kept.all():
        return table, batch.encoded
    for n in np.flatnonzero(~kept).tolist():
        idx, text = (table.column(name)[n].as_py() for name in ("idx", "text"))
        reason = "caption without a token" if text.strip() else "empty caption"
        rejects.add(int(batch.lines[n]), reason, f"{idx}\t{text}")
    encoded = batch.encoded and [e for e, k in zip(batch.encoded, kept, strict=True) if k]
    return table.take(pa.array(np.flatnonzero(kept))), encoded


class _ParquetWriter:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = table_writer(path, schema)
        self._held: list[pa.RecordBatch] = []
        self._group = _IMAGE_ROW_GROUP if IMAGE.name in schema.names else _TEXT_ROW_GROUP

    def write(self, table: pa.RecordBatch, encoded: list[str] | None) -> None:
        self._held.append(table)
        held = sum(t.num_rows for t in self._held)
        if held >= self._group:
            self._flush(held - held % self._group)

    def close(self) -> None:
        if self._held:
            self._flush(sum(t.num_rows for t in self._held))
        self._writer.close()

    def _flush(self, count: int) -> None:
        """Write the first `count` rows in whole row groups; hold the rest."""
        rows = pa.Table.from_batches(self._held).cast(self._schema)
        self._writer.write_table(rows.slice(0, count), row_group_size=self._group)
        self._held = rows.slice(count).to_batches()


class _TsvWriter:
    """EasyNLP's preprocessed rows; see `lattice.easynlp`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, table: pa.RecordBatch, encoded: list[str] | None) -> None:
        self._file.writelines(tsv_lines(table, encoded))

    def close(self) -> None:
        self._file.close()


def _discard(run: Run) -> None:
    """Forget a table that failed; a single file cannot be resumed, and would only be in the way."""
    for path in (run.work, run.beside(".rejects.tsv"), run.beside(".run")):
        path.unlink(missing_ok=True)


def _report(out: Path, manifest: Manifest, unchanged: bool = False) -> LatticeReport:
    counts = manifest.counts
    return LatticeReport(
        out=out,
        num_rows=counts["rows"],
        num_rejected=counts["rejected"],
        rejected=counts["reasons"],
        first_reject=counts["first_reject"],
        num_entities=counts["entities"],
        num_with_entity=counts["captions_with_entity"],
        num_tokens=counts["tokens"],
        num_undecided=counts["undecided"],
        num_duplicate_idx=counts["duplicate_idx"],
        lexicon=counts["lexicon"],
        seconds=counts["seconds"],
        unchanged=unchanged,
    )


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in counts.items())
