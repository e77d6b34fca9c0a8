"""Number names by their hashes, and reduce numbered triples to a graph without literals.

Compiled loops over flat arrays. A *string id* numbers one distinct name, in the order of first
occurrence; entity and relation ids follow at the end, in `renumber`.

Indices are not checked in compiled code. Each docstring states the shapes and dtypes of the arrays
and the invariants that bound every index; `make test-bounds` runs the tests with checked indices.

Bytes, files and the text of names are handled elsewhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.jit import jit
from kg.arrays import Bytes, Hashes, Ids, Ints

_FIRST_CAPACITY = 1 << 16  # initial slots of the hash table; a power of two
_MAX_LOAD = 0.7  # of the slots; above, the table doubles
_INSERTION_SORT = 24  # up to this length
_COMPACT = 1 << 22  # further spellings collected before repeated ones are dropped
_U = np.uint64


class StringIndex:
    """String ids of distinct names, by hash, in an open-addressing table that grows.

    Attributes:
        count: The number of distinct names.
        position: int64, `[count]` and spare room: the first occurrence of each name, as
            `offset of the row * 4 + column`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hashes = np.zeros(_FIRST_CAPACITY, np.uint64)  # 0: the slot is free
        self._ids = np.empty(_FIRST_CAPACITY, np.int32)
        room = int(_MAX_LOAD * _FIRST_CAPACITY)
        self.position = np.empty(room, np.int64)
        self._spelling = np.zeros(room, np.uint64)  # hash of the first spelling, 0: none yet
        self._others: list[NDArray[Any]] = []
        self._num_others = 0

    def add(self, hashes: Hashes, raw_hashes: Hashes, begin: Ints) -> Ids:
        """Return the string ids of the names of some rows, int32 `[rows, 3]`.

        Args:
            hashes: `[rows, 3]`: of head, relation and tail, normalised.
            raw_hashes: `[rows, 2]`: of head and tail as written in the file.
            begin: `[rows]`: the offset of each row.
        """
        while self.count + hashes.size > len(self.position):
            self._grow()
        ids: Ids
        table = self._hashes, self._ids, self.position, self._spelling
        ids, self.count, others = _intern(hashes, raw_hashes, begin, *table, self.count)
        if len(others):
            self._others.append(_distinct_pairs(others))
            self._num_others += len(self._others[-1])
            if self._num_others > _COMPACT:
                self._others = [_distinct_pairs(np.concatenate(self._others))]
                self._num_others = len(self._others[0])
        return ids

    def _grow(self) -> None:
        capacity = 2 * len(self._hashes)
        hashes, ids = np.zeros(capacity, np.uint64), np.empty(capacity, np.int32)
        rehash(self._hashes, self._ids, hashes, ids)
        self._hashes, self._ids = hashes, ids
        room = int(_MAX_LOAD * capacity)  # pages that are never written take no memory
        position, spelling = np.empty(room, np.int64), np.zeros(room, np.uint64)
        position[: self.count] = self.position[: self.count]
        spelling[: self.count] = self._spelling[: self.count]
        self.position, self._spelling = position, spelling

    def finish(self) -> Ids:
        """Free the table; return the number of further spellings of each name, int32 `[count]`."""
        others = _distinct_pairs(np.concatenate([np.empty((0, 2), np.uint64), *self._others]))
        more = np.bincount(others[:, 0].astype(np.int64), minlength=self.count).astype(np.int32)
        self._hashes = self._spelling = np.empty(0, np.uint64)
        self._ids = np.empty(0, np.int32)
        self._others = []
        self.position = self.position[: self.count]
        return more


