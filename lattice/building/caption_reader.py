"""Read a caption file by columns, in chunks; the rows equal those of `data.tsv.read_rows`.

The line ends and tabs of a chunk are found at once, and Arrow slices the columns out of it; only
rejected lines are processed one by one. Images are decoded here, in threads.
"""

import binascii
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.encoding import has_surrogates
from data.errors import InputError, RowError
from data.images import check_image, decode_base64, decode_image
from data.schema import IMAGE
from data.tsv import (
    BLANK,
    HEADER,
    LONGEST_LINE,
    NOT_UTF8,
    NUL,
    Rejects,
    is_caption_header,
    is_utf8,
    open_bytes,
    read_rows,
    wrong_column_count,
)

CAPTIONS = pa.schema([("idx", pa.string()), ("text", pa.string())])

_BATCH_ROWS = 4096  # the arrays of a batch of captions fit the processor's cache
_TEXT_CHUNK = 4 << 20  # bytes per read
_IMAGE_CHUNK = 32 << 20
_IMAGE_TASK = 64  # images per task of a thread
_LOOK_AHEAD = 100  # rows that determine whether the file has images
_LONGEST_HEADER = 1000  # bytes
_BOM = b"\xef\xbb\xbf"


class Batch(NamedTuple):
    """Usable rows of a corpus.

    Attributes:
        lines: The line of each row in its file, from 1; int64.
        captions: Columns `idx`, `text` and optionally `image`.
        encoded: The images in base64 as in the file, or None.
    """

    lines: NDArray[np.int64]
    captions: pa.RecordBatch
    encoded: list[memoryview] | None


class Chunk(NamedTuple):
    """Complete lines of a corpus, each ended by a line feed.

    Attributes:
        line: The number of the first line, from 1.
        content: Their bytes.
    """

    line: int
    content: bytes


def check_unicode(text: str) -> None:
    """Check a text given on the command line.

    Raises:
        InputError: It has surrogates, which come from a shell that is not UTF-8.
    """
    if has_surrogates(text):
        raise InputError(f"the text {text!r} is not valid Unicode.")


def num_columns(path: Path) -> int:
    """Return the number of columns, 2 or 3 (with images), of most of the first hundred rows.

    Raises:
        InputError: The file is missing, empty, not UTF-8 or a damaged gzip.
    """
    head = islice(read_rows(path, (2, 3), Rejects()), _LOOK_AHEAD)
    forms = Counter(len(row.fields) for row in head)
    return 3 if forms[3] > forms[2] else 2


def read_captions(path: Path, rejects: Rejects, check_images: str) -> Iterator[Batch]:
    """Yield the usable rows of a corpus in batches bounded in rows and bytes; see `batches`.

    Raises:
        InputError: The file is missing, empty, not UTF-8, a damaged gzip, or has an endless row.
    """
    columns = num_columns(path)
    for chunk in read_chunks(path, columns):
        yield from batches(chunk, columns, rejects, check_images)


def batches(
    chunk: Chunk,
    columns: int,
    rejects: Rejects,
    check_images: str,
    pool: ThreadPoolExecutor | None = None,
) -> Iterator[Batch]:
    """Yield the usable rows of a chunk.

    Args:
        chunk: Lines.
        columns: The number of columns of a usable row.
        rejects: Receives all other rows.
        check_images: `full` decodes every image; `header` only reads its size.
        pool: Threads that check images.
    """
    cut = _cut(chunk.content, chunk.line, columns, rejects)
    if columns == 3:
        yield from _with_images(cut, check_images, pool, rejects)
        return
    for begin in range(0, len(cut.lines), _BATCH_ROWS):
        rows = slice(begin, begin + _BATCH_ROWS)
        yield Batch(cut.lines[rows], cut.captions.slice(begin, _BATCH_ROWS), None)


class _Columns(NamedTuple):
    lines: NDArray[np.int64]
    captions: pa.RecordBatch
    images: list[memoryview]


def read_chunks(path: Path, columns: int) -> Iterator[Chunk]:
    """Yield a corpus in chunks of some megabytes.

    Raises:
        InputError: The file is missing, a damaged gzip, or has an endless row.
    """
    size = _IMAGE_CHUNK if columns == 3 else _TEXT_CHUNK
    line = 1
    rest: list[bytes] = []  # of an incomplete row; joined once, however long
    with open_bytes(path) as file:
        read = file.read(size).removeprefix(_BOM)
        while read:
            end = read.rfind(b"\n") + 1
            if end:
                chunk = b"".join((*rest, read[:end]))
                yield Chunk(line, chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk)
                line += chunk.count(b"\n")
                rest.clear()
            rest.append(read[end:])
            if sum(map(len, rest)) > LONGEST_LINE:
                raise InputError(f"{path}:{line}: this row is longer than 1 GiB.")
            read = file.read(size)
    last = b"".join(rest)
    if last:
        yield Chunk(line, last.removesuffix(b"\r") + b"\n")


