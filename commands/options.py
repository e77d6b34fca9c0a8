"""Options that several groups of commands share, and the words they take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DeviceName(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ImageCheck(StrEnum):
    """How closely images are looked at."""

    full = "full"
    header = "header"


class PolicyName(StrEnum):
    """Which entities a caption keeps."""

    first = "first"
    longest = "longest"
    leftmost_longest = "leftmost-longest"


Out = Annotated[Path, typer.Option(help="Where the result is written.", show_default=False)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what another run left at --out.")
]
Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto takes a GPU if there is.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result on one machine.")]
KG = Annotated[
    Path,
    typer.Option("--kg", help="KG folder, from `kg train` or EasyNLP's pair.", show_default=False),
]
VQGANPath = Annotated[
    Path,
    typer.Option(
        "--vqgan",
        help="VQGAN folder, from `artist vqgan train`, or a taming-transformers checkpoint.",
        show_default=False,
    ),
]
Table = Annotated[Path, typer.Argument(help="A lattice table, from `lattice build`.")]
ModelPath = Annotated[Path, typer.Option("--model", help="A model folder.", show_default=False)]
Mentions = Annotated[
    Path | None,
    typer.Option(
        help="Further names, `mention<TAB>entity`; one may name several.", show_default=False
    ),
]
ImageCheckOption = Annotated[
    ImageCheck, typer.Option(help="full decodes each image once; header reads its size.")
]