def _distinct_pairs(pairs: Hashes) -> Hashes:
    """Return the distinct rows of `[n, 2]`, ascending."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[first]


@jit
def _intern(
    hashes: Any,
    raw_hashes: Any,
    begin: Any,
    table: Any,
    table_ids: Any,
    position: Any,
    spelling: Any,
    count: Any,
) -> Any:
    """Look up the hashes of some rows, insert new ones, and collect further spellings.

    Linear probing. The caller ensures `count + 3 * rows <= len(position) < len(table)`: a free slot
    remains, so each probe ends, and each new id is below `len(position)`.

    Args:
        hashes: uint64 `[rows, 3]`; 0 counts as 1.
        raw_hashes: uint64 `[rows, 2]`; 0 counts as 1.
        begin: int64 `[rows]`.
        table: uint64 `[2**k]`, changed in place; 0 marks a free slot. A slot is a hash modulo 2**k.
        table_ids: int32 `[2**k]`, changed in place; below `count` where the slot is in use.
        position: int64, `[:count]` is in use; changed in place.
        spelling: uint64, of the same length, 0: no spelling yet; changed in place.
        count: The number of names before.

    Returns:
        ids: int32 `[rows, 3]`, below the new count.
        count: The number of names after.
        others: uint64 `[n, 2]`, n at most `2 * rows`: id and hash of each further spelling seen.
    """
    mask = len(table) - 1
    ids = np.empty(hashes.shape, np.int32)
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
                table_ids[slot] = count
                position[count] = begin[i] * 4 + c
                count += 1
            string_id = table_ids[slot]
            ids[i, c] = string_id
            if c != 1:
                spelled = max(raw_hashes[i, c >> 1], _U(1))
                if spelling[string_id] == 0:
                    spelling[string_id] = spelled
                elif spelling[string_id] != spelled:
                    others[num_others, 0] = string_id
                    others[num_others, 1] = spelled
                    num_others += 1
    return ids, count, others[:num_others].copy()


@jit
def rehash(old: Any, old_ids: Any, table: Any, table_ids: Any) -> Any:
    """Copy a hash table into a larger one.

    Args:
        old: uint64 `[2**k]`, 0: free.
        old_ids: int32 `[2**k]`.
        table: uint64 `[2**m]`, m > k, all 0: more slots than hashes, so each probe ends.
        table_ids: int32 `[2**m]`.
    """
    mask = len(table) - 1
    for i in range(len(old)):
        if old[i] != 0:
            slot = np.int64(old[i]) & mask
            while table[slot] != 0:
                slot = (slot + 1) & mask
            table[slot] = old[i]
            table_ids[slot] = old_ids[i]


# ---- Triples


@dataclass
class GroupedTriples:
    """Distinct triples grouped by head.

    Attributes:
        keys: uint64 `[n]`: `relation << 32 | tail`. Those of head h are
            `keys[end[h - 1]:end[h]]` (`keys[:end[0]]` for head 0), ascending.
        end: int64 `[num_heads]`, ascending; the last is n.
    """

    keys: Hashes
    end: Ints

    def __len__(self) -> int:
        return int(self.end[-1]) if len(self.end) else 0


def group(
    blocks: list[Ids], num_heads: int, *, loops: bool = False
) -> tuple[GroupedTriples, int, int]:
    """Group triples by head; return them, the number of duplicates and the number of self-loops.

    Args:
        blocks: int32 `[n, 3]` each, heads below `num_heads`; the list is emptied to free memory.
        num_heads: The number of ids.
        loops: Keep triples whose head equals their tail.
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
    grouped = GroupedTriples(keys, end[:-1])  # each cursor has reached the end of its group
    kept = _sort_and_drop_repeated(keys, grouped.end)
    grouped.keys = keys[:kept]
    return grouped, len(keys) - kept, num_loops


@jit
def _count_heads(rows: Any, end: Any, loops: Any) -> Any:
    """Add the number of triples of head h to `end[h + 1]`.

    Args:
        rows: int32 `[n, 3]`, `0 <= rows[i, 0] < len(end) - 1`.
        end: int64 `[num_heads + 1]`, changed in place.
        loops: Whether self-loops count.
    """
    for i in range(len(rows)):
        if loops or rows[i, 0] != rows[i, 2]:
            end[rows[i, 0] + 1] += 1


@jit
def _scatter(rows: Any, cursor: Any, keys: Any, loops: Any) -> Any:
    """Write the key of each triple to the range of its head, and advance the cursor of the head.

    Args:
        rows: int32 `[n, 3]`, as counted by `_count_heads` with the same `loops`.
        cursor: int64 `[num_heads + 1]`, the next free index of each head, changed in place. The
            counts bound it by the first index of the next head, at most `len(keys)`.
        keys: uint64, changed in place.
        loops: Whether self-loops are kept.
    """
    for i in range(len(rows)):
        if loops or rows[i, 0] != rows[i, 2]:
            head = rows[i, 0]
            keys[cursor[head]] = _U(rows[i, 1]) << _U(32) | _U(rows[i, 2])
            cursor[head] += 1


@jit
def _sort(keys: Any, other: Any, begin: Any, end: Any) -> Any:
    """Sort `keys[begin:end]` and apply the same permutation to `other[begin:end]`.

    Quicksort (Hoare's partition, median of three); numba's own takes four times as long to compile.
    The pivot is one of the values, so that both inner scans stop within `low..high - 1`. The larger
    part is deferred and has at least half of the values, so at most log2(n) < 64 parts wait.

    Args:
        keys: uint64, changed in place.
        other: int64, as long as `keys`, changed in place; or empty: sort the keys only.
        begin: `0 <= begin <= end`.
        end: `end <= len(keys)`.
    """
    todo = np.empty((64, 2), np.int64)
    todo[0, 0], todo[0, 1] = begin, end
    left = 1
    pairs = len(other) > 0
    while left:
        left -= 1
        low, high = todo[left, 0], todo[left, 1]
        while high - low > _INSERTION_SORT:
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
    """Sort the keys of each head and drop duplicates; return the number of keys left.

    Args:
        keys: uint64 `[n]`, changed in place.
        end: int64 `[num_heads]`, ascending, at most n; changed to the ends after dropping.
    """
    begin = kept = 0
    no_values = np.empty(0, np.int64)
    for head in range(len(end)):
        stop = end[head]
        _sort(keys, no_values, begin, stop)
        for i in range(begin, stop):
            if i == begin or keys[i] != keys[i - 1]:
                # kept <= i, so no value is overwritten that a later comparison needs.
                value = keys[i]
                keys[kept] = value
                kept += 1
        begin = stop
        end[head] = kept
    return kept


