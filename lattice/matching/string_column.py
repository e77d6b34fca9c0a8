"""Arrow string columns as numpy arrays: bytes, code points, and hashes of their rows."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.jit import fnv1a, jit
from lattice.matching.arrays import Bytes, Codes, Ids, Ints


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


def code_points(column: pa.StringArray, separator: int) -> tuple[Codes, Ints]:
    """Return the code points of all texts, `separator` after each, and the end of each row."""
    content, offsets = string_buffers(column)
    num_bytes = int(offsets[-1] - offsets[0]) if len(column) else 0
    source = np.empty(num_bytes + len(column), np.uint32)
    row_ends = np.empty(len(column), np.int64)
    return source[: _decode(content, offsets, separator, source, row_ends)], row_ends


@jit
def _decode(content: Bytes, offsets: Ids, separator: int, source: Codes, row_ends: Ints) -> int:
    """Decode valid UTF-8 to code points and return their number.

    Args:
        content: uint8 (num_bytes,).
        offsets: Ascending positions of the rows in `content`; int32 (num_rows + 1,).
        separator: Follows each row.
        source: uint32, at least one element per byte and row: receives the code points, and
            `separator` after each row.
        row_ends: int64 (num_rows,): receives one past each row's separator.
    """
    count = 0
    for row in range(len(row_ends)):
        at, end = np.int64(offsets[row]), np.int64(offsets[row + 1])
        while at < end:
            first = np.uint32(content[at])
            width = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            if at + width > end:
                break
            if width == 1:
                code = first
            elif width == 3:
                middle, last = np.uint32(content[at + 1]), np.uint32(content[at + 2])
                code = (first & 0xF) << 12 | (middle & 0x3F) << 6 | (last & 0x3F)
            else:
                code = first & (0x1F if width == 2 else 0x7)
                for n in range(1, width):
                    code = code << 6 | (np.uint32(content[at + n]) & 0x3F)
            source[count] = code
            count += 1
            at += width
        source[count] = separator
        count += 1
        row_ends[row] = count
    return count
