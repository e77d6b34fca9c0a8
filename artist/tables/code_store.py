"""A store of image codes by the content of the image files, so that tables share the encoding.

One SQLite file per image tokenizer and image processing. Additions are transactions: a killed run
leaves a usable store, and several processes can use one store. A store that is full or damaged
makes encoding slower, never wrong: its images are encoded again.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import ArtefactError

_log = logging.getLogger(__name__)

# Raise it if decoding or resizing of images changes their pixels.
_PROCESSING = 1
_LARGEST = 4 << 30  # bytes; nothing is added to a larger store
_QUERY = 500  # keys per query; SQLite allows 999 variables in old versions
_WAIT = 60  # seconds for another process's transaction


def image_key(content: bytes) -> bytes:
    """Return the key of an image file: a hash of its bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


class CodeStore:
    """Codes of images by `image_key`; one tokenizer, one way of resizing.

    Args:
        folder: The folder of the store, created if missing.
        fingerprint: Of the image tokenizer.
        resolution: Side of the images in pixels.
        resize: How images are resized to it.
        largest: Size in bytes from which on nothing is added.

    Attributes:
        path: The SQLite file.

    Raises:
        ArtefactError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        resolution: int,
        resize: str,
        largest: int = _LARGEST,
    ) -> None:
        name = f"{fingerprint[:32]}-{resolution}-{resize}-{_PROCESSING}.sqlite"
        self.path, self._largest = folder / name, largest
        self._connection: sqlite3.Connection | None = None
        self._full = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(
                f"--code-store {folder} cannot be written: {error.strerror}."
            ) from None
        try:
            self._connection = sqlite3.connect(self.path, timeout=_WAIT)
            with self._connection as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS codes (image BLOB PRIMARY KEY, codes BLOB NOT NULL)"
                    " WITHOUT ROWID"
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.uint16]]:
        """Return the codes (L,) of those images that the store has."""
        found: dict[bytes, NDArray[np.uint16]] = {}
        for begin in range(0, len(keys), _QUERY):
            if self._connection is None:
                break
            part = keys[begin : begin + _QUERY]
            query = f"SELECT image, codes FROM codes WHERE image IN ({','.join('?' * len(part))})"
            try:
                rows = self._connection.execute(query, part).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                break
            found |= {key: np.frombuffer(codes, dtype="<u2") for key, codes in rows}
        return found

    def add(self, codes: Mapping[bytes, NDArray[np.uint16]]) -> None:
        """Add the codes (L,) of images, all or none of them."""
        if self._connection is None or self._full or not codes:
            return
        rows = [(key, values.astype("<u2").tobytes()) for key, values in codes.items()]
        try:
            if self.path.stat().st_size >= self._largest:
                self._full = True
                _log.warning("%s is full; nothing more is added to it.", self.path)
                return
            with self._connection as connection:
                connection.executemany("INSERT OR IGNORE INTO codes VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, reason: object) -> None:
        """Continue without the store."""
        _log.warning(
            "The code store %s is not used further: %s. Images are encoded again; delete the file "
            "to begin a new store.",
            self.path,
            reason,
        )
        self.close()
