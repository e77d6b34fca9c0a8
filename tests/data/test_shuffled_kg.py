"""A false graph: the same names and vectors, and no name with its own vector."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.errors import InputError, SchemaError
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, read_names, read_vectors, write_names
from data.shuffled_kg import shuffle_kg
from tests.artist.world import make_world


def make_kg(folder, names):
    folder.mkdir()
    write_names(folder / ENTITY_NAMES, names)
    vectors = np.arange(3 * len(names), dtype=np.float32).reshape(-1, 3)
    save_file({VECTORS_KEY: vectors}, folder / VECTORS)
    return folder


def test_every_entity_gets_the_vector_of_another_one_and_names_stay(tmp_path):
    kg = make_kg(tmp_path / "kg", list("甲乙丙丁戊"))
    report = shuffle_kg(kg, tmp_path / "false", seed=3)
    assert (report.entities, report.exchanged) == (5, 5)
    true, false = read_vectors(kg), read_vectors(tmp_path / "false")
    assert not (true == false).all(1).any()
    assert sorted(map(tuple, true.tolist())) == sorted(map(tuple, false.tolist()))
    assert read_names(tmp_path / "false" / ENTITY_NAMES) == list("甲乙丙丁戊")
    again = shuffle_kg(kg, tmp_path / "false", seed=3)
    assert again.already_finished
    shuffle_kg(kg, tmp_path / "other", seed=4)
    assert (read_vectors(tmp_path / "other") != false).any()


def test_with_tables_only_the_entities_of_their_captions_exchange_vectors(tmp_path):
    world = make_world(tmp_path / "world", rows=3)
    report = shuffle_kg(world.kg, tmp_path / "false", tables=[world.train, world.valid])
    moved = (read_vectors(world.kg) != read_vectors(tmp_path / "false")).any(1)
    assert moved.sum() == report.exchanged < report.entities
    with pytest.raises(Exception, match="belongs to another run"):
        shuffle_kg(world.kg, tmp_path / "false", tables=[world.train])


def test_what_cannot_be_exchanged_is_refused(tmp_path):
    alone = make_kg(tmp_path / "kg", ["甲"])
    with pytest.raises(InputError, match="1 entities; exchanging vectors takes two"):
        shuffle_kg(alone, tmp_path / "false")
    world = make_world(tmp_path / "world", rows=3)
    with pytest.raises(SchemaError, match="built with another KG"):
        shuffle_kg(alone, tmp_path / "false", tables=[world.train])
    assert not (tmp_path / "false").exists()
