"""How this process gives memory back."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # the names of glibc's malloc.h


def reuse_freed_memory() -> bool:
    """Keep freed memory for the next tensor rather than give it back; whether that could be done.

    glibc gives every large block back as soon as it is freed, and the kernel hands out the next one
    zeroed, page by page: between a fifth and a quarter of a convolutional network's time on a CPU.
    Memory may stay with the process after a peak, so only commands that compute with tensors of
    like sizes again and again ask for this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
