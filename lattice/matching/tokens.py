"""Tokenize captions in batches, in compiled loops; the tokens equal those of `data.tokenizer`.

Most captions consist of ideographs, punctuation, white space and ASCII words. For these, BERT's
tokens do not depend on context: an ideograph or a punctuation mark is always a token of its own,
and a word is always cut the same way. One table over code points and one cache of words therefore
give the tokens of a whole batch in three passes over its characters. The table is filled by asking
the tokenizer once per code point. A caption with any other character (combining marks, emoji, kana,
a literal `[MASK]`) is *undecided* and goes to the tokenizer itself.
"""

from collections.abc import Sequence
from string import ascii_letters, digits
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.jit import fnv1a, jit
from data.tokenizer import SPECIAL_TOKENS, Tokenizer, Tokens
from lattice.matching.arrays import Bools, Bytes, Codes, Ids, Ints
from lattice.matching.string_column import code_points

SEPARATOR = ord("\n")  # white space, so it is never part of a surface
_CODE_POINTS = 0x110000
_WORD_CACHE = 1 << 20  # words; a larger cache is cleared
_UNSEEN, _ALONE, _BLANK, _WORD, _ODD = range(5)
_BRACKET = ord("[")  # the first character of a special token
_SPECIAL = np.frombuffer("".join(SPECIAL_TOKENS).encode("utf-32-le"), np.uint32)
_SPECIAL_AT = np.cumsum([0, *map(len, SPECIAL_TOKENS)])


class TokenBatch(NamedTuple):
    """The concatenated tokens of many captions.

    Attributes:
        ids: BERT ids, int32 (num_tokens,).
        lengths: Code points in the surface of each token, int64 (num_tokens,).
        row_tokens: Tokens of row r are `[row_tokens[r], row_tokens[r + 1])`; int64 (num_rows + 1,).
        codes: The concatenated surfaces, uint32 (num_chars,); `SEPARATOR` follows each row.
        row_chars: As `row_tokens`, for `codes`; the separator is the last of its row.
        num_undecided: Rows that were tokenized by the tokenizer itself.
    """

    ids: Ids
    lengths: Ints
    row_tokens: Ints
    codes: Codes
    row_chars: Ints
    num_undecided: int


