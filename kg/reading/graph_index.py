"""Hashes of names -> numbers, and numbered triples -> a graph without literals and duplicates.

Compiled loops over flat arrays. Knows nothing of bytes, files or names; a *string* here is a
number for one distinct name, given in the order in which names first came.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.jit import jit

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
Hashes = NDArray[np.uint64]

_FIRST_CAPACITY = 1 << 16  # slots of the hash table at the start; a power of two
_FULL = 0.7  # the share of slots in use at which it doubles
_FEW = 24  # so few things are sorted by insertion
_COMPACT = 1 << 22  # other spellings gathered before those that repeat are dropped
_U = np.uint64


class Strings:
    """Numbers for distinct names, by their hashes, in a growing hash table.

    Attributes:
        count: How many there are.
        place: int64, `[count]` and room for more: where each first stood.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hashes = np.zeros(_FIRST_CAPACITY, np.uint64)  # 0: the slot is free
        self._numbers = np.empty(_FIRST_CAPACITY, np.int32)
        room = int(_FULL * _FIRST_CAPACITY)
        self.place = np.empty(room, np.int64)
        self._spelling = np.zeros(room, np.uint64)  # hash of the first spelling, 0: none yet
        self._others: list[NDArray[Any]] = []
        self._num_others = 0

    def add(self, hashes: Hashes, stood: Hashes, place: Ints) -> Ids:
        """The numbers of the names of some rows, `[rows, 3]`.

        Args:
            hashes: `[rows, 3]`: head, relation, tail, normalised.
            stood: `[rows, 2]`: head and tail as they stood in the file.
            place: Where each row begins; `place * 4 + column` is kept for each new name.
        """
        while self.count + hashes.size > len(self.place):
            self._grow()
        numbers, self.count, others = _intern(
            hashes,
            stood,
            place,
            self._hashes,
            self._numbers,
            self.place,
            self._spelling,
            self.count,
        )
        if len(others):
            self._others.append(_distinct_pairs(others))
            self._num_others += len(self._others[-1])
            if self._num_others > _COMPACT:
                self._others = [_distinct_pairs(np.concatenate(self._others))]
                self._num_others = len(self._others[0])
        found: Ids = numbers
        return found

    def _grow(self) -> None:
        capacity = 2 * len(self._hashes)
        hashes, numbers = np.zeros(capacity, np.uint64), np.empty(capacity, np.int32)
        _rehash(self._hashes, self._numbers, hashes, numbers)
        self._hashes, self._numbers = hashes, numbers
        room = int(_FULL * capacity)  # pages that are never written take no memory
        place, spelling = np.empty(room, np.int64), np.zeros(room, np.uint64)
        place[: self.count] = self.place[: self.count]
        spelling[: self.count] = self._spelling[: self.count]
        self.place, self._spelling = place, spelling

    def finish(self) -> Ids:
        """Forget the hashes; how many further spellings each string had, int32 `[count]`."""
        others = _distinct_pairs(np.concatenate([np.empty((0, 2), np.uint64), *self._others]))
        more = np.bincount(others[:, 0].astype(np.int64), minlength=self.count).astype(np.int32)
        self._hashes = self._spelling = np.empty(0, np.uint64)
        self._numbers = np.empty(0, np.int32)
        self._others = []
        self.place = self.place[: self.count]
        return more


