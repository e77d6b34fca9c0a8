"""Fixtures of the tests of the ARTIST stage."""

import pytest

from tests.artist.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))
