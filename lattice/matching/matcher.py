"""Finding all surfaces of a lexicon in a text: code points in, (start, end, ordinal) out.

A matcher knows nothing of tokens, captions or entities. All backends find exactly the same: every
occurrence of every surface, overlapping ones too, in no particular order.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

_CODE_POINTS = 0x110000
_NUM_SINGLE = 512  # the commonest characters get one symbol each, all others two


class Matches(NamedTuple):
    """Occurrences: surface `ordinal` stands at code points `[start, end)`; int64 arrays."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    ordinal: NDArray[np.int64]


class Matcher(Protocol):
    """What finds the surfaces."""

    def find(self, codes: NDArray[np.uint32]) -> Matches:
        """All occurrences of all surfaces in `codes`."""
        ...


class AhoCorasick:
    """pyahocorasick over a recoded alphabet.

    The library keeps a node's children in a list and scans it, so that Chinese roots with
    thousands of children are slow. We therefore write the commonest characters as one symbol and
    all others as two, from three disjoint ranges (so a symbol tells whether it begins a character,
    and no match can begin inside one), and insert surfaces by the frequency of their characters.
    Both leave the matches as they are.
    """

    def __init__(self, surfaces: Sequence[str]) -> None:
        import ahocorasick

        assert len(surfaces) < 1 << 31, "the automaton's integers wrap at 32 bits"
        self._lengths = np.fromiter(map(len, surfaces), np.int64, len(surfaces))
        self._first = np.zeros(_CODE_POINTS, np.uint16)  # 0: in no surface
        self._second = np.zeros(_CODE_POINTS, np.uint16)  # 0: none
        letters = Counter(chain.from_iterable(surfaces))
        common = [letter for letter, _ in letters.most_common()]
        rest = common[_NUM_SINGLE:]
        side = max(1, int(np.ceil(np.sqrt(len(rest)))))
        symbols: dict[int, str] = {}
        for n, letter in enumerate(common[:_NUM_SINGLE]):
            symbols[ord(letter)] = chr(1 + n)
        for n, letter in enumerate(rest):
            high, low = divmod(n, side)
            symbols[ord(letter)] = chr(1 + _NUM_SINGLE + high) + chr(1 + _NUM_SINGLE + side + low)
        for code, written in symbols.items():
            self._first[code] = ord(written[0])
            self._second[code] = ord(written[1]) if len(written) > 1 else 0

        rank = {letter: n for n, letter in enumerate(common)}
        order = sorted(range(len(surfaces)), key=lambda n: [rank[c] for c in surfaces[n][:2]])
        self._automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        for n in order:
            self._automaton.add_word(surfaces[n].translate(symbols), n)
        self._automaton.make_automaton()

    def find(self, codes: NDArray[np.uint32]) -> Matches:
        """All occurrences of all surfaces in `codes`."""
        if not len(self._lengths):  # an empty automaton would raise
            return Matches(*(np.empty(0, np.int64) for _ in range(3)))
        second = self._second[codes]
        width = 1 + (second > 0)
        ends = np.cumsum(width)
        written = np.empty(int(ends[-1]) if len(ends) else 0, np.uint16)
        written[ends - width] = self._first[codes]
        written[ends[second > 0] - 1] = second[second > 0]
        # Symbols stay far below the surrogates, so UTF-16 is one unit for each.
        found = self._automaton.iter(written.tobytes().decode("utf-16-le"))
        pairs = np.fromiter(chain.from_iterable(found), np.int64).reshape(-1, 2)
        char_of_symbol = np.repeat(np.arange(len(codes)), width)
        end = char_of_symbol[pairs[:, 0]] + 1
        return Matches(end - self._lengths[pairs[:, 1]], end, pairs[:, 1])
