"""Number 64-bit keys in an open-addressing hash table.

A key is the hash of an id or IRI; as in `kg.reading`, ids are compared by their hash only.

Indices are not checked in compiled code; see `kg.reading.graph_index`.
"""

from typing import Any

import numpy as np

from data.jit import jit
from kg.arrays import Hashes, Ids
from kg.reading.graph_index import rehash
from kg.reading.row_scanner import hash_spans

_FIRST_CAPACITY = 1 << 16  # slots; a power of two
_MAX_LOAD = 0.6


def keys_of(texts: list[str]) -> Hashes:
    """Return the key of each text, uint64 `[n]`."""
    raw = [text.encode() for text in texts]
    end = np.cumsum([len(text) for text in raw], dtype=np.int64)
    begin = np.concatenate([[0], end[:-1]]).astype(np.int64)[: len(raw)]
    found: Hashes = hash_spans(np.frombuffer(b"".join(raw) + b"\n", np.uint8), begin, end)
    return found


class KeyIndex:
    """Ids 0, 1, 2 ... of distinct keys, in the order of first occurrence."""

    def __init__(self) -> None:
        self.count = 0
        self._table = np.zeros(_FIRST_CAPACITY, np.uint64)  # 0: the slot is free
        self._ids = np.empty(_FIRST_CAPACITY, np.int32)

    def add(self, keys: Hashes) -> Ids:
        """Return the ids of keys, int32 `[n]`; new keys get the next ids."""
        while self.count + len(keys) > _MAX_LOAD * len(self._table):
            table, ids = (
                np.zeros(2 * len(self._table), np.uint64),
                np.empty(2 * len(self._table), np.int32),
            )
            rehash(self._table, self._ids, table, ids)
            self._table, self._ids = table, ids
        found: Ids
        found, self.count = _add(self._table, self._ids, keys, self.count)
        return found

    def new(self, keys: Hashes) -> Ids:
        """Add keys; return the index of the first occurrence of each that is new, ascending."""
        before = self.count
        ids = self.add(keys)
        candidates = np.flatnonzero(ids >= before)
        _, first = np.unique(ids[candidates], return_index=True)
        return candidates[first].astype(np.int32)

    def find(self, keys: Hashes) -> Ids:
        """Return the ids of keys, int32 of the same shape; -1: unknown."""
        found: Ids = _find(self._table, self._ids, keys.ravel()).reshape(keys.shape)
        return found


@jit
def _slot(table: Any, key: Any) -> Any:
    """Return the slot of a key, or the free one where it belongs. Linear probing."""
    mask = len(table) - 1
    slot = np.int64(key) & mask
    while table[slot] != key and table[slot] != 0:
        slot = (slot + 1) & mask
    return slot


@jit
def _add(table: Any, ids: Any, keys: Any, count: Any) -> Any:
    """Look up keys, insert new ones; return their ids and the new count.

    Args:
        table: uint64 `[2**k]`, with more free slots than keys, so that each probe ends; 0: free.
        ids: int32 `[2**k]`.
        keys: uint64 `[n]`; 0 counts as 1.
        count: Number of keys before.
    """
    found = np.empty(len(keys), np.int32)
    for i in range(len(keys)):
        key = max(keys[i], np.uint64(1))
        slot = _slot(table, key)
        if table[slot] == 0:
            table[slot] = key
            ids[slot] = count
            count += 1
        found[i] = ids[slot]
    return found, count


@jit
def _find(table: Any, ids: Any, keys: Any) -> Any:
    """Look up keys, without inserting; arguments and result as for `_add`, -1: unknown."""
    found = np.empty(len(keys), np.int32)
    for i in range(len(keys)):
        key = max(keys[i], np.uint64(1))
        slot = _slot(table, key)
        found[i] = ids[slot] if table[slot] == key else -1
    return found
