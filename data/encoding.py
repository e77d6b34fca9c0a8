"""Text that is not valid Unicode: file names in GBK, arguments of a shell that is not UTF-8.

Python holds undecodable bytes of a path or an argument as surrogates, which UTF-8 cannot encode.
`ESCAPE` is an error handler that writes them, and characters that an output's encoding lacks, as in
JSON: `\\udcba`.
"""

import codecs
import contextlib
import locale
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ESCAPE = "escape-as-json"
_FALLBACK = "backslashreplace"  # until `escape_output`


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2)), error.end


codecs.register_error(ESCAPE, _escape)


def has_surrogates(text: str) -> bool:
    """Return whether a text contains surrogates, so that it is not valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def readable(name: str) -> str:
    """Return a file name without surrogates: its bytes as GBK if they are, else escaped."""
    if not has_surrogates(name):
        return name
    try:
        return os.fsencode(name).decode("gb18030")
    except UnicodeError:
        return name.encode("utf-8", ESCAPE).decode()


@contextlib.contextmanager
def unicode_path(path: Path, *, write: bool = False) -> Iterator[Path]:
    """Yield a path of a file for a library that takes valid Unicode only (Arrow, safetensors).

    A path with other bytes is opened, and the path of its descriptor is yielded (Linux). The
    library may keep the file open.

    Args:
        path: The file.
        write: Create it.
    """
    if not has_surrogates(str(path)):
        yield path
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY, 0o666)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def argument_text(text: str) -> str:
    """Return a text of the command line, whose bytes are UTF-8 or in the locale's encoding."""
    if has_surrogates(text):
        for encoding in ("utf-8", locale.getencoding()):
            with contextlib.suppress(UnicodeError):
                return os.fsencode(text).decode(encoding)
    return text


def use_utf8_mode() -> None:
    """Start this program again in Python's UTF-8 mode, unless its paths are UTF-8 already.

    Elsewhere Python and Arrow would give the same path to the system in different encodings.
    Output keeps the locale's encoding.
    """
    if sys.getfilesystemencoding() != "utf-8":
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        # The variable is for further processes; with -E this one reads the option only.
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:{_FALLBACK}"}
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def escape_output() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=ESCAPE)
