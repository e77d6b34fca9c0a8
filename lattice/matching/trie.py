"""A matcher in plain arrays: a trie whose edges are stored in one hash table.

    symbol  1, 2 ... for the letters that occur in surfaces, 0 for all others
    node    an integer: the slot of the edge that leads to it, or `num_slots + symbol` for the
            first letter of a surface
    slot    two adjacent int64, so that one memory access gets both.
            [0] the edge: its key `node << 21 | symbol`, 0 where the slot is empty. The sign bit
                marks that another key with this home slot was moved on.
            [1] its end: in the lower half one more than the ordinal of the surface that ends
                there, or 0; in the upper half one bit per symbol (modulo 32) that continues

Edges are found by hashing and linear probing. The search for a missing edge mostly ends in its
first slot, or is skipped because of the bits. A batch is searched in blocks of start positions, one
letter at a time: the searches of a block are independent, so the processor overlaps their memory
accesses. No Python objects are involved, so a compiled trie can be memory-mapped and shared by
processes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from lattice.matching.arrays import Codes, Ids, Ints
from lattice.matching.matcher import Matches

LAYOUT = 2  # version of the arrays; compiled vocabularies of another version are refused
_CODE_POINTS = 0x110000
_FULL = 0.75  # filled share above which the table grows
_LOAD = 0.5  # filled share of the table; higher needs less memory and more probes
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio, odd
_HALF = np.uint64(32)
_SYMBOL_BITS = 21
_KEY = np.int64((1 << 52) - 1)
_MOVED = np.int64(-(1 << 63))
_ORDINAL = np.int64((1 << 32) - 1)
_BLOCK = 1024  # starts per block: enough to overlap memory accesses, few enough for the caches


class Trie:
    """A matcher; `Trie.build` makes one from surfaces."""

    def __init__(self, letters: Codes, slots: Ints, short: Ids, num_surfaces: int = -1) -> None:
        """Wrap existing arrays, which may be memory maps; `insert` changes them in place.

        Args:
            letters: Code points that occur in surfaces, distinct, uint32 (num_letters,); symbol n
                is `letters[n - 1]`.
            slots: The hash table, int64 (2 * num_slots,); slot n is `slots[2 * n : 2 * n + 2]`.
            short: For each symbol the ordinal of the surface of this one letter, or -1; int32
                (num_letters + 1,).
            num_surfaces: The number of surfaces, if it is known; else it is found when needed.
        """
        self.letters, self.slots, self.short = letters, slots, short
        self._count, self._edges = num_surfaces, -1
        self._symbol_of = _symbol_table(letters)

    @classmethod
    def build(cls, surfaces: Sequence[str]) -> "Trie":
        """Return the trie of distinct, non-empty surfaces; their positions are the ordinals."""
        trie = cls.empty()
        ends = np.cumsum(np.fromiter(map(len, surfaces), np.int64, len(surfaces)))
        trie.insert(np.frombuffer("".join(surfaces).encode("utf-32-le"), np.uint32), ends)
        assert trie.num_surfaces == len(surfaces), "surfaces are distinct"
        return trie

    @classmethod
    def empty(cls) -> "Trie":
        """Return a trie without surfaces."""
        return cls(np.empty(0, np.uint32), np.zeros(16, np.int64), np.full(1, -1, np.int32), 0)

    def insert(self, codes: Codes, ends: Ints) -> Ids:
        """Insert surfaces and return the ordinal of each; int32 (num_surfaces,).

        A surface that is new gets the next ordinal. The cost depends on the inserted surfaces only,
        unless the table has to grow.

        Args:
            codes: The concatenated surfaces; uint32.
            ends: One past each surface, strictly ascending; int64 (num_surfaces,).
        """
        self._add_letters(codes)
        symbols = self._symbol_of[codes]
        del codes  # as large as `symbols`, and the table needs the memory
        edges = self._num_edges() + _estimate_edges(symbols, ends)
        if edges > _FULL * len(self.slots) / 2:
            self._grow(int(edges / _LOAD) + 8)
        ordinals = np.empty(len(ends), np.int32)
        done = 0
        while True:
            done, self._edges, self._count = _insert(
                symbols,
                ends,
                (done, self._num_edges(), self.num_surfaces),
                self.slots,
                self.short,
                ordinals,
            )
            if done == len(ends):
                return ordinals
            self._grow(len(self.slots))  # the estimate was too low

    @property
    def num_surfaces(self) -> int:
        """The number of surfaces."""
        if self._count < 0:
            last = int((self.slots[1::2] & _ORDINAL).max(initial=0))
            self._count = max(last, int(self.short.max(initial=-1)) + 1)
        return self._count

    def _num_edges(self) -> int:
        if self._edges < 0:
            self._edges = int(np.count_nonzero(self.slots[::2]))
        return self._edges

    def _add_letters(self, codes: Codes) -> None:
        """Give the code points that no surface has a symbol."""
        missing = codes[self._symbol_of[codes] == 0]
        if len(missing) < _CODE_POINTS:
            new = np.unique(missing)
        else:  # without sorting
            present = np.zeros(_CODE_POINTS, np.bool_)
            present[missing] = True
            new = np.flatnonzero(present).astype(np.uint32)
        if len(new):
            self._symbol_of[new] = np.arange(len(new)) + len(self.letters) + 1
            self.letters = np.concatenate((self.letters, new))
            self.short = np.concatenate((self.short, np.full(len(new), -1, np.int32)))

    def _grow(self, num_slots: int) -> None:
        """Move all edges into a larger table."""
        assert num_slots + len(self.letters) < 1 << 31, "nodes have 31 bits"
        slots = np.zeros(2 * num_slots, np.int64)
        if self._num_edges():
            _move(self.slots, slots, np.full(len(self.slots) // 2, -1, np.int64))
        self.slots = slots

    def find(self, codes: Codes) -> Matches:
        """Return all occurrences of all surfaces in `codes`, ordered by start, then end."""
        symbols = np.empty(len(codes) + 1, np.int32)
        room = len(codes) + _BLOCK
        parts: list[Matches] = []
        begin = 0
        while begin < len(codes):
            found = Matches.empty(room)
            count, reached = _find(
                codes, begin, symbols, self._symbol_of, self.slots, self.short, found
            )
            parts.append(Matches(*(column[:count] for column in found)))
            if reached == begin:  # one block has more matches
                room *= 2
            begin = reached
        if len(parts) == 1:
            return parts[0]
        parts.append(Matches.empty(0))  # `codes` may be empty
        return Matches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _symbol_table(letters: Codes) -> Ids:
    """Return the symbol of each code point; int32 (0x110000,)."""
    symbol = np.zeros(_CODE_POINTS, np.int32)
    symbol[letters] = np.arange(1, len(letters) + 1)
    return symbol


@jit
def _home(key: np.int64, num_slots: int) -> np.int64:
    """Return the slot at which the search for a key begins; below `num_slots` < 2^31."""
    mixed = (np.uint64(key) * _MULTIPLIER) >> _HALF
    return np.int64((mixed * np.uint64(num_slots)) >> _HALF)


@jit
def _bit(symbol: np.int64) -> np.int64:
    """Return the bit of a symbol in the upper half of a slot's end."""
    return np.int64(1) << (np.int64(32) + (symbol & 31))


