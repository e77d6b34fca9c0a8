"""A small graph."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def triples():
    generator = np.random.default_rng(0)
    rows = np.stack([generator.integers(0, n, 400) for n in (60, 3, 60)], axis=1)
    return np.unique(rows, axis=0).astype(np.int32)
