"""Collect statements between ids and labels of ids; choose names; write triples and mentions.

Statements are kept in a temporary file without a name, which no crash leaves behind; memory is
needed for the labels in the wanted language only.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kg.arrays import Bytes, Hashes, Ids, Ints
from kg.reading.row_scanner import normalise
from kg.sources.key_index import KeyIndex, keys_of
from kg.sources.languages import ALIAS, FROM_IRI

_BLOCK = 1 << 20  # statements per read
_LONGEST_CHAIN = 20  # redirects of redirects


class Labels(NamedTuple):
    """Labels of some ids, `[n]` each.

    Attributes:
        keys: The key of each id, uint64.
        ranks: uint8, see `kg.sources.languages`; an id is named by its label of the lowest rank.
        ids: Written in brackets where several ids have one name; strings.
        texts: The labels; strings.
    """

    keys: Hashes
    ranks: Bytes
    ids: pa.LargeStringArray
    texts: pa.LargeStringArray


class _Names(NamedTuple):
    """The chosen name of each id with one, by its number in `position`."""

    position: KeyIndex
    ids: pa.LargeStringArray
    texts: pa.LargeStringArray
    other_keys: Hashes  # of the labels that are not names
    other_texts: pa.LargeStringArray


class Collector:
    """What the readers of the formats found in the sources.

    Attributes:
        counts: Statements dropped, by reason, and other counts; readers add theirs.
        lines: Lines or records read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._statements = self._temporary()
        self._labels: list[Labels] = []
        self._redirects: list[Hashes] = []
        self._dropped: list[Hashes] = []
        self.counts: Counter[str] = Counter()
        self.lines = 0

    def _temporary(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._folder)

    def add_statements(self, keys: Hashes) -> None:
        """Add statements between ids: keys of head, relation and tail, uint64 `[n, 3]`."""
        self.counts["statements"] += len(keys)
        self._statements.write(np.ascontiguousarray(keys).tobytes())

    def add_labels(self, labels: Labels) -> None:
        """Add labels; white space around them and control characters in them are removed."""
        texts = pc.replace_substring_regex(labels.texts, r"[\x00-\x1f\x7f]+", " ")
        texts = pc.utf8_trim_whitespace(texts)
        full = pc.greater(pc.binary_length(texts), 0)
        mask = np.asarray(full, bool)
        if mask.any():
            ids = labels.ids.filter(full)
            self._labels.append(
                Labels(labels.keys[mask], labels.ranks[mask], ids, texts.filter(full))
            )

    def add_redirects(self, keys: Hashes) -> None:
        """Add pairs of an id and the id that it means, uint64 `[n, 2]`."""
        self._redirects.append(keys)

    def drop(self, keys: Hashes) -> None:
        """Drop all statements of these ids."""
        self._dropped.append(keys)

    def add_rows(
        self,
        statements: Sequence[tuple[str, str, str]],
        labels: Sequence[tuple[str, int, str]] = (),
    ) -> None:
        """Add statements of ids, and labels as (id, rank, text)."""
        if statements:
            keys = keys_of([part for row in statements for part in row])
            self.add_statements(keys.reshape(-1, 3))
        if labels:
            ids, ranks, texts = zip(*labels, strict=True)
            self.add_labels(
                Labels(
                    keys_of(list(ids)),
                    np.array(ranks, np.uint8),
                    pa.array(ids, pa.large_string()),
                    pa.array(texts, pa.large_string()),
                )
            )

    def close(self) -> None:
        """Free the temporary file."""
        self._statements.close()

    def write(self, triples: Path, mentions: Path) -> None:
        """Write `head<TAB>relation<TAB>tail` and `mention<TAB>entity`, and complete the counts.

        Statements of which an end has no name, or is dropped, are left out. Ids with the same name
        (in its normal form) are told apart by the id in brackets; the name without brackets is a
        mention of each, most used first.
        """
        names = self._choose()
        self.counts["items_named"] = pc.sum(pc.starts_with(names.ids, "Q")).as_py() or 0
        redirect, dropped = self._redirected(names), np.zeros(len(names.texts), bool)
        for keys in self._dropped:
            found = names.position.find(keys)
            dropped[found[found >= 0]] = True
        with self._temporary() as kept:
            uses, relation_uses = self._resolve(names, redirect, dropped, kept)
            entity_names, shared = _tell_apart(names, uses > 0)
            relation_names, _ = _tell_apart(names, relation_uses > 0)
            self._write_triples(triples, kept, entity_names, relation_names)
        self.counts["entities"] = int((uses > 0).sum())
        self.counts["relations"] = int((relation_uses > 0).sum())
        self.counts["entities_with_the_same_name"] = int(shared.sum())
        self._write_mentions(mentions, names, redirect, uses, entity_names, shared)

    def _choose(self) -> _Names:
        keys = np.concatenate([np.empty(0, np.uint64), *(part.keys for part in self._labels)])
        ranks = np.concatenate([np.empty(0, np.uint8), *(part.ranks for part in self._labels)])
        ids, texts = (
            pa.chunked_array([part[i] for part in self._labels], pa.large_string()) for i in (2, 3)
        )
        self._labels = []
        order = np.lexsort((ranks, keys))  # stable: of equal ranks, the first label
        best = np.ones(len(order), bool)
        best[1:] = keys[order[1:]] != keys[order[:-1]]
        best &= ranks[order] < ALIAS
        chosen, others = order[best], np.sort(order[~best & _is_mention(ranks[order])])
        position = KeyIndex()
        position.add(keys[chosen])
        return _Names(
            position,
            _combine(ids.take(pa.array(chosen))),
            _combine(texts.take(pa.array(chosen))),
            keys[others],
            _combine(texts.take(pa.array(others))),
        )

    def _redirected(self, names: _Names) -> Ids:
        """Return the id that each id means, by position; mostly itself."""
        target = np.arange(len(names.texts), dtype=np.int32)
        for pairs in self._redirects:
            source, end = names.position.find(pairs).T
            known = (source >= 0) & (end >= 0)
            target[source[known]] = end[known]
        for _ in range(_LONGEST_CHAIN):
            target = target[target]
        return target

    def _read(self, file: IO[bytes], dtype: Any) -> Iterator[NDArray[Any]]:
        file.seek(0)
        size = _BLOCK * 3 * np.dtype(dtype).itemsize
        while block := file.read(size):
            yield np.frombuffer(block, dtype).reshape(-1, 3)

    def _resolve(
        self, names: _Names, redirect: Ids, dropped: NDArray[np.bool_], kept: IO[bytes]
    ) -> tuple[Ints, Ints]:
        """Write the statements to keep as int32 `[n, 3]`; return the uses of ids, as relations."""
        size = len(redirect)
        uses, relation_uses = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for keys in self._read(self._statements, np.uint64):
            found = names.position.find(keys)
            named = (found >= 0).all(axis=1)
            self.counts["dropped: an end has no name"] += len(found) - int(named.sum())
            rows = found[named]
            rows[:, 0], rows[:, 2] = redirect[rows[:, 0]], redirect[rows[:, 2]]
            gone = dropped[rows[:, 0]] | dropped[rows[:, 2]]
            self.counts["dropped: disambiguation page"] += int(gone.sum())
            rows = rows[~gone]
            uses += np.bincount(rows[:, [0, 2]].ravel(), minlength=size)
            relation_uses += np.bincount(rows[:, 1], minlength=size)
            kept.write(np.ascontiguousarray(rows).tobytes())
            self.counts["triples"] += len(rows)
        return uses, relation_uses

    def _write_triples(
        self, path: Path, kept: IO[bytes], names: pa.Array, relations: pa.Array
    ) -> None:
        with path.open("wb") as file:
            for rows in self._read(kept, np.int32):
                columns = (names, relations, names)
                file.write(_lines([c.take(pa.array(rows[:, i])) for i, c in enumerate(columns)]))

    def _write_mentions(
        self,
        path: Path,
        names: _Names,
        redirect: Ids,
        uses: Ints,
        entity_names: pa.LargeStringArray,
        shared: NDArray[np.bool_],
    ) -> None:
        owner = names.position.find(names.other_keys)
        known = owner >= 0
        # The name of a redirected id is a mention of its target.
        moved = np.flatnonzero(redirect != np.arange(len(redirect)))
        bare = np.flatnonzero(shared)
        entity = np.concatenate([redirect[owner[known]], redirect[moved], bare])
        texts = pa.concat_arrays(
            [
                names.other_texts.filter(pa.array(known)),
                names.texts.take(pa.array(moved)),
                names.texts.take(pa.array(bare)),
            ]
        )
        used = uses[entity] > 0
        entity = entity[used]
        table = pa.table(
            {
                "mention": texts.filter(pa.array(used)),
                "entity": entity_names.take(pa.array(entity)),
                "uses": pa.array(uses[entity]),
            }
        )
        table = table.filter(pc.not_equal(table["mention"], table["entity"]))
        table = table.group_by(["mention", "entity"]).aggregate([("uses", "max")])
        order = [("mention", "ascending"), ("uses_max", "descending"), ("entity", "ascending")]
        table = table.sort_by(order)
        self.counts["mentions"] = len(table)
        with path.open("wb") as file:
            for batch in table.to_batches(max_chunksize=_BLOCK):
                file.write(_lines([batch["mention"], batch["entity"]]))


