"""Output of commands that run in several processes."""

import os

import typer


def echo_on_rank_0(report: object) -> None:
    """Print a report once, whatever the number of processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(report)
