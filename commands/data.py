"""The group `data`: captions and images, before everything."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.options import ImageCheck, ImageCheckOption, Overwrite

app = typer.Typer(help="Captions and images, before everything.", no_args_is_help=True)


class SetFormat(StrEnum):
    """Sets that `data convert` reads."""

    auto = "auto"
    tsv = "tsv"
    muge = "muge"
    chinese_clip = "chinese-clip"
    flickr8k_cn = "flickr8k-cn"
    flickr30k_cn = "flickr30k-cn"
    coco_cn = "coco-cn"
    folder = "folder"
    parquet = "parquet"


class WhichCaptions(StrEnum):
    """How many captions an image brings."""

    all = "all"
    first = "first"


Workers = Annotated[
    int | None,
    typer.Option(help="Threads that decode images; all cores by default.", min=1),
]


@app.command("convert")
def data_convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A set's folder, its caption file, or a file of both (TSV, Parquet).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The TSV to write: idx, text, imgbase64.", show_default=False)
    ],
    format: Annotated[
        SetFormat, typer.Option(help="The kind of set; auto tells it and says so.")
    ] = SetFormat.auto,
    split: Annotated[
        str, typer.Option(help="train, val, test, or a word in the files' names.")
    ] = "train",
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, or a TSV of id and base64; if SOURCE does not hold them.",
            show_default=False,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="Take only the images named here, one a line.", show_default=False),
    ] = None,
    captions: Annotated[
        WhichCaptions, typer.Option(help="All captions of an image, or its first.")
    ] = WhichCaptions.all,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Write captions only: prompts for `artist predict`.")
    ] = False,
    join_words: Annotated[
        bool | None,
        typer.Option(
            "--join-words/--keep-words",
            help="Put captions together that were cut into words; by default, those of seg.*.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="The captions' column or JSON key, if not a usual one."),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="The same for images or their names.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="The same for the rows' ids.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Reduce larger images to a shorter side of so many pixels (JPEG); none by default."
        ),
    ] = None,
    quality: Annotated[int, typer.Option(help="Of the JPEGs that --size makes, 1 to 100.")] = 95,
    check_images: ImageCheckOption = ImageCheck.full,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a set as it is distributed into a TSV: MUGE, Flickr8k-CN, COCO-CN, Parquet and others.

    Images stay as they came, byte for byte, unless --size is given. See docs/data.md.
    """
    from data.datasets.config import ImageOptions, SetOptions
    from data.datasets.convert import convert_dataset

    options = SetOptions(
        format=format.value,
        split=split,
        captions=captions.value,
        join_words=join_words,
        text_column=text_column,
        image_column=image_column,
        id_column=id_column,
        with_images=not no_images,
    )
    report = convert_dataset(
        source,
        out,
        options=options,
        image_options=ImageOptions(size=size, quality=quality, check=check_images.value),
        images=images,
        ids=ids,
        workers=workers,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("validate")
def data_validate(
    table: Annotated[
        Path, typer.Argument(help="A TSV of captions, or a lattice table.", show_default=False)
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another one, to find what leaks from it into TABLE.", show_default=False
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="A BERT vocab.txt or a folder with one, to count a TSV's tokens.",
            show_default=False,
        ),
    ] = None,
    text_len: Annotated[int, typer.Option(help="Tokens that the model reads.", min=1)] = 32,
    check_images: Annotated[
        ImageCheck, typer.Option(help="header finds no damage and no near duplicates.")
    ] = ImageCheck.full,
    workers: Workers = None,
    show: Annotated[int, typer.Option(help="Name so many offenders of each kind.", min=0)] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there is a problem; remarks are none.")
    ] = False,
) -> None:
    """Look for broken images, duplicates, cut captions and leakage before hours are spent."""
    from data.datasets.validate import validate_table

    report = validate_table(
        table,
        against=against,
        tokenizer=tokenizer,
        text_len=text_len,
        check_images=check_images.value,
        workers=workers,
        show=show,
    )
    typer.echo(report.json() if json else report)
    if strict and report.problems:
        raise typer.Exit(1)
