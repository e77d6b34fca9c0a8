"""The processes that train one model together, and their collective operations.

`torchrun` starts the processes and sets their ranks in the environment. Any other process is a
group of one, in which every operation here is a no-op. Tensors are exchanged by
NCCL on GPUs and by gloo on CPUs, Python values always by gloo. Nothing here depends on models.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from data.device import choose_device
from data.errors import ConfigError, ToolkitError
from data.runs import Run

# The timeout of collectives: the leader may have to encode all images first.
_TIMEOUT = timedelta(hours=4)
# Parts of gloo's messages about a peer that no longer responds.
_PEER_FAILURES = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        device: Device of its tensors.
        rank: Its number, 0 .. size - 1; rank 0, the leader, is the only one that writes.
        size: Number of processes.
        local_rank: Its number on its machine.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """Return the leader's value, whatever was given here."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, equal in all of them; in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            self.all_reduce(torch.zeros(1, device=self.device)).item()

    def raise_together(self, error: ToolkitError | None) -> None:
        """Raise the error of this process, or exit if another process has one.

        Without this the others would wait for a process that has ended, and fail with a traceback.

        Raises:
            SystemExit: Another process has an error.
        """
        failed = torch.tensor([error is not None], dtype=torch.float32, device=self.device)
        anyone = bool(self.all_reduce(failed).item())
        if error is not None:
            raise error
        if anyone:
            raise SystemExit(2)

    def run_in_order(self, work: Callable[[], T]) -> T:
        """Return what `work` returns: run by the leader, then once per machine, then by the rest.

        An artefact that `work` writes is thus written once on a shared disk, and once per machine
        otherwise; the other processes find it finished.
        """
        mine = 0 if self.is_leader else 1 if self.local_rank == 0 else 2
        turns = range(3 if self.size > 1 else 1)
        results = [self._run_together(work, turn == mine) for turn in turns]
        return cast(T, results[mine])

    def run_on_leader(self, work: Callable[[], T]) -> T | None:
        """Return what `work` returns in the leader, which alone runs it; None in the others."""
        return self._run_together(work, self.is_leader)

    def _run_together(self, work: Callable[[], T], here: bool) -> T | None:
        """Run `work` in some of the processes; all of them end if it fails in one."""
        result, error = None, None
        try:
            if here:
                result = work()
        except ToolkitError as found:
            error = found
        self.raise_together(error)
        return result

    def shard(self, count: int) -> slice:
        """Return this process's part of `count` items, a multiple of the group's size."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


@contextmanager
def process_group(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the process group that torchrun describes, for the duration of the block.

    Raises:
        ConfigError: There are more processes on this machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    on = choose_device(device)
    if size == 1:
        yield ProcessGroup(on)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if on.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} of this machine has no GPU of its own: there are "
                f"{torch.cuda.device_count()}. Lower torchrun's --nproc-per-node, or use "
                "--device cpu."
            )
        on = torch.device("cuda", local_rank)
        torch.cuda.set_device(on)
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    backend = "cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        with peer_failure_guard():
            yield ProcessGroup(on, rank, size, local_rank)
    finally:
        dist.destroy_process_group()


@contextmanager
def peer_failure_guard() -> Iterator[None]:
    """Report the failure of another process in one line instead of torch's traceback.

    The line is logged at once: torchrun ends the remaining processes within a second.

    Raises:
        SystemExit: Another process has failed.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, dist.DistError) and not any(p in text for p in _PEER_FAILURES):
            raise
        log.error(
            "error: process %s lost another process of this training (%s). The message of that "
            "process, or torchrun's, gives the reason; the same command continues from the last "
            "checkpoint.",
            os.environ.get("RANK", "0"),
            text.splitlines()[0].rpartition("] ")[2].partition(". ")[0],
        )
        raise SystemExit(1) from None


@dataclass(frozen=True)
class SharedRun:
    """A run whose folder all processes share, and whose manifest only the leader writes.

    Attributes:
        run: The run in the leader, None in the others.
        finished: Counts of an already finished run; None otherwise.
        work: Folder of the unfinished output, shared by the processes.
    """

    run: Run | None
    finished: dict[str, Any] | None
    work: Path

    def finish(self, counts: dict[str, Any]) -> None:
        """Rename the output to its final name; call it in the leader only."""
        assert self.run is not None
        self.run.finish(counts)


@contextmanager
def open_shared_run(
    processes: ProcessGroup, out: Path, *, inputs: dict[str, str], **options: Any
) -> Iterator[SharedRun]:
    """Open the output of a training for all processes.

    Args:
        processes: The processes that train.
        out: The output.
        inputs: Name -> fingerprint, as `data.runs.Run.open` takes it; may be empty in all processes
            of a machine but the first.
        **options: The other arguments of `Run.open`.

    Raises:
        ToolkitError: Inputs differ between machines, or the folder is not shared by them.
        ArtefactError: Another run's output is in the way.
    """
    _check_inputs(processes, inputs)
    with ExitStack() as stack:
        run = processes.run_on_leader(
            lambda: stack.enter_context(Run.open(out, inputs=inputs, **options))
        )
        finished, work = processes.broadcast(
            (run.finished.counts if run.finished else None, run.work) if run else (None, out)
        )
        if not finished:
            _check_shared(processes, work)
        yield SharedRun(run, finished, work)


def _check_shared(processes: ProcessGroup, folder: Path) -> None:
    """Check that all processes share the folder.

    Raises:
        ToolkitError: For some process it is a folder of its own machine.
    """
    if processes.size == 1:
        return
    # A fresh name: neither a folder of an earlier run on another machine nor the cache of a network
    # disk can contain it.
    mark = processes.broadcast(folder / f"{secrets.token_hex(8)}.partial")
    processes.run_on_leader(mark.touch)
    missing = torch.zeros(processes.size, device=processes.device)
    missing[processes.rank] = not mark.exists()
    ranks = ", ".join(str(n) for n in processes.all_reduce(missing).nonzero().flatten().tolist())
    error = ToolkitError(
        f"{folder} is not the same folder for all processes (not for rank {ranks}): "
        "with several machines --out must be on a disk that all of them share."
    )
    if processes.is_leader:
        mark.unlink(missing_ok=True)
    processes.raise_together(error if ranks and processes.is_leader else None)


def _check_inputs(processes: ProcessGroup, inputs: dict[str, str]) -> None:
    """Check that each machine's copies of the inputs equal the leader's.

    Raises:
        ToolkitError: Some input differs.
    """
    expected = processes.broadcast(inputs)
    other = [name for name, found in inputs.items() if found != expected[name]]
    processes.raise_together(
        ToolkitError(
            f"{' and '.join(other)} on this machine (process {processes.rank}) differs from the "
            "first machine's. Encode images once, by `cli.py artist encode`, and copy the files."
        )
        if other
        else None
    )
