"""Measure and compare models: `artist evaluate` and `artist ablate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from artist.evaluation.config import ClusterBy, EvaluateConfig, Sources
from artist.generation.config import SamplingConfig
from artist.training.config import TrainConfig
from commands.options import (
    KG,
    Device,
    DryRun,
    Given,
    Init,
    Out,
    Overwrite,
    Preset,
    Table,
    Valid,
    VQGANPath,
    with_options,
)
from data.options import Option


@with_options
def artist_evaluate(
    *,
    table: Annotated[
        Path | None,
        typer.Argument(help="Lattice table with images or codes.", show_default=False),
    ] = None,
    sources: Annotated[dict[str, Any], Given(Sources)],
    out: Annotated[
        Path | None, Option("Folder to write: JSON, tables and a report; by default none.")
    ] = None,
    save_reference: Annotated[
        Path | None, Option("Save the statistics of the reference images (.npz).")
    ] = None,
    config: EvaluateConfig,
    sampling: SamplingConfig,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Measure a model: likelihood, the effect of knowledge, its VQGAN, and images.

    With --model and TABLE: likelihood and reconstruction. --inception and --clip add metrics of
    images, which are generated, or given as `--pictures`; those need no model. The report lists
    what was not measured.
    """
    from artist.evaluation.evaluator import evaluate

    report = evaluate(
        Sources(table=table, **sources),
        out=out,
        save_reference=save_reference,
        config=config,
        sampling=sampling,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(report)


@with_options
def artist_ablate(
    *,
    table: Table,
    valid: Valid,
    kg: KG,
    vqgan: VQGANPath,
    out: Out,
    test: Annotated[Path | None, Option("Captions to compare on; by default --valid.")] = None,
    arms: Annotated[
        str,
        Option(
            "Trainings to compare, the first with the others: lattice, none, shuffled (vectors "
            "assigned to wrong names), easynlp."
        ),
    ] = "lattice,none,shuffled",
    num_seeds: Annotated[
        int, Option("Trainings per arm; intervals include the variation over seeds.", min=1)
    ] = 3,
    cluster_by: ClusterBy = "entity",
    preset: Preset = "default",
    init: Init = None,
    changes: Annotated[dict[str, Any], Given(TrainConfig, without=("fusion", "seed"), size="tiny")],
    seed: Annotated[int, Option("Seed of the first training; the others count up from it.")] = 0,
    dry_run: DryRun = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train with knowledge, without, and with false knowledge; compare per caption.

    Writes every model, ablation.json, ablation.md and losses.parquet (per caption) into --out. An
    interrupted run continues with the missing trainings.
    """
    from artist.evaluation.ablation import ablate, dry_run_ablation

    inputs: dict[str, Any] = {"valid": valid, "kg": kg, "vqgan": vqgan, "init": init}
    inputs |= {
        "config": TrainConfig.preset(preset, **changes),
        "arms": [arm.strip() for arm in arms.split(",")],
        "seeds": range(seed, seed + num_seeds),
        "device": device,
    }
    report: object
    if dry_run:
        report = dry_run_ablation(table, **inputs)
    else:
        report = ablate(
            table, **inputs, out=out, test=test, cluster_by=cluster_by, overwrite=overwrite
        )
    typer.echo(report)
