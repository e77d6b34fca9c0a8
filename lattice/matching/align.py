"""Spans of characters to spans of tokens.

A match is kept only if both of its edges are token edges that do not cut a word: `5手机` and `ip`
are not in `iPhone15手机壳`, regardless of the pieces into which the vocabulary cuts `iphone15`.
`北京故宫` is in `北 京故宫`, because surfaces are normalised text without white space.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from data.jit import jit
from lattice.matching.arrays import Bools, Bytes, Ids, Ints
from lattice.matching.matcher import Matches
from lattice.matching.tokens import TokenBatch


class Spans(NamedTuple):
    """Matches as tokens `[first, end)` of their batch; int64 (num_spans,) each.

    Ordered by first, then end. No two spans have the same tokens, which determine the surface.
    """

    first: Ints
    end: Ints
    ordinal: Ints

    def keep(self, mask: Bools) -> "Spans":
        """Return the spans that `mask` selects."""
        return Spans(self.first[mask], self.end[mask], self.ordinal[mask])


def align(tokens: TokenBatch, continues: Bools, matches: Matches) -> Spans:
    """Return the matches whose edges are token edges.

    Args:
        tokens: The tokens of a batch of captions.
        continues: Whether a token id is a `##` piece; bool (vocab_size,).
        matches: The matches in `tokens.codes`.
    """
    spans = Spans(*(np.empty(len(matches.start), np.int64) for _ in range(3)))
    token_at, token_to = (np.full(len(tokens.codes) + 1, -1, np.int32) for _ in range(2))
    count, ordered = _align(tokens, continues, _run_classes(), matches, (token_at, token_to), spans)
    spans = Spans(*(column[:count] for column in spans))
    if not ordered:
        order = np.argsort((spans.first << 32) | spans.end)  # all keys differ
        spans = Spans(*(column[order] for column in spans))
    return spans


@jit
def _align(
    tokens: TokenBatch,
    continues: Bools,
    runs: Bytes,
    matches: Matches,
    edges: tuple[Ids, Ids],
    spans: Spans,
) -> tuple[int, bool]:
    """Fill `spans` with the matches whose edges are token edges.

    Args:
        tokens: See `TokenBatch`. Each row of `codes` has `sum(lengths)` code points and the
            separator. A caption never begins with a `##` piece that has a surface.
        continues: bool (vocab_size,); every token id is below its length.
        runs: See `_run_classes`; uint8 (0x110000,).
        matches: Code points `0 <= start < end <= len(codes)`, none across a separator.
        edges: int32 (len(codes) + 1,) each, all -1: receives the token that begins at a code point,
            and one past the token that ends before it.
        spans: int64 (len(matches.start),) each: receives the result.

    Returns:
        The number of spans, and whether they are ordered.
    """
    token_at, token_to = edges
    token = at = 0
    for row in range(len(tokens.row_tokens) - 1):
        while token < tokens.row_tokens[row + 1]:
            if tokens.lengths[token]:  # a token without a surface has no edges
                token_at[at] = token
                # A `##` piece inside a run of letters or of digits depends on the vocabulary, not
                # on the text: no edge.
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


def token_starts(tokens: TokenBatch) -> Ints:
    """Return the position in `tokens.codes` at which each token begins; int64 (num_tokens,)."""
    num_rows = len(tokens.row_tokens) - 1
    row = np.repeat(np.arange(num_rows), np.diff(tokens.row_tokens))
    before = np.cumsum(tokens.lengths) - tokens.lengths
    starts: Ints = before + row  # each earlier row has one separator
    return starts


@cache
def _run_classes() -> Bytes:
    """Return for each code point: 1 letter of an alphabet, 2 digit, 0 other (ideographs, kana)."""
    runs = np.zeros(0x110000, np.uint8)
    for code in [*range(0x21, 0x3000), *range(0xFF10, 0xFF5B)]:
        letter = chr(code)
        runs[code] = 2 if letter.isdigit() else int(letter.isalpha())
    runs.flags.writeable = False
    return runs