@jit
def _insert(
    symbols: Ids,
    ends: Ints,
    state: tuple[int, int, int],
    slots: Ints,
    short: Ids,
    ordinals: Ids,
) -> tuple[int, int, int]:
    """Insert surfaces until the table is full; return the new state.

    Args:
        symbols: The concatenated surfaces, all symbols at least 1; int32 (num_chars,).
        ends: One past each surface, strictly ascending; int64 (num_surfaces,).
        state: Surfaces of `ends` that are inserted, edges in the table, surfaces in the table.
        slots: int64 (2 * num_slots,): the hash table, never more than three quarters full.
        short: int32 (num_letters + 1,): the surfaces of one letter.
        ordinals: int32 (num_surfaces,): receives the ordinal of each.
    """
    done, used, count = state
    num_slots = len(slots) // 2
    begin = np.int64(0) if done == 0 else ends[done - 1]
    while done < len(ends):
        first = np.int64(symbols[begin])
        parent, node = np.int64(-1), num_slots + first
        for at in range(begin + 1, ends[done]):
            symbol = np.int64(symbols[at])
            key = (node << _SYMBOL_BITS) | symbol
            home = slot = _home(key, num_slots)
            while slots[2 * slot] != 0 and slots[2 * slot] & _KEY != key:
                slot = slot + 1 if slot + 1 < num_slots else np.int64(0)
            if slots[2 * slot] == 0:
                if 4 * (used + 1) > 3 * num_slots:
                    return done, used, count
                used += 1
                slots[2 * slot] = key
                if slot != home:
                    slots[2 * home] |= _MOVED
                if parent >= 0:
                    slots[2 * parent + 1] |= _bit(symbol)
            parent = node = slot
        if parent < 0:
            if short[first] < 0:
                short[first] = count
                count += 1
            ordinals[done] = short[first]
        else:
            if slots[2 * parent + 1] & _ORDINAL == 0:
                count += 1
                slots[2 * parent + 1] |= count
            ordinals[done] = (slots[2 * parent + 1] & _ORDINAL) - 1
        begin = ends[done]
        done += 1
    return done, used, count


