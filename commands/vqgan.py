"""The group `artist vqgan`: the image tokenizer."""

from pathlib import Path
from typing import Annotated

import typer

from artist.training.config import VQGANTrainConfig
from commands.options import Device, DryRun, Out, Overwrite, with_options
from commands.output import echo_on_rank_0
from data.options import Option

app = typer.Typer(help="The image tokenizer (VQGAN).", no_args_is_help=True)


@app.command("train")
@with_options
def vqgan_train(
    *,
    table: Annotated[
        Path,
        typer.Argument(
            help="Lattice table with images, or TSV of idx, text, imgbase64.", show_default=False
        ),
    ],
    out: Out,
    valid: Annotated[
        Path | None, Option("Validation images; by default, 5 % of TABLE is held out.")
    ] = None,
    config: VQGANTrainConfig,
    vgg: Annotated[
        Path | None, Option("torchvision's vgg16-397923af.pth; adds a perceptual loss.")
    ] = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train a VQGAN on your own images and write its folder, with a grid of reconstructions.

    An interrupted run saves a checkpoint, and the same command resumes it. For several GPUs or
    machines, start it with torchrun.
    """
    report: object
    if dry_run:
        from artist.training.dry_run import dry_run_vqgan

        report = dry_run_vqgan(table, config=config, valid=valid, vgg=vgg, device=device)
    else:
        from artist.training.vqgan_training import train_vqgan

        report = train_vqgan(
            table, out, config=config, valid=valid, vgg=vgg, device=device, overwrite=overwrite
        )
    echo_on_rank_0(report)
