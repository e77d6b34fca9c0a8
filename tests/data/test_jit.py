import subprocess
import sys

import numpy as np

from data.jit import fnv1a, jit
from tests.conftest import ROOT


@jit
def total(numbers):
    sum_ = 0
    for number in numbers:
        sum_ += number
    return sum_


def test_a_compiled_loop_gives_what_numpy_gives():
    numbers = np.arange(1000)
    assert total(numbers) == numbers.sum()


def test_the_hash_is_fnv_1a_folded():
    # The published vector of the 64-bit hash of "foobar" is 0x85944171f73967e8.
    values = np.frombuffer(b"<foobar>", np.uint8)
    assert fnv1a(values, 1, 7) == 0x85944171F73967E8 ^ 0x85944171


def test_commands_work_where_nothing_can_be_written_but_the_output(tmp_path):
    """A read-only installation without a home folder: numba finds no place for its cache."""
    (tmp_path / "t.tsv").write_text("红果\t类\t水果\n青果\t类\t水果\n", encoding="utf-8")
    code = (
        "import sys, numba.core.caching as caching\n"
        "for name in dir(caching):\n"
        "    if hasattr(getattr(caching, name), '_locator_classes'):\n"
        "        getattr(caching, name)._locator_classes = []\n"
        "import cli\n"
        "sys.argv = ['cli.py', *sys.argv[1:]]\n"
        "cli.main()\n"
    )
    words = ["kg", "train", tmp_path / "t.tsv", "--out", tmp_path / "kg", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Set NUMBA_CACHE_DIR to a writable folder") == 1