class BatchTokenizer:
    """Returns `TokenBatch`es equal to the rows of `tokenizer.encode`.

    Attributes:
        continues: Whether a token id is a `##` piece; bool (vocab_size,).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kind = np.zeros(_CODE_POINTS, np.uint8)
        self._id = np.zeros(_CODE_POINTS, np.int32)
        self._folded = np.zeros(_CODE_POINTS, np.uint32)
        self._kind[[ord(c) for c in ascii_letters + digits]] = _WORD
        self._letter = next(iter(tokenizer.encode(["a"]))).ids
        self._words = _WordCache(tokenizer)
        self.continues = np.zeros(tokenizer.vocab_size, np.bool_)
        self.continues[[i for t, i in tokenizer.vocab.items() if t.startswith("##")]] = True

    def __call__(self, texts: Sequence[str] | pa.StringArray) -> TokenBatch:
        """Return the tokens of all texts."""
        column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        source, row_ends = code_points(column, SEPARATOR)
        begins, ends, num_alone, undecided = self._scan(source, row_ends)
        word_block = self._words.look_up(source, begins, ends)
        odd = np.flatnonzero(undecided)
        rows = _Blocks()
        for row in self._tokenizer.encode([column[r].as_py() for r in odd.tolist()]):
            rows.add(row)
        words = self._words.blocks
        in_words = words.size_of(word_block)
        num_tokens = num_alone + in_words[0] + rows.num_tokens  # upper bounds
        num_codes = num_alone + in_words[1] + rows.num_codes + len(row_ends)
        batch = TokenBatch(
            ids=np.empty(num_tokens, np.int32),
            lengths=np.empty(num_tokens, np.int64),
            row_tokens=np.zeros(len(row_ends) + 1, np.int64),
            codes=np.empty(num_codes, np.uint32),
            row_chars=np.zeros(len(row_ends) + 1, np.int64),
            num_undecided=len(odd),
        )
        _write_tokens(
            source,
            row_ends,
            undecided,
            (self._kind, self._id, self._folded),
            (begins, ends, word_block),
            words.arrays(),
            rows.arrays(),
            batch,
        )
        tokens, chars = slice(batch.row_tokens[-1]), slice(batch.row_chars[-1])
        return batch._replace(
            ids=batch.ids[tokens], lengths=batch.lengths[tokens], codes=batch.codes[chars]
        )

    def _scan(self, source: Codes, row_ends: Ints) -> tuple[Ints, Ints, int, Bools]:
        """Return begin and end of each word, the number of characters alone, undecided rows."""
        begins, ends = np.empty(len(source), np.int64), np.empty(len(source), np.int64)
        undecided = np.zeros(len(row_ends), np.bool_)
        out = (begins, ends, undecided)
        words, alone, unseen = _scan(source, row_ends, self._kind, _SPECIAL, _SPECIAL_AT, out)
        if unseen:
            self._learn(np.unique(source[self._kind[source] == _UNSEEN]).tolist())
            words, alone, unseen = _scan(source, row_ends, self._kind, _SPECIAL, _SPECIAL_AT, out)
        return begins[:words], ends[:words], alone, undecided

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


class _BlockArrays(NamedTuple):
    """The arrays of `_Blocks`, for compiled loops."""

    ids: Ids
    lengths: Ints
    id_at: Ints
    codes: Codes
    code_at: Ints


class _Blocks:
    """The tokens of words, or of whole undecided rows, concatenated in growing arrays.

    Block n has the tokens `ids[id_at[n]:id_at[n + 1]]`, the `lengths` of their surfaces, and the
    concatenated surfaces `codes[code_at[n]:code_at[n + 1]]`. All arrays may be longer than used.
    """

    def __init__(self) -> None:
        self.count = self.num_tokens = self.num_codes = 0
        self._ids, self._lengths = np.empty(0, np.int32), np.empty(0, np.int64)
        self._codes = np.empty(0, np.uint32)
        self._id_at, self._code_at = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def add(self, tokens: Tokens) -> None:
        """Append a block."""
        surface = np.frombuffer("".join(tokens.surfaces).encode("utf-32-le"), np.uint32)
        self._ids = _set_at(self._ids, self.num_tokens, tokens.ids)
        self._lengths = _set_at(self._lengths, self.num_tokens, [len(s) for s in tokens.surfaces])
        self._codes = _set_at(self._codes, self.num_codes, surface)
        self.count += 1
        self.num_tokens += len(tokens.ids)
        self.num_codes += len(surface)
        self._id_at = _set_at(self._id_at, self.count, [self.num_tokens])
        self._code_at = _set_at(self._code_at, self.count, [self.num_codes])

    def arrays(self) -> _BlockArrays:
        """Return the arrays for compiled loops."""
        return _BlockArrays(self._ids, self._lengths, self._id_at, self._codes, self._code_at)

    def size_of(self, which: Ids) -> tuple[int, int]:
        """Return the total tokens and code points of the given blocks."""
        tokens, codes = ((at[which + 1] - at[which]).sum() for at in (self._id_at, self._code_at))
        return int(tokens), int(codes)


class _WordCache:
    """The tokenizer's results for words.

    Attributes:
        blocks: Block n has the tokens of the n-th cached word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._clear()

    def _clear(self) -> None:
        self.blocks = _Blocks()
        self._letters, self._letter_at = np.empty(0, np.uint32), np.zeros(1, np.int64)
        self._slots = np.full(1 << 12, -1, np.int32)  # a hash table of blocks

    def look_up(self, source: Codes, begins: Ints, ends: Ints) -> Ids:
        """Return the block of each word `source[begins[n]:ends[n]]`; int32 (num_words,)."""
        if self.blocks.count + len(begins) > _WORD_CACHE:
            self._clear()
        found = np.empty(len(begins), np.int32)
        if not _find_words(source, begins, ends, self._cached(), found):
            new = {source[begins[n] : ends[n]].tobytes() for n in np.flatnonzero(found < 0)}
            self._learn(sorted(word.decode("utf-32-le") for word in new))
            _find_words(source, begins, ends, self._cached(), found)
        return found

    def _learn(self, words: list[str]) -> None:
        first = self.blocks.count
        for word, tokens in zip(words, self._tokenizer.encode(words), strict=True):
            begin, n = int(self._letter_at[self.blocks.count]), self.blocks.count
            letters = np.frombuffer(word.encode("utf-32-le"), np.uint32)
            self._letters = _set_at(self._letters, begin, letters)
            self._letter_at = _set_at(self._letter_at, n + 1, [begin + len(letters)])
            self.blocks.add(tokens)
        if 4 * self.blocks.count > len(self._slots):
            self._slots = np.full(8 << self.blocks.count.bit_length(), -1, np.int32)
            first = 0
        _insert_words(self._letters, self._letter_at, first, self.blocks.count, self._slots)

    def _cached(self) -> tuple[Codes, Ints, Ids]:
        return self._letters, self._letter_at, self._slots


