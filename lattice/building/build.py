"""Build a lattice table from a caption file, and the same rows from a few texts.

The corpus is streamed, so memory does not grow with it. An unusable row is counted and kept in
`<out>.rejects.tsv` with its line and reason. The tokenizer is saved in `<out>.tokenizer/`, so a
table is self-contained.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from data.errors import ConfigError, InputError
from data.runs import Manifest, fingerprint
from data.schema import LATTICE, with_metadata
from data.tokenizer import Tokenizer, write_character_vocabulary
from data.tsv import open_bytes
from lattice.building.caption_reader import CAPTIONS, check_unicode
from lattice.building.reports import TableReport, lattice_metadata, listed, table_fields
from lattice.building.runner import BuildPlan, make_shards, make_table
from lattice.building.workers import useful_workers
from lattice.config import BuildConfig, LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import names_file
from lattice.matching.vocabulary import Vocabulary, load_vocabulary

_MANY_UNKNOWN = 0.2  # share of the tokens that is worth a warning


@dataclass(frozen=True, kw_only=True)
class LatticeReport(TableReport):
    """The result of `build_lattice`.

    Attributes:
        num_entities: Matched entities, over all captions.
        num_with_entity: Captions with at least one entity.
        num_tokens: Tokens, over all captions.
        num_unknown_tokens: Tokens that are [UNK].
        num_undecided: Captions tokenized by the tokenizer itself.
        num_duplicate_idx: Rows whose idx repeats an earlier row's; they are kept.
        lexicon: What was read from the names, and what was excluded.
        num_shards: Files of the table, if it is a folder.
        num_made: Shards written by this run.
        num_empty: Shards whose corpus file has no usable row.
        seconds: Time for the corpus, without loading names.
    """

    num_entities: int
    num_with_entity: int
    num_tokens: int
    num_undecided: int
    num_duplicate_idx: int
    lexicon: dict[str, int]
    seconds: float
    num_unknown_tokens: int = 0
    num_shards: int = 0
    num_made: int = 0
    num_empty: int = 0

    def __str__(self) -> str:
        if self.already_finished:
            return self.up_to_date(f" in {self.num_shards} shards" if self.num_shards else "")
        rows = max(1, self.num_rows)
        speed = f" ({self.num_rows / max(self.seconds, 1e-9):,.0f} per second)"
        if self.num_shards:
            speed = f"; {self.num_shards} shards"
            if self.num_made < self.num_shards:
                speed = f"; {self.num_made} of {self.num_shards} shards were missing"
        lines = [
            f"{self.out}: {self.num_rows:,} captions in {self.seconds:.1f} s{speed}",
            f"  {self.num_entities:,} entities, {self.num_entities / rows:.2f} per caption; "
            f"{100 * self.num_with_entity / rows:.1f} % of captions have an entity",
            f"  names: {listed(self.lexicon)}",
            *self.rejected_lines("its shards' *" if self.num_shards else self.out.name),
        ]
        if self.num_empty:
            lines.append(f"  warning: {self.num_empty} of its files have no usable row")
        if self.num_duplicate_idx:
            lines.append(
                f"  warning: {self.num_duplicate_idx:,} rows repeat the idx of an earlier row; "
                "they are kept"
            )
        if self.num_undecided:
            lines.append(f"  {self.num_undecided:,} captions needed the slower tokenizer")
        if self.num_unknown_tokens > _MANY_UNKNOWN * self.num_tokens:
            lines.append(
                f"  warning: {100 * self.num_unknown_tokens / self.num_tokens:.0f} % of the tokens "
                "are [UNK], which all have one embedding; is this the captions' vocabulary? "
                "Without --tokenizer, a character vocabulary is generated."
            )
        if not self.num_entities:
            lines.append("  warning: no caption has an entity; are these the right names?")
        return "\n".join(lines)


def build_lattice(
    corpus: Path | Sequence[Path],
    out: Path,
    *,
    names: Path,
    tokenizer: Path | None = None,
    config: LatticeConfig | None = None,
    mentions: Path | None = None,
    build: BuildConfig = BuildConfig(workers=1),  # noqa: B008 (frozen)
    overwrite: bool = False,
) -> LatticeReport:
    """Match entity names in every caption of a corpus and write the lattice table.

    Args:
        corpus: `idx<TAB>text` or `idx<TAB>text<TAB>imgbase64`, plain or gzip. The form of most of
            the first hundred rows is expected; rows of the other form are rejected. A pattern such
            as `corpus/*.tsv.gz`, or several files, become a folder with one shard per file.
        out: The table: a file, or a folder of shards.
        names: A KG folder, an `entity2id.txt`, or a compiled vocabulary.
        tokenizer: A `vocab.txt` or a folder with one; None generates a character vocabulary.
        config: What is matched and stored.
        mentions: A file of `mention<TAB>entity`: further surfaces of entities.
        build: How the table is built; its rows are the same. More than one process requires a main
            module that can be imported (`if __name__ == "__main__"`), a cluster access to the same
            files on all machines.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: An input is missing or unusable, or `out` belongs to another run.
    """
    config = _with_mentions(config or LatticeConfig(), mentions)
    backend, workers, cluster = build.backend, build.workers, build.cluster
    files, sharded = corpus_files(corpus)
    for source in (*files, names_file(names), *([mentions] if mentions else [])):
        if out.exists() and source.exists() and out.samefile(source):
            raise ConfigError(f"--out {out} is an input; choose another.")
    for file in files:
        if not file.is_file():
            open_bytes(file).close()  # raises the specific error
    if sharded and build.format == "tsv":
        raise ConfigError(
            "several files become a folder of Parquet shards; --format tsv is one file."
        )
    if cluster is not None and not sharded:
        raise ConfigError("a cluster writes shards: pass several files, or a pattern in quotes.")
    if workers is None:
        workers = useful_workers(sum(file.stat().st_size for file in files))
        workers = min(workers, len(files)) if sharded else workers
        workers = 1 if backend == "ahocorasick" else workers
    if backend == "ahocorasick" and (workers > 1 or cluster):
        raise ConfigError("an ahocorasick automaton cannot be shared by processes; use the trie.")
    plan = BuildPlan(
        files=files,
        out=out,
        names=names,
        mentions=mentions,
        tokenizer=load_tokenizer(tokenizer),
        config=config,
        tsv=build.format == "tsv",
        check_images=build.check_images,
        backend=backend,
        workers=workers,
        cluster=cluster,
        overwrite=overwrite,
    )
    manifest, already_finished = make_shards(plan) if sharded else make_table(plan)
    return _report(out, manifest, already_finished)


def corpus_files(corpus: Path | Sequence[Path]) -> tuple[list[Path], bool]:
    """Return the files of a corpus, and whether each becomes a shard.

    Raises:
        InputError: A pattern matches no file.
    """
    given = [corpus] if isinstance(corpus, Path) else list(corpus)
    files: list[Path] = []
    for path in given:
        if not path.exists() and set(path.name) & set("*?["):
            found = sorted(path.parent.glob(path.name))
            if not found:
                raise InputError(f"{path} matches no file.")
            files += found
        else:
            files.append(path)
    return files, files != given or len(given) > 1


def match_texts(
    texts: Sequence[str],
    *,
    names: Path,
    tokenizer: Path | Tokenizer,
    config: LatticeConfig | None = None,
    mentions: Path | None = None,
) -> pa.Table:
    """Return the lattice rows of a few texts; for repeated calls use `TextMatcher`."""
    return TextMatcher(names, tokenizer=tokenizer, config=config, mentions=mentions)(texts)


class TextMatcher:
    """Matches a few texts at a time, as `build_lattice` does; names are read once.

    Args:
        names: A KG folder, an `entity2id.txt`, or a compiled vocabulary; None for no entities.
        tokenizer: A `vocab.txt`, a folder with one, or a loaded tokenizer.
        config: What is matched and stored; `LatticeConfig(**settings)` restores a table's.
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
        """Return the rows of `texts`, with idx from 0.

        Raises:
            InputError: A text is not valid Unicode.
        """
        for text in texts:
            check_unicode(text)
        columns = [pa.array([str(n) for n in range(len(texts))]), pa.array(texts, pa.string())]
        batch = self._kernel(pa.RecordBatch.from_arrays(columns, schema=CAPTIONS))
        metadata = lattice_metadata(self._vocabulary.kg_fingerprint, self._tokenizer, self._config)
        return pa.Table.from_batches([batch]).cast(with_metadata(LATTICE, metadata))


