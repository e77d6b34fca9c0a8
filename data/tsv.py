"""Read rows of tab-separated text strictly, without quoting or guessing.

A row ends at `\\n` (or `\\r\\n`) and a field at `\\t`; every other character is text, quotes too.
Unusable rows go to `Rejects`, which counts them by reason and optionally writes them to a file; it
also counts rows that look quoted.
"""

import bz2
import contextlib
import gzip
import importlib.util
import io
import lzma
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from data.encoding import ESCAPE
from data.errors import InputError, SkipReason
from data.quoted_rows import QuotedRows

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BOM = b"\xef\xbb\xbf"
_MAGIC = {  # format of a compressed file -> its first bytes; none of them begins a text
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
_START = 512  # bytes that identify the format of a file
_BLOCK = 1 << 17  # bytes decompressed at once
LONGEST_LINE = 1 << 30  # bytes
NOT_UTF8, NUL, BLANK = map(SkipReason, ("not UTF-8", "NUL character", "blank line"))
HEADER = SkipReason("header")
_BREAKS = str.maketrans(dict.fromkeys("\t\n\r", " "))
_ALL_BAD = 20  # this many undecodable rows and no good one: the file has another encoding
_OTHER_FILES = {  # first bytes -> what it is, and what to do
    b"PAR1": "a Parquet file; `data convert` reads those of captions and images",
    b"ARROW1": "an Arrow file; write it as TSV",
    b"PK\x03\x04": "a zip archive or an Excel file; unzip it, or save the sheet as TSV",
    b"\xd0\xcf\x11\xe0": "an Excel 97 file; save the sheet as TSV",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"SQLite format 3": "an SQLite database; export it as TSV",
    b"\x89HDF": "an HDF5 file",
    b"%PDF-": "a PDF document",
}
# Names of the columns of captions, in a first line that is a header.
_HEADER_OF_IDS = frozenset(
    {"", "idx", "id", "index", "key", "image_id", "img_id", "image", "text_id", "query_id",
     "file_name", "filename", "unnamed: 0", "序号", "编号"}
)  # fmt: skip
_HEADER_OF_TEXTS = frozenset(
    {"text", "texts", "caption", "captions", "query_text", "query", "sentence", "title", "prompt",
     "文本", "描述", "标题", "句子"}
)  # fmt: skip


class Row(NamedTuple):
    """One line of a file: its number, counted from 1, and its fields."""

    line: int
    fields: list[str]


class Rejected(NamedTuple):
    """A skipped row: its line, counted from 1, why, and its text."""

    line: int
    reason: SkipReason
    row: str


def is_caption_header(fields: Sequence[str]) -> bool:
    """Return whether a first row names columns, such as `idx<TAB>text`, and is not a caption."""
    if len(fields) < 2:
        return False
    idx, text = (field.strip().strip('"').lower() for field in fields[:2])
    return idx in _HEADER_OF_IDS and text in _HEADER_OF_TEXTS


class Rejects:
    """Rejected rows: counted by reason, and written to `path` (`line<TAB>reason<TAB>row`) if given.

    The file is created with the first row; each row is cut to 200 characters. Where several files
    are read, set `source` to the name of each: it is written before the line.

    Attributes:
        path: The file.
        source: The name of the file that is read, if there are several.
        reasons: Rejected rows by the kind of their reason.
        first: Line and reason of the first.
        quoted: The rows that look quoted, which are not rejected.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.source = ""
        self.reasons: Counter[str] = Counter()
        self.first = ""
        self.quoted = QuotedRows()
        if path is not None:
            path.unlink(missing_ok=True)

    @property
    def count(self) -> int:
        """Return the number of rejected rows."""
        return self.reasons.total()

    def add(self, line: int, reason: SkipReason, row: str) -> None:
        """Reject a row; rows are counted by the kind of their reason."""
        self.add_all([Rejected(line, reason, row)])

    def add_all(self, rejected: Iterable[Rejected]) -> None:
        """Reject several rows."""
        lines = []
        name, column = (f"{self.source}, ", f"{self.source}\t") if self.source else ("", "")
        for line, reason, row in rejected:
            self.reasons[reason.kind] += 1
            self.first = self.first or f"{name}line {line}: {reason}"
            row = row[:200].replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")
            lines.append(f"{column}{line}\t{reason}\t{row}\n")
        if self.path is not None and lines:
            with self.path.open("a", encoding="utf-8", errors=ESCAPE, newline="\n") as file:
                file.writelines(lines)


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading bytes; gzip, bzip2, zstd and xz, by their first bytes, are unpacked.

    Raises:
        InputError: It does not exist, is a folder, UTF-16 or no text at all, or cannot be read. A
            damaged compressed file raises it during reading.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; a file is expected.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        start = file.read(_START)
        file.seek(0)
        kind = _compression_of(start)
        if kind:
            file.close()
            file = io.BufferedReader(_Decompressed(path, kind), _BLOCK)
            # Damage is an error of reading, which counts the lines before it.
            with contextlib.suppress(InputError), _Decompressed(path, kind) as unpacked:
                start = unpacked.read(_START) or b""
        _check_text(path, start)
    except OSError as error:
        file.close()
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except InputError:
        file.close()
        raise
    return file


def _check_text(path: Path, start: bytes) -> None:
    """Refuse a file whose first bytes are not of a text in UTF-8."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}.")
    if start[257:262] == b"ustar":
        raise InputError(f"{path} is a tar archive; unpack it first: tar -xf {path}.")
    for first, what in _OTHER_FILES.items():
        if start.startswith(first):
            raise InputError(f"{path} is not a text file but {what}.")