def _is_mention(ranks: Bytes) -> NDArray[np.bool_]:
    """Return which labels are mentions where they are not the name: not those made from IRIs."""
    found: NDArray[np.bool_] = (ranks < FROM_IRI) | (ranks == ALIAS)
    return found


def _combine(strings: pa.ChunkedArray) -> pa.LargeStringArray:
    whole = strings.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _tell_apart(
    names: _Names, used: NDArray[np.bool_]
) -> tuple[pa.LargeStringArray, NDArray[np.bool_]]:
    """Return the names, `name（id）` where several used ids have the same, and where that is."""
    shared = np.zeros(len(used), bool)
    places = np.flatnonzero(used)
    texts = names.texts.take(pa.array(places)).to_pylist()
    normal = pa.array(map(normalise, texts), pa.large_string())
    if len(places):
        codes = np.asarray(normal.dictionary_encode().indices)
        shared[places] = np.bincount(codes)[codes] > 1
    mask = pa.array(shared)
    left, right = (pa.scalar(text, pa.large_string()) for text in "（）")
    empty = pa.scalar("", pa.large_string())
    longer = pc.binary_join_element_wise(names.texts, left, names.ids, right, empty)
    return pc.if_else(mask, longer, names.texts), shared


def _lines(columns: list[pa.Array]) -> bytes:
    """Return rows of strings as tab-separated lines."""
    tab, newline, empty = (pa.scalar(text, pa.large_string()) for text in ("\t", "\n", ""))
    parts = [part for column in columns for part in (column.cast(pa.large_string()), tab)]
    joined = pc.binary_join_element_wise(*parts[:-1], newline, empty)
    data: bytes = joined.buffers()[2].to_pybytes() if len(joined) else b""
    return data