@dataclass(frozen=True)
class LiteralCounts:
    """The graph left after dropping triples with literals.

    Attributes:
        degree: int32 `[num_strings]`: triples of which each string is head or tail; 0: not an
            entity.
        uses: int32 `[num_strings]`: triples of which each string is the relation.
        literals: Triples dropped.
        distinct_literals: Distinct tails of these.
        isolated: Entities without a triple left.
    """

    degree: Ids
    uses: Ids
    literals: int
    distinct_literals: int
    isolated: int


def drop_literals(triples: GroupedTriples, min_tail_count: int) -> LiteralCounts:
    """Drop, in place, triples whose tail heads no triple and is tail of fewer than the minimum."""
    size = len(triples.end)
    tail_count = np.zeros(size, np.int32)
    _count_tails(triples.keys, tail_count)
    degree, uses = np.zeros(size, np.int32), np.zeros(size, np.int32)
    kept, distinct, isolated = _drop(
        triples.keys, triples.end, tail_count, min_tail_count, degree, uses
    )
    literals = len(triples.keys) - kept
    triples.keys = triples.keys[:kept]
    return LiteralCounts(degree, uses, literals, distinct, isolated)


@jit
def _count_tails(keys: Any, tail_count: Any) -> Any:
    """Count the triples of each tail.

    Args:
        keys: uint64 `[n]`, tails below `len(tail_count)`.
        tail_count: int32 `[num_strings]`, changed in place.
    """
    for key in keys:
        tail_count[np.int64(key & _U(0xFFFFFFFF))] += 1


@jit
def _drop(keys: Any, end: Any, tail_count: Any, minimum: Any, degree: Any, uses: Any) -> Any:
    """Drop triples with literals; return the numbers of keys, literals and isolated entities.

    Args:
        keys: uint64 `[n]`, relations and tails below num_strings; changed in place.
        end: int64 `[num_strings]`, ascending, the last is n; changed to the ends after dropping.
        tail_count: int32 `[num_strings]`.
        minimum: Tails of fewer triples are literals, unless they head a triple.
        degree: int32 `[num_strings]`, zeros; changed in place.
        uses: int32 `[num_strings]`, zeros; changed in place.
    """
    entity = np.zeros(len(end), np.uint8)
    begin = 0
    distinct = 0
    for n in range(len(end)):
        entity[n] = end[n] > begin or tail_count[n] >= minimum
        distinct += tail_count[n] > 0 and not entity[n]
        begin = end[n]
    begin = kept = 0
    for head in range(len(end)):
        stop = end[head]
        for i in range(begin, stop):
            tail = np.int64(keys[i] & _U(0xFFFFFFFF))
            if entity[tail]:
                keys[kept] = keys[i]  # kept <= i
                kept += 1
                degree[head] += 1
                degree[tail] += 1
                uses[np.int64(keys[i] >> _U(32))] += 1
        begin = stop
        end[head] = kept
    isolated = 0
    for n in range(len(end)):
        isolated += entity[n] == 1 and degree[n] == 0
    return kept, distinct, isolated


@jit
def renumber(keys: Any, end: Any, head_of: Any, entity_id: Any, relation_id: Any) -> Any:
    """Return grouped triples with new ids, int32 `[n, 3]`, ascending; written head by head.

    `head_of` is a permutation of the old heads that have triples, with further entities without
    any, so that exactly `len(keys)` rows are written.

    Args:
        keys: uint64 `[n]`, of `GroupedTriples`; relations and tails are below num_old.
        end: int64 `[num_old]`, of `GroupedTriples`; ascending, the last is n.
        head_of: int64 `[num_entities]`: the old id of each new entity id; below num_old, distinct.
        entity_id: int32 `[num_old]`: the new entity id of each old id; -1: none, and not a tail in
            `keys`.
        relation_id: int32 `[num_old]`: the new relation id of each old id; -1: none, and not a
            relation in `keys`.
    """
    out = np.empty((len(keys), 3), np.int32)
    longest = 0
    for n in range(len(end)):
        longest = max(longest, end[n] - (end[n - 1] if n else 0))
    row_keys = np.empty(longest, np.uint64)
    no_values = np.empty(0, np.int64)
    at = 0
    for head in range(len(head_of)):
        old = head_of[head]
        begin = end[old - 1] if old else 0
        size = end[old] - begin
        for i in range(size):
            key = keys[begin + i]
            relation = relation_id[np.int64(key >> _U(32))]
            row_keys[i] = _U(relation) << _U(32) | _U(entity_id[np.int64(key & _U(0xFFFFFFFF))])
        _sort(row_keys, no_values, 0, size)
        for i in range(size):
            out[at, 0] = head
            out[at, 1] = np.int32(row_keys[i] >> _U(32))
            out[at, 2] = np.int32(row_keys[i] & _U(0xFFFFFFFF))
            at += 1
    return out


