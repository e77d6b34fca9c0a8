"""Shared fixtures: folders of golden vectors and real data, and a way to run commands."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import cli

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel

# On a busy machine an example, or its generation, may take long: this is not a failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def pytest_configure() -> None:
    """Make tests interruptible: background jobs of a script, and their children, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Return the folder of golden vectors, made with the unmodified reference."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden vectors of the reference are not next to the repository")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real captions, photographs and triples."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not next to the repository")
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return its exit code, its output, its errors."""
    monkeypatch.setenv("COLUMNS", "100")  # output depends on the terminal's width

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["cli.py", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run
