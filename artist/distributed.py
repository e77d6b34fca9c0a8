"""The processes that train one model together: who they are and what they tell each other.

`torchrun` starts them and says in the environment who is who; a process that was started otherwise
is a team of one, for which everything here does nothing. GPUs talk by NCCL, CPUs by gloo, and
Python values always by gloo. This module knows nothing of models.
"""

import logging
import os
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
T = TypeVar("T")


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
        yield Team(on, rank, size, local_rank)
    finally:
        dist.destroy_process_group()


def check_shared(team: Team, folder: Path) -> None:
    """Refuse a folder that some process cannot see.

    Raises:
        ToolkitError: It lies on a disk of its own machine.
    """
    blind = team.sum(torch.tensor([float(not folder.is_dir())], device=team.device))
    if blind.item():
        raise ToolkitError(
            f"{int(blind.item())} of {team.size} processes cannot see {folder}: with several "
            "machines --out must lie on a disk that all of them share."
        )
