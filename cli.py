"""The command line: it starts here; `commands/` holds a file for each group.

Each command parses, calls one function, prints its report; nothing else prints. A stage is imported
inside its command, so that `--help` is quick and needs neither torch nor pykeen.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from commands.artist import app as artist_app
from commands.data import app as data_app
from commands.kg import app as kg_app
from commands.lattice import app as lattice_app
from commands.options import Device, DeviceName, Overwrite, Seed
from data.errors import Interrupted, ToolkitError
from data.malloc import reuse_freed_memory

app = typer.Typer(
    name="artist-toolkit",
    help="Knowledge graphs, lattices and ARTIST: pictures from Chinese sentences.",
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
def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    seed: Seed = 0,
    device: Device = DeviceName.auto,
    overwrite: Overwrite = False,
) -> None:
    """The whole way on emoji with Chinese names, about ten minutes; ends in a gallery.

    Interrupted, it goes on where it was.
    """
    from experiments.emoji.run import DemoConfig, run_demo

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
    from experiments.proof.run import run_proof

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
