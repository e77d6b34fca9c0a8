"""Count the captions in which each matched string occurs, to propose stop names."""

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.jit import fnv1a, jit
from data.tokenizer import Tokenizer
from lattice.matching.arrays import Ids, Ints


class SurfaceCounts:
    """Captions per surface; a surface is a sequence of token ids.

    Memory grows with the number of distinct surfaces that occur.
    """

    def __init__(self) -> None:
        self._captions: Counter[int] = Counter()  # by the hash of the token ids
        self._ids: dict[int, list[int]] = {}

    def add(self, input_ids: pa.ListArray, row: Ints, starts: Ints, lasts: Ints) -> None:
        """Add the entities of a batch.

        Args:
            input_ids: The token ids of each caption.
            row: The caption of each entity.
            starts: Its first token.
            lasts: Its last token.
        """
        if not len(row):
            return
        offsets = input_ids.offsets.to_numpy().astype(np.int64)
        ids = input_ids.values.to_numpy()
        begins = offsets[row] + starts
        ends = offsets[row] + lasts + 1
        hashes = np.empty(len(row), np.uint64)
        _hash_spans(ids, begins, ends, hashes)
        order = np.lexsort((row, hashes))
        hashes, row = hashes[order], row[order]
        first = np.concatenate(([True], hashes[1:] != hashes[:-1]))  # of its surface
        once = first | np.concatenate(([True], row[1:] != row[:-1]))  # in its caption
        at = np.flatnonzero(first)
        counts = np.add.reduceat(once.astype(np.int64), at)
        for key, count, n in zip(hashes[at].tolist(), counts.tolist(), order[at], strict=True):
            self._captions[key] += count
            if key not in self._ids:
                self._ids[key] = ids[begins[n] : ends[n]].tolist()

    def frequent(self, least: float, tokenizer: Tokenizer) -> list[tuple[str, int]]:
        """Return the surfaces in at least `least` captions and their captions, most first.

        Surfaces with an unknown token are left out, since its text is not in the table.
        """
        written = {i: token.removeprefix("##") for token, i in tokenizer.vocab.items()}
        found = []
        for key, count in self._captions.most_common():
            if count < least:
                break
            tokens = [written[i] for i in self._ids[key]]
            if "[UNK]" not in tokens:
                found.append(("".join(tokens), count))
        return found


@jit
def _hash_spans(ids: Ids, begins: Ints, ends: Ints, hashes: NDArray[np.uint64]) -> None:
    """Hash `ids[begins[n]:ends[n]]` for each n.

    Args:
        ids: int32 (num_tokens,).
        begins: int64 (num_spans,), at least 0.
        ends: int64 (num_spans,), at most num_tokens.
        hashes: uint64 (num_spans,): receives the hashes.
    """
    for n in range(len(hashes)):
        hashes[n] = fnv1a(ids, begins[n], ends[n])
