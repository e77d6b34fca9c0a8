"""The command line: each command parses, calls one function, prints its report.

The only file that prints. A stage is imported inside its command, so that `--help` is quick and
needs neither torch nor pykeen.
"""

import logging
import os
import shutil
import sys
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from artist.config import EASYNLP_ENTITIES, EvaluateConfig, SamplingConfig, TrainConfig
from data.errors import ConfigError, Interrupted, ToolkitError
from data.memory import reuse_freed_memory
from kg.config import KGConfig

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
data_app = typer.Typer(help="Captions and images, before everything.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(kg_app, name="kg")
app.add_typer(lattice_app, name="lattice")
app.add_typer(artist_app, name="artist")
artist_app.add_typer(vqgan_app, name="vqgan")


class DeviceName(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class VQGANPreset(StrEnum):
    """Kinds of VQGAN; see `artist.vqgan_train`."""

    small = "small"
    base = "base"


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


# --- data ----------------------------------------------------------------------------------------
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


class ImageCheck(StrEnum):
    """How closely images are looked at."""

    full = "full"
    header = "header"


Workers = Annotated[
    int | None,
    typer.Option(help="Threads that decode images; all cores by default.", min=1),
]


@data_app.command("convert")
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
    check_images: Annotated[
        ImageCheck, typer.Option(help="full decodes each image once; header reads its size.")
    ] = ImageCheck.full,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a set as it is distributed into a TSV: MUGE, Flickr8k-CN, COCO-CN, Parquet and others.

    Images stay as they came, byte for byte, unless --size is given. See docs/data.md.
    """
    from data.convert import ImageOptions, convert
    from data.sets import SetOptions

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
    report = convert(
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


@data_app.command("validate")
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
    from data.validate import validate

    report = validate(
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


# --- kg ------------------------------------------------------------------------------------------
@kg_app.command("train")
def kg_train(
    triples: Annotated[
        list[Path],
        typer.Argument(
            help="Dumps of one graph (TSV, .spo, OwnThink CSV; gzip too), or an OpenKE folder.",
            show_default=False,
        ),
    ],
    out: Out,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the triples; by default, by their number.")
    ] = None,
    dim: Annotated[int, typer.Option(help="Length of a vector.")] = KGConfig.dim,
    batch_size: Annotated[
        int | None, typer.Option(help="Triples a step; by default, by their number.")
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Of row-wise AdaGrad; falls linearly to 0.")
    ] = KGConfig.learning_rate,
    num_negatives: Annotated[
        int, typer.Option(help="Corrupted triples for each true one.")
    ] = KGConfig.num_negatives,
    loss: Annotated[str, typer.Option(help="nssa (self-adversarial) or margin.")] = KGConfig.loss,
    margin: Annotated[
        float | None, typer.Option(help="The loss's margin; by default 9 (nssa) or 1 (margin).")
    ] = None,
    p_norm: Annotated[
        int, typer.Option(help="1 or 2: the norm in ||h + r - t||.")
    ] = KGConfig.p_norm,
    scale: Annotated[
        float, typer.Option(help="Length of entity vectors in training (saved with 1); 0: free.")
    ] = KGConfig.scale,
    min_tail_count: Annotated[
        int, typer.Option(help="Tails in fewer triples that head none are literals, and dropped.")
    ] = KGConfig.min_tail_count,
    valid_fraction: Annotated[
        float, typer.Option(help="Share of the triples held out for measuring; at most 2000.")
    ] = KGConfig.valid_fraction,
    learn_held_out: Annotated[
        bool,
        typer.Option(
            "--learn-held-out/--keep-held-out",
            help="After measuring, train again on all triples (graphs of up to a million).",
        ),
    ] = KGConfig.learn_held_out,
    patience: Annotated[
        int, typer.Option(help="Stop after so many measurements without a gain; 0: never.")
    ] = KGConfig.patience,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="An older KG folder: names that it knows keep their vectors.",
            show_default=False,
        ),
    ] = None,
    freeze_known: Annotated[
        bool,
        typer.Option(
            "--freeze-known/--refine-known",
            help="With --from: leave known vectors as they are, or let them move on.",
        ),
    ] = KGConfig.freeze_known,
    finish_now: Annotated[
        bool,
        typer.Option(
            "--finish-now", help="Measure and write the best vectors of a run that was stopped."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Learn one vector for each entity of a knowledge graph (TransE)."""
    from kg.train import train_kg

    config = KGConfig(
        dim=dim,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_negatives=num_negatives,
        loss=loss,
        margin=margin,
        p_norm=p_norm,
        scale=scale,
        min_tail_count=min_tail_count,
        valid_fraction=valid_fraction,
        learn_held_out=learn_held_out,
        freeze_known=freeze_known,
        patience=patience,
        seed=seed,
    )
    report = train_kg(
        triples,
        out,
        config=config,
        device=device.value,
        overwrite=overwrite,
        start=start,
        finish_now=finish_now,
    )
    typer.echo(report)


KGFolder = Annotated[Path, typer.Argument(help="A KG folder, from `kg train`.")]


@kg_app.command("eval")
def kg_eval(
    kg: KGFolder,
    triples: Annotated[
        Path | None,
        typer.Option(help="Measure on these triples, not on those held out.", show_default=False),
    ] = None,
    num_candidates: Annotated[
        int | None,
        typer.Option(help="Rank among so many sampled entities; by default all, up to 200,000."),
    ] = None,
    by_relation_type: Annotated[
        bool, typer.Option("--by-relation-type", help="Also 1-1, 1-N, N-1 and N-N alone.")
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
) -> None:
    """Rank held-out triples: filtered MRR and Hits@k."""
    from kg.train import eval_kg

    report = eval_kg(
        kg,
        triples=triples,
        num_candidates=num_candidates,
        by_relation_type=by_relation_type,
        device=device.value,
        seed=seed,
    )
    typer.echo(report)


@kg_app.command("nearest")
def kg_nearest(
    names: Annotated[
        list[str],
        typer.Argument(help="Entities' names, or # and an id.", show_default=False),
    ],
    kg: KG,
    count: Annotated[int, typer.Option(help="How many neighbours.", min=1)] = 10,
) -> None:
    """Print the entities nearest to one or to each of several, by cosine."""
    from kg.vectors import nearest

    typer.echo("\n\n".join(str(nearest(kg, name, count=count)) for name in names))


class MapMethod(StrEnum):
    """How vectors become places on a plane."""

    tsne = "tsne"
    pca = "pca"


@kg_app.command("map")
def kg_map(
    kg: KGFolder,
    out: Annotated[Path, typer.Option(help="The SVG file to write.", show_default=False)],
    relation: Annotated[
        str | None,
        typer.Option(
            help="Colour by its most frequent tails; by default the relation with most triples.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        MapMethod, typer.Option(help="tsne keeps neighbours, pca keeps distances.")
    ] = MapMethod.tsne,
    max_entities: Annotated[
        int, typer.Option(help="Draw a random sample above this many.", min=3)
    ] = 2000,
    labels: Annotated[int, typer.Option(help="Names to write, at most.", min=0)] = 60,
    seed: Seed = 0,
) -> None:
    """Draw entity vectors on a plane, coloured by type."""
    from kg.map import draw_map

    report = draw_map(
        kg,
        out,
        relation=relation,
        method=method.value,
        max_entities=max_entities,
        labels=labels,
        seed=seed,
    )
    typer.echo(report)


@kg_app.command("clean")
def kg_clean(
    triples: Annotated[
        list[Path],
        typer.Argument(help="Dumps of one graph, or an OpenKE folder.", show_default=False),
    ],
    out: Out,
    min_tail_count: Annotated[
        int, typer.Option(help="Tails in fewer triples that head none are literals, and dropped.")
    ] = KGConfig.min_tail_count,
    overwrite: Overwrite = False,
) -> None:
    """Write the triples that `kg train` would learn as a TSV, for other engines."""
    from kg.clean import clean

    typer.echo(clean(triples, out, min_tail_count=min_tail_count, overwrite=overwrite))


@kg_app.command("import")
def kg_import(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of vectors: DGL-KE's save path or PyTorch-BigGraph's checkpoint path.",
            show_default=False,
        ),
    ],
    out: Out,
    names: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the engine's id maps, if they are not where its settings say.",
            show_default=False,
        ),
    ] = None,
    triples: Annotated[
        Path | None,
        typer.Option(help="The graph, for `kg stats` and `kg eval`.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn vectors that DGL-KE or PyTorch-BigGraph trained into a KG folder."""
    from kg.imports import import_vectors

    report = import_vectors(source, out, names=names, triples=triples, overwrite=overwrite)
    typer.echo(report)


@kg_app.command("stats")
def kg_stats(
    kg: KGFolder,
    top: Annotated[int, typer.Option(help="How many frequent names are listed.", min=0)] = 10,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures here, too.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the distribution of degrees here, as SVG.", show_default=False),
    ] = None,
) -> None:
    """Describe a graph: degrees, relations, components, what reading dropped."""
    from kg.stats import kg_stats

    typer.echo(kg_stats(kg, top=top, json=json, plot=plot))


# --- lattice -------------------------------------------------------------------------------------


class SegmentName(StrEnum):
    """What finds words."""

    none = "none"
    jieba = "jieba"


class PolicyName(StrEnum):
    """Which entities a caption keeps."""

    first = "first"
    longest = "longest"
    leftmost_longest = "leftmost-longest"


class Backend(StrEnum):
    """What matches names."""

    auto = "auto"
    ahocorasick = "ahocorasick"
    trie = "trie"


class TableFormat(StrEnum):
    """How a lattice table is written."""

    parquet = "parquet"
    tsv = "tsv"


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
Mentions = Annotated[
    Path | None,
    typer.Option(
        help="Further names, `mention<TAB>entity`; one may name several.", show_default=False
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
ImageCheckOption = Annotated[
    ImageCheck, typer.Option(help="full decodes each image once; header reads its size.")
]
Policy = Annotated[PolicyName, typer.Option(help="Which ones are kept under --max-entities.")]


def _names(kg: Path | None, entities: Path | None) -> Path:
    """The one of --kg and --entities that was given."""
    if (kg is None) == (entities is None):
        raise ConfigError("Give entity names: either --kg FOLDER or --entities entity2id.txt.")
    return kg or entities  # type: ignore[return-value]


@lattice_app.command("build")
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
    from lattice.build import build_lattice
    from lattice.kernel import LatticeConfig

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


@lattice_app.command("compile")
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
    from lattice.build import load_tokenizer
    from lattice.lexicon import LexiconConfig
    from lattice.vocabulary import compile_vocabulary

    report = compile_vocabulary(
        _names(kg, entities),
        out,
        tokenizer=load_tokenizer(tokenizer),
        config=LexiconConfig(min_length=min_length, bracket_aliases=bracket_aliases),
        mentions=mentions,
        overwrite=overwrite,
    )
    typer.echo(report)


@lattice_app.command("show")
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
    from lattice.build import load_tokenizer
    from lattice.explain import explain_text
    from lattice.kernel import LatticeConfig
    from lattice.show import draw
    from lattice.svg import save_lattice

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
    typer.echo(draw(found, width, sys.stdout.isatty() and "NO_COLOR" not in os.environ))


@lattice_app.command("stats")
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
    from lattice.stats import lattice_stats, save_stats_plot

    names = _names(kg, entities) if kg or entities else None
    stats = lattice_stats(table, names, top, text_len)
    if plot is not None:
        save_stats_plot(stats, plot)
    typer.echo(stats.to_json() if as_json else stats)


@lattice_app.command("export")
def lattice_export(
    table: Annotated[
        Path, typer.Argument(help="A lattice table, or a folder of shards.", show_default=False)
    ],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write a lattice table as EasyNLP's preprocessed TSV."""
    from lattice.easynlp import export_table

    typer.echo(export_table(table, out, overwrite=overwrite))


@lattice_app.command("import")
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
    from lattice.easynlp import import_table

    report = import_table(
        tsv,
        out,
        names=_names(kg, entities),
        tokenizer=tokenizer,
        check_images=check_images.value,
        overwrite=overwrite,
    )
    typer.echo(report)


@artist_app.callback()
def artist_group() -> None:
    """Before each command of the group."""
    reuse_freed_memory()


# --- artist vqgan, artist encode -----------------------------------------------------------------
@vqgan_app.command("train")
def vqgan_train(
    table: Annotated[
        Path,
        typer.Argument(
            help="A lattice table with images, or a TSV of idx, text, imgbase64.",
            show_default=False,
        ),
    ],
    out: Out,
    valid: Annotated[
        Path | None,
        typer.Option(
            help="Images to measure by; without it a twentieth of TABLE is held out.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        VQGANPreset, typer.Option(help="small: for CPUs; base: taming-transformers' architecture.")
    ] = VQGANPreset.small,
    resolution: Annotated[int, typer.Option(help="Side of the images in pixels.", min=8)] = 64,
    downsample: Annotated[int, typer.Option(help="Pixels per code and side: 4, 8 or 16.")] = 8,
    ch: Annotated[
        int | None,
        typer.Option(help="Width of the first level; the preset's if left out.", min=1),
    ] = None,
    codebook_size: Annotated[
        int | None, typer.Option(help="Number of codes; the preset's if left out.", min=2)
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 2000,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="At the top of its schedule.")] = 1e-3,
    vgg: Annotated[
        Path | None,
        typer.Option(help="torchvision's vgg16-397923af.pth: adds a perceptual loss."),
    ] = None,
    perceptual: Annotated[float, typer.Option(help="Weight of that loss.")] = 0.5,
    adversarial: Annotated[
        float, typer.Option(help="Weight of the patch discriminator; 0 means off.", min=0)
    ] = 0.0,
    no_flip: Annotated[
        bool, typer.Option("--no-flip", help="Do not mirror images while training.")
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Train a VQGAN on your own images and write its folder, with a sheet of reconstructions."""
    from artist.vqgan_train import VQGANTrainConfig, train_vqgan

    config = VQGANTrainConfig(
        preset=preset.value,
        resolution=resolution,
        downsample=downsample,
        ch=ch,
        codebook_size=codebook_size,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        perceptual=perceptual,
        adversarial=adversarial,
        flip=not no_flip,
        seed=seed,
    )
    report = train_vqgan(
        table, out, config=config, valid=valid, vgg=vgg, device=device.value, overwrite=overwrite
    )
    typer.echo(report)


@artist_app.command("encode")
def artist_encode(
    table: Annotated[Path, typer.Argument(help="A lattice table with images.", show_default=False)],
    vqgan: VQGANPath,
    out: Out,
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.", min=1)] = 32,
    resize: Annotated[
        str,
        typer.Option(help="antialias, or easynlp: exactly the pixels of the released training."),
    ] = "antialias",
    versions: Annotated[
        int, typer.Option(help="Versions of each image; training takes one an epoch.", min=1)
    ] = 1,
    crop: Annotated[
        float, typer.Option(help="Share of the side that further versions keep at least.")
    ] = 0.8,
    flip: Annotated[
        bool,
        typer.Option("--flip", help="Mirror half of them, unless the caption says 左 or 右."),
    ] = False,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Keep the images beside their codes.")
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Encode the images of a lattice table to VQGAN codes, once for all trainings."""
    from artist.encode import Versions, encode_table

    report = encode_table(
        table,
        out,
        vqgan=vqgan,
        device=device.value,
        batch_size=batch_size,
        resize=resize,
        versions=Versions(count=versions, crop=crop, flip=flip, seed=seed),
        keep_images=keep_images,
        overwrite=overwrite,
    )
    typer.echo(report)


# --- artist --------------------------------------------------------------------------------------
Table = Annotated[Path, typer.Argument(help="A lattice table, from `lattice build`.")]
ModelPath = Annotated[Path, typer.Option("--model", help="A model folder.", show_default=False)]


@artist_app.command("finetune")
def artist_finetune(
    context: typer.Context,
    table: Table,
    valid: Annotated[
        Path, typer.Option(help="Lattice table of the validation captions.", show_default=False)
    ],
    kg: KG,
    vqgan: Annotated[
        Path,
        typer.Option(help="VQGAN folder, or a taming-transformers checkpoint.", show_default=False),
    ],
    out: Out,
    preset: Annotated[
        str, typer.Option(help="A recipe: default, or easynlp; further options change it.")
    ] = "default",
    size: Annotated[str, typer.Option(help="nano, tiny, small, base or large.")] = TrainConfig.size,
    fusion: Annotated[
        str, typer.Option(help="How knowledge enters: lattice, easynlp or none.")
    ] = TrainConfig.fusion,
    init: Annotated[
        Path | None, typer.Option(help="Begin with this model's weights.", show_default=False)
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the table.")] = TrainConfig.epochs,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after so many steps even so.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Captions a step, over all processes.")
    ] = TrainConfig.batch_size,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(help="Captions in memory at once; lower it when memory runs out."),
    ] = None,
    checkpoint_activations: Annotated[
        bool,
        typer.Option("--checkpoint-activations", help="Less memory for about a third more time."),
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Minutes of compiling, then faster steps on a GPU.")
    ] = False,
    optimizer: Annotated[
        str, typer.Option(help="adamw, or muon: fewer steps for small models.")
    ] = TrainConfig.optimizer,
    learning_rate: Annotated[
        float, typer.Option(help="At the top of the schedule.")
    ] = TrainConfig.learning_rate,
    schedule: Annotated[
        str, typer.Option(help="How it falls: cosine or linear.")
    ] = TrainConfig.schedule,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which it rises.")
    ] = TrainConfig.warmup,
    final_learning_rate: Annotated[
        float, typer.Option(help="Share of it that is left at the end.")
    ] = TrainConfig.final_learning_rate,
    weight_decay: Annotated[
        float, typer.Option(help="Of matrices only.")
    ] = TrainConfig.weight_decay,
    grad_clip: Annotated[
        float, typer.Option(help="Largest norm of the gradient.")
    ] = TrainConfig.grad_clip,
    dropout: Annotated[
        float, typer.Option(help="Of embeddings and residual branches.")
    ] = TrainConfig.dropout,
    caption_dropout: Annotated[
        float, typer.Option(help="Share of captions left empty, so that guidance can be used.")
    ] = TrainConfig.caption_dropout,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of each target that is spread over all codes.")
    ] = TrainConfig.label_smoothing,
    ema_decay: Annotated[
        float, typer.Option(help="Averaging of the weights that are kept; 0 turns it off.")
    ] = TrainConfig.ema_decay,
    text_len: Annotated[
        int, typer.Option(help="Text tokens a caption may have.")
    ] = TrainConfig.text_len,
    max_entities: Annotated[
        int | None,
        typer.Option(help="Entities a caption may bring; 32, or 10 with fusion easynlp."),
    ] = None,
    entity_policy: Annotated[
        PolicyName, typer.Option(help="Which ones, where a caption has more.")
    ] = PolicyName.first,
    validations: Annotated[
        int, typer.Option(help="How often to validate in a run.")
    ] = TrainConfig.validations,
    keep: Annotated[
        str, typer.Option(help="Weights for the model folder: best on --valid, or last.")
    ] = TrainConfig.keep,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many validations without a better one.")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Time between two checkpoints: what a crash can cost.")
    ] = TrainConfig.checkpoint_seconds,
    keep_checkpoints: Annotated[
        int, typer.Option(help="How many are kept until the run is finished.")
    ] = TrainConfig.keep_checkpoints,
    preview_every: Annotated[
        int | None,
        typer.Option(help="Draw the same prompts every so many steps, into previews/."),
    ] = None,
    preview_prompts: Annotated[
        Path | None,
        typer.Option(
            help="Which ones, `idx<TAB>text`; 8 rows of --valid if left out.", show_default=False
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into tensorboard/ as well.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="auto, bf16, fp16 (GPUs) or fp32.")
    ] = TrainConfig.precision,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Take two steps; say what memory and time it will take."),
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on a lattice table.

    Images are turned into codes first, once. Interrupted, it saves a checkpoint; the same command
    goes on from there. Several GPUs or machines: start it by torchrun.
    """
    given = _given(context, TrainConfig)
    if fusion == "easynlp":
        given.setdefault("max_entities", EASYNLP_ENTITIES)
    config = TrainConfig.preset(preset, **given)
    report: object
    if dry_run:
        from artist.rehearse import rehearse

        report = rehearse(
            table, valid=valid, kg=kg, vqgan=vqgan, config=config, init=init, device=device.value
        )
    else:
        from artist.train import finetune
        from pipeline import match_as_table

        report = finetune(
            table,
            valid=valid,
            kg=kg,
            vqgan=vqgan,
            out=out,
            config=config,
            init=init,
            preview_prompts=match_as_table(preview_prompts, table, kg) if preview_prompts else None,
            device=device.value,
            overwrite=overwrite,
        )
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started
        typer.echo(report)


def _given(context: typer.Context, config: type) -> dict[str, Any]:
    """The options of a command that were given and are fields of a configuration."""
    names = {field.name for field in fields(config)}
    sources = {name: context.get_parameter_source(name) for name in names & context.params.keys()}
    given = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    plain = (context.params[name] for name in given)
    values = [value.value if isinstance(value, StrEnum) else value for value in plain]
    return dict(zip(given, values, strict=True))


@artist_app.command("evaluate")
def artist_evaluate(
    table: Annotated[
        Path | None,
        typer.Argument(help="A lattice table with images or codes.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model folder.", show_default=False)
    ] = None,
    kg: Annotated[
        Path | None,
        typer.Option("--kg", help="The KG folder it was trained with.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a folder with JSON, tables and a report.", show_default=False),
    ] = None,
    train_table: Annotated[
        Path | None,
        typer.Option(
            help="What it was trained on, if the model does not tell which entities it saw.",
            show_default=False,
        ),
    ] = None,
    other_kg: Annotated[
        Path | None,
        typer.Option(help="Also give it another KG's vectors, by name.", show_default=False),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Measure these, draw none: a folder, a TSV of base64, `artist predict`'s output.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Compare with these (folder, TSV, table, .npz), not with TABLE's own pictures.",
            show_default=False,
        ),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            help="Adds FID, KID and IS: pt_inception-2015-12-05-6726825d.pth of pytorch-fid.",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            help="Adds text-image match: folder of a Chinese CLIP, as transformers saves it.",
            show_default=False,
        ),
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(help="Keep the reference's statistics (.npz).", show_default=False),
    ] = None,
    draw: Annotated[
        int | None,
        typer.Option(
            help="Draw so many of the captions for --inception and --clip; by default all."
        ),
    ] = EvaluateConfig.draw,
    fid_like: Annotated[
        str, typer.Option(help="Resize as pytorch-fid, clean-fid or torch-fidelity does.")
    ] = EvaluateConfig.fid_like,
    kid_subset_size: Annotated[
        int, typer.Option(help="Pictures in each of KID's subsets.")
    ] = EvaluateConfig.kid_subset_size,
    is_splits: Annotated[
        int, typer.Option(help="Parts that the Inception score is the mean over.")
    ] = EvaluateConfig.is_splits,
    shuffles: Annotated[
        int, typer.Option(help="How many times to deal vectors to wrong entities.")
    ] = EvaluateConfig.shuffles,
    examples: Annotated[
        int, typer.Option(help="Captions with pictures in each part of the report.")
    ] = EvaluateConfig.examples,
    temperature: Annotated[
        float, typer.Option(help="Of drawing: below 1 is tamer, above 1 wilder.")
    ] = SamplingConfig.temperature,
    top_k: Annotated[
        int, typer.Option(help="Of drawing: choose among the k likeliest codes; 0 is all.")
    ] = SamplingConfig.top_k or 0,
    top_p: Annotated[
        float,
        typer.Option(help="Of drawing: choose among the likeliest of this probability; 1 is all."),
    ] = 1.0,
    cfg_scale: Annotated[
        float, typer.Option(help="Of drawing: guidance; 1 turns it off.")
    ] = SamplingConfig.cfg_scale,
    batch_size: Annotated[
        int, typer.Option(help="Captions or pictures measured at once.")
    ] = EvaluateConfig.batch_size,
    precision: Annotated[
        str, typer.Option(help="Of likelihood: auto, bf16 or fp32.")
    ] = EvaluateConfig.precision,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Measure a model: likelihood, what knowledge is worth, its VQGAN; and pictures.

    With --model and TABLE: likelihood and reconstruction. --inception and --clip add figures of
    pictures, drawn now or given as --pictures; those can be measured without a model too. What was
    not measured is listed.
    """
    from artist.evaluate import evaluate

    report = evaluate(
        table,
        model=model,
        kg=kg,
        train_table=train_table,
        other_kg=other_kg,
        pictures=pictures,
        reference=reference,
        inception=inception,
        clip=clip,
        out=out,
        save_reference=save_reference,
        config=EvaluateConfig(
            shuffles=shuffles,
            draw=draw,
            fid_like=fid_like,
            kid_subset_size=kid_subset_size,
            is_splits=is_splits,
            examples=examples,
            batch_size=batch_size,
            precision=precision,
            seed=seed,
        ),
        sampling=SamplingConfig(
            temperature=temperature,
            top_k=top_k or None,
            top_p=top_p if top_p < 1 else None,
            cfg_scale=cfg_scale,
        ),
        device=device.value,
        overwrite=overwrite,
    )
    typer.echo(report)


@artist_app.command("ablate")
def artist_ablate(
    table: Table,
    valid: Annotated[
        Path, typer.Option(help="Lattice table of the validation captions.", show_default=False)
    ],
    kg: KG,
    vqgan: VQGANPath,
    out: Out,
    test: Annotated[
        Path | None,
        typer.Option(help="Captions to compare on; by default --valid.", show_default=False),
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            help="Trainings to compare, the first with the others: lattice, none, shuffled "
            "(vectors dealt to the wrong names), easynlp."
        ),
    ] = "lattice,none,shuffled",
    num_seeds: Annotated[
        int, typer.Option(help="Trainings of each arm; intervals are over seeds too.", min=1)
    ] = 3,
    size: Annotated[str, typer.Option(help="nano, tiny, small, base or large.")] = "tiny",
    epochs: Annotated[int, typer.Option(help="Passes over the table.")] = TrainConfig.epochs,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after so many steps even so.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Captions a step.")] = TrainConfig.batch_size,
    optimizer: Annotated[
        str, typer.Option(help="adamw, or muon: fewer steps for small models.")
    ] = TrainConfig.optimizer,
    learning_rate: Annotated[
        float, typer.Option(help="At the top of the schedule.")
    ] = TrainConfig.learning_rate,
    dropout: Annotated[
        float, typer.Option(help="Of embeddings and residual branches.")
    ] = TrainConfig.dropout,
    text_len: Annotated[
        int, typer.Option(help="Text tokens a caption may have.")
    ] = TrainConfig.text_len,
    validations: Annotated[
        int, typer.Option(help="How often to validate in a run.")
    ] = TrainConfig.validations,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the first training; the others count on.")] = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Train with knowledge, without, and with false knowledge; compare caption by caption.

    Writes every model, ablation.json and ablation.md into --out. Interrupted, it goes on with the
    trainings that are missing.
    """
    from artist.ablation import ablate

    report = ablate(
        table,
        valid=valid,
        kg=kg,
        vqgan=vqgan,
        out=out,
        test=test,
        arms=[arm.strip() for arm in arms.split(",")],
        seeds=range(seed, seed + num_seeds),
        config=TrainConfig(
            size=size,
            epochs=epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            dropout=dropout,
            text_len=text_len,
            validations=validations,
            precision=precision,
        ),
        device=device.value,
        overwrite=overwrite,
    )
    typer.echo(report)


@artist_app.command("predict")
def artist_predict(
    model: ModelPath,
    out: Out,
    tsv: Annotated[
        Path | None,
        typer.Argument(
            help="Prompts: `idx<TAB>text`, and for --keep-top a third column of base64 images.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A prompt; may be given several times.")
    ] = None,
    kg: Annotated[
        Path | None,
        typer.Option("--kg", help="The KG folder of the model; none for a model without one."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            "--entities",
            help="A vocabulary compiled from the KG's names: saves reading millions of them.",
        ),
    ] = None,
    num_images: Annotated[int, typer.Option(help="Pictures a prompt.")] = 1,
    candidates: Annotated[
        int | None,
        typer.Option(help="Draw so many a prompt, and keep those that --clip finds nearest to it."),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="Folder of a Chinese CLIP; the scores are written to scores.tsv."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1 is tamer, above 1 wilder.")
    ] = SamplingConfig.temperature,
    top_k: Annotated[
        int, typer.Option(help="Choose among the k likeliest codes; 0 is all.")
    ] = SamplingConfig.top_k or 0,
    top_p: Annotated[
        float, typer.Option(help="Choose among the likeliest codes of this probability; 1 is all.")
    ] = 1.0,
    cfg_scale: Annotated[
        float, typer.Option(help="Guidance: above 1 follows the prompt more closely.")
    ] = 1.0,
    cfg_schedule: Annotated[
        str,
        typer.Option(help="Guidance over a picture: constant, or rising (linear, cosine)."),
    ] = SamplingConfig.cfg_schedule,
    keep_top: Annotated[
        float,
        typer.Option(
            help="Keep this upper share of each given image, draw the rest; 0 is off.", min=0, max=1
        ),
    ] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Pictures drawn at once.")] = 32,
    mentions: Mentions = None,
    image_format: Annotated[
        str, typer.Option(help="Of the files and in the TSV: png, or webp, smaller.")
    ] = "png",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Draw pictures from prompts: a TSV, PNG files and a gallery."""
    import pyarrow as pa

    from artist.predict import predict, read_prompts
    from pipeline import prompt_matcher

    sampling = SamplingConfig(
        temperature=temperature,
        top_k=top_k or None,
        top_p=top_p if top_p < 1 else None,
        cfg_scale=cfg_scale,
        cfg_schedule=cfg_schedule,
    )
    prompts = read_prompts(tsv, text or [], with_images=keep_top > 0)
    matcher = prompt_matcher(model, kg, names=names, mentions=mentions)
    table = matcher(prompts.texts).set_column(0, "idx", pa.array(prompts.idx, pa.string()))
    report = predict(
        table,
        candidates=candidates,
        clip=clip,
        images=prompts.images,
        keep_top=keep_top,
        model=model,
        kg=kg,
        out=out,
        num_images=num_images,
        sampling=sampling,
        seed=seed,
        batch_size=batch_size,
        device=device.value,
        precision=precision,
        image_format=image_format,
        overwrite=overwrite,
    )
    typer.echo(report)


@artist_app.command("import")
def artist_import(
    folder: Annotated[Path, typer.Argument(help="EasyNLP's model directory.", show_default=False)],
    out: Out,
    kg: Annotated[
        Path | None,
        typer.Option(
            "--kg",
            help="For a model with knowledge: its entity2id.txt and entity2vec.pt.",
            show_default=False,
        ),
    ] = None,
    resolution: Annotated[int, typer.Option(help="Side of its images, in pixels.")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Turn an EasyNLP model directory into a model folder."""
    from artist.easynlp import import_easynlp

    typer.echo(import_easynlp(folder, out, kg=kg, resolution=resolution, overwrite=overwrite))


@artist_app.command("export")
def artist_export(
    model: Annotated[Path, typer.Argument(help="A model folder.", show_default=False)],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write a model folder as an EasyNLP directory (fusion none or easynlp)."""
    from artist.easynlp import export_easynlp

    typer.echo(export_easynlp(model, out, overwrite=overwrite))


@artist_app.command("export-muge")
def artist_export_muge(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="A folder from `artist predict`, or a TSV of idx, text, gen_imgbase64.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The TSV to hand in: id and one picture.", show_default=False)
    ],
    ids: Annotated[
        Path | None,
        typer.Option(
            help="MUGE's T2I_test.tsv: every id in it must have a picture, and gives the order.",
            show_default=False,
        ),
    ] = None,
    pick: Annotated[int, typer.Option(help="Which of several pictures of an id, from 1.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write predictions as MUGE's text-to-image task wants them handed in."""
    from artist.muge import export_muge

    typer.echo(export_muge(predictions, out, ids=ids, pick=pick, overwrite=overwrite))


# --- demo, doctor --------------------------------------------------------------------------------
@app.command("demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """The whole way on emoji with Chinese names, about ten minutes; ends in a gallery.

    Interrupted, it goes on where it was.
    """
    from demo.run import DemoConfig, run_demo

    reuse_freed_memory()
    config = DemoConfig(seed=seed)
    typer.echo(run_demo(out, config=config, device=device.value, overwrite=overwrite))


@app.command("proof")
def proof(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/proof"),
    num_seeds: Annotated[int, typer.Option(help="Worlds, each with its trainings.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of the first world; the others count on.")] = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """A generated world in which only the graph tells how a thing looks; minutes a seed.

    Names of random characters, held out of the captions, are drawn by models trained with the
    graph, without, and with a false one; colour and shape are read from the pixels.
    """
    from proof.run import run_proof

    seeds = range(seed, seed + num_seeds)
    typer.echo(run_proof(out, seeds=seeds, device=device.value, overwrite=overwrite))


@app.command("doctor")
def doctor() -> None:
    """What this machine has: versions, devices, precision, memory."""
    from artist.device import describe_machine

    typer.echo(describe_machine())


def main() -> None:
    """Run a command; one line and exit code 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads that wait for each other by spinning stand still on a machine that does other work:
    # a training of 5 s took minutes beside five others on two cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except ToolkitError as error:
        process = os.environ.get("RANK", "0")  # of those that torchrun started
        who = f" in process {process}" if process != "0" else ""
        print(f"error{who}: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 2)
    except SystemExit as stopped:
        if stopped.code == 130:  # typer's own end of a Ctrl-C
            print("The same command resumes what was unfinished.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
