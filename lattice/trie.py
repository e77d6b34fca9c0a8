"""A matcher in plain arrays: a trie whose edges lie in one hash table.

    node    an integer: the slot of the edge that leads to it, or `num_slots + symbol` for the
            first letter of a surface
    edge    `node << 21 | symbol` in `edges`, found by hashing and linear probing; 0 is an empty
            slot; the sign bit says that a key that belongs to this slot had to move on, so that
            the search for an edge that does not exist mostly ends where it begins
    symbol  1, 2 ... for the letters that occur in surfaces, 0 for all others

`ordinals[node]` is the surface that ends at a node, or -1. A batch advances one letter at a time:
all positions still on a path look up their next edge together, and soon few are left. Nothing is an
object, so a compiled trie can be mapped from files and shared by processes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lattice.matcher import Matches

_SYMBOL_BITS = 21
_KEY = np.int64((1 << 62) - 1)
_MOVED = np.int64(-(1 << 63))
_CODE_POINTS = 0x110000
_LOAD = 0.4  # filled share of the table: fuller is smaller, but probes more
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio, odd
_HALF = np.uint64(32)
_CHUNK = 1 << 21  # edges inserted at once


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
        self._symbol = np.zeros(_CODE_POINTS, np.int32)
        self._symbol[letters] = np.arange(1, len(letters) + 1)
        self._short = bool((ordinals[len(edges) :] >= 0).any())  # surfaces of one letter

    @classmethod
    def build(cls, surfaces: Sequence[str]) -> "Trie":
        """The trie of different, non-empty surfaces; their positions are the ordinals."""
        lengths = np.fromiter(map(len, surfaces), np.int64, len(surfaces))
        codes = np.frombuffer("".join(surfaces).encode("utf-32-le"), np.uint32)
        present = np.zeros(_CODE_POINTS, np.bool_)
        present[codes] = True
        letters = np.flatnonzero(present).astype(np.uint32)
        symbol = np.zeros(_CODE_POINTS, np.int32)
        symbol[letters] = np.arange(1, len(letters) + 1)
        symbols = symbol[codes]
        del codes
        begins = np.cumsum(lengths) - lengths
        num_slots = max(1, int(_count_edges(symbols, begins, lengths) / _LOAD))
        assert num_slots + len(letters) < 1 << 31, "nodes are numbered in 32 bits"
        edges = np.zeros(num_slots, np.int64)
        ordinals = np.full(num_slots + len(letters) + 1, -1, np.int32)

        here = np.arange(len(surfaces))
        node = num_slots + symbols[begins].astype(np.int64)
        depth = 1
        while len(here):
            ending = lengths[here] == depth
            ordinals[node[ending]] = here[ending]
            here, node = here[~ending], node[~ending]
            keys = (node << _SYMBOL_BITS) | symbols[begins[here] + depth]
            for begin in range(0, len(here), _CHUNK):
                _insert(edges, keys[begin : begin + _CHUNK])
            which, slot = _find(edges, keys)
            node = np.empty_like(keys)
            node[which] = slot
            depth += 1
        return cls(letters, edges, ordinals)

    def find(self, codes: NDArray[np.uint32]) -> Matches:
        """All occurrences of all surfaces in `codes`."""
        # One zero after the end: a path that has used the last letter finds no other.
        symbols = np.append(self._symbol[codes], np.int32(0)).astype(np.int64)
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]] = []

        def collect(start: NDArray[np.int64], node: NDArray[np.int64], depth: int) -> None:
            ordinal = self.ordinals[node]
            ending = np.flatnonzero(ordinal >= 0)
            first = start[ending]
            found.append((first, first + depth, ordinal[ending]))

        if self._short:
            start = np.flatnonzero(symbols)
            collect(start, symbols[start] + len(self.edges), 1)
        start = np.flatnonzero((symbols[:-1] != 0) & (symbols[1:] != 0))
        node = symbols[start] + len(self.edges)
        depth = 1
        while len(start):
            which, node = _find(self.edges, (node << _SYMBOL_BITS) | symbols[start + depth])
            start = start[which]
            depth += 1
            collect(start, node, depth)
            on = np.flatnonzero(symbols[start + depth])
            start, node = start[on], node[on]
        starts, ends, ordinals = zip(*found, strict=True) if found else ((), (), ())
        none = np.empty(0, np.int64)
        return Matches(
            np.concatenate((none, *starts)),
            np.concatenate((none, *ends)),
            np.concatenate((none, *ordinals)),
        )


def _home(keys: NDArray[np.int64], num_slots: int) -> NDArray[np.int64]:
    """Where the search for each key begins."""
    mixed = keys.view(np.uint64) * _MULTIPLIER
    mixed >>= _HALF
    mixed *= np.uint64(num_slots)
    mixed >>= _HALF
    slots: NDArray[np.int64] = mixed.view(np.int64)
    return slots


def _find(
    edges: NDArray[np.int64], keys: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the keys that are in the table, in no particular order, and the slot of each."""
    home = _home(keys, len(edges))
    stored = edges[home]
    here = np.flatnonzero((stored & _KEY) == keys)
    which, slots = [here], [home[here]]
    left = np.flatnonzero((stored < 0) & ((stored & _KEY) != keys))
    wanted, at = keys[left], home[left]
    while len(left):
        at += 1
        at[at == len(edges)] = 0
        stored = edges[at] & _KEY
        here = np.flatnonzero(stored == wanted)
        which.append(left[here])
        slots.append(at[here])
        on = np.flatnonzero((stored != wanted) & (stored != 0))
        left, wanted, at = left[on], wanted[on], at[on]
    return np.concatenate(which), np.concatenate(slots)


def _insert(edges: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    """Put keys into the table, where some may be already; a key may be given many times."""
    home = _home(keys, len(edges))
    at = home.copy()
    while len(keys):
        free = edges[at] == 0
        edges[at[free]] = keys[free]  # of several keys for one slot, one gets it
        on = np.flatnonzero((edges[at] & _KEY) != keys)
        keys, home, at = keys[on], home[on], at[on] + 1
        at[at == len(edges)] = 0
        edges[home] |= _MOVED


def _count_edges(
    symbols: NDArray[np.int32], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> int:
    """How many different prefixes of two letters or more there are (by a 64-bit hash of each)."""
    prefix = symbols[begins].astype(np.uint64)
    count, depth = 0, 1
    while len(prefix):
        longer = lengths > depth
        begins, lengths, prefix = begins[longer], lengths[longer], prefix[longer]
        prefix = prefix * _MULTIPLIER + symbols[begins + depth].astype(np.uint64)
        prefix ^= prefix >> np.uint64(29)
        count += len(np.unique(prefix))
        depth += 1
    return count
