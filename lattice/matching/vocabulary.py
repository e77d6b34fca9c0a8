"""What matching needs of the names, in memory or mapped from a folder that was compiled once.

A compiled vocabulary holds the arrays of a trie and of the senses, the names themselves, and a
manifest that says which tokenizer, names and settings made it. Processes that map it share its
pages.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError
from data.kg_folder import EASYNLP_VECTORS, ENTITY_NAMES, VECTORS, kg_fingerprint
from data.runs import Run, fingerprint, manifest_path, read_manifest, sha256, verify
from data.tokenizer import Tokenizer
from lattice.matching.lexicon import Lexicon, LexiconConfig, load_lexicon, names_file
from lattice.matching.matcher import AhoCorasick, Matcher
from lattice.matching.trie import LAYOUT, Trie

BACKENDS = ("auto", "ahocorasick", "trie")
_KIND = "vocabulary"
_ARRAYS = ("letters", "slots", "short", "entity_of", "several_at", "several")


class Senses(NamedTuple):
    """The entities that each surface names; mostly one, which takes one look to find.

    Attributes:
        entity_of: The entity of each ordinal; where it names several, `-1 - n`; int32.
        several_at: Then they are `several[several_at[n] : several_at[n + 1]]`; int64.
        several: Entity ids, ascending within a surface; int32.
    """

    entity_of: NDArray[np.int32]
    several_at: NDArray[np.int64]
    several: NDArray[np.int32]

    @classmethod
    def of(cls, lexicon: Lexicon) -> "Senses":
        """The senses of a lexicon."""
        widths = np.diff(lexicon.offsets)
        ambiguous = np.flatnonzero(widths != 1)
        entity_of = lexicon.entity_ids[
            np.minimum(lexicon.offsets[:-1], len(lexicon.entity_ids) - 1)
        ]
        entity_of[ambiguous] = -1 - np.arange(len(ambiguous))
        several_at = np.concatenate(([0], np.cumsum(widths[ambiguous])))
        return cls(entity_of, several_at, lexicon.entity_ids[np.repeat(widths != 1, widths)])


@dataclass(frozen=True)
class Vocabulary:
    """Surfaces as a matcher, and the entities that each names.

    Attributes:
        matcher: Finds surfaces by their ordinals.
        senses: What an ordinal names.
        counts: What was read from the names and what was left out, and why.
        kg_fingerprint: Of the KG folder that the names are from; empty if they are from none.
    """

    matcher: Matcher
    senses: Senses
    counts: dict[str, int]
    kg_fingerprint: str

    @classmethod
    def from_lexicon(
        cls, lexicon: Lexicon, backend: str = "auto", kg_fingerprint: str = ""
    ) -> "Vocabulary":
        """A vocabulary in memory; `auto` takes the trie, the faster one at every size measured."""
        build = AhoCorasick if backend == "ahocorasick" else Trie.build
        matcher: Matcher = build(lexicon.surfaces)
        return cls(matcher, Senses.of(lexicon), lexicon.counts, kg_fingerprint)

    @classmethod
    def empty(cls) -> "Vocabulary":
        """A vocabulary that finds nothing."""
        none = np.empty(0, np.int32)
        return cls(AhoCorasick([]), Senses(none, np.zeros(1, np.int64), none), {}, "")

    @classmethod
    def attach(cls, folder: Path) -> "Vocabulary":
        """A compiled vocabulary, mapped; nothing is read before it is needed, nor verified."""
        manifest = read_manifest(folder)
        return cls(*_map(folder), manifest.counts, manifest.settings["kg"])

    @classmethod
    def attach_unnamed(cls, folder: Path) -> "Vocabulary":
        """What `save` left, mapped; of its counts and its KG it knows nothing."""
        return cls(*_map(folder), {}, "")

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder, for processes to map. The matcher must be a `Trie`."""
        assert isinstance(self.matcher, Trie), "an automaton cannot be mapped"
        arrays: list[NDArray[Any]] = [self.matcher.letters, self.matcher.slots, self.matcher.short]
        for name, array in zip(_ARRAYS, [*arrays, *self.senses], strict=True):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _map(folder: Path) -> tuple[Trie, Senses]:
    arrays = [
        np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        for name in _ARRAYS
    ]
    return Trie(*arrays[:3]), Senses(*arrays[3:])


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """What `compile_vocabulary` made."""

    out: Path
    counts: dict[str, int]
    num_bytes: int

    def __str__(self) -> str:
        said = ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in self.counts.items())
        return f"{self.out}: {said}; {self.num_bytes / 1e6:,.1f} MB"


