"""The group `artist`: codes, training, drawing, foreign models.

Its longer relatives stand in `commands.vqgan` and `commands.evaluate`.
"""

import os
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from artist.generation.config import SamplingConfig
from artist.models.config import EASYNLP_ENTITIES
from artist.training.config import TrainConfig
from commands.evaluate import artist_ablate, artist_evaluate
from commands.options import (
    KG,
    Device,
    DeviceName,
    Mentions,
    ModelPath,
    Out,
    Overwrite,
    PolicyName,
    Seed,
    Table,
    VQGANPath,
)
from commands.vqgan import app as vqgan_app
from data.malloc import reuse_freed_memory

app = typer.Typer(help="Stages 3 and 4: train the model, draw.", no_args_is_help=True)
app.add_typer(vqgan_app, name="vqgan")


@app.callback()
def artist_group() -> None:
    """Before each command of the group."""
    reuse_freed_memory()


@app.command("encode")
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
    from artist.tables.encode import Versions, encode_table

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


@app.command("finetune")
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
        from artist.training.dry_run import dry_run_finetune

        report = dry_run_finetune(
            table, valid=valid, kg=kg, vqgan=vqgan, config=config, init=init, device=device.value
        )
    else:
        from artist.training.gpt_training import finetune
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


# Here, so that help lists them between training and drawing.
app.command("evaluate")(artist_evaluate)
app.command("ablate")(artist_ablate)


@app.command("predict")
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
    compile: Annotated[
        bool, typer.Option("--compile", help="A minute of compiling, then faster steps.")
    ] = False,
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """Draw pictures from prompts: a TSV, PNG files and a gallery."""
    import pyarrow as pa

    from artist.generation.predict import predict
    from artist.generation.prompts import read_prompts
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
        compile=compile,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("import")
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
    from artist.formats.easynlp import import_easynlp

    typer.echo(import_easynlp(folder, out, kg=kg, resolution=resolution, overwrite=overwrite))


@app.command("export")
def artist_export(
    model: Annotated[Path, typer.Argument(help="A model folder.", show_default=False)],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Write a model folder as an EasyNLP directory (fusion none or easynlp)."""
    from artist.formats.easynlp import export_easynlp

    typer.echo(export_easynlp(model, out, overwrite=overwrite))


@app.command("export-muge")
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
    from artist.formats.muge import export_muge

    typer.echo(export_muge(predictions, out, ids=ids, pick=pick, overwrite=overwrite))
