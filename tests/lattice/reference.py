"""The reference's rule as a slow oracle: a trie of dictionaries, traversed token by token.

EasyNLP (commit a4ee956) inserts the characters of every name of two or more into a trie, the last
of equal names wins, and from each WordPiece token it continues while whole tokens are keys. So only
runs of one-character tokens match. All matches are returned, ordered by start, then end.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data.tokenizer import Tokenizer
from lattice.building.caption_reader import CAPTIONS
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import make_lexicon
from lattice.matching.vocabulary import Vocabulary
from tests.lattice.oracle import run_of

PURE = re.compile(r"[\u4e00-\u9fff，。、！？；：“”（）《》 ]*")
_ID = "id"  # longer than a character, so it is no token's key


def make_trie(names: Iterable[str]) -> dict:
    root: dict = {}
    for entity_id, name in enumerate(names):
        if len(name) < 2:
            continue
        node = root
        for character in name:
            node = node.setdefault(character, {})
        node[_ID] = entity_id
    return root


def match_tokens(trie: dict, tokens: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return `(first token, last token, entity id)` of each match."""
    found = []
    for start in range(len(tokens)):
        node = trie
        for end in range(start, len(tokens)):
            if tokens[end] == _ID or tokens[end] not in node:
                break
            node = node[tokens[end]]
            if _ID in node:
                found.append((start, end, node[_ID]))
    return found


def reference_row(trie: dict, tokens: Sequence[str]) -> dict:
    """Return the columns that the reference writes."""
    matches = match_tokens(trie, tokens)
    positions = list(range(len(tokens)))
    return {
        "seq_len": len(tokens),
        "lex_ids": [i for _, _, i in matches],
        "pos_s": positions + [s for s, _, _ in matches],
        "pos_e": positions + [e for _, e, _ in matches],
    }


@dataclass
class Comparison:
    """Our rows compared with the reference's.

    Attributes:
        texts: Texts.
        pure: Texts of ideographs and their punctuation only, all in the vocabulary.
        pure_identical: Rows of these that are identical in every column.
        identical: Identical rows, over all texts.
        other_tokens: Rows whose tokens differ from the tokenizer's.
        matches: Matches of the reference.
        lost: Matches of the reference that we do not find.
        lost_in_a_run: Lost matches that cut a run of letters or digits: the intended difference.
        more: Matches that only we find.
        example: A text with a lost match that is not of that class.
    """

    texts: int = 0
    pure: int = 0
    pure_identical: int = 0
    identical: int = 0
    other_tokens: int = 0
    matches: int = 0
    lost: int = 0
    lost_in_a_run: int = 0
    more: int = 0
    example: str = ""


def compare(
    names: Sequence[str],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    backend: str = "auto",
    **options: Any,
) -> Comparison:
    """Match every text in both ways; `options` are those of `LatticeConfig`."""
    config = LatticeConfig(**{"bracket_aliases": False, **options})
    lexicon = make_lexicon(names, tokenizer, config)
    kernel = LatticeKernel(tokenizer, Vocabulary.from_lexicon(lexicon, backend), config)
    trie = make_trie(names)
    written = {i: token for token, i in tokenizer.vocab.items()}
    result = Comparison()
    for begin in range(0, len(texts), 4096):
        part = texts[begin : begin + 4096]
        arrays = [pa.array([""] * len(part)), pa.array(part, pa.string())]
        rows = kernel(pa.RecordBatch.from_arrays(arrays, schema=CAPTIONS)).to_pylist()
        for row, tokens in zip(rows, tokenizer.encode(part), strict=True):
            result.other_tokens += row["input_ids"] != tokens.ids
            _compare_row(result, row, trie, [written[i] for i in tokens.ids])
    return result


def _compare_row(result: Comparison, row: dict, trie: dict, tokens: list[str]) -> None:
    theirs = reference_row(trie, tokens)
    same = all(row[key] == value for key, value in theirs.items())
    pure = bool(PURE.fullmatch(row["text"])) and "[UNK]" not in tokens
    result.texts += 1
    result.pure += pure
    result.identical += same
    result.pure_identical += pure and same
    n = row["seq_len"]
    ours = set(zip(row["pos_s"][n:], row["pos_e"][n:], row["lex_ids"], strict=True))
    wanted = set(match_tokens(trie, tokens))
    lost = wanted - ours
    excused = sum(cuts_a_run(tokens, first, last) for first, last, _ in lost)
    result.matches += len(wanted)
    result.more += len(ours - wanted)
    result.lost += len(lost)
    result.lost_in_a_run += excused
    if excused < len(lost):
        result.example = result.example or row["text"]


def cuts_a_run(tokens: Sequence[str], first: int, last: int) -> bool:
    """Return whether a match ends inside a word: a `##` piece continues letters, or digits."""

    def cut(edge: int) -> bool:
        if not 0 < edge < len(tokens) or not tokens[edge].startswith("##"):
            return False
        before, after = tokens[edge - 1][-1], tokens[edge][2]
        return run_of(before) == run_of(after) != ""

    return cut(first) or cut(last + 1)