def _distinct_pairs(pairs: Hashes) -> Hashes:
    """The rows of `[n, 2]`, each once."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[first]


@jit
def _intern(
    hashes: Any,
    stood: Any,
    place: Any,
    table: Any,
    numbers: Any,
    first: Any,
    spelling: Any,
    count: Any,
) -> Any:
    mask = len(table) - 1
    found = np.empty(hashes.shape, np.int32)
    others = np.empty((2 * len(hashes), 2), np.uint64)
    num_others = 0
    for i in range(len(hashes)):
        for c in range(3):
            value = max(hashes[i, c], _U(1))
            slot = np.int64(value) & mask
            while table[slot] != value and table[slot] != 0:
                slot = (slot + 1) & mask
            if table[slot] == 0:
                table[slot] = value
                numbers[slot] = count
                first[count] = place[i] * 4 + c
                count += 1
            number = numbers[slot]
            found[i, c] = number
            if c != 1:
                spelled = max(stood[i, c >> 1], _U(1))
                if spelling[number] == 0:
                    spelling[number] = spelled
                elif spelling[number] != spelled:
                    others[num_others, 0] = number
                    others[num_others, 1] = spelled
                    num_others += 1
    return found, count, others[:num_others].copy()


@jit
def _rehash(old: Any, old_numbers: Any, table: Any, numbers: Any) -> Any:
    mask = len(table) - 1
    for i in range(len(old)):
        if old[i] != 0:
            slot = np.int64(old[i]) & mask
            while table[slot] != 0:
                slot = (slot + 1) & mask
            table[slot] = old[i]
            numbers[slot] = old_numbers[i]


# ---- Triples


@dataclass
class Grouped:
    """Distinct triples grouped by head: head n has `keys[end[n - 1]:end[n]]`, ascending.

    A key is `relation << 32 | tail`.
    """

    keys: Hashes
    end: Ints

    def __len__(self) -> int:
        return int(self.end[-1]) if len(self.end) else 0


def group(blocks: list[Ids], num_heads: int, *, loops: bool = False) -> tuple[Grouped, int, int]:
    """The triples of the blocks `[n, 3]`, grouped; how many repeated another, how many were loops.

    Loops (head equals tail) are left out unless they are asked for. The blocks are freed.
    """
    end = np.zeros(num_heads + 1, np.int64)
    total = sum(map(len, blocks))
    for block in blocks:
        _count_heads(block, end, loops)
    np.cumsum(end, out=end)
    num_loops = total - int(end[-1])
    keys = np.empty(int(end[-1]), np.uint64)
    while blocks:
        _scatter(blocks.pop(), end, keys, loops)
    grouped = Grouped(keys, end[:-1])  # now each cursor stands where its group ends
    kept = _sort_and_drop_repeated(keys, grouped.end)
    grouped.keys = keys[:kept]
    return grouped, len(keys) - kept, num_loops


@jit
def _count_heads(rows: Any, end: Any, loops: Any) -> Any:
    for i in range(len(rows)):
        if loops or rows[i, 0] != rows[i, 2]:
            end[rows[i, 0] + 1] += 1


@jit
def _scatter(rows: Any, cursor: Any, keys: Any, loops: Any) -> Any:
    for i in range(len(rows)):
        if loops or rows[i, 0] != rows[i, 2]:
            head = rows[i, 0]
            keys[cursor[head]] = _U(rows[i, 1]) << _U(32) | _U(rows[i, 2])
            cursor[head] += 1


@jit
def _sort(keys: Any, other: Any, begin: Any, end: Any) -> Any:
    """Sort `keys[begin:end]`, and take `other[begin:end]` along if it is not empty.

    Quicksort; numba's own takes four times as long to compile.
    """
    todo = np.empty((64, 2), np.int64)  # the smaller half is done first, so 64 is enough
    todo[0, 0], todo[0, 1] = begin, end
    left = 1
    pairs = len(other) > 0
    while left:
        left -= 1
        low, high = todo[left, 0], todo[left, 1]
        while high - low > _FEW:
            a, b, c = keys[low], keys[(low + high) >> 1], keys[high - 1]
            pivot = max(min(a, b), min(max(a, b), c))
            i, j = low, high - 1
            while i <= j:
                while keys[i] < pivot:
                    i += 1
                while keys[j] > pivot:
                    j -= 1
                if i <= j:
                    keys[i], keys[j] = keys[j], keys[i]
                    if pairs:
                        other[i], other[j] = other[j], other[i]
                    i += 1
                    j -= 1
            if j + 1 - low < high - i:
                todo[left, 0], todo[left, 1] = i, high
                high = j + 1
            else:
                todo[left, 0], todo[left, 1] = low, j + 1
                low = i
            left += 1
        for i in range(low + 1, high):
            key = keys[i]
            value = other[i] if pairs else 0
            j = i
            while j > low and keys[j - 1] > key:
                keys[j] = keys[j - 1]
                if pairs:
                    other[j] = other[j - 1]
                j -= 1
            keys[j] = key
            if pairs:
                other[j] = value


@jit
def _sort_and_drop_repeated(keys: Any, end: Any) -> Any:
    begin = kept = 0
    alone = np.empty(0, np.int64)
    for head in range(len(end)):
        stop = end[head]
        _sort(keys, alone, begin, stop)
        for i in range(begin, stop):
            if i == begin or keys[i] != keys[i - 1]:
                # Nothing is overwritten that the next comparison needs: kept <= i.
                value = keys[i]
                keys[kept] = value
                kept += 1
        begin = stop
        end[head] = kept
    return kept


@dataclass(frozen=True)
class Kept:
    """What is left of a graph when triples with literals are dropped.

    Attributes:
        degree: int32, of each string: in how many triples it is head or tail; 0: no entity.
        uses: int32, of each string: in how many triples it is the relation.
        literals: Triples dropped.
        distinct_literals: Different tails among these.
        lone: Entities that have no triple left.
    """

    degree: Ids
    uses: Ids
    literals: int
    distinct_literals: int
    lone: int


def drop_literals(triples: Grouped, min_tail_count: int) -> Kept:
    """Drop, in place, the triples whose tail heads none and is tail of too few."""
    size = len(triples.end)
    tails = np.zeros(size, np.int32)
    _count_tails(triples.keys, tails)
    degree, uses = np.zeros(size, np.int32), np.zeros(size, np.int32)
    kept, distinct, lone = _drop(triples.keys, triples.end, tails, min_tail_count, degree, uses)
    literals = len(triples.keys) - kept
    triples.keys = triples.keys[:kept]
    return Kept(degree, uses, literals, distinct, lone)


@jit
def _count_tails(keys: Any, tails: Any) -> Any:
    for key in keys:
        tails[np.int64(key & _U(0xFFFFFFFF))] += 1


@jit
def _drop(keys: Any, end: Any, tails: Any, least: Any, degree: Any, uses: Any) -> Any:
    entity = np.zeros(len(end), np.uint8)
    begin = 0
    distinct = 0
    for n in range(len(end)):
        entity[n] = end[n] > begin or tails[n] >= least
        distinct += tails[n] > 0 and not entity[n]
        begin = end[n]
    begin = kept = 0
    for head in range(len(end)):
        stop = end[head]
        for i in range(begin, stop):
            tail = np.int64(keys[i] & _U(0xFFFFFFFF))
            if entity[tail]:
                keys[kept] = keys[i]
                kept += 1
                degree[head] += 1
                degree[tail] += 1
                uses[np.int64(keys[i] >> _U(32))] += 1
        begin = stop
        end[head] = kept
    lone = 0
    for n in range(len(end)):
        lone += entity[n] == 1 and degree[n] == 0
    return kept, distinct, lone


def renumber(triples: Grouped, head_of: Ints, entity_id: Ids, relation_id: Ids) -> Ids:
    """The triples `[n, 3]` int32 with new ids, ascending.

    Args:
        triples: Grouped by old numbers.
        head_of: The old number of each new entity id.
        entity_id: The new entity id of each old number; -1 where it has none.
        relation_id: The same for relations.
    """
    found: Ids = _renumber(triples.keys, triples.end, head_of, entity_id, relation_id)
    return found


def distinct(triples: Ids, num_entities: int, num_relations: int) -> Ids:
    """The triples `[n, 3]`, each once, ascending."""
    grouped, _, _ = group([triples], num_entities, loops=True)
    entities = np.arange(num_entities)
    relations = np.arange(num_relations, dtype=np.int32)
    return renumber(grouped, entities, entities.astype(np.int32), relations)


@jit
def _renumber(keys: Any, end: Any, head_of: Any, entity_id: Any, relation_id: Any) -> Any:
    out = np.empty((len(keys), 3), np.int32)
    longest = 0
    for n in range(len(end)):
        longest = max(longest, end[n] - (end[n - 1] if n else 0))
    mine = np.empty(longest, np.uint64)
    alone = np.empty(0, np.int64)
    at = 0
    for head in range(len(head_of)):
        old = head_of[head]
        begin = end[old - 1] if old else 0
        size = end[old] - begin
        for i in range(size):
            key = keys[begin + i]
            relation = relation_id[np.int64(key >> _U(32))]
            mine[i] = _U(relation) << _U(32) | _U(entity_id[np.int64(key & _U(0xFFFFFFFF))])
        _sort(mine, alone, 0, size)
        for i in range(size):
            out[at, 0] = head
            out[at, 1] = np.int32(mine[i] >> _U(32))
            out[at, 2] = np.int32(mine[i] & _U(0xFFFFFFFF))
            at += 1
    return out


# ---- Names in order


def order_names(names: NDArray[np.uint8], span: Ints, counts: Ids) -> Ints:
    """Places of the names by falling count, then by their bytes (so by code point).

    Args:
        names: Bytes without NUL.
        span: `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`; all differ.
        counts: `[n]`.
    """
    order = np.argsort(-counts.astype(np.int64), kind="stable")
    ranked = counts[order]
    bounds = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1], [True]]))
    _sort_groups(names, span, order, bounds)
    return order


@jit
def _prefix(names: Any, begin: Any, end: Any) -> Any:
    """Eight bytes, the first one highest; NUL after the end."""
    value = _U(0)
    for i in range(begin, min(begin + 8, end)):
        value |= _U(names[i]) << _U(8 * (7 - (i - begin)))
    return value


@jit
def _less(names: Any, span: Any, a: Any, b: Any, depth: Any) -> Any:
    i, j = span[a, 0] + depth, span[b, 0] + depth
    while i < span[a, 1] and j < span[b, 1]:
        if names[i] != names[j]:
            return names[i] < names[j]
        i += 1
        j += 1
    return span[a, 1] - span[a, 0] < span[b, 1] - span[b, 0]


@jit
def _sort_groups(names: Any, span: Any, order: Any, bounds: Any) -> Any:
    """Sort each `order[bounds[g]:bounds[g + 1]]`: by eight bytes, then those alike by the next."""
    keys = np.empty(len(order), np.uint64)
    todo = np.empty((len(order) // 2 + 2, 3), np.int64)  # begin, end, bytes that are alike
    for g in range(len(bounds) - 1):
        todo[0, 0] = bounds[g]
        todo[0, 1] = bounds[g + 1]
        todo[0, 2] = 0
        left = 1
        while left:
            left -= 1
            begin, end, depth = todo[left, 0], todo[left, 1], todo[left, 2]
            if end - begin <= _FEW:
                for i in range(begin + 1, end):
                    mine = order[i]
                    j = i
                    while j > begin and _less(names, span, mine, order[j - 1], depth):
                        order[j] = order[j - 1]
                        j -= 1
                    order[j] = mine
                continue
            for i in range(begin, end):
                keys[i] = _prefix(names, span[order[i], 0] + depth, span[order[i], 1])
            _sort(keys, order, begin, end)
            first = begin
            for i in range(begin + 1, end + 1):
                if i == end or keys[i] != keys[first]:
                    if i - first > 1:
                        todo[left, 0] = first
                        todo[left, 1] = i
                        todo[left, 2] = depth + 8
                        left += 1
                    first = i


@jit
def gather(names: Any, span: Any, order: Any) -> Any:
    """The names in this order under each other, and where each begins and ends: `[n + 1]`."""
    offsets = np.zeros(len(order) + 1, np.int64)
    for i in range(len(order)):
        offsets[i + 1] = offsets[i] + span[order[i], 1] - span[order[i], 0]
    out = np.empty(offsets[-1], np.uint8)
    for i in range(len(order)):
        at = offsets[i]
        for j in range(span[order[i], 0], span[order[i], 1]):
            out[at] = names[j]
            at += 1
    return out, offsets
