import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

COUNT_FAULTS = """
import resource
from data.malloc import reuse_freed_memory

if {asked}:
    assert reuse_freed_memory()
for n in range(12):
    if n == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(1) * 50_000_000
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(asked: bool) -> int:
    """Return the page faults while ten blocks of 50 MB are allocated and freed."""
    code = COUNT_FAULTS.format(asked=asked)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_are_used_again():
    assert page_faults(asked=True) * 10 < page_faults(asked=False)
