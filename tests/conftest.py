"""What tests share: where golden vectors and real data lie, if they are beside the repository."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import cli

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

# A busy machine is no failure: neither the time of an example nor that of making it is a verdict.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def pytest_configure() -> None:
    """Let tests be interrupted: a script's background job ignores Ctrl-C, and so its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors, made by running the unmodified reference."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden vectors of the reference are not beside the repository")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real captions, photographs and triples."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside the repository")
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process, as a shell would: its code, its output, its errors."""
    monkeypatch.setenv("COLUMNS", "100")  # drawings depend on the terminal's width

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["cli.py", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
