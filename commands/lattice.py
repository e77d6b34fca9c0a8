"""The group `lattice`: captions and entity names to lattice tables."""

import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from artist.training.config import TrainConfig
from commands.options import ImageCheck, ImageCheckOption, Mentions, Out, Overwrite, PolicyName
from data.errors import ConfigError

app = typer.Typer(help="Stage 2: captions to lattice tables.", no_args_is_help=True)


class SegmentName(StrEnum):
    """What finds words."""

    none = "none"
    jieba = "jieba"


class Backend(StrEnum):
    """What matches names."""

    auto = "auto"
    ahocorasick = "ahocorasick"
    trie = "trie"


class TableFormat(StrEnum):
    """How a lattice table is written."""

    parquet = "parquet"
    tsv = "tsv"


TokenizerPath = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="A BERT vocab.txt or a folder with one; without it a character vocabulary is made.",
        show_default=False,
    ),
]
Names = Annotated[
    Path | None,
    typer.Option("--kg", help="KG folder whose entities are matched.", show_default=False),
]
EntityFile = Annotated[
    Path | None,
    typer.Option(
        "--entities",
        help="Or only names: an OpenKE entity2id.txt, or a folder from `lattice compile`.",
        show_default=False,
    ),
]
MinLength = Annotated[int, typer.Option(help="Shorter names are not matched (characters).")]
BracketAliases = Annotated[
    bool, typer.Option(help="Match a name also without its bracket: 刘德华（演员） as 刘德华.")
]
SegmentBy = Annotated[
    SegmentName, typer.Option(help="jieba drops matches that cross a word boundary.")
]
MaxEntities = Annotated[
    int | None,
    typer.Option(help="Keep so many entities a caption; all by default.", show_default=False),
]
Policy = Annotated[PolicyName, typer.Option(help="Which ones are kept under --max-entities.")]


def _names(kg: Path | None, entities: Path | None) -> Path:
    """The one of --kg and --entities that was given."""
    if (kg is None) == (entities is None):
        raise ConfigError("Give entity names: either --kg FOLDER or --entities entity2id.txt.")
    return kg or entities  # type: ignore[return-value]


