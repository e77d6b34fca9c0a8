"""Compile loops over bytes and ids with numba."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_HALF = np.uint64(32)
_F = TypeVar("_F", bound=Callable[..., object])


def jit(function: _F, **options: Any) -> _F:
    """Return the function, compiled on its first call without Python objects and the GIL.

    The machine code is cached next to the module, in the user's cache folder or in
    `NUMBA_CACHE_DIR`, so that later processes load it in milliseconds. Where none of them can be
    written, every process compiles for itself. Integer overflow wraps and indices are not checked:
    the function must stay within its arrays.

    Args:
        function: The function.
        **options: Further options of `numba.njit`, such as `fastmath`.
    """
    try:
        return cast(_F, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _warn_without_cache()
        return cast(_F, njit(nogil=True, **options)(function))


@cache
def _warn_without_cache() -> None:
    """Warn, once per process, that nothing compiled can be kept."""
    _log.warning(
        "Compiled code cannot be cached (neither the installation nor the home folder is "
        "writable), so every command compiles for some seconds first. Set NUMBA_CACHE_DIR to a "
        "writable folder."
    )


def caches_code() -> bool:
    """Return whether compiled code can be cached."""
    return not _warn_without_cache.cache_info().currsize


@jit
def fnv1a(values: NDArray[Any], begin: int, end: int) -> np.uint64:
    """Return the 64-bit FNV-1a hash of `values[begin:end]`, its upper half folded into the lower.

    The values (bytes or code points) are hashed one by one; the hash is the same in every process.
    """
    mixed = _FNV_OFFSET
    for at in range(begin, end):
        mixed = (mixed ^ np.uint64(values[at])) * _FNV_PRIME
    return mixed ^ (mixed >> _HALF)


def in_threads(kernel: Callable[..., None], count: int, num_threads: int, *arguments: Any) -> None:
    """Run kernel(begin, end, ...) over 0..count, split over `num_threads` threads.

    numba's own threads would busy-wait on their cores while torch computes.
    """
    num_threads = min(num_threads, count)
    if num_threads <= 1:
        kernel(0, count, *arguments)
        return
    edges = np.linspace(0, count, num_threads + 1).astype(int).tolist()
    parts = [
        _pool(num_threads).submit(kernel, begin, end, *arguments) for begin, end in pairwise(edges)
    ]
    for part in parts:
        part.result()


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, "kernel")