@jit
def _move(old: Ints, slots: Ints, place: Ints) -> None:
    """Insert all edges of a table into an empty one; an edge's key contains its parent's slot.

    Args:
        old: int64 (2 * num_old,).
        slots: int64 (2 * num_slots,), all 0, with room for all edges.
        place: int64 (num_old,), all -1: receives the new slot of each edge.
    """
    num_old, num_slots = len(old) // 2, len(slots) // 2
    path = np.empty(64, np.int64)  # edges without a place, from a node up
    for start in range(num_old):
        depth, node = 0, np.int64(start)
        while node < num_old and old[2 * node] != 0 and place[node] < 0:
            if depth == len(path):
                longer = np.empty(2 * depth, np.int64)
                longer[:depth] = path
                path = longer
            path[depth] = node
            depth += 1
            node = (old[2 * node] & _KEY) >> _SYMBOL_BITS
        while depth > 0:
            depth -= 1
            edge = path[depth]
            parent = (old[2 * edge] & _KEY) >> _SYMBOL_BITS
            symbol = old[2 * edge] & np.int64((1 << _SYMBOL_BITS) - 1)
            parent = parent - num_old + num_slots if parent >= num_old else place[parent]
            key = (parent << _SYMBOL_BITS) | symbol
            home = slot = _home(key, num_slots)
            while slots[2 * slot] != 0:
                slot = slot + 1 if slot + 1 < num_slots else np.int64(0)
            slots[2 * slot], slots[2 * slot + 1] = key, old[2 * edge + 1]
            if slot != home:
                slots[2 * home] |= _MOVED
            place[edge] = slot


@jit
def _find(
    codes: Codes, begin: int, symbols: Ids, symbol_of: Ids, slots: Ints, short: Ids, found: Matches
) -> tuple[int, int]:
    """Find the matches that start at `begin` or later, while there is room for them.

    Args:
        codes: Code points, all below 0x110000; uint32 (num_chars,).
        begin: First start, at least 0.
        symbols: int32 (num_chars + 1,): receives the symbols from `begin` on, and a final 0.
        symbol_of: The symbol of each code point; int32 (0x110000,).
        slots: See the module; int64 (2 * num_slots,), with at least one empty slot.
        short: int32 (num_letters + 1,).
        found: int64 (room,) each: receives the matches.

    Returns:
        The number of matches, and the first start that was not searched.
    """
    num_slots = len(slots) // 2
    searches = np.empty((3, _BLOCK), np.int64)
    starts, keys, homes = searches[0], searches[1], searches[2]
    unordered = np.empty((3, len(found.start)), np.int64)
    per_start = np.empty(_BLOCK + 1, np.int64)
    for at in range(begin, len(codes)):
        symbols[at] = symbol_of[codes[at]]
    symbols[len(codes)] = 0  # ends the searches that have used the last letter
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
                _append(unordered, here, start, 1, short[first])
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
                    _append(unordered, here, start, depth, (end & _ORDINAL) - 1)
                    here += 1
                symbol = np.int64(symbols[start + depth])
                if symbol != 0 and end & _bit(symbol):
                    key = (slot << _SYMBOL_BITS) | symbol
                    starts[on], keys[on], homes[on] = start, key, _home(key, num_slots)
                    on += 1
            going = on
            depth += 1
        _sort_block(unordered, here, begin, per_start, found, count)
        count += here
        begin = last
    return count, begin


@jit
def _slot_of(slots: Ints, key: np.int64, home: np.int64) -> np.int64:
    """Return the slot of a key that is not in its home slot, or -1; arguments as in `_find`."""
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
def _append(unordered: Ints, n: int, start: int, length: int, ordinal: int) -> None:
    """Set match n; `unordered` is int64 (3, room)."""
    unordered[0, n], unordered[1, n], unordered[2, n] = start, length, ordinal


@jit
def _sort_block(
    unordered: Ints, number: int, begin: int, per_start: Ints, found: Matches, count: int
) -> None:
    """Append the matches of a block, given by length, in order of start, then length.

    Args:
        unordered: Start, length and ordinal of each match, by length; int64 (3, >= number).
        number: Matches of the block.
        begin: First start of the block; all starts are below `begin + _BLOCK`.
        per_start: int64 (_BLOCK + 1,): overwritten.
        found: int64 (room,) each, `room >= count + number`: receives the matches from `count` on.
        count: Matches of earlier blocks.
    """
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


def _estimate_edges(symbols: Ids, ends: Ints) -> float:
    """Return an estimate of the number of distinct prefixes of two letters or more.

    By linear counting (Whang et al. 1990): each prefix marks the bit of its hash, and the share of
    unmarked bits gives the number of distinct prefixes.
    """
    num_bits = 1 << max(16, (2 * len(symbols)).bit_length())
    marked = np.zeros(num_bits >> 6, np.uint64)
    free = num_bits - _mark_prefixes(symbols, ends, marked)
    return -num_bits * float(np.log(free / num_bits))


@jit
def _mark_prefixes(symbols: Ids, ends: Ints, marked: NDArray[np.uint64]) -> int:
    """Mark the bit of each prefix's hash and return the number of marked bits.

    Args:
        symbols: As in `_insert`.
        ends: As in `_insert`.
        marked: uint64 (a power of two,), all 0.
    """
    mask = np.uint64(64 * len(marked) - 1)
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    begin = count = 0
    for n in range(len(ends)):
        mixed = np.uint64(symbols[begin])
        for at in range(begin + 1, ends[n]):
            mixed = mixed * _MULTIPLIER + np.uint64(symbols[at])
            mixed ^= mixed >> np.uint64(29)
            bit = (mixed * _MULTIPLIER >> np.uint64(20)) & mask
            if not marked[bit >> six] >> (bit & low) & one:
                marked[bit >> six] |= one << (bit & low)
                count += 1
        begin = ends[n]
    return count
