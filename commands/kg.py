"""The group `kg`: triples to entity vectors."""

from pathlib import Path
from typing import Annotated

import typer

from commands.options import KG, Device, Only, Out, Overwrite, with_options
from data.errors import ConfigError
from data.options import Option, Seed
from kg.config import MAP_METHODS, KGConfig
from kg.sources.config import ConvertConfig

app = typer.Typer(help="Stage 1: triples to entity vectors.", no_args_is_help=True)

KGFolder = Annotated[Path, typer.Argument(help="KG folder, from `kg train`.")]
Triples = Annotated[
    list[Path],
    typer.Argument(
        help="Dumps of one graph (TSV, .spo, OwnThink CSV; also compressed), or an OpenKE folder.",
        show_default=False,
    ),
]


@app.command("convert")
@with_options
def kg_convert(
    *,
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Files of one graph as published, plain or compressed (gzip, bzip2, zstd, xz).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, Option("File of triples to write, for `kg train`.")],
    mentions: Annotated[
        Path | None,
        Option(
            "File of mentions to write, for `lattice build --mentions`; by default mentions.tsv "
            "next to the triples."
        ),
    ] = None,
    config: ConvertConfig,
    overwrite: Overwrite = False,
) -> None:
    """Convert an open graph into triples of names and a file of mentions.

    Wikidata, DBpedia, ConceptNet, Wikidata5M, WordNet, OwnThink, other N-Triples.
    """
    from kg.sources.convert import convert_graph

    report = convert_graph(sources, out, mentions=mentions, config=config, overwrite=overwrite)
    typer.echo(report)


