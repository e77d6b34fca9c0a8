"""Find all surfaces of a lexicon in a text: code points in, (start, end, ordinal) out.

A backend does not depend on tokens, captions or entities. All backends find exactly the same:
every occurrence of every surface, including overlapping ones, in no particular order.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np

from lattice.matching.arrays import Codes, Ints

_CODE_POINTS = 0x110000
_NUM_SINGLE = 512  # the most frequent characters get one symbol each, all others two


class Matches(NamedTuple):
    """Occurrences of surface `ordinal` at code points `[start, end)`; int64 (num_matches,)."""

    start: Ints
    end: Ints
    ordinal: Ints

    @classmethod
    def empty(cls, size: int) -> "Matches":
        """Return uninitialised arrays."""
        return cls(*(np.empty(size, np.int64) for _ in range(3)))


class Backend(Protocol):
    """Finds all occurrences of its surfaces."""

    def find(self, codes: Codes) -> Matches:
        """Return all occurrences of all surfaces in `codes`."""
        ...


class AhoCorasick:
    """pyahocorasick over a recoded alphabet.

    The library keeps the children of a node in a list and scans it, which is slow for Chinese
    roots with thousands of children. The most frequent characters are therefore encoded as one
    symbol and all others as two, from three disjoint ranges (a symbol shows whether it begins a
    character, so no match can begin inside one). Surfaces are inserted by the frequency of their
    characters. Neither changes the matches.
    """

    def __init__(self, surfaces: Sequence[str]) -> None:
        import ahocorasick

        assert len(surfaces) < 1 << 31, "the automaton's integers wrap at 32 bits"
        self._lengths = np.fromiter(map(len, surfaces), np.int64, len(surfaces))
        self._first = np.zeros(_CODE_POINTS, np.uint16)  # 0: in no surface
        self._second = np.zeros(_CODE_POINTS, np.uint16)  # 0: no second symbol
        common = [letter for letter, _ in Counter(chain.from_iterable(surfaces)).most_common()]
        rest = common[_NUM_SINGLE:]
        side = max(1, int(np.ceil(np.sqrt(len(rest)))))
        symbols: dict[int, str] = {}
        for n, letter in enumerate(common[:_NUM_SINGLE]):
            symbols[ord(letter)] = chr(1 + n)
        for n, letter in enumerate(rest):
            high, low = divmod(n, side)
            symbols[ord(letter)] = chr(1 + _NUM_SINGLE + high) + chr(1 + _NUM_SINGLE + side + low)
        for code, encoded in symbols.items():
            self._first[code] = ord(encoded[0])
            self._second[code] = ord(encoded[1]) if len(encoded) > 1 else 0

        rank = {letter: n for n, letter in enumerate(common)}
        order = sorted(range(len(surfaces)), key=lambda n: [rank[c] for c in surfaces[n][:2]])
        self._automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        for n in order:
            self._automaton.add_word(surfaces[n].translate(symbols), n)
        self._automaton.make_automaton()

    def find(self, codes: Codes) -> Matches:
        """Return all occurrences of all surfaces in `codes`."""
        if not len(self._lengths):  # an empty automaton raises
            return Matches.empty(0)
        second = self._second[codes]
        width = 1 + (second > 0)
        ends = np.cumsum(width)
        encoded = np.empty(int(ends[-1]) if len(ends) else 0, np.uint16)
        encoded[ends - width] = self._first[codes]
        encoded[ends[second > 0] - 1] = second[second > 0]
        # All symbols are below the surrogates, so UTF-16 has one unit per symbol.
        found = self._automaton.iter(encoded.tobytes().decode("utf-16-le"))
        pairs = np.fromiter(chain.from_iterable(found), np.int64).reshape(-1, 2)
        char_of_symbol = np.repeat(np.arange(len(codes)), width)
        end = char_of_symbol[pairs[:, 0]] + 1
        return Matches(end - self._lengths[pairs[:, 1]], end, pairs[:, 1])
