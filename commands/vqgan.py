"""The group `artist vqgan`: the image tokenizer."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.options import Device, DeviceName, Out, Overwrite, Seed

app = typer.Typer(help="The image tokenizer (VQGAN).", no_args_is_help=True)


class VQGANPreset(StrEnum):
    """Kinds of VQGAN; see `artist.training.vqgan_training`."""

    small = "small"
    base = "base"


@app.command("train")
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
    from artist.training.config import VQGANTrainConfig
    from artist.training.vqgan_training import train_vqgan

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