@app.command("train")
@with_options
def kg_train(
    *,
    triples: Triples,
    out: Out,
    config: KGConfig,
    start: Annotated[
        Path | None,
        Option("Older KG folder: names in it keep their vectors.", flag="--from"),
    ] = None,
    finish_now: Annotated[
        bool, Option("Evaluate and write the best vectors of an interrupted run.")
    ] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Learn one vector for each entity of a knowledge graph (TransE)."""
    from kg.training.train import train_kg

    report = train_kg(
        triples,
        out,
        config=config,
        start=start,
        finish_now=finish_now,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("eval")
@with_options
def kg_eval(
    *,
    kg: KGFolder,
    triples: Annotated[
        Path | None, Option("Evaluate on these triples instead of the held-out ones.")
    ] = None,
    num_candidates: Annotated[
        int | None,
        Option("Rank among N sampled entities; by default among all, up to 200,000.", min=1),
    ] = None,
    by_relation_type: Annotated[
        bool, Option("Also report 1-1, 1-N, N-1 and N-N relations separately.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Rank held-out triples: filtered MRR and Hits@k."""
    from kg.tools.evaluate import eval_kg

    report = eval_kg(
        kg,
        triples=triples,
        num_candidates=num_candidates,
        by_relation_type=by_relation_type,
        device=device,
        seed=seed,
    )
    typer.echo(report)


@app.command("nearest")
@with_options
def kg_nearest(
    *,
    names: Annotated[
        list[str], typer.Argument(help="Entity names, or # and an id.", show_default=False)
    ],
    kg: KG,
    count: Annotated[int, Option("Neighbours per name.", min=1)] = 10,
) -> None:
    """Print the nearest entities of each name, by cosine similarity."""
    from kg.tools.nearest import find_nearest

    typer.echo("\n\n".join(str(find_nearest(kg, name, count=count)) for name in names))


@app.command("predict")
@with_options
def kg_predict(
    *,
    head: Annotated[
        str | None, typer.Argument(help="Name of the head, or # and an id.", show_default=False)
    ] = None,
    relation: Annotated[
        str | None, typer.Argument(help="Name of the relation.", show_default=False)
    ] = None,
    kg: KG,
    tail: Annotated[
        str | None, Option("Predict the heads of this tail instead; needs --relation.")
    ] = None,
    relation_option: Annotated[
        str | None, Option("Name of the relation.", flag="--relation")
    ] = None,
    top: Annotated[int, Option("Candidates to print.", min=1)] = 10,
    new_only: Annotated[bool, Option("Leave out the answers that the graph contains.")] = False,
    as_json: Annotated[bool, Option("Print JSON.", flag="--json")] = False,
) -> None:
    """Rank the entities that complete HEAD RELATION ?, or ? RELATION TAIL."""
    from kg.tools.predict import predict

    if relation is not None and relation_option is not None:
        raise ConfigError("The relation is given twice.")
    report = predict(
        kg,
        head=head,
        tail=tail,
        relation=relation_option if relation is None else relation,
        top=top,
        new_only=new_only,
    )
    typer.echo(report.to_json() if as_json else report)


@app.command("map")
@with_options
def kg_map(
    *,
    kg: KGFolder,
    out: Annotated[Path, Option("SVG file to write.")],
    relation: Annotated[
        str | None,
        Option(
            "Colour entities by their tails of this relation; by default the relation with most "
            "triples."
        ),
    ] = None,
    method: Annotated[
        str, Option("tsne preserves neighbours, pca distances.", choices=MAP_METHODS)
    ] = "tsne",
    max_entities: Annotated[int, Option("Plot a random sample of at most N entities.", min=3)] = (
        2000
    ),
    labels: Annotated[int, Option("Largest number of names to write.", min=0)] = 60,
    seed: Seed = 0,
) -> None:
    """Plot entity vectors in two dimensions, coloured by type."""
    from kg.tools.map import draw_map

    report = draw_map(
        kg,
        out,
        relation=relation,
        method=method,
        max_entities=max_entities,
        labels=labels,
        seed=seed,
    )
    typer.echo(report)


@app.command("clean")
@with_options
def kg_clean(
    *,
    triples: Triples,
    out: Out,
    config: Annotated[KGConfig, Only("min_tail_count")],
    overwrite: Overwrite = False,
) -> None:
    """Write the triples that `kg train` would learn as a TSV, for other engines."""
    from kg.tools.clean import clean_dump

    typer.echo(clean_dump(triples, out, min_tail_count=config.min_tail_count, overwrite=overwrite))


@app.command("import")
@with_options
def kg_import(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of vectors: save path of DGL-KE, embeddings of GraphStorm, or checkpoint "
            "path of PyTorch-BigGraph.",
            show_default=False,
        ),
    ],
    out: Out,
    names: Annotated[
        Path | None,
        Option("Folder of the engine's id maps, if not where its settings specify."),
    ] = None,
    triples: Annotated[Path | None, Option("The graph, for `kg stats` and `kg eval`.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert vectors trained by DGL-KE, GraphStorm or PyTorch-BigGraph into a KG folder."""
    from kg.tools.import_embeddings import import_vectors

    report = import_vectors(source, out, names=names, triples=triples, overwrite=overwrite)
    typer.echo(report)


@app.command("shuffle")
@with_options
def kg_shuffle(
    *,
    kg: KGFolder,
    out: Out,
    tables: Annotated[
        list[Path] | None,
        Option(
            "Lattice table; only entities in its captions exchange vectors. Can be repeated.",
            flag="--table",
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write a false graph: the same names, each with the vector of another one.

    For comparisons: `artist evaluate --other-kg`, or tables and trainings with a graph whose
    content is wrong. `artist ablate` writes its own.
    """
    from data.shuffled_kg import shuffle_kg

    typer.echo(shuffle_kg(kg, out, tables=tables or [], seed=seed, overwrite=overwrite))


@app.command("stats")
@with_options
def kg_stats(
    *,
    kg: KGFolder,
    top: Annotated[int, Option("Frequent names to list.", min=0)] = 10,
    json: Annotated[Path | None, Option("Also write the figures to this file.")] = None,
    plot: Annotated[Path | None, Option("Plot the degree distribution into this SVG file.")] = None,
) -> None:
    """Describe a graph: degrees, relations, components, dropped triples."""
    from kg.tools.stats import kg_stats

    typer.echo(kg_stats(kg, top=top, json=json, plot=plot))
