"""The surfaces and their entities for matching, in memory or mapped from a compiled folder.

A compiled vocabulary contains the arrays of a trie and of the senses, the names, and a manifest
with the tokenizer, names and settings it was made from. Processes that map it share its pages.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from shutil import copyfile

import numpy as np

from data.errors import ConfigError
from data.kg_folder import EASYNLP_VECTORS, ENTITY_NAMES, VECTORS, kg_fingerprint
from data.runs import Run, fingerprint, manifest_path, read_manifest, sha256, verify
from data.tokenizer import Tokenizer
from lattice.config import LexiconConfig
from lattice.matching.lexicon import Lexicon, load_lexicon, names_file
from lattice.matching.matcher import AhoCorasick, Backend
from lattice.matching.senses import Senses
from lattice.matching.storage import ARRAYS, open_arrays, save_arrays
from lattice.matching.trie import LAYOUT, Trie

_KIND = "vocabulary"


@dataclass(frozen=True)
class Vocabulary:
    """Surfaces as a matcher, and the entities that each names.

    Attributes:
        matcher: Finds surfaces by their ordinals.
        senses: The entities of each ordinal.
        counts: See `Lexicon`.
        kg_fingerprint: That of the names' KG folder; empty if the names are not from a KG folder.
    """

    matcher: Backend
    senses: Senses
    counts: dict[str, int]
    kg_fingerprint: str

    @classmethod
    def from_lexicon(
        cls, lexicon: Lexicon, backend: str = "auto", kg_fingerprint: str = ""
    ) -> "Vocabulary":
        """Return a vocabulary in memory; `auto` is the trie, faster at every measured size."""
        build = AhoCorasick if backend == "ahocorasick" else Trie.build
        matcher: Backend = build(lexicon.surfaces)
        senses = Senses.from_offsets(lexicon.entity_ids, lexicon.offsets)
        return cls(matcher, senses, lexicon.counts, kg_fingerprint)

    @classmethod
    def empty(cls) -> "Vocabulary":
        """Return a vocabulary without surfaces."""
        none = np.empty(0, np.int32)
        return cls(AhoCorasick([]), Senses(none, np.zeros(1, np.int64), none), {}, "")

    @classmethod
    def open(
        cls, folder: Path, counts: dict[str, int] | None = None, kg_fingerprint: str = ""
    ) -> "Vocabulary":
        """Map what `save` wrote, without reading or verifying the arrays."""
        return cls(*open_arrays(folder), counts or {}, kg_fingerprint)

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder that processes can map. The matcher must be a `Trie`."""
        assert isinstance(self.matcher, Trie), "an automaton cannot be mapped"
        save_arrays(folder, self.matcher, self.senses)


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """The result of `compile_vocabulary`."""

    out: Path
    counts: dict[str, int]
    num_bytes: int

    def __str__(self) -> str:
        counts = ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in self.counts.items())
        return f"{self.out}: {counts}; {self.num_bytes / 1e6:,.1f} MB"


def compile_vocabulary(
    names: Path,
    out: Path,
    *,
    tokenizer: Tokenizer,
    config: LexiconConfig | None = None,
    mentions: Path | None = None,
    overwrite: bool = False,
) -> VocabularyReport:
    """Compile names into a folder that `lattice build --entities` maps.

    Args:
        names: A KG folder or an `entity2id.txt`.
        out: The folder to write.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: A file of `mention<TAB>entity`.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: An input is missing or unusable, or `out` belongs to another run.
    """
    config = config or LexiconConfig()
    settings = _settings(tokenizer, config, mentions) | {"kg": kg_fingerprint_of(names)}
    inputs = {"names": sha256(names_file(names))}
    with Run.open(out, kind=_KIND, settings=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.finished is None:
            lexicon = load_lexicon(names, tokenizer, config, mentions)
            Vocabulary.from_lexicon(lexicon, "trie").save(run.work)
            copyfile(names_file(names), run.work / ENTITY_NAMES)
            run.finish(lexicon.counts)
    size = sum((out / f"{name}.npy").stat().st_size for name in ARRAYS)
    return VocabularyReport(out=out, counts=read_manifest(out).counts, num_bytes=size)


def load_vocabulary(
    names: Path,
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Path | None = None,
    backend: str = "auto",
) -> Vocabulary:
    """Return the vocabulary of a KG folder or `entity2id.txt`, or a compiled one, verified.

    Raises:
        ArtefactError: A compiled vocabulary is damaged.
        ConfigError: It was compiled with other settings.
        InputError: A file is missing or malformed, or no name can be used.
    """
    if not is_compiled(names):
        lexicon = load_lexicon(names, tokenizer, config, mentions)
        return Vocabulary.from_lexicon(lexicon, backend, kg_fingerprint_of(names))
    manifest = verify(names)
    made = manifest.settings
    now = _settings(tokenizer, config, mentions) | {"kg": made["kg"]}
    for key in (*now, *made):
        if made.get(key) != now.get(key):
            was, given = (str(found.get(key, "by default"))[:60] for found in (made, now))
            raise ConfigError(
                f"{names} was compiled with {key} {was}, now {given}. Compile it "
                "again, or pass the KG folder or entity2id.txt instead."
            )
    if backend == "ahocorasick":
        raise ConfigError(f"{names} is compiled for the trie; pass its names for ahocorasick.")
    return Vocabulary.open(names, manifest.counts, made["kg"])


def is_compiled(names: Path) -> bool:
    """Return whether a path is the folder of a compiled vocabulary."""
    return manifest_path(names).exists() and read_manifest(names).kind == _KIND


def kg_fingerprint_of(names: Path) -> str:
    """Return the fingerprint of the names' KG folder, or an empty string without one."""
    if names.is_dir():
        return read_manifest(names).settings["kg"] if is_compiled(names) else kg_fingerprint(names)
    folder = names.parent
    has_vectors = any((folder / file).exists() for file in (VECTORS, EASYNLP_VECTORS))
    if names.name == ENTITY_NAMES and has_vectors:
        return kg_fingerprint(folder)
    return ""


def _settings(
    tokenizer: Tokenizer, config: LexiconConfig, mentions: Path | None
) -> dict[str, object]:
    """Return what determines the surfaces of a compiled vocabulary."""
    settings, names = config.settings(), {field.name for field in fields(LexiconConfig)}
    return {key: value for key, value in settings.items() if key in names} | {
        "layout": LAYOUT,
        "tokenizer": tokenizer.fingerprint,
        "mentions_sha256": fingerprint(mentions) if mentions else "",
    }