def _cut(chunk: bytes, first_line: int, columns: int, rejects: Rejects) -> _Columns:
    """Return the columns of a chunk; add unusable lines to `rejects`."""
    data = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    begins = np.concatenate(([0], ends[:-1] + 1))
    tabs = np.flatnonzero(data == ord("\t"))
    tabs_to = np.searchsorted(tabs, ends)
    first_tab = np.concatenate(([0], tabs_to[:-1]))
    good = tabs_to - first_tab == columns - 1
    if b"\0" in chunk:
        good[np.searchsorted(ends, np.flatnonzero(data == 0))] = False
    if not is_utf8(chunk):
        for n, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            good[n] &= is_utf8(chunk[begin:end])
    if first_line == 1 and good[:1].any() and _is_header(chunk[: ends[0]]):
        good[0] = False
    for n in np.flatnonzero(~good).tolist():
        _reject(chunk[begins[n] : ends[n]], first_line + n, columns, rejects)

    begins, ends, tab = begins[good], ends[good], tabs[first_tab[good]]
    last = ends if columns == 2 else tabs[first_tab[good] + 1]
    # The chunk as strings: idx, tab, text, the rest up to the next row; and so on.
    offsets = np.stack((begins, tab, tab + 1, last), axis=1).reshape(-1)
    offsets = np.append(offsets, len(chunk)).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(chunk)]
    pieces = pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)
    places = np.arange(len(begins)) * 4
    captions = pa.RecordBatch.from_arrays(
        [pieces.take(pa.array(places)), pieces.take(pa.array(places + 2))], schema=CAPTIONS
    )
    images = []
    if columns == 3:
        view = memoryview(chunk)
        images = [view[b + 1 : e] for b, e in zip(last.tolist(), ends.tolist(), strict=True)]
    return _Columns(first_line + np.flatnonzero(good), captions, images)


def _is_header(raw: bytes) -> bool:
    return len(raw) < _LONGEST_HEADER and is_caption_header(raw.decode("utf-8").split("\t"))


def _reject(raw: bytes, line: int, columns: int, rejects: Rejects) -> None:
    """Reject a line, with the reason that `data.tsv` gives."""
    text = raw.decode("utf-8", "replace")
    if not is_utf8(raw):
        rejects.add(line, NOT_UTF8, text)
    elif not text.strip():
        rejects.add(line, BLANK, text)
    elif "\0" in text:
        rejects.add(line, NUL, text)
    elif line == 1 and _is_header(raw):
        rejects.add(line, HEADER, text)
    else:
        expected = f"{columns} as most of the first rows have"
        rejects.add(line, wrong_column_count(text.count("\t") + 1, expected), text)


def _with_images(
    columns: _Columns, check_images: str, pool: ThreadPoolExecutor | None, rejects: Rejects
) -> Iterator[Batch]:
    kept: list[int] = []
    encoded: list[memoryview] = []
    contents: list[bytes] = []
    # A task per image would cost more than its work.
    groups = [
        columns.images[n : n + _IMAGE_TASK] for n in range(0, len(columns.images), _IMAGE_TASK)
    ]
    check = partial(_check_group, decode_image if check_images == "full" else check_image)
    checked = map(check, groups) if pool is None else pool.map(check, groups)
    for n, (text, content) in enumerate(chain.from_iterable(checked)):
        if isinstance(content, RowError):
            row = [*(c[n].as_py() for c in columns.captions), str(text[:200], "utf-8", "replace")]
            rejects.add(int(columns.lines[n]), content.reason, "\t".join(row))
        else:
            kept.append(n)
            encoded.append(text)
            contents.append(content)
    if not kept:
        return
    captions = columns.captions.take(pa.array(kept))
    image = pa.StructArray.from_arrays(
        [pa.array(contents, pa.binary()), pa.nulls(len(kept), pa.string())], fields=list(IMAGE.type)
    )
    yield Batch(
        columns.lines[kept],
        pa.RecordBatch.from_arrays([*captions.columns, image], schema=CAPTIONS.append(IMAGE)),
        encoded,
    )


def _check_group(
    look: Callable[[bytes], object], images: list[memoryview]
) -> list[tuple[memoryview, bytes | RowError]]:
    return [_check(image, look) for image in images]


def _check(
    encoded: memoryview, look: Callable[[bytes], object]
) -> tuple[memoryview, bytes | RowError]:
    """Return the base64 text, and its image or the error."""
    try:
        content = _decode_base64(encoded)
        look(content)
    except RowError as error:
        return encoded, error
    return encoded, content


def _decode_base64(encoded: memoryview) -> bytes:
    """As `data.images.decode_base64`, faster for the standard alphabet."""
    if len(encoded):
        with contextlib.suppress(binascii.Error):
            return binascii.a2b_base64(encoded, strict_mode=True)
    return decode_base64(str(encoded, "utf-8"))
