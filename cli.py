"""The command line. `commands/` contains one module per group of commands.

Each command parses, calls one function and prints its report; nothing else prints. Stages are
imported inside their commands, so that `--help` is fast and loads neither torch nor pykeen.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.artist import app as artist_app
from commands.data import app as data_app
from commands.kg import app as kg_app
from commands.lattice import app as lattice_app
from commands.options import Device, Given, Overwrite, with_options
from data.encoding import escape_output, use_utf8_mode
from data.errors import ConfigError, Interrupted, ToolkitError
from data.malloc import reuse_freed_memory
from data.options import Option, Seed
from data.runs import DISK_ERRORS
from experiments.photos.config import SCALES, PhotosConfig

app = typer.Typer(
    name="artist-toolkit",
    help="Knowledge graphs, lattices and ARTIST: images from Chinese sentences.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
app.add_typer(kg_app, name="kg")
app.add_typer(lattice_app, name="lattice")
app.add_typer(artist_app, name="artist")


@app.command("demo")
@with_options
def demo(
    *,
    out: Annotated[Path, Option("Folder for all outputs.")] = Path("runs/demo"),
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Run all stages on emoji with Chinese names; about ten minutes, ends in a gallery.

    The same command resumes an interrupted run.
    """
    from experiments.emoji.run import DemoConfig, run_demo

    reuse_freed_memory()
    typer.echo(run_demo(out, config=DemoConfig(seed=seed), device=device, overwrite=overwrite))


proof_app = typer.Typer(invoke_without_command=True)
app.add_typer(proof_app, name="proof")


@proof_app.callback()
@with_options
def proof(
    *,
    context: typer.Context,
    out: Annotated[Path, Option("Folder for all outputs.")] = Path("runs/proof"),
    num_seeds: Annotated[int, Option("Worlds to generate and train on.", min=1)] = 1,
    seed: Annotated[int, Option("Seed of the first world; the others count up from it.")] = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Test on a generated world in which only the graph defines appearance; minutes per seed.

    Models trained with the graph, without it and with a false one generate images of names that no
    caption contains; colour and shape are measured in the pixels. `proof photos` does the same
    with real photographs.
    """
    if context.invoked_subcommand is not None:
        given = [name for name, value in context.params.items() if value is not None]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ConfigError(f"{flag} goes after `{context.invoked_subcommand}`.")
        return
    from experiments.proof.run import run_proof

    seeds = range(seed, seed + num_seeds)
    typer.echo(run_proof(out, seeds=seeds, device=device, overwrite=overwrite))


@proof_app.command("photos")
@with_options
def proof_photos(
    *,
    data: Annotated[
        Path,
        Option(
            "Folder of photographs in classes: classes.tsv (class, name, superclass), kg.tsv, "
            "train/ and val/ with a folder per class; see docs/proof.md."
        ),
    ],
    out: Annotated[Path, Option("Folder for all outputs.")] = Path("runs/photos"),
    folds: Annotated[str, Option("Folds of classes to hold out, one after the other.")] = "0",
    num_seeds: Annotated[int, Option("Trainings per fold and arm.", min=1)] = 1,
    seed: Annotated[int, Option("Seed of the first training; the others count up from it.")] = 0,
    scale: Annotated[
        str,
        Option(
            "full: less than an hour of CPU time per fold and seed; small: a minute, to try the "
            "command out. Explicit options override its values.",
            choices=tuple(SCALES),
        ),
    ] = "full",
    changes: Annotated[dict[str, Any], Given(PhotosConfig)],
    groups: Annotated[
        Path | None,
        Option("Coarse groups, `superclass<TAB>group`; by default DATA/groups.tsv or built-in."),
    ] = None,
    judge: Annotated[
        Path | None,
        Option("Folder of the judge, to share it between runs; by default in --out."),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Test on real photographs of classes that no caption contains; under an hour per seed.

    Trains with the graph, without it and with a false one on the other classes, draws the held-out
    ones, and judges the images against real photographs. The same command resumes an interrupted
    run.
    """
    from experiments.photos.run import run_photos

    report = run_photos(
        data,
        out,
        folds=[fold.strip() for fold in folds.split(",")],
        seeds=range(seed, seed + num_seeds),
        config=PhotosConfig.at_scale(scale, **changes),
        groups=groups,
        judge=judge,
        device=device,
        overwrite=overwrite,
    )
    typer.echo(report)


@app.command("doctor")
def doctor() -> None:
    """Print versions, devices, precision and memory of this machine."""
    from artist.device import describe_machine

    typer.echo(describe_machine())


def main() -> None:
    """Run a command; print one line and exit with 2 on an error that the user can fix."""
    use_utf8_mode()
    escape_output()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Spinning threads block each other on a machine with other work: a training of 5 s took minutes
    # next to five others on two cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except ToolkitError as error:
        process = os.environ.get("RANK", "0")  # of the processes that torchrun started
        who = f" in process {process}" if process != "0" else ""
        print(f"error{who}: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 2)
    except OSError as error:  # outside of an output, such as in the folder of temporary files
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a temporary file"
        print(f"error: {where} cannot be written: {DISK_ERRORS[error.errno]}.", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stopped:
        if stopped.code == 130:  # how typer ends on Ctrl-C
            print("The same command resumes the run.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
