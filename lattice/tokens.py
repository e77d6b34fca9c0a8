"""Tokenising captions by the thousand, column by column; the tokens are those of `data.tokenizer`.

Most captions consist of ideographs, punctuation, blanks and ASCII words. In these BERT's tokens do
not depend on context: an ideograph or a punctuation mark is always a token of its own, and a word
is cut alike wherever it stands. So one table over code points and one cache of words give the
tokens of a whole batch in a few array operations. Nothing about the tokenizer is assumed: the
table is filled by asking it, once for each code point. A caption with any other character
(combining marks, emoji, kana, a literal `[MASK]` ...) is *undecided* and goes to the tokenizer
itself.
"""

from collections.abc import Sequence
from string import ascii_letters, digits
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.tokenizer import SPECIAL_TOKENS, Tokenizer

SEPARATOR = ord("\n")  # white space, so it is never part of a surface
_CODE_POINTS = 0x110000
_WORD_CACHE = 1 << 20  # words; beyond this the cache starts again
_UNSEEN, _ALONE, _BLANK, _WORD, _ODD = range(5)


class TokenBatch(NamedTuple):
    """The tokens of many captions, laid end to end.

    Attributes:
        ids: BERT ids, int32 (num_tokens,).
        lengths: Code points in the surface of each token, int64 (num_tokens,).
        row_tokens: Tokens of row r are `[row_tokens[r], row_tokens[r + 1])`; int64 (num_rows + 1,).
        codes: The surfaces joined, uint32 (num_chars,); `SEPARATOR` follows each row.
        row_chars: Likewise for `codes`; the separator is the last of its row.
        num_undecided: Rows that went to the tokenizer itself.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    row_tokens: NDArray[np.int64]
    codes: NDArray[np.uint32]
    row_chars: NDArray[np.int64]
    num_undecided: int


class _Block(NamedTuple):
    """The tokens of a word, or of a whole undecided row."""

    ids: list[int]
    lengths: list[int]
    surface: str


class BatchTokenizer:
    """Gives `TokenBatch`es equal to what `tokenizer.encode` gives row by row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kind = np.zeros(_CODE_POINTS, np.uint8)
        self._id = np.zeros(_CODE_POINTS, np.int32)
        self._folded = np.zeros(_CODE_POINTS, np.uint32)
        self._kind[[ord(c) for c in ascii_letters + digits]] = _WORD
        self._letter = next(iter(tokenizer.encode(["a"]))).ids
        self._words: dict[str, _Block] = {}
        self.continues = np.zeros(tokenizer.vocab_size, np.bool_)
        self.continues[[i for t, i in tokenizer.vocab.items() if t.startswith("##")]] = True

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        """The tokens of all texts."""
        joined = "\n".join((*texts, ""))
        source = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        row_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
        kind = self._kinds(source)
        undecided = self._undecided(texts, source, kind, row_ends)
        row_begins = np.concatenate(([0], row_ends[:-1])).astype(np.int64)
        for row in undecided:
            kind[row_begins[row] : row_ends[row]] = _BLANK

        word = np.concatenate(([False], kind == _WORD, [False]))
        edges = np.flatnonzero(word[1:] != word[:-1])
        begins, ends = edges[::2], edges[1::2]
        blocks = self._blocks([joined[b:e] for b, e in zip(begins, ends, strict=True)])
        blocks += [_block(t) for t in self._tokenizer.encode([texts[r] for r in undecided])]
        at = np.concatenate((begins, row_begins[undecided]))
        return self._assemble(source, kind == _ALONE, at, blocks, row_ends, len(undecided))

    def _kinds(self, source: NDArray[np.uint32]) -> NDArray[np.uint8]:
        kind = self._kind[source]
        unseen = np.unique(source[kind == _UNSEEN])
        if len(unseen):
            self._learn(unseen.tolist())
            kind = self._kind[source]
        return kind

    def _learn(self, codes: list[int]) -> None:
        """Ask the tokenizer how each code point behaves between two letters."""
        self._kind[codes] = _ODD
        asked = [c for c in codes if not 0xD800 <= c < 0xE000]
        between = self._tokenizer.encode([f"a{chr(c)}a" for c in asked])
        for code, (ids, surfaces) in zip(asked, between, strict=True):
            if ids == self._letter * 2:
                self._kind[code] = _BLANK
            elif len(ids) == 3 and ids[::2] == self._letter * 2 and len(surfaces[1]) == 1:
                self._kind[code] = _ALONE
                self._id[code], self._folded[code] = ids[1], ord(surfaces[1])

    def _undecided(
        self,
        texts: Sequence[str],
        source: NDArray[np.uint32],
        kind: NDArray[np.uint8],
        row_ends: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The rows that hold an odd character or a literal special token, ascending."""
        rows = np.searchsorted(row_ends, np.flatnonzero(kind == _ODD), side="right")
        bracketed = np.searchsorted(row_ends, np.flatnonzero(source == ord("[")), side="right")
        special = [r for r in np.unique(bracketed) if any(t in texts[r] for t in SPECIAL_TOKENS)]
        return np.unique(np.concatenate((rows, np.array(special, np.int64))))

    def _blocks(self, words: list[str]) -> list[_Block]:
        new = [w for w in dict.fromkeys(words) if w not in self._words]
        if new:
            if len(self._words) + len(new) > _WORD_CACHE:
                self._words.clear()
                new = list(dict.fromkeys(words))
            encoded = self._tokenizer.encode(new)
            self._words.update((w, _block(t)) for w, t in zip(new, encoded, strict=True))
        return [self._words[w] for w in words]

    def _assemble(
        self,
        source: NDArray[np.uint32],
        alone: NDArray[np.bool_],
        at: NDArray[np.int64],
        blocks: list[_Block],
        row_ends: NDArray[np.int64],
        num_undecided: int,
    ) -> TokenBatch:
        """Lay tokens and surfaces in order: `blocks` begin at the positions `at` of the source."""
        block_tokens = np.array([len(b.ids) for b in blocks], np.int64)
        block_chars = np.array([len(b.surface) for b in blocks], np.int64)
        num_tokens = alone.astype(np.int64)  # how many begin at each position of the source
        num_chars = num_tokens.copy()
        num_tokens[at], num_chars[at] = block_tokens, block_chars
        num_chars[row_ends - 1] = 1  # the separator
        token_ends, char_ends = np.cumsum(num_tokens), np.cumsum(num_chars)
        total_tokens, total_chars = (int(e[-1]) if len(e) else 0 for e in (token_ends, char_ends))

        ids = np.empty(total_tokens, np.int32)
        lengths = np.ones(total_tokens, np.int64)
        codes = np.empty(total_chars, np.uint32)
        codes[char_ends[row_ends - 1] - 1] = SEPARATOR
        ids[token_ends[alone] - 1] = self._id[source[alone]]
        codes[char_ends[alone] - 1] = self._folded[source[alone]]
        if blocks:
            to = _ranges(token_ends[at] - block_tokens, block_tokens)
            ids[to] = [i for b in blocks for i in b.ids]
            lengths[to] = [n for b in blocks for n in b.lengths]
            surface = "".join([b.surface for b in blocks]).encode("utf-32-le")
            codes[_ranges(char_ends[at] - block_chars, block_chars)] = np.frombuffer(
                surface, np.uint32
            )
        return TokenBatch(
            ids,
            lengths,
            np.concatenate(([0], token_ends[row_ends - 1])).astype(np.int64),
            codes,
            np.concatenate(([0], char_ends[row_ends - 1])).astype(np.int64),
            num_undecided,
        )


def _block(tokens: tuple[list[int], list[str]]) -> _Block:
    ids, surfaces = tokens
    return _Block(ids, [len(s) for s in surfaces], "".join(surfaces))


def _ranges(begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`begins[k], begins[k] + 1, ...` (`counts[k]` of them), one range after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    ranges: NDArray[np.int64] = np.arange(total) + np.repeat(begins - (ends - counts), counts)
    return ranges
