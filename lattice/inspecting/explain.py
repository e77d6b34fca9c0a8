"""Explain the matches of one text: the kept and the dropped ones, and who claims each surface.

The kept entities are those of the kernel. Matches that the kernel never considers (names that end
inside a word, or are too short) are found by a pass over all names, which also finds the other
entities with the same surface.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.errors import InputError
from data.kg_folder import open_names, triples_per_entity
from data.names import without_bracket
from data.tokenizer import Tokenizer
from data.tsv import Rejects
from lattice.building.caption_reader import CAPTIONS, check_unicode
from lattice.config import LatticeConfig, LexiconConfig
from lattice.matching.arrays import Ints
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import names_file, read_mentions, surface_of
from lattice.matching.variants import fold_variants
from lattice.matching.vocabulary import load_vocabulary

LONGEST = 1000  # maximum characters of a text

NAME, FOLDED, MENTION, BRACKET = "as written", "folded", "mention", "without its bracket"
STOPPED = "a stop name"


class Claim(NamedTuple):
    """An entity's claim to a surface.

    Attributes:
        entity_id: The entity.
        name: Its name.
        rule: `NAME`, `FOLDED`, `MENTION` or `BRACKET`.
        lost: Why another entity has the surface; empty if the claim holds.
    """

    entity_id: int
    name: str
    rule: str
    lost: str = ""


class Place(NamedTuple):
    """An entity at code points `[start, end)` of the concatenated surfaces of the tokens."""

    start: int
    end: int
    entity_id: int


class Match(NamedTuple):
    """An occurrence of a surface in the text.

    Attributes:
        start: First code point in the concatenated surfaces of the tokens.
        end: One past the last.
        surface: The surface; the text's own characters, unless variants are folded.
        entity_ids: Its entities.
        reason: Why the match is dropped; empty if it is kept.
    """

    start: int
    end: int
    surface: str
    entity_ids: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A text with all its matches and the claims to their surfaces.

    Attributes:
        text: The text.
        surfaces: The surface of each token.
        pieces: Whether a token continues the word before it (`##`).
        matches: Occurrences of surfaces, ordered by start and end.
        claims: The claims to each of these surfaces; those that hold are first.
    """

    text: str
    surfaces: tuple[str, ...]
    pieces: tuple[bool, ...]
    matches: tuple[Match, ...]
    claims: dict[str, tuple[Claim, ...]]


def explain_text(
    text: str,
    *,
    names: Path,
    tokenizer: Tokenizer,
    config: LatticeConfig | None = None,
    mentions: Path | None = None,
) -> Explanation:
    """Match one text, with the reason for each match that is dropped.

    Args:
        text: A caption or prompt, up to `LONGEST` characters.
        names: A KG folder, an `entity2id.txt`, or a compiled vocabulary.
        tokenizer: Tokenizes and folds the text.
        config: What is matched and kept.
        mentions: A file of `mention<TAB>entity`.

    Raises:
        InputError: The text is too long or not Unicode, or a file is missing or malformed.
    """
    config = config or LatticeConfig()
    if len(text) > LONGEST:
        raise InputError(f"the text has {len(text):,} characters; at most {LONGEST} can be shown.")
    check_unicode(text)
    vocabulary = load_vocabulary(names, tokenizer, config, mentions)
    tokens = next(iter(tokenizer.encode([text])))
    continued = {i for token, i in tokenizer.vocab.items() if token.startswith("##")}

    edges = np.cumsum([0, *map(len, tokens.surfaces)]).tolist()

    def kept(config: LatticeConfig) -> set[Place]:
        return _entities(LatticeKernel(tokenizer, vocabulary, config), text, edges)

    uncapped = replace(config, max_entities=None)
    stages = {
        "": kept(replace(uncapped, segment="none")),
        "crosses a word boundary": kept(uncapped),
        f"over the cap of {config.max_entities}": kept(config),
    }
    joined = "".join(tokens.surfaces)
    if config.fold_variants:
        joined = fold_variants(joined)
    pairs: list[list[str]] = []
    if mentions is not None:
        pairs = read_mentions(mentions, Rejects())
    file = names_file(names)
    claims = _claims(joined, file, tokenizer, config, pairs)
    matches: list[Match] = []
    for start, end in _places(joined, claims):
        reasons: dict[str, list[int]] = defaultdict(list)
        for claim in claims[joined[start:end]]:
            if claim.lost == STOPPED:
                reasons[STOPPED].append(claim.entity_id)
            elif not claim.lost:
                reasons[_drop_reason(start, end, claim.entity_id, edges, stages, config)].append(
                    claim.entity_id
                )
        matches += [
            Match(start, end, joined[start:end], tuple(ids), reason)
            for reason, ids in sorted(reasons.items())
        ]
    return Explanation(
        text=text,
        surfaces=tuple(tokens.surfaces),
        pieces=tuple(i in continued for i in tokens.ids),
        matches=tuple(matches),
        claims=claims,
    )


def _entities(kernel: LatticeKernel, text: str, edges: Sequence[int]) -> set[Place]:
    """Return the entities that the kernel finds, in code points."""
    columns = [pa.array(["0"]), pa.array([text], pa.string())]
    [row] = kernel(pa.RecordBatch.from_arrays(columns, schema=CAPTIONS)).to_pylist()
    n = row["seq_len"]
    spans = zip(row["pos_s"][n:], row["pos_e"][n:], row["lex_ids"], strict=True)
    return {Place(edges[first], edges[last + 1], i) for first, last, i in spans}


