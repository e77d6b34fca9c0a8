"""Local processes that share a compiled vocabulary and make parts of a table, or whole shards.

A worker that dies (killed, out of memory) is replaced and its tasks are done again; nothing is lost
or done twice, for a task leaves nothing behind before it is finished. Workers end when this process
does, however it ends.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Protocol

from data.errors import ToolkitError
from lattice.building.chunks import PartMaker, Recipe

_AHEAD = 2  # tasks that a worker has at hand: one that it does, one that waits
_TRIES = 3  # a task that takes so many workers with it is given up
_BYTES_PER_WORKER = 64 << 20  # of captions: less is done sooner than a further worker has started


class Task(Protocol):
    """What a worker does; picklable."""

    def run(self, maker: PartMaker) -> Any:
        """Do it; the result is sent back, or an exception."""
        ...

    def __str__(self) -> str:
        """What to call it in an error."""
        ...


def useful_workers(num_bytes: int) -> int:
    """How many workers a corpus of so many bytes is worth on this machine."""
    return max(1, min(len(os.sched_getaffinity(0)), num_bytes // _BYTES_PER_WORKER))


def run_tasks(recipe: Recipe, tasks: Iterable[Task], num_workers: int) -> Iterator[Any]:
    """The results of all tasks, in their order.

    Tasks are taken as they are needed, a few for each worker; so memory stays bounded.

    Raises:
        ToolkitError: A task killed its worker several times.
    """
    source = enumerate(tasks)
    waiting: deque[_Job] = deque()  # to be done again
    done: dict[int, Any] = {}
    wanted = 0
    exhausted = False
    workers = [_Worker(recipe) for _ in range(num_workers)]
    try:
        while True:
            while wanted in done:
                yield done.pop(wanted)
                wanted += 1
            idle = [w for w in workers if len(w.jobs) < _AHEAD]
            under_way = sum(len(w.jobs) for w in workers) + len(waiting) + len(done)
            while idle and (waiting or (not exhausted and under_way < 2 * _AHEAD * num_workers)):
                if not waiting:
                    number, task = next(source, (-1, None))
                    if task is None:
                        exhausted = True
                        break
                    waiting.append(_Job(number, task))
                    under_way += 1
                worker = min(idle, key=lambda w: len(w.jobs))
                worker.send(waiting.popleft())
                idle = [w for w in workers if len(w.jobs) < _AHEAD]
            busy = [w for w in workers if w.jobs]
            if not busy:
                return
            ready = wait([w.results for w in busy])
            for n, worker in enumerate(workers):
                if worker.results in ready and not worker.receive(done):
                    waiting.extendleft(reversed(_after_death(worker)))
                    workers[n] = _Worker(recipe)
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class _Job:
    number: int
    task: Task
    deaths: int = field(default=0)


def _after_death(worker: "_Worker") -> list[_Job]:
    """What a dead worker had in hand. The first job is the one it was doing."""
    worker.stop()
    jobs = list(worker.jobs)
    if jobs:
        jobs[0].deaths += 1
        if jobs[0].deaths == _TRIES:
            code = worker.process.exitcode
            raise ToolkitError(
                f"{jobs[0].task}: the process at work on it ended {_TRIES} times (exit code "
                f"{code}{', killed' if code == -signal.SIGKILL else ''}). Out of memory? "
                "Try fewer --workers; what is finished is kept where there are shards."
            )
    return jobs


class _Worker:
    """A process, and the jobs it was given."""

    def __init__(self, recipe: Recipe) -> None:
        context = multiprocessing.get_context("spawn")
        self.results, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, recipe), name="lattice worker", daemon=True
        )
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the file
        self.jobs: deque[_Job] = deque()

    def send(self, job: _Job) -> None:
        self.jobs.append(job)
        with contextlib.suppress(OSError):  # it died; `receive` will tell
            self.results.send(job.task)

    def receive(self, done: dict[int, Any]) -> bool:
        """Put a result into `done`; False if the process is dead.

        Raises:
            Exception: What the task raised.
        """
        try:
            failed, result = self.results.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return False
        job = self.jobs.popleft()
        if failed:
            raise result
        done[job.number] = result
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.results.close()


def _serve(connection: Connection, recipe: Recipe) -> None:
    """The worker's life: tasks come, results go, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    tasks: SimpleQueue[Task | Exception] = SimpleQueue()

    def listen() -> None:
        while True:
            try:
                tasks.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone
            except Exception as error:  # the task could not be unpickled
                tasks.put(error)

    maker = recipe.open()
    threading.Thread(target=listen, daemon=True).start()
    while True:
        task = tasks.get()
        try:
            if isinstance(task, Exception):
                raise task
            answer: tuple[bool, Any] = (False, task.run(maker))
        except Exception as error:
            answer = (True, error)
        connection.send(answer)
