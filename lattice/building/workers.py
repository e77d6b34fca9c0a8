"""Local processes that share a compiled vocabulary and process chunks or whole shards.

This process is one of them: a thread of it processes tasks too, from the first moment on, while the
others start. Compiled loops and Arrow release the GIL, so it runs next to the thread that writes.

A worker that dies (killed, out of memory) is replaced and its tasks are repeated. No row is lost or
duplicated, because an unfinished task has no output. Workers end with this process, even if it is
killed.
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
from lattice.building.chunks import ChunkProcessor, ProcessorSpec

_QUEUED = 2  # tasks per worker: one running, one waiting while the main thread writes
_TRIES = 3  # a task that kills this many workers is an error
_BYTES_PER_WORKER = 64 << 20  # captions; for fewer, another worker takes longer to start


class Task(Protocol):
    """A picklable unit of work."""

    def run(self, processor: ChunkProcessor) -> Any:
        """Run in the worker; the result or the exception is sent back."""
        ...

    def __str__(self) -> str:
        """Return the name for error messages."""
        ...


def useful_workers(num_bytes: int) -> int:
    """Return the number of workers that a corpus of this size can use on this machine."""
    return max(1, min(len(os.sched_getaffinity(0)), num_bytes // _BYTES_PER_WORKER))


def run_tasks(
    spec: ProcessorSpec,
    tasks: Iterable[Task],
    num_workers: int,
    local: ChunkProcessor | None = None,
    queued: int = _QUEUED,
) -> Iterator[Any]:
    """Run all tasks and yield their results in order.

    A few tasks per worker are in flight, so memory is bounded.

    Args:
        spec: The processor of other processes.
        tasks: The tasks.
        num_workers: Processes.
        local: The processor of this process, which is then one of them.
        queued: Tasks that a worker has at a time.

    Raises:
        ToolkitError: A task killed its worker several times, or workers cannot start.
    """
    source = enumerate(tasks)
    waiting: deque[_Job] = deque()  # to be repeated
    done: dict[int, Any] = {}
    expected = 0
    exhausted = False
    failed_starts = 0
    workers: list[_Worker | _Thread] = [] if local is None else [_Thread(local)]
    workers += [_Worker(spec) for _ in range(num_workers - len(workers))]
    try:
        while True:
            while expected in done:
                yield done.pop(expected)
                expected += 1
            idle = [w for w in workers if w.ready and len(w.jobs) < queued]
            in_flight = sum(len(w.jobs) for w in workers) + len(waiting) + len(done)
            while idle and (waiting or (not exhausted and in_flight < 2 * queued * num_workers)):
                if not waiting:
                    number, task = next(source, (-1, None))
                    if task is None:
                        exhausted = True
                        break
                    waiting.append(_Job(number, task))
                    in_flight += 1
                worker = min(idle, key=lambda w: len(w.jobs))
                worker.send(waiting.popleft())
                idle = [w for w in workers if w.ready and len(w.jobs) < queued]
            busy = [w for w in workers if w.jobs]
            if exhausted and not busy and not waiting:
                return
            ready = wait([w.results for w in workers if w.jobs or not w.ready])
            for n, worker in enumerate(workers):
                if worker.results in ready and not worker.receive(done):
                    assert isinstance(worker, _Worker), "a thread does not die"
                    failed_starts += not worker.ready
                    waiting.extendleft(reversed(_unfinished_jobs(worker, failed_starts)))
                    workers[n] = _Worker(spec)
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class _Job:
    number: int
    task: Task
    deaths: int = field(default=0)


def _unfinished_jobs(worker: "_Worker", failed_starts: int) -> list[_Job]:
    """Return the jobs of a dead worker. The first is the one that was running.

    Raises:
        ToolkitError: That job has killed several workers, or several did not start.
    """
    worker.stop()
    jobs = list(worker.jobs)
    if failed_starts == _TRIES:
        raise ToolkitError(
            f"a worker process ended {_TRIES} times before it was ready (exit code "
            f"{worker.process.exitcode}). Try --workers 1."
        )
    if jobs:
        jobs[0].deaths += 1
        if jobs[0].deaths == _TRIES:
            code = worker.process.exitcode
            raise ToolkitError(
                f"{jobs[0].task}: its worker process ended {_TRIES} times (exit code "
                f"{code}{', killed' if code == -signal.SIGKILL else ''}). Out of memory? "
                "Try fewer --workers; finished shards are kept."
            )
    return jobs


class _Jobs:
    """The unfinished jobs of a thread or process, in the order in which they were sent."""

    def __init__(self) -> None:
        self.jobs: deque[_Job] = deque()

    def _finish(self, failed: bool, result: Any, done: dict[int, Any]) -> bool:
        """Put the first job's result into `done` and return True, or raise its exception."""
        job = self.jobs.popleft()
        if failed:
            raise result
        done[job.number] = result
        return True


class _Thread(_Jobs):
    """A thread of this process and its unfinished jobs; the interface is that of `_Worker`."""

    ready = True

    def __init__(self, processor: ChunkProcessor) -> None:
        super().__init__()
        self._processor = processor
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self.results, self._answered = multiprocessing.Pipe(duplex=False)  # wakes the dispatcher
        self._thread = threading.Thread(target=self._serve, name="lattice worker", daemon=True)
        self._thread.start()

    def send(self, job: _Job) -> None:
        self.jobs.append(job)
        self._tasks.put(job.task)

    def receive(self, done: dict[int, Any]) -> bool:
        """Put a result into `done`; return True.

        Raises:
            Exception: The task's exception.
        """
        self.results.recv_bytes()
        return self._finish(*self._answers.get(), done)

    def stop(self) -> None:
        """End after the chunk that is being processed."""
        self._processor.stop()
        self._tasks.put(None)
        self._thread.join()
        self.results.close()
        self._answered.close()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                answer: tuple[bool, Any] = (False, task.run(self._processor))
            except Exception as error:
                answer = (True, error)
            self._answers.put(answer)
            self._answered.send_bytes(b".")


class _Worker(_Jobs):
    """A process and its unfinished jobs.

    Attributes:
        ready: Whether it has started; jobs are sent after that.
    """

    def __init__(self, spec: ProcessorSpec) -> None:
        super().__init__()
        context = multiprocessing.get_context("spawn")
        self.results, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, spec), name="lattice worker", daemon=True
        )
        self.process.start()
        theirs.close()  # then the end of the process closes the pipe
        self.ready = False

    def send(self, job: _Job) -> None:
        self.jobs.append(job)
        with contextlib.suppress(OSError):  # it died; `receive` returns False
            self.results.send(job.task)

    def receive(self, done: dict[int, Any]) -> bool:
        """Put a result into `done`, or note that it is ready; return False if it is dead.

        Raises:
            Exception: The task's exception.
        """
        try:
            failed, result = self.results.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return False
        if not self.ready:
            self.ready = True
            return True
        return self._finish(failed, result, done)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.results.close()


def _serve(connection: Connection, spec: ProcessorSpec) -> None:
    """Announce the start; receive tasks and send results until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the workers
    tasks: SimpleQueue[Task | Exception] = SimpleQueue()

    def listen() -> None:
        while True:
            try:
                tasks.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)  # the parent has ended
            except Exception as error:  # the task could not be unpickled
                tasks.put(error)

    processor = spec.open()
    threading.Thread(target=listen, daemon=True).start()
    connection.send((False, None))
    while True:
        task = tasks.get()
        try:
            if isinstance(task, Exception):
                raise task
            answer: tuple[bool, Any] = (False, task.run(processor))
        except Exception as error:
            answer = (True, error)
        connection.send(answer)
