"""The group `kg`: triples to entity vectors."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.options import KG, Device, DeviceName, Out, Overwrite, Seed
from kg.config import KGConfig

app = typer.Typer(help="Stage 1: triples to entity vectors.", no_args_is_help=True)

KGFolder = Annotated[Path, typer.Argument(help="A KG folder, from `kg train`.")]


class MapMethod(StrEnum):
    """How vectors become places on a plane."""

    tsne = "tsne"
    pca = "pca"


@app.command("train")
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
    from kg.training.train import train_kg

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


@app.command("eval")
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
    from kg.tools.evaluate import eval_kg

    report = eval_kg(
        kg,
        triples=triples,
        num_candidates=num_candidates,
        by_relation_type=by_relation_type,
        device=device.value,
        seed=seed,
    )
    typer.echo(report)


@app.command("nearest")
def kg_nearest(
    names: Annotated[
        list[str],
        typer.Argument(help="Entities' names, or # and an id.", show_default=False),
    ],
    kg: KG,
    count: Annotated[int, typer.Option(help="How many neighbours.", min=1)] = 10,
) -> None:
    """Print the entities nearest to one or to each of several, by cosine."""
    from kg.tools.nearest import find_nearest

    typer.echo("\n\n".join(str(find_nearest(kg, name, count=count)) for name in names))


@app.command("map")
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
    from kg.tools.map import draw_map

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


@app.command("clean")
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
    from kg.tools.clean import clean_dump

    typer.echo(clean_dump(triples, out, min_tail_count=min_tail_count, overwrite=overwrite))


@app.command("import")
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
    from kg.tools.import_embeddings import import_vectors

    report = import_vectors(source, out, names=names, triples=triples, overwrite=overwrite)
    typer.echo(report)


@app.command("stats")
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
    from kg.tools.stats import kg_stats

    typer.echo(kg_stats(kg, top=top, json=json, plot=plot))
