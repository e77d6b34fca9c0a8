"""Walk through folders of other people, in which folders may be links."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from data.errors import InputError


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder, as the prefix of its paths from `folder`, and its file names, sorted.

    Links to folders are followed, after the real ones; each folder is entered once, so that links
    in a circle end.

    Raises:
        InputError: A folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    pending = [str(folder)]
    while pending:
        for here, folders, files in os.walk(pending.pop(0), onerror=_refuse):
            about = Path(here).stat()
            if (about.st_dev, about.st_ino) in seen:
                folders.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            folders.sort()
            paths = (Path(here, name) for name in folders)
            pending += [str(path) for path in paths if path.is_symlink()]
            below = os.path.relpath(here, folder).replace(os.sep, "/")
            yield "" if below == "." else f"{below}/", sorted(files)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from None
