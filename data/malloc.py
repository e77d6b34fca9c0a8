"""Settings of the C library's memory allocator."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # constants of glibc's malloc.h


def reuse_freed_memory() -> bool:
    """Keep freed memory in the process for the next tensor; return whether that is possible.

    glibc returns every large block as soon as it is freed, and the kernel zeroes the next one page
    by page: 20 to 25 % of the time of a convolutional network on a CPU. Memory may stay in the
    process after a peak, so this is for commands that reuse tensors of similar sizes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
