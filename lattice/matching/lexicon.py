"""Which strings name which entities.

A *surface* is a string as it can stand in a caption after the tokenizer's normalisation (case,
width, accents, no white space). It comes, in this order of precedence, from

1. entity names that equal their own normal form,
2. entity names that only become equal to it (`T恤` and `t恤`),
3. the mention file, where one surface may name several entities; these are added to the name's,
4. names without their bracket: `刘德华（演员）` also matches `刘德华` where nothing above does.

Within 1 and 2 the last line wins, as in EasyNLP (names come in the order of their ids, so the
highest id). Everything left out is counted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError, InputError
from data.kg_folder import ENTITY_NAMES, check_vectors, read_names
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows

_IDEOGRAPHS = re.compile(r"[\u4e00-\u9fff]+")  # equal to their normal form in any BERT tokenizer
_CLOSING = ("）", ")", " ")
_BRACKETED = re.compile(r"(.+?)\s*[（(][^（）()]*[）)]\s*")


@dataclass(frozen=True, kw_only=True)
class LexiconConfig:
    """What becomes a surface.

    Attributes:
        min_length: Code points; shorter surfaces are left out (EasyNLP: 2).
        max_length: Code points; longer surfaces are left out: no caption holds them.
        bracket_aliases: Whether names also match without their disambiguation bracket.
        max_senses: Of an ambiguous surface, this many entities with the lowest ids are kept.
    """

    min_length: int = 2
    max_length: int = 128
    bracket_aliases: bool = True
    max_senses: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise ConfigError(
                f"min_length={self.min_length} must be at least 1 and at most "
                f"max_length={self.max_length}."
            )
        if self.max_length > 1000:  # the automaton's time is quadratic in the length of a name
            raise ConfigError(f"max_length={self.max_length} is too long; at most 1000.")
        if self.max_senses < 1:
            raise ConfigError(f"max_senses={self.max_senses} must be at least 1.")


@dataclass(frozen=True)
class Lexicon:
    """Surfaces, each once, and the entities that each names.

    Attributes:
        surfaces: The surface of each ordinal.
        entity_ids: All entity ids, ascending within a surface; int32.
        offsets: Ordinal n names `entity_ids[offsets[n]:offsets[n + 1]]`; int64 (num_surfaces + 1,).
        counts: What was read and what was left out, and why.
    """

    surfaces: list[str]
    entity_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    counts: dict[str, int]

    def ids(self, surface: str) -> list[int]:
        """The entities that a surface names; for looking up a few."""
        if surface not in self.surfaces:
            return []
        n = self.surfaces.index(surface)
        return [int(i) for i in self.entity_ids[self.offsets[n] : self.offsets[n + 1]]]


def names_file(path: Path) -> Path:
    """The file of entity names behind a KG folder or a bare `entity2id.txt`.

    Raises:
        InputError: There is none.
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
    """The lexicon of a KG folder or a bare `entity2id.txt`.

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
        raise InputError(
            f"{file}: none of its names can be matched ({_words(lexicon.counts)}). "
            "Lower --min-length?"
        )
    if rejects.count:
        lexicon.counts["malformed_mentions"] = rejects.count
    return lexicon


def make_lexicon(
    names: Sequence[str],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Iterable[Sequence[str]] = (),
) -> Lexicon:
    """The lexicon of `names`, whose position is their entity id.

    Args:
        names: Entity names.
        tokenizer: Its normalisation is applied to all names.
        config: What becomes a surface.
        mentions: Pairs of mention and entity name.
    """
    counts: Counter[str] = Counter(names=len(names))
    named: dict[str, int] = {}
    folded: dict[str, int] = {}
    for entity_id, name in enumerate(names):
        normal = surface_of(name, tokenizer)
        if _fits(normal, config, counts):
            equal = named if normal == name else folded
            counts["folded_names"] += normal != name
            counts["duplicate_names"] += normal in equal
            equal[normal] = entity_id
    for normal, entity_id in folded.items():
        counts["hidden_by_an_equal_name"] += normal in named
        named.setdefault(normal, entity_id)

    senses: dict[str, set[int]] = {}
    _add_mentions(senses, mentions, names, named, tokenizer, config, counts)
    if config.bracket_aliases:
        _add_aliases(senses, names, named, tokenizer, config, counts)
    surfaces, own = list(named), np.fromiter(named.values(), np.int32, len(named))
    position = {s: n for n, s in enumerate(surfaces) if s in senses} if senses else {}
    several: dict[int, list[int]] = {}
    for surface, more in senses.items():
        n = position.get(surface, len(surfaces))
        first = {int(own[n])} if n < len(own) else set()
        kept = [*first, *sorted(more - first)][: config.max_senses]
        counts["ambiguous_surfaces"] += len(kept) > 1
        counts["senses_cut"] += len(first | more) - len(kept)
        several[n] = sorted(kept)
        if n == len(surfaces):
            surfaces.append(surface)
    counts["surfaces"] = len(surfaces)
    return Lexicon(surfaces, *_table(own, several, len(surfaces)), +counts)


def _table(
    own: NDArray[np.int32], several: dict[int, list[int]], num_surfaces: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """`entity_ids` and `offsets`: `own[n]`, unless `several[n]` lists the entities."""
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


def _add_aliases(
    senses: dict[str, set[int]],
    names: Sequence[str],
    named: dict[str, int],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    counts: Counter[str],
) -> None:
    """Names without their bracket, where neither a name nor a mention has that surface."""
    aliases: dict[str, set[int]] = {}
    for entity_id, name in enumerate(names):
        bare = without_bracket(name)
        if bare is None:
            continue
        alias = surface_of(bare, tokenizer)
        if not config.min_length <= len(alias) <= config.max_length:
            continue
        if alias in named or alias in senses:
            counts["aliases_hidden_by_a_name"] += 1
        else:
            aliases.setdefault(alias, set()).add(entity_id)
    counts["bracket_aliases"] = len(aliases)
    senses |= aliases


def surface_of(name: str, tokenizer: Tokenizer) -> str:
    """A name as it stands in a caption: folded by the tokenizer, without white space."""
    return name if _IDEOGRAPHS.fullmatch(name) else tokenizer.normalise(name)


def without_bracket(name: str) -> str | None:
    """`刘德华` for `刘德华（演员）`; None where a name does not end in a bracket."""
    bracketed = _BRACKETED.fullmatch(name) if name[-1:] in _CLOSING else None
    return bracketed[1] if bracketed else None


def _fits(surface: str, config: LexiconConfig, counts: Counter[str]) -> bool:
    """Whether a surface is of a length that is matched; if not, it is counted."""
    if len(surface) < config.min_length:
        counts["too_short"] += 1
    elif len(surface) > config.max_length:
        counts["too_long"] += 1
    else:
        return True
    return False


def _add_mentions(
    senses: dict[str, set[int]],
    mentions: Iterable[Sequence[str]],
    names: Sequence[str],
    named: dict[str, int],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    counts: Counter[str],
) -> None:
    ids: dict[str, int] | None = None
    for mention, entity in mentions:
        if ids is None:
            ids = {name: i for i, name in enumerate(names)}
        counts["mentions"] += 1
        entity_id = ids.get(entity)
        if entity_id is None:
            entity_id = named.get(surface_of(entity, tokenizer))
        surface = surface_of(mention, tokenizer)
        if entity_id is None:
            counts["mentions_of_unknown_entities"] += 1
        elif config.min_length <= len(surface) <= config.max_length:
            senses.setdefault(surface, set()).add(entity_id)
        else:
            counts["mentions_too_short_or_long"] += 1
    # A mention that says what the name says already adds nothing.
    for surface in [s for s, more in senses.items() if more == {named.get(s)}]:
        del senses[surface]


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{key.replace('_', ' ')}: {n}" for key, n in counts.items())