@app.command("build")
def lattice_build(
    corpus: Annotated[
        list[Path],
        typer.Argument(
            help="Captions: `idx<TAB>text` or `idx<TAB>text<TAB>imgbase64`. Several files, or a "
            "pattern like 'corpus/*.tsv.gz', become a folder of shards.",
            show_default=False,
        ),
    ],
    out: Out,
    kg: Names = None,
    entities: EntityFile = None,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    min_length: MinLength = 2,
    bracket_aliases: BracketAliases = True,
    segment: SegmentBy = SegmentName.none,
    max_entities: MaxEntities = None,
    policy: Policy = PolicyName.first,
    format: Annotated[
        TableFormat, typer.Option(help="tsv: EasyNLP's preprocessed rows.")
    ] = TableFormat.parquet,
    check_images: ImageCheckOption = ImageCheck.full,
    backend: Annotated[
        Backend, typer.Option(help="What matches; the table is the same.")
    ] = Backend.auto,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes; as many as are useful by default.", min=1, show_default=False
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler whose workers make the shards (extra `cluster`).",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Match entity names in captions and write the lattice table."""
    from lattice.building.build import build_lattice
    from lattice.matching.kernel import LatticeConfig

    config = LatticeConfig(
        min_length=min_length,
        bracket_aliases=bracket_aliases,
        segment=segment.value,
        max_entities=max_entities,
        policy=policy.value,
    )
    report = build_lattice(
        corpus,
        out,
        names=_names(kg, entities),
        tokenizer=tokenizer,
        config=config,
        mentions=mentions,
        format=format.value,
        check_images=check_images.value,
        backend=backend.value,
        workers=workers,
        cluster=cluster,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("compile")
def lattice_compile(
    out: Out,
    kg: Names = None,
    entities: EntityFile = None,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    min_length: MinLength = 2,
    bracket_aliases: BracketAliases = True,
    overwrite: Overwrite = False,
) -> None:
    """Compile millions of names once, for `--entities` of many builds."""
    from lattice.building.build import load_tokenizer
    from lattice.matching.lexicon import LexiconConfig
    from lattice.matching.vocabulary import compile_vocabulary

    report = compile_vocabulary(
        _names(kg, entities),
        out,
        tokenizer=load_tokenizer(tokenizer),
        config=LexiconConfig(min_length=min_length, bracket_aliases=bracket_aliases),
        mentions=mentions,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("show")
def lattice_show(
    text: Annotated[str, typer.Argument(help="A caption or prompt.", show_default=False)],
    kg: Names = None,
    entities: EntityFile = None,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    min_length: MinLength = 2,
    bracket_aliases: BracketAliases = True,
    segment: SegmentBy = SegmentName.none,
    max_entities: MaxEntities = None,
    policy: Policy = PolicyName.first,
    svg: Annotated[
        Path | None, typer.Option(help="Draw it into this file too.", show_default=False)
    ] = None,
) -> None:
    """Draw the lattice of one sentence: its tokens, the entities over them, and who lost why."""
    from lattice.building.build import load_tokenizer
    from lattice.inspecting.explain import explain_text
    from lattice.inspecting.show import render
    from lattice.inspecting.svg import save_lattice
    from lattice.matching.kernel import LatticeConfig

    config = LatticeConfig(
        min_length=min_length,
        bracket_aliases=bracket_aliases,
        segment=segment.value,
        max_entities=max_entities,
        policy=policy.value,
    )
    found = explain_text(
        text,
        names=_names(kg, entities),
        tokenizer=load_tokenizer(tokenizer),
        config=config,
        mentions=mentions,
    )
    if svg is not None:
        save_lattice(found, svg)
    width = shutil.get_terminal_size((100, 24)).columns
    typer.echo(render(found, width, sys.stdout.isatty() and "NO_COLOR" not in os.environ))


@app.command("stats")
def lattice_show_stats(
    table: Annotated[
        Path, typer.Argument(help="A lattice table, or a folder of shards.", show_default=False)
    ],
    kg: Names = None,
    entities: EntityFile = None,
    top: Annotated[int, typer.Option(help="How many frequent entities are listed.")] = 20,
    text_len: Annotated[
        int, typer.Option(help="Tokens that a model reads; longer captions are counted.")
    ] = TrainConfig.text_len,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the figures into this SVG file.", show_default=False)
    ] = None,
) -> None:
    """Coverage of a lattice table, what training will cut, and its most frequent entities."""
    from lattice.inspecting.stats import lattice_stats, save_stats_plot

    names = _names(kg, entities) if kg or entities else None
    stats = lattice_stats(table, names, top, text_len)
    if plot is not None:
        save_stats_plot(stats, plot)
    typer.echo(stats.to_json() if as_json else stats)


@app.command("export")
def lattice_export(
    table: Annotated[
        Path, typer.Argument(help="A lattice table, or a folder of shards.", show_default=False)
    ],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write a lattice table as EasyNLP's preprocessed TSV."""
    from lattice.building.easynlp_tsv import export_table

    typer.echo(export_table(table, out, overwrite=overwrite))


@app.command("import")
def lattice_import(
    tsv: Annotated[
        Path,
        typer.Argument(
            help="EasyNLP's preprocessed rows: idx, text, lex_ids, pos_s, pos_e, seq_len, perhaps "
            "an image.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[
        Path,
        typer.Option(
            "--tokenizer",
            help="The vocab.txt that it was made with, or a folder with one.",
            show_default=False,
        ),
    ],
    out: Out,
    kg: Names = None,
    entities: EntityFile = None,
    check_images: ImageCheckOption = ImageCheck.full,
    overwrite: Overwrite = False,
) -> None:
    """Read EasyNLP's preprocessed TSV into a lattice table, its matches as they are."""
    from lattice.building.easynlp_tsv import import_table

    report = import_table(
        tsv,
        out,
        names=_names(kg, entities),
        tokenizer=tokenizer,
        check_images=check_images.value,
        overwrite=overwrite,
    )
    typer.echo(report)