def _set_at(array: NDArray[Any], at: int, values: Any) -> NDArray[Any]:
    """Set `values` from position `at`; return the array, or a longer copy if it was too short."""
    if at + len(values) > len(array):
        longer = np.empty(2 * (at + len(values)), array.dtype)
        longer[:at] = array[:at]
        array = longer
    array[at : at + len(values)] = values
    return array


@jit
def _scan(
    source: Codes,
    row_ends: Ints,
    kinds: Bytes,
    special: Codes,
    special_at: Ints,
    out: tuple[Ints, Ints, Bools],
) -> tuple[int, int, bool]:
    """Find words and undecided rows.

    Args:
        source: Code points, each row ended by `SEPARATOR`; uint32 (num_chars,).
        row_ends: One past each separator; int64 (num_rows,), ascending, the last is num_chars.
        kinds: The kind of each code point; uint8 (0x110000,). That of `SEPARATOR` is never _WORD.
        special: The concatenated special tokens; uint32 (num_special_chars,).
        special_at: Their positions; int64 (num_special + 1,).
        out: Receives begin and end of each word, int64 (num_chars,) each, filled from the front,
            and whether each row is undecided, bool (num_rows,).

    Returns:
        The number of words, of characters that are tokens of their own, and whether a kind is
        _UNSEEN.
    """
    begins, ends, undecided = out
    words = alone = begin = 0
    unseen = False
    for row in range(len(row_ends)):
        end = row_ends[row]
        in_word = odd = False
        for at in range(begin, end):
            kind = kinds[source[at]]
            if kind == _WORD:
                if not in_word:
                    begins[words] = at
                    in_word = True
                continue
            if in_word:
                ends[words] = at
                words += 1
                in_word = False
            alone += kind == _ALONE
            unseen |= kind == _UNSEEN
            odd |= kind == _ODD
            if source[at] == _BRACKET:
                odd |= _is_special(source, at, end, special, special_at)
        undecided[row] = odd
        begin = end
    return words, alone, unseen


@jit
def _is_special(source: Codes, at: int, end: int, special: Codes, special_at: Ints) -> bool:
    """Return whether a special token begins at `at` and ends by `end`; arrays as in `_scan`."""
    for token in range(len(special_at) - 1):
        first = special_at[token]
        length = special_at[token + 1] - first
        if at + length <= end and _equal(source, at, special, first, length):
            return True
    return False


@jit
def _equal(a: Codes, a_begin: int, b: Codes, b_begin: int, length: int) -> bool:
    """Return whether two slices of `length` code points are equal; both must be in bounds."""
    same = 0
    while same < length and a[a_begin + same] == b[b_begin + same]:
        same += 1
    return same == length


