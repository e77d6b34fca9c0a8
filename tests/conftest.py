"""What tests share: where golden vectors and real data lie, if they are beside the repository."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

# A busy machine is no failure: neither the time of an example nor that of making it is a verdict.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


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
