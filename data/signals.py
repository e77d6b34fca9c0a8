"""Stopping a run in order: the first SIGINT or SIGTERM raises a flag, the loop saves and leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopFlag:
    """Whether SIGINT or SIGTERM came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_signals(*, once: bool = False) -> Iterator[StopFlag]:
    """A flag that the first SIGINT or SIGTERM raises; a second one acts as usual.

    Args:
        once: Ignore further signals instead. torchrun sends its processes the same signal several
            times, and kills them if they take longer than its own patience.
    """
    flag = StopFlag()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        flag.signal = number
        if not once:
            for n, handler in before.items():
                signal.signal(n, handler)

    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
        for caught in (signal.SIGINT, signal.SIGTERM):
            before[caught] = signal.signal(caught, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
