"""Measure and compare models: `artist evaluate` and `artist ablate`."""

from pathlib import Path
from typing import Annotated

import typer

from artist.evaluation.config import EvaluateConfig
from artist.generation.config import SamplingConfig
from artist.training.config import TrainConfig
from commands.options import KG, Device, DeviceName, Out, Overwrite, Seed, Table, VQGANPath


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
    from artist.evaluation.evaluator import evaluate

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
    from artist.evaluation.ablation import ablate

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
