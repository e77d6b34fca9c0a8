"""How caption sets are read and converted: settings, defaults and limits. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from data.options import ImageCheck, Option, check_fields

FORMATS = ("tsv", "muge", "chinese-clip", "flickr8k-cn", "flickr30k-cn", "coco-cn", "folder",
           "json", "parquet")  # fmt: skip


class Columns(NamedTuple):
    """Names of columns; None finds a column by its usual names, `data.datasets.captions`."""

    text: str | None = None
    image: str | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """How a set is read."""

    format: Annotated[
        str, Option("Kind of set; auto detects and reports it.", choices=("auto", *FORMATS))
    ] = "auto"
    split: Annotated[str, Option("train, val, test, or a word that the file names contain.")] = (
        "train"
    )
    captions: Annotated[
        str, Option("All captions of an image, or its first.", choices=("all", "first"))
    ] = "all"
    join_words: Annotated[
        bool | None,
        Option(
            "Join captions that are segmented into words; by default, those of seg.* files.",
            flag="--join-words/--keep-words",
        ),
    ] = None
    text_column: Annotated[
        str | None, Option("Column or JSON key of the captions, if not a usual one.")
    ] = None
    image_column: Annotated[
        str | None, Option("Column or JSON key of the images or their names.")
    ] = None
    id_column: Annotated[str | None, Option("Column or JSON key of the row ids.")] = None
    with_images: Annotated[
        bool, Option("Write captions only: prompts for `artist predict`.", flag="--no-images")
    ] = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def columns(self) -> Columns:
        """Return the given names of columns."""
        return Columns(self.text_column, self.image_column, self.id_column)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are checked and reduced."""

    size: Annotated[
        int | None,
        Option(
            "Reduce larger images to this shorter side in pixels (JPEG); by default, images are "
            "written unchanged.",
            min=8,
            max=4096,
        ),
    ] = None
    quality: Annotated[int, Option("JPEG quality of reduced images.", min=1, max=100)] = 95
    check: ImageCheck = "full"

    def __post_init__(self) -> None:
        check_fields(self)
