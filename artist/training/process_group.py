"""The processes that train one model together: who they are and what they tell each other.

`torchrun` starts them and says in the environment who is who; a process that was started otherwise
is a team of one, for which everything here does nothing. GPUs talk by NCCL, CPUs by gloo, and
Python values always by gloo. This module knows nothing of models.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from artist.device import choose_device
from data.errors import ConfigError, ToolkitError

# The others wait this long for the first process, which may have to encode the images first.
_PATIENCE = timedelta(hours=4)
# What gloo's errors say of a process that no longer answers.
_GONE = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Team:
    """This process among those that train together.

    Attributes:
        device: Where its tensors live.
        rank: Its number, 0 .. size - 1; number 0 alone writes.
        size: How many there are.
        local_rank: Its number on its machine.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The leader's value, whatever was given here."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the processes' tensors, the same everywhere; in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            self.sum(torch.zeros(1, device=self.device)).item()

    def agree(self, error: ToolkitError | None) -> None:
        """Go on if no process has an error; else who has one raises it, the others leave quietly.

        Without this the others would wait for one that has gone, and end in a traceback.
        """
        failed = torch.tensor([error is not None], dtype=torch.float32, device=self.device)
        anyone = bool(self.sum(failed).item())
        if error is not None:
            raise error
        if anyone:
            raise SystemExit(2)

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` returns: done by the leader first, then by the first of each machine, by all.

        So an artefact that it makes is made once where the machines share a disk and once on each
        where they do not; the others find it finished.
        """
        turn = 0 if self.leads else 1 if self.local_rank == 0 else 2
        for now in range(3 if self.size > 1 else 1):
            error = None
            try:
                if now == turn:
                    result = work()
            except ToolkitError as found:
                error = found
            self.agree(error)
        return result

    def lead(self, work: Callable[[], T]) -> T | None:
        """What `work` returns to the leader, who alone does it; None to the others."""
        result, error = None, None
        try:
            if self.leads:
                result = work()
        except ToolkitError as found:
            error = found
        self.agree(error)
        return result

    def part(self, count: int) -> slice:
        """This process's share of `count` things, which must be a multiple of the team's size."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


@contextmanager
def join(device: str = "auto") -> Iterator[Team]:
    """The team that torchrun describes, for as long as the block runs.

    Raises:
        ConfigError: There are more processes on this machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    on = choose_device(device)
    if size == 1:
        yield Team(on)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if on.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} of this machine finds no GPU of its own: there are "
                f"{torch.cuda.device_count()}. Lower torchrun's --nproc-per-node, or use "
                "--device cpu."
            )
        on = torch.device("cuda", local_rank)
        torch.cuda.set_device(on)
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    backend = "cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        with noticing_loss():
            yield Team(on, rank, size, local_rank)
    finally:
        dist.destroy_process_group()


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Say in one line that another process has gone, which torch tells in a long traceback.

    It is said at once, since torchrun ends the processes that are left within a second.

    Raises:
        SystemExit: It has.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, dist.DistError) and not any(sign in text for sign in _GONE):
            raise
        log.error(
            "error: process %s lost another process of this training (%s). That one's message, or "
            "torchrun's, says why; the same command goes on from the last checkpoint.",
            os.environ.get("RANK", "0"),
            text.splitlines()[0].rpartition("] ")[2].partition(". ")[0],
        )
        raise SystemExit(1) from None


def check_shared(team: Team, folder: Path) -> None:
    """Refuse a folder of which the processes see different ones. It is made if it is not there.

    Raises:
        ToolkitError: It lies on a disk of its own machine.
    """
    # A name that nobody has asked for before: neither another machine's folder of an earlier run
    # nor what a network disk remembers can be mistaken for it.
    mark = team.share(folder / f"{secrets.token_hex(8)}.partial")

    def leave_mark() -> None:
        folder.mkdir(exist_ok=True)
        mark.touch()

    team.lead(leave_mark)
    blind = torch.zeros(team.size, device=team.device)
    blind[team.rank] = not mark.exists()
    numbers = ", ".join(str(n) for n in team.sum(blind).nonzero().flatten().tolist())
    error = ToolkitError(
        f"{folder.parent} is not the same folder for all processes (not for number {numbers}): "
        "with several machines --out must lie on a disk that all of them share."
    )
    if team.leads:
        mark.unlink(missing_ok=True)
    team.agree(error if numbers and team.leads else None)


def check_inputs(team: Team, inputs: dict[str, str]) -> None:
    """Refuse a machine whose copy of an input is another than the first machine's.

    Args:
        team: Who trains.
        inputs: Name -> fingerprint here; empty where another process of this machine tells.

    Raises:
        ToolkitError: Some input differs.
    """
    theirs = team.share(inputs)
    other = [name for name, found in inputs.items() if found != theirs[name]]
    team.agree(
        ToolkitError(
            f"{' and '.join(other)} on this machine (process {team.rank}) differs from the first "
            "machine's. Encode images once, by `cli.py artist encode`, and copy the files."
        )
        if other
        else None
    )
