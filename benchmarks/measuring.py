"""Measure time and memory, shared by the benchmarks: child processes, peaks, runs in turn."""

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def add_options(parser: argparse.ArgumentParser, **defaults: int | str) -> None:
    """Add an option without further help for each name, of the type of its default."""
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default)


def processor() -> str:
    """Return the name of this machine's processor; empty if Linux does not list it."""
    info = Path("/proc/cpuinfo").read_text("utf-8")
    return info.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()


def memory(field: str) -> int:
    """Return a field of this process's status in bytes.

    `RssAnon`: private pages, without the kernel's file cache; `VmRSS`: all resident pages; `VmHWM`:
    their peak (`ru_maxrss` would begin with the parent's).
    """
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


class PeakMemory(threading.Thread):
    """Sample the private memory of this process during a `with` block.

    Attributes:
        growth: Bytes of the peak above the memory at the start, after the block.
    """

    def __enter__(self) -> "PeakMemory":
        self.before = self.highest = memory("RssAnon")
        self.over = threading.Event()
        self.start()
        return self

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.highest = max(self.highest, memory("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()
        self.growth = self.highest - self.before


def in_child(work: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of a function of a module, called in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Return the cost of a call above that of imports, and its result as `found`.

    CPU seconds of all threads, wall-clock seconds, and MB by which the peak memory grew.
    """
    before, cpu, clock = memory("VmHWM"), time.process_time(), time.monotonic()
    found = work()
    cost = {"cpu_s": time.process_time() - cpu, "seconds": time.monotonic() - clock}
    return {**cost, "mb": (memory("VmHWM") - before) / 2**20, "found": found}


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turn(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median CPU seconds of each run; they alternate, so that load affects all."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            spent[name].append(cpu_seconds(run))
    return {name: statistics.median(times) for name, times in spent.items()}
