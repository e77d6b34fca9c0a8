"""Computing ahead of the consumer: results in order, a bounded number of items in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def lookahead(items: Iterable[_In], ahead: int) -> Iterator[_In]:
    """Yield the items in order; each is yielded once `ahead` further ones have been taken.

    If taking an item raises, the items before it are yielded first.
    """
    waiting: deque[_In] = deque()
    error: Exception | None = None
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) > ahead:
                yield waiting.popleft()
    except Exception as raised:
        error = raised
    while waiting:
        yield waiting.popleft()
    if error is not None:
        raise error


def map_ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], num_threads: int
) -> Iterator[tuple[_In, _Out]]:
    """Yield each item with `function(item)`, in order, computed in threads.

    At most `num_threads + 1` items are in flight. With one thread the function runs in the caller's
    thread, without reading ahead. An exception of the function is raised when its item is due.
    """
    if num_threads <= 1:
        for item in items:
            yield item, function(item)
        return
    pool = ThreadPoolExecutor(num_threads, "map_ahead")
    try:
        submitted = ((item, pool.submit(function, item)) for item in items)
        for item, future in lookahead(submitted, num_threads):
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
