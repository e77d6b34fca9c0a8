"""How caption sets are read and converted: settings, defaults and limits."""

from dataclasses import dataclass
from typing import NamedTuple

from data.errors import ConfigError

FORMATS = ("tsv", "muge", "chinese-clip", "flickr8k-cn", "flickr30k-cn", "coco-cn", "folder",
           "parquet")  # fmt: skip


class Columns(NamedTuple):
    """Given names of columns; None finds them by their usual names, see `captions`."""

    text: str | None = None
    image: str | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """How a dataset is read.

    Attributes:
        format: One of `FORMATS`, or `auto`.
        split: `train`, `val`, `test`, or any word in the file names.
        captions: `all`, or `first`: one per image.
        join_words: Join segmented words; None joins those of files named as segmented (`seg.*`).
        text_column: Column or JSON key of the captions; None tries the usual names.
        image_column: The same for images or their names.
        id_column: The same for row ids.
        with_images: False reads captions only, as prompts.
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
        """Return the given names of columns."""
        return Columns(self.text_column, self.image_column, self.id_column)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are checked and reduced.

    Attributes:
        size: Shorter side in pixels to which larger images are reduced; None keeps all images.
        quality: JPEG quality of reduced images, 1 to 100.
        check: `full` decodes every image; `header` reads its size only.
    """

    size: int | None = None
    quality: int = 95
    check: str = "full"

    def __post_init__(self) -> None:
        if self.check not in ("full", "header"):
            raise ConfigError(f"--check-images {self.check}: use full or header.")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ConfigError(f"--size {self.size} must be between 8 and 4096 pixels.")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality} must be between 1 and 100.")
