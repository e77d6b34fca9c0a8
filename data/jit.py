"""Loops over bytes and ids, compiled to machine code by numba."""

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_F = TypeVar("_F", bound=Callable[..., object])


def jit(function: _F) -> _F:
    """The function compiled on its first call, without Python objects and without the GIL.

    The machine code is kept beside the module (or where `NUMBA_CACHE_DIR` says), so that later
    processes load it in milliseconds. Integer overflow wraps and indices are not checked: what is
    compiled must stay within its arrays.
    """
    return cast(_F, njit(cache=True, nogil=True)(function))