def load_tokenizer(path: Path | None) -> Tokenizer:
    """Return the tokenizer at `path`, or a character tokenizer for None."""
    if path is not None:
        return Tokenizer.load(path)
    with tempfile.TemporaryDirectory() as folder:
        return Tokenizer.load(write_character_vocabulary(Path(folder)))


def _with_mentions(config: LatticeConfig, mentions: Path | None) -> LatticeConfig:
    """Return the configuration with the sha256 of the mention file.

    Raises:
        ConfigError: The configuration has the sha256 of another file.
    """
    digest = fingerprint(mentions) if mentions else ""
    if config.mentions_sha256 not in ("", digest):
        raise ConfigError(
            f"{mentions} is not the mention file that the captions were matched with."
            if mentions
            else "The captions were matched with a mention file; the same one is needed here."
        )
    return replace(config, mentions_sha256=digest)


def _report(out: Path, manifest: Manifest, already_finished: bool) -> LatticeReport:
    counts = manifest.counts
    return LatticeReport(
        **table_fields(out, manifest, already_finished),
        num_entities=counts["entities"],
        num_with_entity=counts["captions_with_entity"],
        num_tokens=counts["tokens"],
        num_undecided=counts["undecided"],
        num_duplicate_idx=counts["duplicate_idx"],
        lexicon=counts["lexicon"],
        seconds=counts["seconds"],
        num_unknown_tokens=counts.get("unknown_tokens", 0),
        num_shards=counts.get("shards", 0),
        num_made=counts.get("shards_made", 0),
        num_empty=counts.get("shards_without_rows", 0),
    )
