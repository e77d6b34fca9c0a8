"""Arrow string columns as numpy arrays, and hashes of their rows."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.jit import fnv1a, jit
from lattice.matching.arrays import Bytes, Ids


def string_buffers(column: pa.StringArray) -> tuple[Bytes, Ids]:
    """Return the UTF-8 bytes of a column and the offsets of its rows; int32 (num_rows + 1,)."""
    _, offsets, data = column.buffers()
    at = column.offset
    return (
        np.frombuffer(data or b"", np.uint8),
        np.frombuffer(offsets, np.int32)[at : at + len(column) + 1],
    )


def hash_strings(column: pa.StringArray) -> NDArray[np.uint64]:
    """Return the FNV-1a hash of each string's UTF-8 bytes; uint64 (num_rows,)."""
    hashes = np.empty(len(column), np.uint64)
    _hash_strings(*string_buffers(column), hashes)
    return hashes


@jit
def _hash_strings(content: Bytes, offsets: Ids, hashes: NDArray[np.uint64]) -> None:
    """Fill `hashes`.

    Args:
        content: UTF-8 bytes of all rows; uint8 (num_bytes,).
        offsets: Ascending positions in `content`; int32 (num_rows + 1,).
        hashes: uint64 (num_rows,).
    """
    for row in range(len(hashes)):
        hashes[row] = fnv1a(content, offsets[row], offsets[row + 1])