def _drop_reason(
    start: int,
    end: int,
    entity_id: int,
    edges: Sequence[int],
    stages: dict[str, set[Place]],
    config: LexiconConfig,
) -> str:
    """Return why an entity is dropped at a place; empty if it is kept."""
    if end - start < config.min_length:
        return f"shorter than --min-length {config.min_length}"
    for reason, found in stages.items():
        if Place(start, end, entity_id) not in found:
            whole = start in edges and end in edges
            return reason or ("cuts a word" if whole else "ends inside a token")
    return ""


def _places(text: str, surfaces: Iterable[str]) -> list[tuple[int, int]]:
    """Return all occurrences of the surfaces, ordered by start and end."""
    places = []
    for surface in surfaces:
        start = text.find(surface)
        while start >= 0:
            places.append((start, start + len(surface)))
            start = text.find(surface, start + 1)
    return sorted(places)


def _claims(
    text: str,
    file: Path,
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Iterable[Sequence[str]],
) -> dict[str, tuple[Claim, ...]]:
    """Return the claims to each surface in the text, by the rules of `lattice.matching.lexicon`."""
    names, starts = open_names(file), range(len(text))
    spans = ((a, b) for a in starts for b in range(a + 1, a + config.max_length + 1))
    wanted = {text[a:b] for a, b in spans if b <= len(text)}
    found: dict[str, dict[str, list[Claim]]]
    found = {rule: defaultdict(list) for rule in (NAME, FOLDED, BRACKET)}
    for entity_id, name in enumerate(names):
        surface = surface_of(name, tokenizer, config.fold_variants)
        surfaces = [(NAME if surface == name else FOLDED, surface)]
        if config.bracket_aliases and (alias := without_bracket(name)) is not None:
            surfaces.append((BRACKET, surface_of(alias, tokenizer, config.fold_variants)))
        for rule, surface in surfaces:
            if surface in wanted:
                found[rule][surface].append(Claim(entity_id, name, rule))
    found[MENTION] = _mention_claims(mentions, names, tokenizer, config, wanted)
    stopped = {surface_of(s, tokenizer, config.fold_variants) for s in config.stop_names}
    claimed = sorted(set().union(*found.values()))
    by_rule = {surface: {rule: of[surface] for rule, of in found.items()} for surface in claimed}
    if config.senses == "all":
        counts = triples_per_entity(file.parent, len(names))
        ranked = {s: _all_senses(by_rule[s], counts, config.max_senses) for s in claimed}
    else:
        ranked = {s: _ranked(by_rule[s], config.max_senses) for s in claimed}
    for surface in stopped & ranked.keys():
        claims = ranked[surface]
        ranked[surface] = tuple(c if c.lost else c._replace(lost=STOPPED) for c in claims)
    return ranked


def _mention_claims(
    mentions: Iterable[Sequence[str]],
    names: Sequence[str],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    wanted: set[str],
) -> dict[str, list[Claim]]:
    """Return the claims by mention to each surface in `wanted`."""
    claims: dict[str, list[Claim]] = defaultdict(list)
    fold = config.fold_variants
    meant = [(m, e) for m, e in mentions if surface_of(m, tokenizer, fold) in wanted]
    if not meant:
        return claims
    ids = {name: i for i, name in enumerate(names)}
    for mention, entity in meant:
        entity_id = ids.get(entity)
        if entity_id is None:
            entity_id = _owner(surface_of(entity, tokenizer, fold), names, tokenizer, config)
        if entity_id is not None:
            claim = Claim(entity_id, names[entity_id], MENTION)
            surface = surface_of(mention, tokenizer, fold)
            if claim not in claims[surface]:
                claims[surface].append(claim)
    return claims


def _owner(
    surface: str, names: Sequence[str], tokenizer: Tokenizer, config: LexiconConfig
) -> int | None:
    """Return the entity whose name has the surface, or None."""
    if not config.min_length <= len(surface) <= config.max_length:
        return None
    fold = config.fold_variants
    same = [i for i, name in enumerate(names) if surface_of(name, tokenizer, fold) == surface]
    equal = [i for i in same if names[i] == surface]
    return max(equal or same, default=None)


def _ranked(claims: dict[str, list[Claim]], max_senses: int) -> tuple[Claim, ...]:
    """Return the claims to a surface, by rule, that hold, then the others with the reason."""
    holding: list[Claim] = []
    lost: list[Claim] = []
    for n, claim in enumerate(reversed(claims[FOLDED] + claims[NAME])):  # in order of precedence
        if n == 0:
            holding.append(claim)
        elif holding[0].rule == claim.rule:
            lost.append(claim._replace(lost="a later line has the same name"))
        else:
            lost.append(claim._replace(lost=f"{holding[0].name} equals it"))
    own = {claim.entity_id for claim in holding}
    holding += sorted(claim for claim in claims[MENTION] if claim.entity_id not in own)
    if holding:
        lost += [c._replace(lost="a name or mention equals it") for c in claims[BRACKET]]
    else:
        holding = sorted(claims[BRACKET])
    return (*_capped(holding, max_senses), *lost)


def _all_senses(
    claims: dict[str, list[Claim]], num_triples: Ints, max_senses: int
) -> tuple[Claim, ...]:
    """Return one claim of each entity, those with most triples first."""
    first: dict[int, Claim] = {}
    for rule in (NAME, FOLDED, MENTION, BRACKET):
        for claim in claims[rule]:
            first.setdefault(claim.entity_id, claim)
    ordered = sorted(first.values(), key=lambda c: (-num_triples[c.entity_id], c.entity_id))
    return tuple(_capped(ordered, max_senses))


def _capped(holding: Sequence[Claim], max_senses: int) -> list[Claim]:
    """Return all claims; those after the first `max_senses` are lost."""
    reason = f"only {max_senses} entities may share a surface"
    cut = [claim._replace(lost=reason) for claim in holding[max_senses:]]
    return [*holding[:max_senses], *cut]
