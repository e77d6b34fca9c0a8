"""The rule of `docs/lattice.md`, implemented as slowly and plainly as possible.

Only the tokenizer is shared with the tested code: no automaton, no arrays, no columns. The entities
of a caption are found by trying every run of its tokens.
"""

from collections.abc import Iterable, Sequence

from data.tokenizer import Tokenizer
from lattice.config import LexiconConfig
from lattice.matching.lexicon import Lexicon
from lattice.matching.variants import fold_variants

Found = tuple[int, int, int]  # first token, last token, entity id


def run_of(letter: str) -> str:
    """Return the class of runs of a character: letter, digit, or empty (ideographs)."""
    if not ("!" <= letter < "\u3000" or "０" <= letter <= "Ｚ" or "ａ" <= letter <= "ｚ"):
        return ""
    return "digit" if letter.isdigit() else "letter" if letter.isalpha() else ""


def without_bracket(name: str) -> str | None:
    """Return `刘德华` for `刘德华（演员）`, and None for a name without a bracket at its end."""
    name = name.rstrip()
    pairs = [("（(", "）)"), ("[", "]"), ("【", "】"), ("〔", "〕")]
    opening, closing = next((p for p in pairs if name and name[-1] in p[1]), ("", ""))
    at = max((name.rfind(c) for c in opening), default=-1)
    if at < 1 or any(c in closing for c in name[at:-1]):
        return None
    return name[:at].rstrip() or None


def meanings_of(lexicon: Lexicon) -> dict[str, list[int]]:
    """Return every surface of a lexicon with its entity ids."""
    bounds = zip(lexicon.surfaces, lexicon.offsets, lexicon.offsets[1:], strict=False)
    return {surface: lexicon.entity_ids[a:b].tolist() for surface, a, b in bounds}


def meanings(
    names: Sequence[str],
    tokenizer: Tokenizer,
    config: LexiconConfig,
    mentions: Iterable[tuple[str, str]] = (),
    num_triples: Sequence[int] | None = None,
) -> dict[str, list[int]]:
    """Return every surface with its entity ids."""
    mentions = list(mentions)

    def normalise(name: str) -> str:
        surface = tokenizer.normalise(name)
        return fold_variants(surface) if config.fold_variants else surface

    normal = [normalise(name) for name in names]

    def fits(surface: str) -> bool:
        return config.min_length <= len(surface) <= config.max_length

    def own(surface: str) -> set[int]:
        same = [i for i, name in enumerate(normal) if name == surface and fits(surface)]
        equal = [i for i in same if names[i] == surface]
        return {(equal or same)[-1]} if same else set()

    def mentioned(surface: str) -> set[int]:
        found = set()
        for mention, entity in mentions:
            if normalise(mention) == surface and fits(surface):
                exact = [i for i, name in enumerate(names) if name == entity]
                found |= {exact[-1]} if exact else own(normalise(entity))
        return found

    aliases: dict[str, set[int]] = {}
    for i, name in enumerate(names):
        alias = without_bracket(name)
        if config.bracket_aliases and alias is not None and fits(normalise(alias)):
            aliases.setdefault(normalise(alias), set()).add(i)

    found: dict[str, list[int]] = {}
    surfaces = {*normal, *aliases, *(normalise(m) for m, _ in mentions)}
    for surface in surfaces - set(map(normalise, config.stop_names)):
        if config.senses == "all":
            same = {i for i, name in enumerate(normal) if name == surface and fits(surface)}
            every = same | mentioned(surface) | aliases.get(surface, set())
            counts = num_triples or [0] * len(names)
            kept = sorted(every, key=lambda i: (-counts[i], i))[: config.max_senses]
            if kept:
                found[surface] = sorted(kept)
            continue
        first = own(surface)
        more = mentioned(surface)
        if not first and not more:
            more = aliases.get(surface, set())
        kept = [*first, *sorted(more - first)][: config.max_senses]
        if kept:
            found[surface] = sorted(kept)
    return found


def scan(surfaces: Sequence[str], pieces: Sequence[bool], names: dict[str, list[int]]) -> list:
    """Return all entities of a caption, by trying every run of its tokens.

    Args:
        surfaces: The surface of each token.
        pieces: Whether each token is a `##` piece.
        names: From `meanings`.
    """

    def cuts(edge: int) -> bool:
        """Return whether the edge before a token is inside a run of letters or digits."""
        if edge in (0, len(surfaces)) or not pieces[edge]:
            return False
        before, after = "".join(surfaces[:edge])[-1:], surfaces[edge][:1]
        return run_of(before) == run_of(after) != ""

    found: list[Found] = []
    for first in range(len(surfaces)):
        for end in range(first + 1, len(surfaces) + 1):
            if not surfaces[first] or not surfaces[end - 1] or cuts(first) or cuts(end):
                continue
            ids = names.get("".join(surfaces[first:end]), [])
            found += [(first, end - 1, i) for i in ids]
    return found
