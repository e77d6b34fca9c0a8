"""Images of a dataset, in files or as base64 rows of a TSV: found by name, read on demand.

A store holds the position of each image (about 40 bytes each for a TSV), not the images. Images may
be read in any thread.
"""

import os
from array import array
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from data.datasets.captions import stem
from data.datasets.file_names import image_files
from data.encoding import readable
from data.errors import InputError, RowError
from data.images import decode_base64
from data.runs import sha256
from data.tsv import bounded_lines, compression

MAX_BYTES = 256 << 20  # largest encoded image


class ImageStore(Protocol):
    """Images by name.

    Attributes:
        path: The folder or file.
        description: What was found, for messages.
        duplicates: Images with the name of another image.
    """

    path: Path
    description: str
    duplicates: int

    def __len__(self) -> int: ...

    def find(self, name: str) -> int | None:
        """Return the number of the image of that name; None for no or several such images."""

    def read(self, number: int) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            RowError: It cannot be read, or is not base64.
        """

    def fingerprint(self) -> str:
        """Return a fingerprint of all images, for a manifest."""

    def close(self) -> None:
        """Close open files, if any."""
        return


class FolderStore(ImageStore):
    """The image files of a folder and its subfolders.

    A name may be a path below the folder, a file name, or a file name without its ending. A name
    that matches several files (`a.jpg` in two folders) or another folder than the file's is not
    found. File names in GBK, as archives made on Windows leave them, are found by their text.
    Links to folders are followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths: list[str] = []
        self._numbers: dict[str, int] = {}
        self._real: dict[str, int] = {}  # by the path without links; made when it is needed
        self.duplicates = 0
        for below in image_files(path):
            self._add(below)
        self.description = f"{len(self.paths):,} images in {path}"

    def _add(self, below: str) -> None:
        number = len(self.paths)
        self.paths.append(below)
        below = readable(below)
        for name in {below, below.rpartition("/")[2], stem(below)}:
            known = self._numbers.setdefault(name, number)
            if known != number:
                self._numbers[name] = -1
                self.duplicates += name == below.rpartition("/")[2]
        self._numbers[below] = number  # a whole path is never ambiguous

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, name: str) -> int | None:
        """See `ImageStore`."""
        name = name.replace("\\", "/").removeprefix("./")
        for form in (name, name.rpartition("/")[2], stem(name)):
            number = self._numbers.get(form)
            if number is not None and number >= 0 and _agree(name, readable(self.paths[number])):
                return number
            if number is not None:
                break
        return self._by_link(name)

    def _by_link(self, name: str) -> int | None:
        """Return the image at a path that goes through a link to a folder that was entered."""
        if "/" not in name or not os.path.isfile(self.path / name):  # noqa: PTH113 (odd names)
            return None
        if not self._real:
            resolved = cache(os.path.realpath)
            for number, path in enumerate(self.paths):
                below, _, file = path.rpartition("/")
                self._real[f"{resolved(self.path / below)}/{file}"] = number
        below, _, file = name.rpartition("/")
        return self._real.get(f"{os.path.realpath(self.path / below)}/{file}")

    def read(self, number: int) -> bytes:
        """See `ImageStore`."""
        path = self.path / self.paths[number]
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise RowError("image too large", f"{size:,} bytes")
            return path.read_bytes()
        except OSError as error:
            raise RowError("unreadable image", str(error.strerror)) from None

    def fingerprint(self) -> str:
        """Return a hash of all paths and sizes; the images are not read."""
        digest = blake2b(digest_size=32)
        for path in self.paths:
            size = (self.path / path).stat().st_size
            digest.update(f"{path}\t{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _agree(name: str, path: str) -> bool:
    """Return whether the folders of a name and of a path agree, as far as both have them."""
    pairs = zip(name.split("/")[-2::-1], path.split("/")[-2::-1], strict=False)
    return all(one == other for one, other in pairs)


class TsvStore(ImageStore):
    """Rows `id<TAB>base64`, as in MUGE and Chinese-CLIP; columns in between are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        hashes, places, sizes = array("q"), array("q"), array("q")
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        if kind := compression(path):
            raise InputError(f"{path} is {kind}, which has no random access; unpack it first.")
        place = 0
        with path.open("rb") as file:
            for line in bounded_lines(file, path):
                name, tab, _ = line.partition(b"\t")
                if tab:
                    hashes.append(_hash(name.removeprefix(b"\xef\xbb\xbf").strip()))
                    places.append(place)
                    sizes.append(len(line))
                place += len(line)
        found = np.frombuffer(hashes, np.int64) if hashes else np.empty(0, np.int64)
        self._order = np.argsort(found, kind="stable")  # equal ids: the first row is first
        self._hashes = found[self._order]
        self._places, self._sizes = places, sizes
        self.duplicates = len(found) - len(np.unique(found))
        self.description = f"{len(found):,} images in {path}"
        if not len(found):
            raise InputError(f"{path} contains no image; rows must be id<TAB>base64.")

    def __len__(self) -> int:
        return len(self._order)

    def find(self, name: str) -> int | None:
        """See `ImageStore`."""
        for form in dict.fromkeys((name.strip(), stem(name.strip()))):
            wanted = _hash(form.encode("utf-8", "replace"))
            at = int(np.searchsorted(self._hashes, wanted))
            if at < len(self._hashes) and self._hashes[at] == wanted:
                return int(self._order[at])
        return None

    def read(self, number: int) -> bytes:
        """See `ImageStore`."""
        size = self._sizes[number]
        if size > MAX_BYTES * 4 // 3:
            raise RowError("image too large", f"{size:,} bytes of base64")
        line = os.pread(self._file, size, self._places[number])
        return decode_base64(line.rpartition(b"\t")[2].decode("ascii", "replace"))

    def fingerprint(self) -> str:
        """Return the sha256 of the file."""
        return sha256(self.path)

    def close(self) -> None:
        """See `ImageStore`."""
        os.close(self._file)


def _hash(name: bytes) -> int:
    # 64 bits: the probability of a collision among ten million names is 3e-6.
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)
