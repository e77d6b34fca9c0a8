"""Graceful interruption: the first SIGINT or SIGTERM sets a flag; the loop saves and exits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopFlag:
    """True after SIGINT or SIGTERM; `signal` is its number."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_signals(*, once: bool = False) -> Iterator[StopFlag]:
    """Yield a flag that the first SIGINT or SIGTERM sets; a second one acts as usual.

    Args:
        once: Ignore further signals instead. torchrun sends the same signal several times, and
            kills processes that do not exit within its timeout.
    """
    flag = StopFlag()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        flag.signal = number
        if not once:
            for n, handler in before.items():
                signal.signal(n, handler)

    # Python allows signal handlers only in the main thread.
    if threading.current_thread() is threading.main_thread():
        for caught in (signal.SIGINT, signal.SIGTERM):
            before[caught] = signal.signal(caught, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