def distinct(triples: Ids, num_entities: int, num_relations: int) -> Ids:
    """Return the distinct triples of int32 `[n, 3]`, ascending."""
    grouped, _, _ = group([triples], num_entities, loops=True)
    entities = np.arange(num_entities)
    relations = np.arange(num_relations, dtype=np.int32)
    ids = entities.astype(np.int32), relations
    found: Ids = renumber(grouped.keys, grouped.end, entities, *ids)
    return found


# ---- Names in order


def order_names(names: Bytes, span: Ints, counts: Ids) -> Ints:
    """Return the order of names by descending count, then by bytes (code points), int64 `[n]`.

    Args:
        names: uint8, without NUL.
        span: int64 `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`; all names differ.
        counts: int32 `[n]`.
    """
    order = np.argsort(-counts.astype(np.int64), kind="stable")
    ranked = counts[order]
    bounds = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1], [True]]))
    _sort_groups(names, span, order, bounds)
    return order


@jit
def _prefix(names: Any, begin: Any, end: Any) -> Any:
    """Return up to 8 bytes of `names[begin:end]` as a big-endian uint64, padded with NUL.

    Requires `0 <= begin` and `end <= len(names)`; without bytes, `begin >= end`, the result is 0.
    """
    value = _U(0)
    for i in range(begin, min(begin + 8, end)):
        value |= _U(names[i]) << _U(8 * (7 - (i - begin)))
    return value


@jit
def _less(names: Any, span: Any, a: Any, b: Any, depth: Any) -> Any:
    """Return whether name a is before name b; their first `depth` bytes are equal.

    Args:
        names: uint8.
        span: int64 `[n, 2]`, within `names`.
        a: Below n.
        b: Below n.
        depth: At least 0; a name may be shorter.
    """
    i, j = span[a, 0] + depth, span[b, 0] + depth
    while i < span[a, 1] and j < span[b, 1]:
        if names[i] != names[j]:
            return names[i] < names[j]
        i += 1
        j += 1
    return span[a, 1] - span[a, 0] < span[b, 1] - span[b, 0]


@jit
def _sort_groups(names: Any, span: Any, order: Any, bounds: Any) -> Any:
    """Sort each `order[bounds[g]:bounds[g + 1]]` by the bytes of the names.

    Radix sort, 8 bytes at a time: names with equal prefixes wait in `todo` for the next 8 bytes.
    Waiting ranges are disjoint and have two names or more, which bounds `todo`. The names differ
    and have no NUL, so that at some depth all prefixes differ.

    Args:
        names: uint8, without NUL.
        span: int64 `[n, 2]`, within `names`; all names differ.
        order: int64 `[n]`, a permutation of 0..n - 1, changed in place.
        bounds: int64 `[groups + 1]`, ascending from 0 to n.
    """
    keys = np.empty(len(order), np.uint64)
    todo = np.empty((len(order) // 2 + 2, 3), np.int64)  # begin, end, length of the equal prefix
    for g in range(len(bounds) - 1):
        todo[0, 0] = bounds[g]
        todo[0, 1] = bounds[g + 1]
        todo[0, 2] = 0
        left = 1
        while left:
            left -= 1
            begin, end, depth = todo[left, 0], todo[left, 1], todo[left, 2]
            if end - begin <= _INSERTION_SORT:
                for i in range(begin + 1, end):
                    moved = order[i]
                    j = i
                    while j > begin and _less(names, span, moved, order[j - 1], depth):
                        order[j] = order[j - 1]
                        j -= 1
                    order[j] = moved
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
    """Concatenate names in an order; return their bytes, and their offsets, int64 `[n + 1]`.

    Args:
        names: uint8.
        span: int64 `[m, 2]`, `0 <= span[i, 0] <= span[i, 1] <= len(names)`.
        order: int64 `[n]`, `0 <= order[i] < m`.
    """
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
