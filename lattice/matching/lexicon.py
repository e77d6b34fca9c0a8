"""Which strings name which entities.

A *surface* is a string as it can occur in a caption after the tokenizer's normalisation (case,
width, accents, no white space). Its sources, in this order of precedence:

1. entity names that equal their own normal form,
2. entity names that only become equal to it (`T恤` and `t恤`),
3. the mention file, where one surface may name several entities, in addition to the name's,
4. names without their bracket: `刘德华（演员）` also matches `刘德华` if none of the above does;
   the same for `[]`, `【】` and `〔〕`.

Within 1 and 2 the last line wins, as in EasyNLP (names are in the order of their ids, so the
highest id). With `senses` "all", nothing has precedence: a surface brings every entity of 1 to 4,
those with most triples first. Everything excluded is counted.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, check_vectors, read_names, triples_per_entity
from data.names import without_bracket
from data.tokenizer import Tokenizer
from data.tsv import BLANK, Rejects, read_rows
from lattice.config import LexiconConfig
from lattice.matching.arrays import Ids, Ints
from lattice.matching.variants import fold_variants

_IDEOGRAPHS = re.compile(r"[\u4e00-\u9fff]+")  # unchanged by any BERT tokenizer


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
        pairs = read_mentions(mentions, rejects)
    entities = read_names(file)
    if names.is_dir():
        check_vectors(names, len(entities))
    lexicon = make_lexicon(
        entities, tokenizer, config, pairs, lambda: triples_per_entity(file.parent, len(entities))
    )
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


def read_mentions(path: Path, rejects: Rejects) -> list[list[str]]:
    """Return the pairs of a mention file; `kg convert` writes an empty one without aliases.

    Raises:
        InputError: It cannot be read.
    """
    if path.is_file() and not path.stat().st_size:
        return []
    return [row.fields for row in read_rows(path, (2,), rejects)]


def make_lexicon(
    names: Sequence[str],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Iterable[Sequence[str]] = (),
    num_triples: Callable[[], Ints] | None = None,
) -> Lexicon:
    """Return the lexicon of `names`, whose position is their entity id.

    Args:
        names: Entity names.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: Pairs of mention and entity name.
        num_triples: Returns the triples of each entity; called only if a surface has more senses
            than `max_senses`. None: the lowest ids are kept.
    """
    builder = _LexiconBuilder(names, tokenizer, config)
    builder.add_names()
    builder.add_mentions(mentions)
    if config.bracket_aliases:
        builder.add_aliases()
    builder.remove_stop_names()
    return builder.finish(num_triples)


class _LexiconBuilder:
    """Collects the surfaces of names, mentions and aliases, in this order.

    Attributes:
        owner: The entity whose name is a surface.
        senses: The entities that a mention or an alias adds to a surface.
        counts: See `Lexicon`.
    """

    def __init__(self, names: Sequence[str], tokenizer: Tokenizer, config: LexiconConfig) -> None:
        self._names, self._tokenizer, self._config = names, tokenizer, config
        self._all = config.senses == "all"
        self.owner: dict[str, int] = {}
        self.senses: dict[str, set[int]] = {}
        self.counts: Counter[str] = Counter(names=len(names))

    def add_names(self) -> None:
        """Add the normal form of every name."""
        counts, folded = self.counts, dict[str, int]()
        for entity_id, name in enumerate(self._names):
            surface = self._surface(name)
            if len(surface) < self._config.min_length:
                counts["too_short"] += 1
            elif len(surface) > self._config.max_length:
                counts["too_long"] += 1
            else:
                equal = self.owner if surface == name else folded
                counts["folded_names"] += surface != name
                counts["duplicate_names"] += surface in equal
                if surface in equal:
                    self._compare(surface, equal[surface], entity_id)
                equal[surface] = entity_id
        for surface, entity_id in folded.items():
            if self._all and surface in self.owner:
                self.senses.setdefault(surface, set()).add(entity_id)
            counts["hidden_by_an_equal_name"] += not self._all and surface in self.owner
            self.owner.setdefault(surface, entity_id)

    def _compare(self, surface: str, earlier: int, entity_id: int) -> None:
        """Keep both of two names with one surface, if all senses are; count variants."""
        if self._all:
            self.senses.setdefault(surface, set()).update((earlier, entity_id))
        if self._config.fold_variants:
            written = {surface_of(self._names[i], self._tokenizer) for i in (earlier, entity_id)}
            self.counts["names_equal_as_variants"] += len(written) > 1

    def add_mentions(self, mentions: Iterable[Sequence[str]]) -> None:
        """Add pairs of mention and entity name."""
        counts = self.counts
        ids: dict[str, int] | None = None
        for mention, entity in mentions:
            if ids is None:
                ids = {name: i for i, name in enumerate(self._names)}
            counts["mentions"] += 1
            entity_id = ids.get(entity)
            if entity_id is None:  # names of a KG folder are in this form
                entity_id = ids.get(unicodedata.normalize("NFKC", entity).strip())
            if entity_id is None:
                entity_id = self.owner.get(self._surface(entity))
            surface = self._surface(mention)
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
            alias = self._surface(bare)
            if not self._fits(alias):
                continue
            if not self._all and (alias in self.owner or alias in self.senses):
                self.counts["aliases_hidden_by_a_name"] += 1
            else:
                aliases.setdefault(alias, set()).add(entity_id)
        self.counts["bracket_aliases"] = len(aliases)
        for alias, entity_ids in aliases.items():
            self.senses.setdefault(alias, set()).update(entity_ids)

    def remove_stop_names(self) -> None:
        """Remove the surfaces of the stop names."""
        for surface in dict.fromkeys(map(self._surface, self._config.stop_names)):
            owned, meant = self.owner.pop(surface, None), self.senses.pop(surface, None)
            self.counts["stopped"] += owned is not None or meant is not None

    def finish(self, num_triples: Callable[[], Ints] | None = None) -> Lexicon:
        """Return the lexicon; `max_senses` is applied here."""
        order: Callable[[int], tuple[int, int]] | None = None
        surfaces = list(self.owner)
        own = np.fromiter(self.owner.values(), np.int32, len(self.owner))
        position = {s: n for n, s in enumerate(surfaces) if s in self.senses} if self.senses else {}
        several: dict[int, list[int]] = {}
        for surface, more in self.senses.items():
            n = position.get(surface, len(surfaces))
            first = {int(own[n])} if n < len(own) else set()
            kept = [*first, *sorted(more - first)]
            if len(kept) > self._config.max_senses:
                self.counts["senses_cut"] += len(kept) - self._config.max_senses
                if self._all:
                    order = order or _by_triples(num_triples)
                    kept.sort(key=order)
                kept = kept[: self._config.max_senses]
            self.counts["ambiguous_surfaces"] += len(kept) > 1
            several[n] = sorted(kept)
            if n == len(surfaces):
                surfaces.append(surface)
        self.counts["surfaces"] = len(surfaces)
        return Lexicon(surfaces, *_sense_arrays(own, several, len(surfaces)), +self.counts)

    def _surface(self, name: str) -> str:
        return surface_of(name, self._tokenizer, self._config.fold_variants)

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


def _by_triples(num_triples: Callable[[], Ints] | None) -> Callable[[int], tuple[int, int]]:
    """Return the sort key of entities: most triples first, then the lowest id."""
    if num_triples is None:
        return lambda entity_id: (0, entity_id)
    counts = num_triples()
    return lambda entity_id: (-int(counts[entity_id]), entity_id)


def surface_of(name: str, tokenizer: Tokenizer, variants: bool = False) -> str:
    """Return the surface of a name: folded by the tokenizer, without white space.

    Args:
        name: A name, mention or alias.
        tokenizer: Its normalisation is applied.
        variants: Whether traditional characters are folded to simplified ones.
    """
    surface = name if _IDEOGRAPHS.fullmatch(name) else tokenizer.normalise(name)
    return fold_variants(surface) if variants else surface


def read_stop_names(path: Path) -> tuple[str, ...]:
    """Return the distinct names of a file, one per line, for `LexiconConfig.stop_names`.

    What follows a tab (the share of captions, as `lattice stats` writes it) and blank lines are
    ignored.

    Raises:
        InputError: The file is missing, not UTF-8, or a line is not a name.
    """
    rejects = Rejects()
    names = [row.fields[0].strip() for row in read_rows(path, (1, 2), rejects)]
    del rejects.reasons[BLANK.kind]
    if rejects.count:
        reasons = ", ".join(f"{n} {reason}" for reason, n in rejects.reasons.items())
        raise InputError(f"{path} has lines that are not one name ({reasons}).")
    return tuple(dict.fromkeys(filter(None, names)))
