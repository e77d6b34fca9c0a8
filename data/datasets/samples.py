"""The interface of all readers: a dataset, and its captions with their images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from data.tsv import Rejects


class Sample(NamedTuple):
    """One caption with its image.

    Attributes:
        line: Its line or row, for messages.
        idx: Id of the row to write.
        text: The caption, unchanged.
        image: Reads the encoded bytes, in any thread; None without images.
        image_key: Equal for samples of the same image.
    """

    line: int
    idx: str
    text: str
    image: Callable[[], bytes] | None
    image_key: object


class ImageTextDataset(Protocol):
    """Captions, usually with images, in any of the supported formats.

    Attributes:
        format: One of `FORMATS`.
        description: What was found, for messages.
        counts: Counters of reading, complete after `samples`.
    """

    format: str
    description: str
    counts: dict[str, int]

    def samples(self, rejects: Rejects) -> Iterator[Sample]:
        """Yield all samples in the order of the captions; unusable ones go to `rejects`."""

    def inputs(self) -> dict[str, str]:
        """Return the fingerprint of each file that is read, by name."""

    def close(self) -> None:
        """Close open files, if any."""
        return


def numbered(name: str, n: int) -> str:
    """Return the idx of an image's n-th caption, counted from 0."""
    return f"{name}#{n}" if n else name
