"""The group `data`: caption sets."""

from pathlib import Path
from typing import Annotated

import typer

from commands.options import Overwrite, with_options
from data.constants import TEXT_LEN
from data.datasets.config import ImageOptions, SetOptions
from data.options import ImageCheck, Option

app = typer.Typer(help="Caption sets: convert and check captions and images.", no_args_is_help=True)

Workers = Annotated[int | None, Option("Threads that decode images; by default all cores.", min=1)]


@app.command("convert")
@with_options
def data_convert(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of the set, its caption file, or one file of captions and images (TSV, "
            "Parquet).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, Option("TSV to write: idx, text, imgbase64.")],
    options: SetOptions,
    images: Annotated[
        Path | None,
        Option("Folder of images, or TSV of id and base64, if SOURCE does not contain them."),
    ] = None,
    ids: Annotated[Path | None, Option("Use only the images listed here, one per line.")] = None,
    image_options: ImageOptions,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a distributed set into a TSV: MUGE, Flickr8k-CN, COCO-CN, Parquet and others.

    Images are copied byte for byte unless --size is given. See docs/data.md.
    """
    from data.datasets.convert import convert_dataset

    report = convert_dataset(
        source,
        out,
        options=options,
        image_options=image_options,
        images=images,
        ids=ids,
        workers=workers,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("unquote")
@with_options
def data_unquote(
    *,
    tsv: Annotated[
        Path,
        typer.Argument(help="TSV of any columns whose fields are quoted.", show_default=False),
    ],
    out: Annotated[Path, Option("TSV to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Remove the quotes that pandas, csv.writer and Excel write from a TSV.

    Only quoted fields change; tabs and line ends in them become spaces.
    """
    from data.datasets.unquote import unquote_tsv

    typer.echo(unquote_tsv(tsv, out, overwrite=overwrite))


@app.command("validate")
@with_options
def data_validate(
    *,
    table: Annotated[
        Path, typer.Argument(help="TSV of captions, or lattice table.", show_default=False)
    ],
    against: Annotated[
        Path | None, Option("Second table, to find rows that leak from it into TABLE.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        Option("BERT vocab.txt or a folder with one, to count the tokens of a TSV."),
    ] = None,
    text_len: Annotated[int, Option("Text tokens per caption of the model.", min=1)] = TEXT_LEN,
    check_images: ImageCheck = "full",
    workers: Workers = None,
    show: Annotated[int, Option("Examples to list of each problem.", min=0)] = 3,
    json: Annotated[bool, Option("Print JSON.")] = False,
    strict: Annotated[
        bool, Option("Exit with 1 if there is a problem; remarks do not count.")
    ] = False,
) -> None:
    """Find broken images, duplicates, cut captions and leakage before training.

    With `--check-images header`, damage and near duplicates are not found.
    """
    from data.datasets.validate import validate_table

    report = validate_table(
        table,
        against=against,
        tokenizer=tokenizer,
        text_len=text_len,
        check_images=check_images,
        workers=workers,
        show=show,
    )
    typer.echo(report.json() if json else report)
    if strict and report.problems:
        raise typer.Exit(1)
