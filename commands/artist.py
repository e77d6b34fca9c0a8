"""The group `artist`: codes, training, generation, foreign models.

`commands.vqgan` and `commands.evaluate` hold further commands of the group.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from artist.generation.config import PredictConfig, SamplingConfig
from artist.tables.config import EncodeConfig, Versions
from artist.training.config import TrainConfig
from commands.evaluate import artist_ablate, artist_evaluate
from commands.options import (
    KG,
    Device,
    DryRun,
    Given,
    Init,
    Mentions,
    Model,
    Out,
    Overwrite,
    Preset,
    Table,
    Valid,
    VQGANPath,
    with_options,
)
from commands.output import echo_on_rank_0
from commands.vqgan import app as vqgan_app
from data.malloc import reuse_freed_memory
from data.options import Option

app = typer.Typer(help="Stages 3 and 4: train a model, generate images.", no_args_is_help=True)
app.add_typer(vqgan_app, name="vqgan")


@app.callback()
def artist_group() -> None:
    """Run before each command of the group."""
    reuse_freed_memory()


@app.command("encode")
@with_options
def artist_encode(
    *,
    table: Annotated[Path, typer.Argument(help="Lattice table with images.", show_default=False)],
    vqgan: VQGANPath,
    out: Out,
    config: EncodeConfig,
    versions: Versions,
    code_store: Annotated[
        Path | None,
        Option(
            "Folder that keeps codes by image, at most 4 GiB; other tables with the same images "
            "and --code-store do not encode them again."
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Encode the images of a lattice table to VQGAN codes, once for all trainings."""
    from artist.tables.encode import encode_table

    report = encode_table(
        table,
        out,
        vqgan=vqgan,
        config=config,
        versions=versions,
        code_store=code_store,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("finetune")
@with_options
def artist_finetune(
    *,
    table: Table,
    valid: Valid,
    kg: KG,
    vqgan: VQGANPath,
    out: Out,
    preset: Preset = "default",
    init: Init = None,
    changes: Annotated[dict[str, Any], Given(TrainConfig)],
    preview_prompts: Annotated[
        Path | None,
        Option("Prompts of the previews, `idx<TAB>text`; by default 8 rows of --valid."),
    ] = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train a model on a lattice table.

    Images are encoded first, once. An interrupted run saves a checkpoint, and the same command
    resumes it. For several GPUs or machines, start it with torchrun.
    """
    inputs: dict[str, Any] = {"valid": valid, "kg": kg, "vqgan": vqgan, "init": init}
    config = TrainConfig.preset(preset, **changes)
    report: object
    if dry_run:
        from artist.training.dry_run import dry_run_finetune

        report = dry_run_finetune(table, **inputs, config=config, device=device)
    else:
        from artist.training.gpt_training import finetune
        from pipeline import match_as_table

        report = finetune(
            table,
            **inputs,
            out=out,
            config=config,
            preview_prompts=match_as_table(preview_prompts, table, kg) if preview_prompts else None,
            device=device,
            overwrite=overwrite,
        )
    echo_on_rank_0(report)


# Here, so that help lists them between training and generation.
app.command("evaluate")(artist_evaluate)
app.command("ablate")(artist_ablate)


@app.command("predict")
@with_options
def artist_predict(
    *,
    tsv: Annotated[
        Path | None,
        typer.Argument(
            help="Prompts: `idx<TAB>text`, and for --keep-top a third column of base64 images.",
            show_default=False,
        ),
    ] = None,
    model: Model,
    out: Out,
    text: Annotated[list[str] | None, Option("Prompt; can be repeated.")] = None,
    kg: Annotated[Path | None, Option("KG folder of the model, unless its fusion is none.")] = None,
    names: Annotated[
        Path | None,
        Option(
            "Folder from `lattice compile`, which saves reading the names of the KG.",
            flag="--entities",
        ),
    ] = None,
    mentions: Mentions = None,
    clip: Annotated[
        Path | None,
        Option("Folder of a Chinese CLIP for --candidates; writes its scores to scores.tsv."),
    ] = None,
    sampling: SamplingConfig,
    config: PredictConfig,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Generate images from prompts: a TSV, image files and a gallery."""
    import pyarrow as pa

    from artist.generation.predict import predict
    from artist.generation.prompts import read_prompts
    from pipeline import prompt_matcher

    prompts = read_prompts(tsv, text or [], with_images=config.keep_top > 0)
    matcher = prompt_matcher(model, kg, names=names, mentions=mentions)
    table = matcher(prompts.texts).set_column(0, "idx", pa.array(prompts.idx, pa.string()))
    report = predict(
        table,
        model=model,
        kg=kg,
        out=out,
        clip=clip,
        images=prompts.images,
        sampling=sampling,
        config=config,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("import")
@with_options
def artist_import(
    *,
    folder: Annotated[Path, typer.Argument(help="EasyNLP model directory.", show_default=False)],
    out: Out,
    kg: Annotated[
        Path | None,
        Option("entity2id.txt and entity2vec.pt of a model with knowledge, in one folder."),
    ] = None,
    resolution: Annotated[int, Option("Side of its images in pixels.", min=1)] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Convert an EasyNLP model directory into a model folder."""
    from artist.formats.easynlp import import_easynlp

    typer.echo(import_easynlp(folder, out, kg=kg, resolution=resolution, overwrite=overwrite))


@app.command("export")
@with_options
def artist_export(
    *,
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write a model folder as an EasyNLP directory (fusion none or easynlp)."""
    from artist.formats.easynlp import export_easynlp

    typer.echo(export_easynlp(model, out, overwrite=overwrite))


@app.command("export-muge")
@with_options
def artist_export_muge(
    *,
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Folder from `artist predict`, or TSV of idx, text, gen_imgbase64.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, Option("TSV to submit: id and one image.")],
    ids: Annotated[
        Path | None,
        Option("MUGE's T2I_test.tsv: sets the order; every id in it must have an image."),
    ] = None,
    pick: Annotated[int, Option("Which of several images of an id to use.", min=1)] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write predictions in the submission format of MUGE's text-to-image task."""
    from artist.formats.muge import export_muge

    typer.echo(export_muge(predictions, out, ids=ids, pick=pick, overwrite=overwrite))
