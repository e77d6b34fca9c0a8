"""The command line: each command parses, calls one function, prints its report.

The only file that prints. A stage is imported inside its command, so that `--help` is quick and
needs neither torch nor pykeen.
"""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from data.errors import Interrupted, ToolkitError

app = typer.Typer(
    name="artist-toolkit",
    help="Knowledge graphs, lattices and ARTIST: pictures from Chinese sentences.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
kg_app = typer.Typer(help="Stage 1: triples to entity vectors.", no_args_is_help=True)
lattice_app = typer.Typer(help="Stage 2: captions to lattice tables.", no_args_is_help=True)
artist_app = typer.Typer(help="Stages 3 and 4: train the model, draw.", no_args_is_help=True)
vqgan_app = typer.Typer(help="The image tokenizer (VQGAN).", no_args_is_help=True)
app.add_typer(kg_app, name="kg")
app.add_typer(lattice_app, name="lattice")
app.add_typer(artist_app, name="artist")
artist_app.add_typer(vqgan_app, name="vqgan")


class DeviceName(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


# --- options that several commands share ---------------------------------------------------------
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
TokenizerPath = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="A BERT vocab.txt or a folder with one; without it a character vocabulary is made.",
        show_default=False,
    ),
]

VQGANPath = Annotated[
    Path,
    typer.Option(
        "--vqgan",
        help="VQGAN folder, from `artist vqgan train`, or a taming-transformers checkpoint.",
        show_default=False,
    ),
]


# --- kg ------------------------------------------------------------------------------------------


# --- lattice -------------------------------------------------------------------------------------


# --- artist vqgan, artist encode -----------------------------------------------------------------
@artist_app.command("encode")
def artist_encode(
    table: Annotated[Path, typer.Argument(help="A lattice table with images.", show_default=False)],
    vqgan: VQGANPath,
    out: Out,
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.", min=1)] = 32,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Keep the images beside their codes.")
    ] = False,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Encode the images of a lattice table to VQGAN codes, once for all trainings."""
    from artist.encode import encode_table

    report = encode_table(
        table,
        out,
        vqgan=vqgan,
        device=device.value,
        batch_size=batch_size,
        keep_images=keep_images,
        overwrite=overwrite,
    )
    print(report)


# --- artist --------------------------------------------------------------------------------------


# --- demo, doctor --------------------------------------------------------------------------------


def main() -> None:
    """Run a command; one line and exit code 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 2)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes what was unfinished.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
