"""Damaged files raise `ToolkitError` or are read; no reader fails, hangs or fills memory.

`FUZZ_SECONDS` is the time of each target; `make fuzz` sets it.
"""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from data.errors import ToolkitError
from tests.fuzz.targets import TARGETS, Target

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))  # 0: one batch, always the same
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))
LONGEST = 60  # seconds of one execution, on a machine with other work
MOST_MEMORY = 1 << 30  # bytes that a target may add to the peak of the process
BATCH = 20  # executions between looks at the clock

NUMBERS = st.sampled_from([0, 1, -1, 127, 128, 255, 256, 65535, 1 << 31, (1 << 31) - 1, 1 << 40,
                           (1 << 63) - 1, (1 << 64) - 1])  # fmt: skip
PIECES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\0", b"\n", b"\t", b'"', b'""', b"\r", b"[", b"{", b"}", b",", b"\xff",
                     b"\xed\xa0\x80", b"-1", b"1e999", b"NaN", b"null", b"../", b"\xef\xbb\xbf",
                     "\u202e".encode(), b"9" * 30, b"PAR1", b"\x1f\x8b", b"x" * 5000]),
    NUMBERS.map(lambda n: (n % (1 << 64)).to_bytes(8, "little")),
)  # fmt: skip
PLACE = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(
    st.tuples(st.sampled_from(["insert", "overwrite", "delete", "repeat", "cut"]), PLACE, PLACE,
              PIECES),
    max_size=6,
)  # fmt: skip


def damaged(content: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    """Return the content after some edits."""
    for kind, first, second, piece in edits:
        at = int(first * (len(content) + 1))
        end = at + int(second * min(64, len(content) - at + 1))
        if kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "overwrite":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "delete":
            content = content[:at] + content[end:]
        elif kind == "repeat":
            content = content[:end] + content[at:end] * 9 + content[end:]
        else:
            content = content[:at]
    return content


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail where the block takes longer."""

    def stop(*_: object) -> None:
        raise AssertionError(f"an execution took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target: Target, number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run a batch of executions; hypothesis reduces the content that fails."""

    @seed(number)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(content=st.builds(damaged, st.sampled_from(target.seeds), EDITS))
    def execute(content: bytes) -> None:
        folder = tmp_path_factory.mktemp("fuzz")
        with at_most(LONGEST):
            message = ""
            try:
                target.read(content, folder)
            except ToolkitError as error:
                message = str(error)
            assert len(message) < 5000, "an endless message"

    execute()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_read_or_refused(name, tmp_path_factory, capsys):
    target, executions, began = TARGETS[name], 0, time.perf_counter()
    for content in target.seeds:  # imports and compiles what the target needs
        try:
            target.read(content, tmp_path_factory.mktemp("seed"))
        except ToolkitError:
            assert name in {"taming", "manifest", "captions with images", "prompts"}, name
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while not executions or time.perf_counter() - began < SECONDS:
        fuzz(target, FIRST_SEED + executions // BATCH, tmp_path_factory)
        executions += BATCH
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MOST_MEMORY
    if "FUZZ_SECONDS" in os.environ:
        with capsys.disabled():
            print(  # noqa: T201
                f"{name:24} {executions:9,} executions, {grown >> 20:5} MB more"
            )
