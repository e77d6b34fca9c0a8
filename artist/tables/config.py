"""How images are encoded: settings, defaults and limits. Imports neither torch nor PIL."""

from dataclasses import dataclass
from typing import Annotated

from data.errors import ConfigError
from data.options import Option, Seed, check_fields

RESIZES = ("antialias", "easynlp")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How the images of a table are encoded; `Versions` adds augmented ones."""

    batch_size: Annotated[int, Option("Images encoded at once.", min=1)] = 32
    resize: Annotated[
        str,
        Option(
            "easynlp: exactly the pixels that the released models were trained on.", choices=RESIZES
        ),
    ] = "antialias"
    keep_images: Annotated[bool, Option("Keep the images next to their codes.")] = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Versions:
    """How many versions of each image are encoded, and how they are augmented.

    The first version is the unchanged image.
    """

    count: Annotated[
        int,
        Option("Versions per image; training uses one per epoch.", min=1, flag="--versions"),
    ] = 1
    # 1: no cropping.
    crop: Annotated[
        float,
        Option(
            "Smallest share of the side that a random crop keeps, in further versions.",
            above=0,
            max=1,
        ),
    ] = 0.8
    # Without cropping, all further versions are mirrored. Other captions can become wrong too, such
    # as those that quote text in the image.
    flip: Annotated[
        bool, Option("Mirror half of the further versions, except where the caption has 左 or 右.")
    ] = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.crop == 1 and self.count > 1 + self.flip:
            raise ConfigError(
                f"{self.count} versions would partly be equal: without cropping there are at most "
                "two, with --flip. Set --crop below 1."
            )
