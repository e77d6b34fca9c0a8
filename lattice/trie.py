"""A matcher in plain arrays: a trie whose edges lie in one hash table.

    node    an integer: the slot of the edge that leads to it, or `num_slots + symbol` for the
            first letter of a surface
    symbol  1, 2 ... for the letters that occur in surfaces, 0 for all others
    edge    in `edges`, found by hashing and linear probing; 0 is an empty slot. Its bits, from the
            lowest: 52 for the key `node << 21 | symbol`; 10 that tell, for a letter, whether the
            node that the edge leads to may have a child for it (none of them: a leaf); one for
            "a surface ends here"; and the sign, which says that a key that belongs to this slot had
            to move on

So the search for an edge that does not exist mostly ends where it begins, or is not begun.
`ordinals[node]` is the surface that ends at a node, or -1. A batch is walked in blocks of starts,
one letter at a time: their lookups do not depend on each other, so the processor waits for many of
them at once. Nothing is an object, so a compiled trie can be mapped from files and shared by
processes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from lattice.matcher import Matches

LAYOUT = 2  # of the arrays; a compiled vocabulary of another one cannot be read
_CODE_POINTS = 0x110000
_LOAD = 0.4  # filled share of the table: fuller is smaller, but probes more
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio, odd
_HALF = np.uint64(32)
_SYMBOL_BITS = 21
_KEY = np.int64((1 << 52) - 1)
_CHILD_BITS = 10
_CHILDREN = np.int64(((1 << _CHILD_BITS) - 1) << 52)
_ENDS = np.int64(1 << 62)
_MOVED = np.int64(-(1 << 63))
_BLOCK = 512  # starts walked together: enough to keep the memory busy, few enough for its caches


class Trie:
    """The matcher. Make one with `Trie.build`."""

    def __init__(
        self, letters: NDArray[np.uint32], edges: NDArray[np.int64], ordinals: NDArray[np.int32]
    ) -> None:
        """A trie from its arrays, which may be memory maps.

        Args:
            letters: Code points that occur in surfaces, ascending; symbol n is `letters[n - 1]`.
            edges: The hash table.
            ordinals: For each node the surface that ends there, or -1.
        """
        self.letters, self.edges, self.ordinals = letters, edges, ordinals
        self._symbol = _symbols(letters)
        self._short = bool((ordinals[len(edges) :] >= 0).any())  # surfaces of one letter

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
            assert num_slots + len(letters) < 1 << 31, "nodes are numbered in 32 bits"
            edges = np.zeros(num_slots, np.int64)
            ordinals = np.full(num_slots + len(letters) + 1, -1, np.int32)
            if _insert(codes, ends, symbol, edges, ordinals):
                return cls(letters, edges, ordinals)
            num_slots *= 2  # the estimate was far off

    def find(self, codes: NDArray[np.uint32]) -> Matches:
        """All occurrences of all surfaces in `codes`, ordered by start, then end."""
        room = 2 * len(codes) + _BLOCK
        parts: list[Matches] = []
        begin = 0
        while begin < len(codes):
            found = Matches(*(np.empty(room, np.int64) for _ in range(3)))
            count, reached = _find(
                codes, begin, self._symbol, self.edges, self.ordinals, self._short, found
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
def _child_bit(symbol: np.int64) -> np.int64:
    """The bit that stands for children with this letter."""
    return np.int64(1) << (np.int64(52) + symbol % _CHILD_BITS)


@jit
def _slot_of(edges: NDArray[np.int64], key: np.int64, home: np.int64) -> np.int64:
    """The slot of a key that is not at its home, or -1."""
    slot = home
    while True:
        slot += 1
        if slot == len(edges):
            slot = np.int64(0)
        stored = edges[slot] & _KEY
        if stored == key:
            return slot
        if stored == 0:
            return np.int64(-1)


@jit
def _insert(
    codes: NDArray[np.uint32],
    ends: NDArray[np.int64],
    symbols: NDArray[np.int32],
    edges: NDArray[np.int64],
    ordinals: NDArray[np.int32],
) -> bool:
    """Put all surfaces into an empty trie; False if it is too small."""
    begin, used = 0, 0
    for ordinal in range(len(ends)):
        parent = np.int64(-1)  # slot of the edge that leads here
        node = np.int64(len(edges) + symbols[codes[begin]])
        for at in range(begin + 1, ends[ordinal]):
            symbol = np.int64(symbols[codes[at]])
            key = (node << _SYMBOL_BITS) | symbol
            home = slot = _home(key, len(edges))
            while edges[slot] != 0 and edges[slot] & _KEY != key:
                slot = slot + 1 if slot + 1 < len(edges) else np.int64(0)
            if edges[slot] == 0:
                used += 1
                if 4 * used > 3 * len(edges):
                    return False
                edges[slot] = key
                if slot != home:
                    edges[home] |= _MOVED
                if parent >= 0:
                    edges[parent] |= _child_bit(symbol)
            parent = node = slot
        ordinals[node] = ordinal
        if parent >= 0:
            edges[parent] |= _ENDS
        begin = ends[ordinal]
    return True


@jit
def _find(
    codes: NDArray[np.uint32],
    begin: int,
    symbols: NDArray[np.int32],
    edges: NDArray[np.int64],
    ordinals: NDArray[np.int32],
    short: bool,
    found: Matches,
) -> tuple[int, int]:
    """Matches that start at `begin` or later, as many as there is room for.

    Returns:
        How many, and the start that was not looked at any more.
    """
    starts, lengths, nodes = found.start, found.end, found.ordinal  # filled as such at first
    num_slots = len(edges)
    block = np.empty(_BLOCK, np.int64)  # starts still on a path
    here = np.empty(_BLOCK, np.int64)  # their nodes
    homes = np.empty(_BLOCK, np.int64)
    keys = np.empty(_BLOCK, np.int64)
    per_start = np.empty(_BLOCK + 1, np.int64)
    count = 0
    while begin < len(codes):
        last = min(begin + _BLOCK, len(codes))
        first_match = count
        on = 0
        for start in range(begin, last):
            symbol = symbols[codes[start]]
            if symbol != 0:
                block[on], here[on] = start, num_slots + symbol
                on += 1
        if short:
            if count + on > len(starts):
                return first_match, begin
            for n in range(on):
                if ordinals[here[n]] >= 0:
                    starts[count], lengths[count], nodes[count] = block[n], 1, here[n]
                    count += 1
        depth = 1
        while on:
            asked = 0
            for n in range(on):
                at = block[n] + depth
                symbol = np.int64(symbols[codes[at]]) if at < len(codes) else np.int64(0)
                node = here[n]
                may = symbol != 0
                if may and node < num_slots:
                    may = edges[node] & _child_bit(symbol) != 0
                if may:
                    block[asked] = block[n]
                    keys[asked] = (node << _SYMBOL_BITS) | symbol
                    homes[asked] = _home(keys[asked], num_slots)
                    asked += 1
            if count + asked > len(starts):
                return first_match, begin
            depth += 1
            on = 0
            for n in range(asked):
                slot = homes[n]
                edge = edges[slot]
                if edge & _KEY != keys[n]:
                    if edge >= 0:
                        continue
                    slot = _slot_of(edges, keys[n], slot)
                    if slot < 0:
                        continue
                    edge = edges[slot]
                if edge & _ENDS:
                    starts[count], lengths[count], nodes[count] = block[n], depth, slot
                    count += 1
                if edge & _CHILDREN:
                    block[on], here[on] = block[n], slot
                    on += 1
        _order_block(starts, lengths, nodes, first_match, count, begin, per_start)
        for n in range(first_match, count):
            lengths[n] += starts[n]
            nodes[n] = ordinals[nodes[n]]
        begin = last
    return count, begin


@jit
def _order_block(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    nodes: NDArray[np.int64],
    first: int,
    count: int,
    begin: int,
    per_start: NDArray[np.int64],
) -> None:
    """Order matches `[first, count)`, which come by length, by start and then by length."""
    per_start[:] = 0
    for n in range(first, count):
        per_start[starts[n] - begin + 1] += 1
    for n in range(1, len(per_start)):
        per_start[n] += per_start[n - 1]
    sorted_starts = np.empty(count - first, np.int64)
    sorted_lengths = np.empty(count - first, np.int64)
    sorted_nodes = np.empty(count - first, np.int64)
    for n in range(first, count):
        place = per_start[starts[n] - begin]
        per_start[starts[n] - begin] += 1
        sorted_starts[place], sorted_lengths[place] = starts[n], lengths[n]
        sorted_nodes[place] = nodes[n]
    starts[first:count] = sorted_starts
    lengths[first:count] = sorted_lengths
    nodes[first:count] = sorted_nodes


def _estimate_edges(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], symbols: NDArray[np.int32]
) -> float:
    """About how many different prefixes of two letters or more there are.

    By linear counting (Whang et al. 1990): each prefix marks the bit of its hash; the share of bits
    that stay unmarked tells how many marked them.
    """
    num_bits = 1 << max(16, (2 * len(codes)).bit_length())
    marked = np.zeros(num_bits >> 6, np.uint64)
    free = num_bits - _mark_prefixes(codes, ends, symbols, marked)
    return -num_bits * float(np.log(free / num_bits))


@jit
def _mark_prefixes(
    codes: NDArray[np.uint32],
    ends: NDArray[np.int64],
    symbols: NDArray[np.int32],
    marked: NDArray[np.uint64],
) -> int:
    """How many bits are marked in the end."""
    mask = np.uint64(64 * len(marked) - 1)
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    begin = count = 0
    for n in range(len(ends)):
        mixed = np.uint64(symbols[codes[begin]])
        for at in range(begin + 1, ends[n]):
            mixed = mixed * _MULTIPLIER + np.uint64(symbols[codes[at]])
            mixed ^= mixed >> np.uint64(29)
            bit = (mixed * _MULTIPLIER >> np.uint64(20)) & mask
            if not marked[bit >> six] >> (bit & low) & one:
                marked[bit >> six] |= one << (bit & low)
                count += 1
        begin = ends[n]
    return count
