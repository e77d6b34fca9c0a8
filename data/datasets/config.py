"""How caption sets are read and converted: settings, defaults and limits."""

from dataclasses import dataclass
from typing import NamedTuple

from data.errors import ConfigError

FORMATS = ("tsv", "muge", "chinese-clip", "flickr8k-cn", "flickr30k-cn", "coco-cn", "folder",
           "parquet")  # fmt: skip


class Columns(NamedTuple):
    """Names of columns that the user gave; None finds them by `*_COLUMNS`."""

    text: str | None = None
    image: str | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """How a set is read.

    Attributes:
        format: One of `FORMATS`, or `auto`.
        split: Which part of a set that has several: `train`, `val`, `test`, or any word in the
            files' names.
        captions: `all`, or `first`: one for each image.
        join_words: Put captions together that were cut into words; None does so for files that say
            of themselves that they are segmented.
        text_column: Where captions are, in files with named columns; None looks for usual names.
        image_column: The same for images or their names.
        id_column: The same for rows' ids.
        with_images: False gives captions only: prompts.
    """

    format: str = "auto"
    split: str = "train"
    captions: str = "all"
    join_words: bool | None = None
    text_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    with_images: bool = True

    def __post_init__(self) -> None:
        if self.format not in ("auto", *FORMATS):
            raise ConfigError(f"--format {self.format}: use auto or one of {', '.join(FORMATS)}.")
        if self.captions not in ("all", "first"):
            raise ConfigError(f"--captions {self.captions}: use all or first.")

    @property
    def columns(self) -> Columns:
        """The names of columns that were given."""
        return Columns(self.text_column, self.image_column, self.id_column)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What happens to an image.

    Attributes:
        size: The shorter side in pixels that larger images are reduced to; None leaves all as
            they came.
        quality: Of the JPEG that a reduced image becomes, 1 to 100.
        check: `full` decodes every image; `header` reads its size only.
    """

    size: int | None = None
    quality: int = 95
    check: str = "full"

    def __post_init__(self) -> None:
        if self.check not in ("full", "header"):
            raise ConfigError(f"--check-images {self.check}: use full or header.")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ConfigError(f"--size {self.size} must lie between 8 and 4096 pixels.")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality} must lie between 1 and 100.")