def compression(path: Path) -> str:
    """Return how a file is compressed, by its first bytes: gzip, bzip2, zstd, xz; or ""."""
    with path.open("rb") as file:
        return _compression_of(file.read(_START))


def _compression_of(first: bytes) -> str:
    return next((kind for kind, magic in _MAGIC.items() if magic.match(first)), "")


def _decompressor(path: Path, kind: str) -> Any:
    """Open a compressed file; bzip2 in parallel where the package indexed_bzip2 is installed."""
    if kind == "gzip":
        return gzip.GzipFile(path)
    if kind == "xz":
        return lzma.LZMAFile(path)
    if kind == "zstd":
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdFile
        else:
            from backports.zstd import ZstdFile

        return ZstdFile(path)
    cores = len(os.sched_getaffinity(0))
    if cores > 1 and importlib.util.find_spec("indexed_bzip2"):
        import indexed_bzip2

        return indexed_bzip2.open(str(path), parallelization=cores)
    return bz2.BZ2File(path)


class _Decompressed(io.RawIOBase):
    """The content of a compressed file. Damage raises `InputError` with the last line."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self._file = _decompressor(path, kind)
        self._read = getattr(self._file, "read1", self._file.read)
        self._lines: int | None = 0  # read so far; unknown after a seek

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read into the buffer; return the number of bytes, 0 at the end."""
        view = memoryview(buffer)
        with self._intact():
            data = self._read(min(len(view), _BLOCK))
        view[: len(data)] = data
        if self._lines is not None:
            self._lines += data.count(b"\n")
        return len(data)

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._lines = None
        with self._intact():
            return int(self._file.seek(offset, whence))

    def close(self) -> None:
        self._file.close()
        super().close()

    @contextlib.contextmanager
    def _intact(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each decompressor has exceptions of its own
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise  # of the machine, not of the file
            after = f" after line {self._lines}" if self._lines else ""
            raise InputError(
                f"{self._path} is a damaged {self._kind} file{after}: {error}. Fetch it again."
            ) from None


def read_start(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, decompressed if it is compressed.

    Raises:
        InputError: It cannot be read, or is damaged.
    """
    with open_bytes(path) as file:
        return file.read(size)


def is_utf8(raw: bytes) -> bool:
    """Return whether the bytes are valid UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def one_line(text: str) -> str:
    """Return the text with tabs and line ends replaced by spaces, so that it can be a field."""
    return text.translate(_BREAKS)


def bounded_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; their length is bounded.

    Raises:
        InputError: A line is longer than 1 GiB; the message names `path`.
    """
    for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise InputError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes.")
        yield line


def wrong_column_count(found: int, expected: str) -> SkipReason:
    """Return the reason of a row with another number of columns than expected."""
    return SkipReason("wrong column count", f"{found}, expected {expected}")


def read_rows(
    path: Path, columns: Collection[int], rejects: Rejects, *, header: bool = False
) -> Iterator[Row]:
    """Yield the rows of a TSV file that have one of the given numbers of columns.

    A byte-order mark at the start and a carriage return at the end of a line are removed. Rows with
    another number of columns, invalid UTF-8 or a NUL, and blank lines are rejected; so is a first
    row that only names the columns of captions, unless `header`.

    Raises:
        InputError: The file is missing, empty, entirely not UTF-8, a damaged gzip, or its lines
            end with CR alone.
    """
    want = " or ".join(str(n) for n in sorted(columns))
    line = good = undecodable = 0
    with open_bytes(path) as file:
        for line, raw in enumerate(bounded_lines(file, path), 1):
            if line == 1:
                _check_line_ends(path, raw)
                raw = raw.removeprefix(_BOM)
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            if b'"' in raw:
                rejects.quoted.add(line, raw)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                undecodable += 1
                if not good and undecodable == _ALL_BAD:
                    raise InputError(
                        f"{path} is not UTF-8 (line {line}: {error.reason} at byte "
                        f"{error.start}). If it is GBK: iconv -f GB18030 -t UTF-8 {path}."
                    ) from None
                rejects.add(line, NOT_UTF8, raw.decode("utf-8", "replace"))
                continue
            fields = text.split("\t")
            if not text.strip():
                rejects.add(line, BLANK, text)
            elif "\0" in text:
                rejects.add(line, NUL, text)
            elif len(fields) not in columns:
                rejects.add(line, wrong_column_count(len(fields), want), text)
            elif line == 1 and not header and is_caption_header(fields):
                rejects.add(line, HEADER, text)
            else:
                good += 1
                yield Row(line, fields)
    if line == 0:
        raise InputError(f"{path} is empty.")
    if not good and undecodable == line:
        raise InputError(f"{path} is not UTF-8. If it is GBK: iconv -f GB18030 -t UTF-8 {path}.")


def _check_line_ends(path: Path, first: bytes) -> None:
    """Refuse a file whose lines end with CR alone: it would be read as a single row."""
    rows = first.rstrip(b"\r").split(b"\r")
    tabs = rows[0].count(b"\t")
    if (
        not first.endswith(b"\n")
        and len(rows) > 1
        and all(r.count(b"\t") == tabs > 0 for r in rows)
    ):
        raise InputError(f"{path}: the lines end with CR alone. Convert it: tr '\\r' '\\n'.")
