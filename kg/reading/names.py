"""The second pass over dumps: cut out the names at known positions, in their normal form."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from data.errors import InputError
from data.names import Names
from data.tsv import open_bytes
from kg.arrays import Bytes, Ints
from kg.reading.dumps import Lines, csv_record
from kg.reading.graph_index import gather
from kg.reading.row_scanner import COMMA, TAB, cut_names, normal_forms, normalise


class ChunkPosition(NamedTuple):
    """Position of a chunk, to read it again."""

    path: Path
    offset: int  # in the unpacked file
    size: int
    base: int  # offset in all dumps, concatenated
    separator: int


def normal_names(names: Names) -> pa.LargeStringArray:
    """Return the names of an id file in their normal form, as `row_scanner.normalise`."""
    normal = []
    for lines, begin in names.blocks():
        cut = _cut(lines.tobytes(), TAB, begin, np.zeros_like(begin))
        normal.append(gather_names(*cut, np.arange(len(begin))))
    return pa.concat_arrays(normal)


def gather_names(names: Bytes, span: Ints, order: Ints) -> pa.LargeStringArray:
    """Return the names `names[span[i, 0]:span[i, 1]]`, for i in `order`, as strings."""
    data, offsets = gather(names, span, order)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(order), buffers)


def names_at(chunks: Iterable[ChunkPosition], positions: Ints) -> tuple[Bytes, Ints]:
    """Cut out the names at these positions.

    Args:
        chunks: All chunks of the dumps, ascending.
        positions: int64 `[n]`, distinct: `offset of the row * 4 + column`.

    Returns:
        names: uint8.
        span: int64 `[n, 2]`: name i is `names[span[i, 0]:span[i, 1]]`.

    Raises:
        InputError: A dump has changed since the first pass.
    """
    order = np.argsort(positions)
    wanted = positions[order]
    pieces: list[Bytes] = []
    span = np.empty((len(positions), 2), np.int64)
    used = done = 0
    bar = tqdm(desc="naming", unit=" names", unit_scale=True, total=len(positions), disable=None)
    with bar, ExitStack() as files:
        path, file = None, None
        for chunk in chunks:
            stop = int(np.searchsorted(wanted, (chunk.base + chunk.size) * 4))
            if stop == done:
                continue
            if path != chunk.path:
                files.close()
                path, file = chunk.path, files.enter_context(open_bytes(chunk.path))
            assert file is not None
            data = _read_again(file, chunk)
            part = wanted[done:stop]
            names, spans = _cut(data, chunk.separator, (part >> 2) - chunk.base, part & 3)
            span[order[done:stop]] = spans + used
            pieces.append(names)
            used += len(names)
            bar.update(stop - done)
            done = stop
    return np.concatenate(pieces), span


def _read_again(file: BinaryIO, chunk: ChunkPosition) -> bytes:
    file.seek(chunk.offset)
    data = file.read(chunk.size)
    data = data if data.endswith(b"\n") else data + b"\n"
    if len(data) != chunk.size:
        raise InputError(f"{chunk.path} changed while it was read. Start again.")
    return data


def _cut(data: bytes, separator: int, row: Ints, column: Ints) -> tuple[Bytes, Ints]:
    """Cut the names in these columns of these rows of a chunk; returns as `names_at`."""
    names, span, deferred = cut_names(
        np.frombuffer(data, np.uint8), row, column, separator, *normal_forms()
    )
    texts = {i: data[begin:end].decode() for i, begin, end in deferred.tolist()}
    if separator == COMMA and b'"' in data:
        texts |= _cut_quoted(data, row, column)
    if not texts:
        return names, span
    more = [normalise(text).encode() for text in texts.values()]
    end = len(names) + np.cumsum([len(name) for name in more], dtype=np.int64)
    place = list(texts)
    span[place, 1] = end
    span[place, 0] = np.concatenate([[len(names)], end[:-1]])
    return np.concatenate([names, np.frombuffer(b"".join(more), np.uint8)]), span


def _cut_quoted(data: bytes, row: Ints, column: Ints) -> dict[int, str]:
    """Return those of the names that are in a record with quotes, as written, by index."""
    lines = Lines.cut(data)
    line = np.searchsorted(lines.begin, row)
    quoted = np.isin(line, lines.with_byte(ord('"')))
    found = {}
    for i in np.flatnonzero(quoted).tolist():
        record, _ = csv_record(lines, int(line[i]), len(lines.begin))
        assert record is not None
        found[i] = record[column[i]]
    return found
