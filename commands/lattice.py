"""The group `lattice`: captions and entity names to lattice tables."""

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from commands.options import AnyTable, Mentions, Out, Overwrite, with_options
from data.constants import TEXT_LEN
from data.errors import ConfigError
from data.options import ImageCheck, Option
from lattice.config import STOP_SHARE, BuildConfig, LatticeConfig, LexiconConfig

Config = TypeVar("Config", bound=LexiconConfig)

app = typer.Typer(help="Stage 2: captions to lattice tables.", no_args_is_help=True)

TokenizerPath = Annotated[
    Path | None,
    Option(
        "BERT vocab.txt or a folder with one; by default, a character vocabulary is generated.",
        flag="--tokenizer",
    ),
]

StopNames = Annotated[
    Path | None,
    Option("Names that never match, one per line; `lattice stats` proposes some."),
]


@dataclass(frozen=True, kw_only=True)
class Names:
    """Where entity names come from."""

    kg: Annotated[Path | None, Option("KG folder whose entities are matched.")] = None
    entities: Annotated[
        Path | None,
        Option("Names only: an OpenKE entity2id.txt, or a folder from `lattice compile`."),
    ] = None

    @property
    def path(self) -> Path:
        """Return the one that was given."""
        if (self.kg is None) == (self.entities is None):
            raise ConfigError("Give entity names: either --kg FOLDER or --entities entity2id.txt.")
        return self.kg or self.entities  # type: ignore[return-value]


def _with_stop_names(config: Config, path: Path | None) -> Config:
    """Return the config with the names in a file, if one is given."""
    from lattice.matching.lexicon import read_stop_names

    return config if path is None else replace(config, stop_names=read_stop_names(path))


@app.command("build")
@with_options
def lattice_build(
    *,
    corpus: Annotated[
        list[Path],
        typer.Argument(
            help="Captions: `idx<TAB>text` or `idx<TAB>text<TAB>imgbase64`. Several files, or a "
            "pattern such as 'corpus/*.tsv.gz', become a folder of shards.",
            show_default=False,
        ),
    ],
    out: Out,
    names: Names,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    stop_names: StopNames = None,
    config: LatticeConfig,
    build: BuildConfig,
    overwrite: Overwrite = False,
) -> None:
    """Match entity names in captions and write the lattice table."""
    from lattice.building.build import build_lattice

    report = build_lattice(
        corpus,
        out,
        names=names.path,
        tokenizer=tokenizer,
        mentions=mentions,
        config=_with_stop_names(config, stop_names),
        build=build,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("compile")
@with_options
def lattice_compile(
    *,
    out: Out,
    names: Names,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    stop_names: StopNames = None,
    config: LexiconConfig,
    overwrite: Overwrite = False,
) -> None:
    """Compile millions of names once, for `--entities` of many builds."""
    from lattice.building.build import load_tokenizer
    from lattice.matching.vocabulary import compile_vocabulary

    report = compile_vocabulary(
        names.path,
        out,
        tokenizer=load_tokenizer(tokenizer),
        config=_with_stop_names(config, stop_names),
        mentions=mentions,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("show")
@with_options
def lattice_show(
    *,
    text: Annotated[str, typer.Argument(help="Caption or prompt.", show_default=False)],
    names: Names,
    tokenizer: TokenizerPath = None,
    mentions: Mentions = None,
    stop_names: StopNames = None,
    config: LatticeConfig,
    svg: Annotated[Path | None, Option("Also draw the lattice into this file.")] = None,
) -> None:
    """Print the lattice of one sentence: tokens, entities, and why matches were dropped."""
    from lattice.building.build import load_tokenizer
    from lattice.inspecting.explain import explain_text
    from lattice.inspecting.show import render
    from lattice.inspecting.svg import save_lattice

    found = explain_text(
        text,
        names=names.path,
        tokenizer=load_tokenizer(tokenizer),
        config=_with_stop_names(config, stop_names),
        mentions=mentions,
    )
    if svg is not None:
        save_lattice(found, svg)
    width = shutil.get_terminal_size((100, 24)).columns
    typer.echo(render(found, width, sys.stdout.isatty() and "NO_COLOR" not in os.environ))


@app.command("stats")
@with_options
def lattice_show_stats(
    *,
    table: AnyTable,
    names: Names,
    top: Annotated[int, Option("Frequent entities to list.", min=0)] = 20,
    text_len: Annotated[
        int, Option("Text tokens per caption of the model; longer captions are counted.", min=1)
    ] = TEXT_LEN,
    stop_share: Annotated[
        float,
        Option("Propose names in at least this share of captions as stop names.", above=0, max=1),
    ] = STOP_SHARE,
    stop_names: Annotated[
        Path | None,
        Option("Write these to a file, to be edited and passed to `lattice build --stop-names`."),
    ] = None,
    as_json: Annotated[bool, Option("Print JSON.", flag="--json")] = False,
    plot: Annotated[Path | None, Option("Plot the figures into this SVG file.")] = None,
) -> None:
    """Report coverage of a lattice table, what training will cut, and frequent entities."""
    from lattice.inspecting.stats import lattice_stats, save_stats_plot, save_stop_names

    path = names.path if names.kg or names.entities else None
    stats = lattice_stats(table, path, top, text_len, stop_share)
    if stop_names is not None:
        save_stop_names(stats, stop_names)
    if plot is not None:
        save_stats_plot(stats, plot)
    typer.echo(stats.to_json() if as_json else stats)


@app.command("export")
@with_options
def lattice_export(*, table: AnyTable, out: Out, overwrite: Overwrite = False) -> None:
    """Write a lattice table as EasyNLP's preprocessed TSV."""
    from lattice.building.easynlp_tsv import export_table

    typer.echo(export_table(table, out, overwrite=overwrite))


@app.command("import")
@with_options
def lattice_import(
    *,
    tsv: Annotated[
        Path,
        typer.Argument(
            help="EasyNLP's preprocessed rows: idx, text, lex_ids, pos_s, pos_e, seq_len, "
            "optionally an image.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[Path, Option("The vocab.txt used to preprocess, or a folder with one.")],
    out: Out,
    names: Names,
    check_images: ImageCheck = "full",
    overwrite: Overwrite = False,
) -> None:
    """Convert EasyNLP's preprocessed TSV into a lattice table with the same matches."""
    from lattice.building.easynlp_tsv import import_table

    report = import_table(
        tsv,
        out,
        names=names.path,
        tokenizer=tokenizer,
        check_images=check_images,
        overwrite=overwrite,
    )
    typer.echo(report)
