"""A matcher in plain arrays: a trie whose edges lie in one hash table.

    symbol  1, 2 ... for the letters that occur in surfaces, 0 for all others
    node    an integer: the slot of the edge that leads to it, or `num_slots + symbol` for the
            first letter of a surface
    slot    two numbers side by side, so that one look at the memory gets both. The edge: its key
            `node << 21 | symbol`, 0 where the slot is empty; the sign says that a key that belongs
            here had to move on. And what is at its end: in the lower half one more than the surface
            that ends there, or 0; in the upper half a bit for each symbol (modulo 32) that goes on

Edges are found by hashing and linear probing. The search for one that does not exist mostly ends
where it begins, or is not begun. A batch is walked in blocks of starts, one letter at a time: their
searches do not depend on each other, so the processor waits for many of them at once. Nothing is an
object, so a compiled trie can be mapped from files and shared by processes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from lattice.matching.matcher import Matches

LAYOUT = 2  # of the arrays; a compiled vocabulary of another one cannot be read
_CODE_POINTS = 0x110000
_LOAD = 0.5  # filled share of the table: fuller is smaller, but probes more
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio, odd
_HALF = np.uint64(32)
_SYMBOL_BITS = 21
_KEY = np.int64((1 << 52) - 1)
_MOVED = np.int64(-(1 << 63))
_ORDINAL = np.int64((1 << 32) - 1)
_BLOCK = 1024  # starts walked together: enough to keep the memory busy, few enough for its caches


class Trie:
    """The matcher. Make one with `Trie.build`."""

    def __init__(
        self, letters: NDArray[np.uint32], slots: NDArray[np.int64], short: NDArray[np.int32]
    ) -> None:
        """A trie from its arrays, which may be memory maps.

        Args:
            letters: Code points that occur in surfaces, ascending; symbol n is `letters[n - 1]`.
            slots: The hash table; slot n is `slots[2 * n : 2 * n + 2]`.
            short: For each symbol the surface of this one letter, or -1.
        """
        self.letters, self.slots, self.short = letters, slots, short
        self._symbol = _symbols(letters)

    @classmethod
    def build(cls, surfaces: Sequence[str]) -> "Trie":
        """The trie of different, non-empty surfaces; their positions are the ordinals."""
        ends = np.cumsum(np.fromiter(map(len, surfaces), np.int64, len(surfaces)))
        codes = np.frombuffer("".join(surfaces).encode("utf-32-le"), np.uint32)
        present = np.zeros(_CODE_POINTS, np.bool_)
        present[codes] = True
        letters = np.flatnonzero(present).astype(np.uint32)
        symbol = _symbols(letters)
        num_slots = int(_estimate_edges(codes, ends, symbol) / _LOAD) + 8
        while True:
            assert num_slots + len(letters) < 1 << 31, "nodes are numbered in 31 bits"
            slots = np.zeros(2 * num_slots, np.int64)
            short = np.full(len(letters) + 1, -1, np.int32)
            if _insert(codes, ends, symbol, slots, short):
                return cls(letters, slots, short)
            num_slots *= 2  # the estimate was far off

    def find(self, codes: NDArray[np.uint32]) -> Matches:
        """All occurrences of all surfaces in `codes`, ordered by start, then end."""
        symbols = np.empty(len(codes) + 1, np.int32)
        room = len(codes) + _BLOCK
        parts: list[Matches] = []
        begin = 0
        while begin < len(codes):
            found = Matches(*(np.empty(room, np.int64) for _ in range(3)))
            count, reached = _find(
                codes, begin, symbols, self._symbol, self.slots, self.short, found
            )
            parts.append(Matches(*(column[:count] for column in found)))
            if reached == begin:  # one block alone needs more
                room *= 2
            begin = reached
        if len(parts) == 1:
            return parts[0]
        none = np.empty(0, np.int64)
        return Matches(*(np.concatenate((none, *(p[n] for p in parts))) for n in range(3)))


def _symbols(letters: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The symbol of each code point."""
    symbol = np.zeros(_CODE_POINTS, np.int32)
    symbol[letters] = np.arange(1, len(letters) + 1)
    return symbol


@jit
def _home(key: np.int64, num_slots: int) -> np.int64:
    """Where the search for a key begins."""
    mixed = (np.uint64(key) * _MULTIPLIER) >> _HALF
    return np.int64((mixed * np.uint64(num_slots)) >> _HALF)


@jit
def _bit(symbol: np.int64) -> np.int64:
    """What stands for a symbol in the upper half."""
    return np.int64(1) << (np.int64(32) + (symbol & 31))


@jit
def _insert(
    codes: NDArray[np.uint32],
    ends: NDArray[np.int64],
    symbol_of: NDArray[np.int32],
    slots: NDArray[np.int64],
    short: NDArray[np.int32],
) -> bool:
    """Put all surfaces into an empty trie; False if it is too small."""
    num_slots = len(slots) // 2
    begin, used = 0, 0
    for ordinal in range(len(ends)):
        first = np.int64(symbol_of[codes[begin]])
        if ends[ordinal] == begin + 1:
            short[first] = ordinal
        parent, node = np.int64(-1), num_slots + first
        for at in range(begin + 1, ends[ordinal]):
            symbol = np.int64(symbol_of[codes[at]])
            key = (node << _SYMBOL_BITS) | symbol
            home = slot = _home(key, num_slots)
            while slots[2 * slot] != 0 and slots[2 * slot] & _KEY != key:
                slot = slot + 1 if slot + 1 < num_slots else np.int64(0)
            if slots[2 * slot] == 0:
                used += 1
                if 4 * used > 3 * num_slots:
                    return False
                slots[2 * slot] = key
                if slot != home:
                    slots[2 * home] |= _MOVED
                if parent >= 0:
                    slots[2 * parent + 1] |= _bit(symbol)
            parent = node = slot
        if parent >= 0:
            slots[2 * parent + 1] |= ordinal + 1
        begin = ends[ordinal]
    return True


