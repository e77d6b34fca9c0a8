"""From spans of characters to spans of tokens.

A match is kept only if both of its edges are token edges that do not cut a word: `5手机` is not in
`iPhone15手机壳`, nor `ip`, however the vocabulary happens to cut `iphone15` into pieces;
`北京故宫` is in `北 京故宫`, for a caption's surfaces are its normalised text without white space.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from lattice.matching.matcher import Matches
from lattice.matching.tokens import TokenBatch


class Spans(NamedTuple):
    """Matches as tokens of their batch, `[first, end)`, ordered by first, then end; int64 arrays.

    No two have the same tokens: these determine the surface.
    """

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    ordinal: NDArray[np.int64]

    def keep(self, which: NDArray[np.bool_]) -> "Spans":
        """Those that `which` marks."""
        return Spans(self.first[which], self.end[which], self.ordinal[which])


def align(tokens: TokenBatch, continues: NDArray[np.bool_], matches: Matches) -> Spans:
    """The matches whose edges are token edges.

    Args:
        tokens: The tokens of a batch of captions.
        continues: For each token id whether it is a `##` piece.
        matches: What a matcher found in `tokens.codes`.
    """
    spans = Spans(*(np.empty(len(matches.start), np.int64) for _ in range(3)))
    token_at, token_to = (np.full(len(tokens.codes) + 1, -1, np.int32) for _ in range(2))
    count, ordered = _align(tokens, continues, _runs(), matches, (token_at, token_to), spans)
    spans = Spans(*(column[:count] for column in spans))
    if not ordered:
        order = np.argsort((spans.first << 32) | spans.end)  # all keys differ
        spans = Spans(*(column[order] for column in spans))
    return spans


@jit
def _align(
    tokens: TokenBatch,
    continues: NDArray[np.bool_],
    runs: NDArray[np.uint8],
    matches: Matches,
    edges: tuple[NDArray[np.int32], NDArray[np.int32]],
    spans: Spans,
) -> tuple[int, bool]:
    """How many spans there are, and whether they come in order."""
    token_at, token_to = edges  # the token that begins at a code point; one past that which ends
    token = at = 0
    for row in range(len(tokens.row_tokens) - 1):
        while token < tokens.row_tokens[row + 1]:
            if tokens.lengths[token]:  # a token without a surface has no edge of its own
                token_at[at] = token
                # An edge inside a run of letters or of digits, where a `##` piece begins, is the
                # vocabulary's doing and not the writer's.
                if continues[tokens.ids[token]]:
                    before, after = runs[tokens.codes[at - 1]], runs[tokens.codes[at]]
                    if after and before == after:
                        token_at[at] = token_to[at] = -1
                at += tokens.lengths[token]
                token_to[at] = token + 1
            token += 1
        at += 1  # the separator

    count = 0
    ordered = True
    for n in range(len(matches.start)):
        first, end = np.int64(token_at[matches.start[n]]), np.int64(token_to[matches.end[n]])
        if first >= 0 and end >= 0:
            if count and (first, end) < (spans.first[count - 1], spans.end[count - 1]):
                ordered = False
            spans.first[count], spans.end[count] = first, end
            spans.ordinal[count] = matches.ordinal[n]
            count += 1
    return count, ordered


def token_starts(tokens: TokenBatch) -> NDArray[np.int64]:
    """Where in `tokens.codes` each token begins."""
    before = np.cumsum(tokens.lengths) - tokens.lengths
    starts: NDArray[np.int64] = before + rows_of_tokens(tokens)  # one separator for each row before
    return starts


def rows_of_tokens(tokens: TokenBatch) -> NDArray[np.int64]:
    """The row of each token."""
    num_rows = len(tokens.row_tokens) - 1
    return np.repeat(np.arange(num_rows), np.diff(tokens.row_tokens))


@cache
def _runs() -> NDArray[np.uint8]:
    """For each code point: 1 letter of an alphabet, 2 digit, 0 all else (ideographs, kana)."""
    runs = np.zeros(0x110000, np.uint8)
    for code in [*range(0x21, 0x3000), *range(0xFF10, 0xFF5B)]:
        letter = chr(code)
        runs[code] = 2 if letter.isdigit() else int(letter.isalpha())
    runs.flags.writeable = False
    return runs