def compile_vocabulary(
    names: Path,
    out: Path,
    *,
    tokenizer: Tokenizer,
    config: LexiconConfig | None = None,
    mentions: Path | None = None,
    overwrite: bool = False,
) -> VocabularyReport:
    """Write a folder that `lattice build --entities` maps instead of reading the names again.

    Args:
        names: A KG folder or an `entity2id.txt`.
        out: The folder.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: A file of `mention<TAB>entity`.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: An input is missing or useless, or the output is in the way.
    """
    config = config or LexiconConfig()
    settings = {
        **lexicon_settings(config),
        "layout": LAYOUT,
        "tokenizer": tokenizer.fingerprint,
        "kg": kg_of(names),
        "mentions_sha256": fingerprint(mentions) if mentions else "",
    }
    inputs = {"names": sha256(names_file(names))}
    with Run.open(out, kind=_KIND, settings=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.finished is None:
            lexicon = load_lexicon(names, tokenizer, config, mentions)
            Vocabulary.from_lexicon(lexicon, "trie").save(run.work)
            copyfile(names_file(names), run.work / ENTITY_NAMES)
            run.finish(lexicon.counts)
    size = sum((out / f"{name}.npy").stat().st_size for name in _ARRAYS)
    return VocabularyReport(out=out, counts=read_manifest(out).counts, num_bytes=size)


def load_vocabulary(
    names: Path,
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Path | None = None,
    backend: str = "auto",
) -> Vocabulary:
    """The vocabulary of a KG folder or an `entity2id.txt`; or a compiled one, verified and mapped.

    Raises:
        ArtefactError: A compiled vocabulary is damaged.
        ConfigError: It was compiled with other settings.
        InputError: A file is missing or malformed, or no name can be used.
    """
    if not is_compiled(names):
        lexicon = load_lexicon(names, tokenizer, config, mentions)
        return Vocabulary.from_lexicon(lexicon, backend, kg_of(names))
    made = verify(names).settings
    wanted = {
        **lexicon_settings(config),
        "layout": LAYOUT,
        "tokenizer": tokenizer.fingerprint,
        "mentions_sha256": fingerprint(mentions) if mentions else "",
    }
    for key, value in wanted.items():
        if made.get(key) != value:
            raise ConfigError(
                f"{names} was compiled with {key} {made.get(key)!r}, now {value!r}. Compile it "
                "again, or give the KG folder or entity2id.txt instead."
            )
    if backend == "ahocorasick":
        raise ConfigError(f"{names} is compiled for the trie; give its names for ahocorasick.")
    return Vocabulary.attach(names)


def is_compiled(names: Path) -> bool:
    """Whether a path is the folder of a compiled vocabulary."""
    return manifest_path(names).exists() and read_manifest(names).kind == _KIND


def kg_of(names: Path) -> str:
    """The fingerprint of the KG folder that names are from; empty if they are from none."""
    if names.is_dir():
        return read_manifest(names).settings["kg"] if is_compiled(names) else kg_fingerprint(names)
    folder = names.parent
    has_vectors = any((folder / file).exists() for file in (VECTORS, EASYNLP_VECTORS))
    if names.name == ENTITY_NAMES and has_vectors:
        return kg_fingerprint(folder)
    return ""


def lexicon_settings(config: LexiconConfig) -> dict[str, object]:
    """Of a configuration, possibly a larger one, what shapes the surfaces."""
    known = {f.name for f in fields(LexiconConfig)}
    return {key: value for key, value in asdict(config).items() if key in known}
