"""The matcher as a library: all occurrences of millions of names in texts.

    from lattice import Matcher

    matcher = Matcher.build(["北京", "北京大学", "大学"])
    matcher.find("我在北京大学")      # [Match(2, 4, 0), Match(2, 6, 1), Match(4, 6, 2)]
    matcher.find_batch(texts)         # Arrow in, Arrow out: the fastest way
    matcher.save("names"); Matcher.open("names")    # memory-mapped: opened at once

Names match exactly as they are written, anywhere in a text, overlapping ones included. Tokens,
captions and entities are the task of `lattice build`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.errors import ArtefactError, InputError
from data.runs import Run, read_manifest, verify
from lattice.matching.arrays import Codes, Ids, Ints
from lattice.matching.senses import Senses
from lattice.matching.storage import open_arrays, save_arrays
from lattice.matching.string_column import code_points
from lattice.matching.trie import LAYOUT, Trie
from lattice.matching.variants import fold_codes

MATCHES = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("id", pa.int32())]))

_KIND = "matcher"
_SEPARATOR = 0xD800  # a surrogate, which no valid text contains
_BATCH_ROWS = 4096  # texts searched at a time: their arrays fit the processor's cache


class Match(NamedTuple):
    """A name at the characters `[start, end)` of a text; `id` is its position in the names."""

    start: int
    end: int
    id: int


class Matcher:
    """Finds all occurrences of names, overlapping ones included; see the module."""

    def __init__(self, trie: Trie, senses: Senses, num_names: int, fold_variants: bool) -> None:
        """Wrap the parts; use `build` or `open`."""
        self._trie, self._senses = trie, senses
        self._num_names, self._fold = num_names, fold_variants

    @classmethod
    def build(
        cls,
        names: Iterable[str] | pa.Array | pa.ChunkedArray,
        *,
        fold_variants: bool = False,
    ) -> "Matcher":
        """Return the matcher of names; the position of a name is its id.

        Args:
            names: Strings, or an Arrow array of strings. Equal names are matched with every id.
            fold_variants: Match traditional and simplified characters alike: 鸚鵡 as 鹦鹉.

        Raises:
            InputError: A name is empty or null.
        """
        matcher = cls(Trie.empty(), Senses.empty(), 0, fold_variants)
        matcher.add(names)
        return matcher

    def __len__(self) -> int:
        """Return the number of names."""
        return self._num_names

    def add(self, names: Iterable[str] | pa.Array | pa.ChunkedArray) -> None:
        """Add names; their ids continue those of the others.

        The cost depends on the new names, except that ids are copied (4 bytes per name) and the
        table doubles when it is full: add many at once. A matcher that was opened from a folder
        keeps the change in memory; `save` writes it.

        Raises:
            InputError: A name is empty or null.
        """
        column = _strings(names)
        codes, row_ends = code_points(column, _SEPARATOR)
        lengths = np.diff(row_ends, prepend=0) - 1
        wrong = np.flatnonzero(lengths == 0)
        if len(wrong) or column.null_count:
            first = wrong[0] if len(wrong) else column.is_null().index(True).as_py()
            raise InputError(f"name {self._num_names + int(first)} is empty.")
        assert self._num_names + len(column) < 1 << 31, "ids have 31 bits"
        kept = np.ones(len(codes), np.bool_)
        kept[row_ends - 1] = False
        ordinals = self._trie.insert(self._folded(codes[kept]), np.cumsum(lengths))
        self._senses = self._senses.extended(ordinals, self._num_names)
        self._num_names += len(column)

    def find(self, text: str) -> list[Match]:
        """Return all matches in a text, ordered by start, end and id.

        For many texts `find_batch` is several times faster.
        """
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        start, end, ids = self._matches(codes)
        return list(map(Match, start.tolist(), end.tolist(), ids.tolist()))

    def find_batch(
        self, texts: Sequence[str] | pa.Array | pa.ChunkedArray
    ) -> pa.ListArray | pa.ChunkedArray:
        """Return all matches in each text, as `find` orders them.

        Args:
            texts: Strings, an Arrow array of strings, or a column of a table.

        Returns:
            An array of type `MATCHES`, one list per text; a null text has a null list. For a
            column, a column with the same chunks.
        """
        if isinstance(texts, pa.ChunkedArray):
            return pa.chunked_array(map(self.find_batch, texts.chunks), MATCHES)
        column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        begins = range(0, len(column), _BATCH_ROWS)
        parts = [self._find_rows(column.slice(n, _BATCH_ROWS)) for n in begins]
        return pa.concat_arrays(parts) if parts else pa.array([], MATCHES)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the matcher into a folder with checksums.

        Raises:
            ArtefactError: The folder contains something else, and `overwrite` is False.
        """
        hashed = hashlib.sha256(str(self._num_names).encode())
        for array in (self._trie.letters, self._trie.slots, *self._senses):
            hashed.update(np.ascontiguousarray(array).data)
        settings = {"layout": LAYOUT, "fold_variants": self._fold}
        inputs = {"names": hashed.hexdigest()}
        with Run.open(
            Path(folder), kind=_KIND, settings=settings, inputs=inputs, overwrite=overwrite
        ) as run:
            if run.finished is None:
                save_arrays(run.work, self._trie, self._senses)
                run.finish({"names": self._num_names})

    @classmethod
    def open(cls, folder: str | Path, *, check: bool = False) -> "Matcher":
        """Map a saved matcher, in milliseconds; processes share its memory.

        Args:
            folder: From `save`.
            check: Read all of it and compare the checksums.

        Raises:
            ArtefactError: It is not a matcher, is damaged, or was saved by another version.
        """
        folder = Path(folder)
        manifest = verify(folder) if check else read_manifest(folder)
        if manifest.kind != _KIND or manifest.settings["layout"] != LAYOUT:
            raise ArtefactError(
                f"{folder} is not a matcher of this version (kind {manifest.kind}). Build it again "
                "with Matcher.build and save it."
            )
        trie, senses = open_arrays(folder, "c")
        return cls(trie, senses, manifest.counts["names"], manifest.settings["fold_variants"])

    def _folded(self, codes: Codes) -> Codes:
        return fold_codes(codes) if self._fold else codes

    def _matches(self, codes: Codes) -> tuple[Ints, Ints, Ids]:
        """Return start, end and id of the matches in code points; (num_matches,) each."""
        found = self._trie.find(self._folded(codes))
        position, ids = self._senses.expand(found.ordinal)
        if position is None:
            return found.start, found.end, ids
        return found.start[position], found.end[position], ids

    def _find_rows(self, column: pa.Array) -> pa.ListArray:
        """Return the matches of some rows."""
        texts = column.cast(pa.string())
        codes, row_ends = code_points(texts, _SEPARATOR)
        start, end, ids = self._matches(codes)
        offsets = np.searchsorted(start, np.concatenate(([0], row_ends))).astype(np.int32)
        begin = np.repeat(np.concatenate(([0], row_ends[:-1])), np.diff(offsets))
        columns = [pa.array(part.astype(np.int32)) for part in (start - begin, end - begin, ids)]
        matches = pa.StructArray.from_arrays(columns, fields=list(MATCHES.value_type))
        mask = texts.is_null() if texts.null_count else None
        return pa.ListArray.from_arrays(pa.array(offsets), matches, type=MATCHES, mask=mask)


def _strings(names: Iterable[str] | pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return names as one Arrow array of strings."""
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    if isinstance(names, pa.Array):
        return names.cast(pa.string())
    return pa.array(names, pa.string())
