"""Which strings name which entities.

A *surface* is a string as it can occur in a caption after the tokenizer's normalisation (case,
width, accents, no white space). Its sources, in this order of precedence:

1. entity names that equal their own normal form,
2. entity names that only become equal to it (`T恤` and `t恤`),
3. the mention file, where one surface may name several entities, in addition to the name's,
4. names without their bracket: `刘德华（演员）` also matches `刘德华` if none of the above does.

Within 1 and 2 the last line wins, as in EasyNLP (names are in the order of their ids, so the
highest id). Everything excluded is counted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, check_vectors, read_names
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows
from lattice.config import LexiconConfig
from lattice.matching.arrays import Ids, Ints

_IDEOGRAPHS = re.compile(r"[\u4e00-\u9fff]+")  # unchanged by any BERT tokenizer
_CLOSING = ("）", ")", " ")
_BRACKETED = re.compile(r"(.+?)\s*[（(][^（）()]*[）)]\s*")


@dataclass(frozen=True)
class Lexicon:
    """Distinct surfaces, and the entities that each names.

    Attributes:
        surfaces: The surface of each ordinal.
        entity_ids: All entity ids, ascending within a surface; int32.
        offsets: Ordinal n names `entity_ids[offsets[n]:offsets[n + 1]]`; int64 (num_surfaces + 1,).
        counts: What was read, and what was excluded for which reason.
    """

    surfaces: list[str]
    entity_ids: Ids
    offsets: Ints
    counts: dict[str, int]


def names_file(path: Path) -> Path:
    """Return the file of entity names of a KG folder or a bare `entity2id.txt`.

    Raises:
        InputError: The file does not exist.
    """
    file = path / ENTITY_NAMES if path.is_dir() else path
    if not file.exists():
        raise InputError(
            f"{file} does not exist. Give a KG folder (from `cli.py kg train`) or an entity2id.txt."
        )
    return file


def load_lexicon(
    names: Path, tokenizer: Tokenizer, config: LexiconConfig, mentions: Path | None = None
) -> Lexicon:
    """Return the lexicon of a KG folder or a bare `entity2id.txt`.

    Args:
        names: The folder or file.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: A file of `mention<TAB>entity` lines.

    Raises:
        InputError: A file is missing or malformed, or no name can be used.
    """
    file = names_file(names)
    rejects = Rejects()
    pairs: list[list[str]] = []
    if mentions is not None:
        pairs = [row.fields for row in read_rows(mentions, (2,), rejects)]
    entities = read_names(file)
    if names.is_dir():
        check_vectors(names, len(entities))
    lexicon = make_lexicon(entities, tokenizer, config, pairs)
    if not lexicon.surfaces:
        counts = ", ".join(f"{key.replace('_', ' ')}: {n}" for key, n in lexicon.counts.items())
        raise InputError(
            f"{file}: none of its names can be matched ({counts}). Lower --min-length?"
        )
    if rejects.count:
        lexicon.counts["malformed_mentions"] = rejects.count
    if rejects.quoted.count:
        lexicon.counts["mentions_that_look_quoted"] = rejects.quoted.count
    return lexicon


def make_lexicon(
    names: Sequence[str],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Iterable[Sequence[str]] = (),
) -> Lexicon:
    """Return the lexicon of `names`, whose position is their entity id.

    Args:
        names: Entity names.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: Pairs of mention and entity name.
    """
    builder = _LexiconBuilder(names, tokenizer, config)
    builder.add_names()
    builder.add_mentions(mentions)
    if config.bracket_aliases:
        builder.add_aliases()
    return builder.finish()


class _LexiconBuilder:
    """Collects the surfaces of names, mentions and aliases, in this order.

    Attributes:
        owner: The entity whose name is a surface.
        senses: The entities that a mention or an alias adds to a surface.
        counts: See `Lexicon`.
    """

    def __init__(self, names: Sequence[str], tokenizer: Tokenizer, config: LexiconConfig) -> None:
        self._names, self._tokenizer, self._config = names, tokenizer, config
        self.owner: dict[str, int] = {}
        self.senses: dict[str, set[int]] = {}
        self.counts: Counter[str] = Counter(names=len(names))

    def add_names(self) -> None:
        """Add the normal form of every name."""
        counts, folded = self.counts, dict[str, int]()
        for entity_id, name in enumerate(self._names):
            surface = surface_of(name, self._tokenizer)
            if len(surface) < self._config.min_length:
                counts["too_short"] += 1
            elif len(surface) > self._config.max_length:
                counts["too_long"] += 1
            else:
                equal = self.owner if surface == name else folded
                counts["folded_names"] += surface != name
                counts["duplicate_names"] += surface in equal
                equal[surface] = entity_id
        for surface, entity_id in folded.items():
            counts["hidden_by_an_equal_name"] += surface in self.owner
            self.owner.setdefault(surface, entity_id)

    def add_mentions(self, mentions: Iterable[Sequence[str]]) -> None:
        """Add pairs of mention and entity name."""
        counts = self.counts
        ids: dict[str, int] | None = None
        for mention, entity in mentions:
            if ids is None:
                ids = {name: i for i, name in enumerate(self._names)}
            counts["mentions"] += 1
            entity_id = ids.get(entity)
            if entity_id is None:
                entity_id = self.owner.get(surface_of(entity, self._tokenizer))
            surface = surface_of(mention, self._tokenizer)
            if entity_id is None:
                counts["mentions_of_unknown_entities"] += 1
            elif self._fits(surface):
                self.senses.setdefault(surface, set()).add(entity_id)
            else:
                counts["mentions_too_short_or_long"] += 1
        # A mention that only repeats the name adds nothing.
        for surface in [s for s, more in self.senses.items() if more == {self.owner.get(s)}]:
            del self.senses[surface]

    def add_aliases(self) -> None:
        """Add names without their bracket, unless a name or a mention has that surface."""
        aliases: dict[str, set[int]] = {}
        for entity_id, name in enumerate(self._names):
            bare = without_bracket(name)
            if bare is None:
                continue
            alias = surface_of(bare, self._tokenizer)
            if not self._fits(alias):
                continue
            if alias in self.owner or alias in self.senses:
                self.counts["aliases_hidden_by_a_name"] += 1
            else:
                aliases.setdefault(alias, set()).add(entity_id)
        self.counts["bracket_aliases"] = len(aliases)
        self.senses |= aliases

    def finish(self) -> Lexicon:
        """Return the lexicon; `max_senses` is applied here."""
        surfaces = list(self.owner)
        own = np.fromiter(self.owner.values(), np.int32, len(self.owner))
        position = {s: n for n, s in enumerate(surfaces) if s in self.senses} if self.senses else {}
        several: dict[int, list[int]] = {}
        for surface, more in self.senses.items():
            n = position.get(surface, len(surfaces))
            first = {int(own[n])} if n < len(own) else set()
            kept = [*first, *sorted(more - first)][: self._config.max_senses]
            self.counts["ambiguous_surfaces"] += len(kept) > 1
            self.counts["senses_cut"] += len(first | more) - len(kept)
            several[n] = sorted(kept)
            if n == len(surfaces):
                surfaces.append(surface)
        self.counts["surfaces"] = len(surfaces)
        return Lexicon(surfaces, *_sense_arrays(own, several, len(surfaces)), +self.counts)

    def _fits(self, surface: str) -> bool:
        return self._config.min_length <= len(surface) <= self._config.max_length


def _sense_arrays(own: Ids, several: dict[int, list[int]], num_surfaces: int) -> tuple[Ids, Ints]:
    """Return `entity_ids` and `offsets`: `own[n]`, unless `several[n]` lists the entities."""
    widths = np.ones(num_surfaces, np.int64)
    for n, ids in several.items():
        widths[n] = len(ids)
    offsets = np.zeros(num_surfaces + 1, np.int64)
    np.cumsum(widths, out=offsets[1:])
    entity_ids = np.empty(int(offsets[-1]), np.int32)
    entity_ids[offsets[: len(own)]] = own
    for n, ids in several.items():
        entity_ids[offsets[n] : offsets[n + 1]] = ids
    return entity_ids, offsets


def surface_of(name: str, tokenizer: Tokenizer) -> str:
    """Return the surface of a name: folded by the tokenizer, without white space."""
    return name if _IDEOGRAPHS.fullmatch(name) else tokenizer.normalise(name)


def without_bracket(name: str) -> str | None:
    """Return `刘德华` for `刘德华（演员）`, and None for a name that does not end in a bracket."""
    bracketed = _BRACKETED.fullmatch(name) if name[-1:] in _CLOSING else None
    return bracketed[1] if bracketed else None
