"""Names by id without a Python object per name.

`Names` holds the bytes of an OpenKE id file, usually memory-mapped, and the offset of each line.
Looking up a name, or similar spellings, scans the bytes.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.errors import ArtefactError
from data.jit import jit

Ints = NDArray[np.int64]

_NEWLINE, _TAB = 10, 9
_CLOSING = ("）", ")", "]", "】", "〕", " ")
_BRACKETED = re.compile(
    r"(.+?)\s*(?:[（(][^（）()]*[）)]|\[[^\[\]]*\]|【[^【】]*】|〔[^〔〕]*〕)\s*"
)
_BLOCK = 1 << 20  # names written or converted at a time
_SEARCHED = 1 << 18  # bytes searched at a time
_LONGEST = 64  # code points; longer names are not compared


class Names(Sequence[str]):
    """Names by id, and ids by name: a sequence of strings that are created on access.

    Args:
        lines: `name<TAB>id<NEWLINE>` for ids 0..n-1, after a first line with their count.
        start: Offset of each name, and the end of the last line: int64 `[n + 1]`.
    """

    def __init__(self, lines: Any, start: Ints) -> None:
        self._lines = lines  # bytes or a memory map; both have `find`
        self._data = np.frombuffer(lines, np.uint8)
        self._start = start

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Return these names, which contain no tab and no line break."""
        array = as_array(names)
        lines = b"".join([f"{len(array)}\n".encode(), *lines_of(array)])
        start = index_lines(np.frombuffer(lines, np.uint8), lines.index(b"\n") + 1, len(array))
        assert len(start), "a name contains a control character"
        return cls(lines, start)

    @classmethod
    def parse(cls, lines: Any) -> "Names | None":
        """Return the names of a whole id file, or None if it is not in the exact form of `lines`.

        Args:
            lines: bytes, or a `mmap.mmap`.
        """
        head = lines.find(b"\n") + 1
        if not head or not bytes(lines[: head - 1]).isdigit():
            return None
        data = np.frombuffer(lines, np.uint8)
        count = int(lines[: head - 1])
        if not 0 < count < len(data) or data[-1] != _NEWLINE:
            return None
        with ThreadPoolExecutor(1) as pool:
            text = pool.submit(_is_utf8, data)
            start = index_lines(data, head, count)
        if not len(start) or not text.result():
            return None
        return cls(lines, start)

    def __len__(self) -> int:
        return len(self._start) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[n] for n in range(*i.indices(len(self)))]
        i = int(i) + (len(self) if i < 0 else 0)
        if not 0 <= i < len(self):
            raise IndexError(f"id {i} of {len(self)} names")
        return self._name_of(i)

    def _name_of(self, i: int) -> str:
        """Return the name of an id in the range."""
        line = self._data[self._start[i] : self._start[i + 1]].tobytes()
        return line[: line.index(b"\t")].decode()

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _BLOCK):
            yield from self.to_arrow(begin, begin + _BLOCK).to_pylist()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def find(self, name: str) -> int | None:
        """Return the lowest id of a name; None if it is unknown."""
        at = self._line_of(name)
        return None if at is None else int(np.searchsorted(self._start, at))

    def _line_of(self, name: str) -> int | None:
        """Return the offset of the first line with a name; None if it is unknown."""
        wanted = b"\n" + name.encode() + b"\t"
        if "\t" in name or "\n" in name:
            return None
        for begin in range(0, len(self._lines), _SEARCHED):
            # In copies that fit the cache: `find` of a memory map is slower.
            at = bytes(self._lines[begin : begin + _SEARCHED + len(wanted)]).find(wanted)
            if at >= 0:
                return begin + at + 1
        return None

    def index(self, name: str, start: int = 0, stop: int = sys.maxsize) -> int:
        """Return the id of a name, as `Sequence.index`."""
        found = self.find(name)
        if found is None or not start <= found < stop:
            raise ValueError(f"{name!r} is not in the names")
        return found

    def to_arrow(self, begin: int = 0, end: int | None = None) -> pa.LargeStringArray:
        """Return the names of ids `begin..end - 1`, in memory."""
        start = self._start[begin : len(self) + 1 if end is None else end + 1]
        buffers = [None, pa.py_buffer(np.ascontiguousarray(start)), pa.py_buffer(self._data)]
        lines = pa.Array.from_buffers(pa.large_string(), len(start) - 1, buffers)
        return pc.replace_substring_regex(lines, r"\t\d+\n", "")

    def blocks(self) -> Iterator[tuple[NDArray[np.uint8], Ints]]:
        """Yield a million lines `name<TAB>id<NEWLINE>` at a time: their bytes and offsets."""
        for begin in range(0, len(self), _BLOCK):
            start = self._start[begin : begin + _BLOCK + 1]
            yield self._data[start[0] : start[-1]], start[:-1] - start[0]

    def similar(self, name: str, count: int = 3) -> list[str]:
        """Return names that are this one and a bracket, then those of most similar spelling.

        At most half of the characters may differ (Levenshtein). Ties: the lowest id first.
        """
        if not 0 < len(name) <= _LONGEST:
            return []
        codes = np.array([ord(c) for c in name], np.int64)
        raw = np.frombuffer(name.encode(), np.uint8)
        near = _similar(self._data, self._start, codes, raw, len(name) // 2, count)
        return [self[i] for i in near.tolist() if i >= 0]


class MappedNames(Names):
    """Names of an id file that this toolkit wrote, which is therefore not checked.

    Nothing is read before it is needed: a name is found by scanning the bytes, an id by bisection,
    since lines are in the order of their ids. The offsets of all lines are found when needed.

    Args:
        lines: As `Names`; bytes or a memory map.

    Raises:
        ValueError: The count on the first line and the last id differ.
    """

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self._data = np.frombuffer(lines, np.uint8)
        self._head = lines.find(b"\n") + 1
        self._count = int(lines[: self._head])
        if self._id_at(lines.rfind(b"\n", 0, len(lines) - 1) + 1) != self._count - 1:
            raise ValueError("the count differs from the last id")

    @cached_property
    def _start(self) -> Ints:  # type: ignore[override]
        start: Ints = index_lines(self._data, self._head, self._count)
        if not len(start):
            raise ArtefactError("the file of entity names was changed after it was written.")
        return start

    def __len__(self) -> int:
        return self._count

    def _name_of(self, i: int) -> str:
        low, high = self._head, len(self._lines)
        while True:  # the line of i begins in [low, high)
            at = self._lines.rfind(b"\n", 0, (low + high + 1) // 2) + 1
            at = max(at, low)
            found = self._id_at(at)
            if found == i:
                return bytes(self._lines[at : self._lines.find(b"\t", at)]).decode()
            if found < i:
                low = self._lines.find(b"\n", at) + 1
            else:
                high = at

    def find(self, name: str) -> int | None:
        """Return the lowest id of a name; None if it is unknown."""
        at = self._line_of(name)
        return None if at is None else self._id_at(at)

    def _id_at(self, at: int) -> int:
        """Return the id on the line that begins at an offset."""
        end = self._lines.find(b"\n", at)
        return int(self._lines[self._lines.find(b"\t", at, end) + 1 : end])


def without_bracket(name: str) -> str | None:
    """Return `刘德华` for `刘德华（演员）`, and None for a name that does not end in a bracket.

    Brackets are `（）`, `()`, `[]`, `【】` and `〔〕`.
    """
    bracketed = _BRACKETED.fullmatch(name) if name[-1:] in _CLOSING else None
    return bracketed[1] if bracketed else None


def as_array(names: Iterable[str] | pa.Array) -> pa.LargeStringArray:
    """Return strings as an Arrow array."""
    if isinstance(names, pa.Array):
        return names.cast(pa.large_string())
    return pa.array(names, pa.large_string())


def lines_of(names: Iterable[str] | pa.Array) -> Iterator[bytes]:
    """Yield the lines `name<TAB>id` of an id file in blocks."""
    array = as_array(names)
    tab, newline, nothing = (pa.scalar(text, pa.large_string()) for text in ("\t", "\n", ""))
    for begin in range(0, len(array), _BLOCK):
        block = array.slice(begin, _BLOCK)
        ids = pa.array(np.arange(begin, begin + len(block))).cast(pa.large_string())
        lines = pc.binary_join_element_wise(block, tab, ids, newline, nothing)
        yield lines.buffers()[2].to_pybytes()


def _is_utf8(data: NDArray[np.uint8]) -> bool:
    offsets = pa.py_buffer(np.array([0, len(data)]))
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@jit
def index_lines(data: Any, head: Any, count: Any) -> Any:
    """Return the offset of each line `name<TAB>id<NEWLINE>`, and the end: int64 `[count + 1]`.

    Empty if the data are not exactly `count` such lines with ids 0, 1, 2 ...

    Args:
        data: The bytes of an id file, uint8; they end in a newline.
        head: End of the first line.
        count: Number of names on the first line.
    """
    start = np.empty(count + 1, np.int64)
    start[0] = at = head
    wrong = start[:0]
    digits, next_power = 1, 10
    for i in range(count):
        if i == next_power:
            digits += 1
            next_power *= 10
        while at < len(data) and data[at] > _NEWLINE:  # control characters: see _read_names
            at += 1
        if at + digits + 1 >= len(data) or data[at] != _TAB or data[at + digits + 1] != _NEWLINE:
            return wrong
        number = i
        for k in range(digits, 0, -1):
            if np.int64(data[at + k]) != 48 + number % 10:
                return wrong
            number //= 10
        at += digits + 2
        start[i + 1] = at
    return start if at == len(data) else wrong


@jit
def _distance(a: Any, size: Any, b: Any, limit: Any, row: Any) -> Any:
    """Return the Levenshtein distance of `a[:size]` and `b`, or any number above `limit`."""
    for j in range(len(b) + 1):
        row[j] = j
    for i in range(size):
        corner = row[0]
        row[0] = i + 1
        least = i + 1
        for j in range(len(b)):
            step = min(row[j], row[j + 1]) + 1
            step = min(step, corner + (a[i] != b[j]))
            corner = row[j + 1]
            row[j + 1] = step
            least = min(least, step)
        if least > limit:
            return least
    return row[len(b)]


@jit
def _opens_bracket(data: Any, at: Any) -> Any:
    """Return whether `data[at]` begins one of ( [ 【 〔; `data` is UTF-8 and ends in a newline."""
    if data[at] == 0xE3 and data[at + 1] == 0x80:
        return data[at + 2] == 0x90 or data[at + 2] == 0x94
    return data[at] == 40 or data[at] == 91


@jit
def _similar(data: Any, start: Any, codes: Any, raw: Any, limit: Any, count: Any) -> Any:
    """Return the `count` ids nearest to a name (code points and bytes); -1 if there are fewer."""
    ids = np.full(count, -1, np.int64)
    far = np.full(count, limit + 1, np.int64)
    word = np.empty(len(codes) + limit + 1, np.int64)
    row = np.empty(len(codes) + 1, np.int64)
    for n in range(len(start) - 1):
        at = start[n]
        same = 0
        while same < len(raw) and data[at + same] == raw[same]:
            same += 1
        after = at + same
        if same == len(raw) and data[after] == 32:
            after += 1
        if same == len(raw) and _opens_bracket(data, after):
            distance = 0
        else:
            size = 0
            while data[at] != _TAB and size < len(word):
                byte = np.int64(data[at])
                length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                code = byte if length == 1 else byte & (0xFF >> (length + 1))
                for k in range(1, length):
                    code = code << 6 | np.int64(data[at + k]) & 0x3F
                word[size] = code
                size += 1
                at += length
            if data[at] != _TAB or size + limit < len(codes):
                continue
            distance = _distance(word, size, codes, far[count - 1] - 1, row)
        place = count
        while place > 0 and distance < far[place - 1]:
            place -= 1
        if place < count:
            for k in range(count - 1, place, -1):
                ids[k] = ids[k - 1]
                far[k] = far[k - 1]
            ids[place] = n
            far[place] = distance
    return ids