@jit
def _find(
    codes: NDArray[np.uint32],
    begin: int,
    symbols: NDArray[np.int32],
    symbol_of: NDArray[np.int32],
    slots: NDArray[np.int64],
    short: NDArray[np.int32],
    found: Matches,
) -> tuple[int, int]:
    """Matches that start at `begin` or later, as many as there is room for.

    Returns:
        How many, and the start that was not looked at any more.
    """
    num_slots = len(slots) // 2
    walks = np.empty((3, _BLOCK), np.int64)
    starts, keys, homes = walks[0], walks[1], walks[2]
    unordered = np.empty((3, len(found.start)), np.int64)
    per_start = np.empty(_BLOCK + 1, np.int64)
    for at in range(begin, len(codes)):
        symbols[at] = symbol_of[codes[at]]
    symbols[len(codes)] = 0  # a walk that has used the last letter finds no other
    count = 0
    while begin < len(codes):
        last = min(begin + _BLOCK, len(codes))
        room = len(found.start) - count
        here = going = 0
        for start in range(begin, last):
            first, second = np.int64(symbols[start]), np.int64(symbols[start + 1])
            if first == 0:
                continue
            if short[first] >= 0:
                if here == room:
                    return count, begin
                _note(unordered, here, start, 1, short[first])
                here += 1
            if second != 0:
                key = ((num_slots + first) << _SYMBOL_BITS) | second
                starts[going], keys[going], homes[going] = start, key, _home(key, num_slots)
                going += 1
        depth = 2
        while going:
            if here + going > room:
                return count, begin
            on = 0
            for n in range(going):
                key, slot = keys[n], homes[n]
                edge = slots[2 * slot]
                if edge & _KEY != key:
                    if edge >= 0:
                        continue
                    slot = _slot_of(slots, key, slot)
                    if slot < 0:
                        continue
                end = slots[2 * slot + 1]
                start = starts[n]
                if end & _ORDINAL:
                    _note(unordered, here, start, depth, (end & _ORDINAL) - 1)
                    here += 1
                symbol = np.int64(symbols[start + depth])
                if symbol != 0 and end & _bit(symbol):
                    key = (slot << _SYMBOL_BITS) | symbol
                    starts[on], keys[on], homes[on] = start, key, _home(key, num_slots)
                    on += 1
            going = on
            depth += 1
        _order(unordered, here, begin, per_start, found, count)
        count += here
        begin = last
    return count, begin


@jit
def _slot_of(slots: NDArray[np.int64], key: np.int64, home: np.int64) -> np.int64:
    """The slot of a key that is not at its home, or -1."""
    slot = home
    while True:
        slot += 1
        if 2 * slot == len(slots):
            slot = np.int64(0)
        stored = slots[2 * slot] & _KEY
        if stored == key:
            return slot
        if stored == 0:
            return np.int64(-1)


@jit
def _note(unordered: NDArray[np.int64], n: int, start: int, length: int, ordinal: int) -> None:
    unordered[0, n], unordered[1, n], unordered[2, n] = start, length, ordinal


@jit
def _order(
    unordered: NDArray[np.int64],
    number: int,
    begin: int,
    per_start: NDArray[np.int64],
    found: Matches,
    count: int,
) -> None:
    """Append the matches of a block, which come by length, by start and then by length."""
    per_start[:] = 0
    for n in range(number):
        per_start[unordered[0, n] - begin + 1] += 1
    for n in range(1, len(per_start)):
        per_start[n] += per_start[n - 1]
    for n in range(number):
        start = unordered[0, n]
        place = count + per_start[start - begin]
        per_start[start - begin] += 1
        found.start[place], found.end[place] = start, start + unordered[1, n]
        found.ordinal[place] = unordered[2, n]


def _estimate_edges(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], symbol_of: NDArray[np.int32]
) -> float:
    """About how many different prefixes of two letters or more there are.

    By linear counting (Whang et al. 1990): each prefix marks the bit of its hash; the share of bits
    that stay unmarked tells how many marked them.
    """
    num_bits = 1 << max(16, (2 * len(codes)).bit_length())
    marked = np.zeros(num_bits >> 6, np.uint64)
    free = num_bits - _mark_prefixes(codes, ends, symbol_of, marked)
    return -num_bits * float(np.log(free / num_bits))


@jit
def _mark_prefixes(
    codes: NDArray[np.uint32],
    ends: NDArray[np.int64],
    symbol_of: NDArray[np.int32],
    marked: NDArray[np.uint64],
) -> int:
    """How many bits are marked in the end."""
    mask = np.uint64(64 * len(marked) - 1)
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    begin = count = 0
    for n in range(len(ends)):
        mixed = np.uint64(symbol_of[codes[begin]])
        for at in range(begin + 1, ends[n]):
            mixed = mixed * _MULTIPLIER + np.uint64(symbol_of[codes[at]])
            mixed ^= mixed >> np.uint64(29)
            bit = (mixed * _MULTIPLIER >> np.uint64(20)) & mask
            if not marked[bit >> six] >> (bit & low) & one:
                marked[bit >> six] |= one << (bit & low)
                count += 1
        begin = ends[n]
    return count