@jit
def _find_words(
    source: Codes, begins: Ints, ends: Ints, cached: tuple[Codes, Ints, Ids], found: Ids
) -> bool:
    """Look words up in the cache and return whether all were found.

    Args:
        source: Code points; uint32 (num_chars,).
        begins: int64 (num_words,).
        ends: int64 (num_words,); `begins[n] < ends[n] <= num_chars`.
        cached: The letters of the cached words, uint32; their positions, int64 with one more
            element than words; and the hash table, int32 (a power of two,), -1 where empty, at most
            a quarter full.
        found: int32 (num_words,): receives the block of each word, or -1.
    """
    letters, letter_at, slots = cached
    mask = np.uint64(len(slots) - 1)
    complete = True
    for n in range(len(begins)):
        begin, length = begins[n], ends[n] - begins[n]
        slot = fnv1a(source, begin, ends[n]) & mask
        found[n] = -1
        while slots[slot] >= 0:
            word = slots[slot]
            first = letter_at[word]
            if letter_at[word + 1] - first == length and _equal(
                letters, first, source, begin, length
            ):
                found[n] = word
                break
            slot = (slot + np.uint64(1)) & mask
        complete &= found[n] >= 0
    return complete


@jit
def _insert_words(letters: Codes, letter_at: Ints, first: int, count: int, slots: Ids) -> None:
    """Insert the words `first` to `count - 1` into the hash table.

    Args:
        letters: Concatenated words; uint32.
        letter_at: Their positions; int64, at least (count + 1,).
        first: First word.
        count: Number of words in the table afterwards.
        slots: int32 (a power of two,), -1 where empty, longer than `count`.
    """
    mask = np.uint64(len(slots) - 1)
    for word in range(first, count):
        slot = fnv1a(letters, letter_at[word], letter_at[word + 1]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word


@jit
def _write_tokens(
    source: Codes,
    row_ends: Ints,
    undecided: Bools,
    tables: tuple[Bytes, Ids, Codes],
    words: tuple[Ints, Ints, Ids],
    word_blocks: _BlockArrays,
    row_blocks: _BlockArrays,
    out: TokenBatch,
) -> None:
    """Write the tokens of all rows and their surfaces in order.

    Args:
        source: As in `_scan`.
        row_ends: As in `_scan`.
        undecided: bool (num_rows,).
        tables: Kind (uint8), token id (int32) and folded character (uint32) of each code point;
            (0x110000,) each.
        words: Begin and end (int64) and block (int32) of each word; (num_words,) each, in order,
            words of undecided rows included.
        word_blocks: See `_Blocks`.
        row_blocks: See `_Blocks`; one block per undecided row, in order.
        out: Receives the tokens; `ids`, `lengths` and `codes` are long enough for all tokens and
            surfaces; `row_tokens` and `row_chars` are zero at 0.
    """
    kinds, id_of, folded = tables
    begins, ends, block_of = words
    ids, lengths, row_tokens, codes, row_chars, _ = out
    tokens = chars = at = word = odd = 0
    for row in range(len(row_ends)):
        end = row_ends[row]
        if undecided[row]:
            tokens, chars = _write_block(row_blocks, odd, ids, lengths, codes, tokens, chars)
            odd += 1
            at = end
            while word < len(begins) and begins[word] < end:
                word += 1
        while at < end:
            code = source[at]
            kind = kinds[code]
            if kind == _ALONE:
                ids[tokens] = id_of[code]
                lengths[tokens] = 1
                codes[chars] = folded[code]
                tokens += 1
                chars += 1
            elif kind == _WORD:
                block = block_of[word]
                tokens, chars = _write_block(word_blocks, block, ids, lengths, codes, tokens, chars)
                at = ends[word] - 1
                word += 1
            at += 1
        codes[chars] = SEPARATOR
        chars += 1
        row_tokens[row + 1] = tokens
        row_chars[row + 1] = chars


@jit
def _write_block(
    blocks: _BlockArrays, block: int, ids: Ids, lengths: Ints, codes: Codes, tokens: int, chars: int
) -> tuple[int, int]:
    """Copy a block; return the positions of the next token and the next code point."""
    for n in range(blocks.id_at[block], blocks.id_at[block + 1]):
        ids[tokens], lengths[tokens] = blocks.ids[n], blocks.lengths[n]
        tokens += 1
    for n in range(blocks.code_at[block], blocks.code_at[block + 1]):
        codes[chars] = blocks.codes[n]
        chars += 1
    return tokens, chars
