"""The generated world: meaningless names, and images that can be classified."""

from collections import Counter

import numpy as np
import pytest

from data.errors import ArtefactError, ConfigError
from data.images import decode_base64, decode_image
from data.tsv import Rejects, read_rows
from experiments.proof.world import COLOURS, SHAPES, classify_image, make_things, paint, write_world


def test_colour_and_shape_of_every_true_image_are_classified_correctly():
    rng = np.random.default_rng(0)
    for colour in COLOURS:
        for shape in SHAPES:
            for size in (32, 48):
                assert classify_image(paint(colour, shape, size, rng)) == (colour, shape)


def test_two_images_of_an_entity_differ():
    rng = np.random.default_rng(0)
    assert (paint("红色", "圆形", 48, rng) != paint("红色", "圆形", 48, rng)).any()


def test_an_empty_image_is_classified_without_an_error():
    assert classify_image(np.full((48, 48, 3), 240, np.uint8))[0] in COLOURS


def test_names_contain_no_character_of_attributes_and_share_characters_with_trained_names():
    things = make_things(600, 0.2, seed=0)
    used = set("".join((*COLOURS, *SHAPES)))
    assert len({thing.name for thing in things}) == 600
    assert not used & set("".join(thing.name for thing in things))
    trained = set("".join(thing.name for thing in things if not thing.held_out))
    held_out = [c for thing in things if thing.held_out for c in thing.name]
    assert np.mean([c in trained for c in held_out]) > 0.9


def test_every_value_is_as_frequent_as_any_other_and_attributes_are_independent():
    things = make_things(1440, 0.2, seed=1)
    assert set(Counter(thing.colour for thing in things).values()) == {120}
    assert set(Counter(thing.shape for thing in things).values()) == {120}
    pairs = Counter((thing.colour, thing.shape) for thing in things)
    statistic = sum((pairs[c, s] - 10) ** 2 / 10 for c in COLOURS for s in SHAPES)
    assert statistic < 170  # chi-squared with 121 degrees of freedom: 0.2 % are above


def test_captions_contain_the_name_and_held_out_names_are_in_the_graph_only(tmp_path):
    world = write_world(tmp_path / "world", seed=0, entities=30, variants=2)
    rows = {
        path.name: [row.fields for row in read_rows(path, {3}, Rejects())]
        for path in (world.train, world.valid, world.triples)
    }
    for name in ("train.tsv", "valid.tsv"):
        for idx, text, image in rows[name]:
            thing = world.thing(idx)
            assert thing.name in text
            assert thing.held_out == (name == "valid.tsv")
            pixels = np.asarray(decode_image(decode_base64(image)))
            assert classify_image(pixels) == (thing.colour, thing.shape)
    known = {(head, tail) for head, _, tail in rows["triples.tsv"]}
    for thing in world.things:
        assert {(thing.name, thing.colour), (thing.name, thing.shape)} <= known
    held_out = [thing.name for thing in world.things if thing.held_out]
    assert len(held_out) == 6
    assert not any(name in text for name in held_out for _, text, _ in rows["train.tsv"])


def test_equal_seeds_make_equal_worlds(tmp_path):
    first = write_world(tmp_path / "a", seed=3, entities=12)
    again = write_world(tmp_path / "b", seed=3, entities=12)
    other = write_world(tmp_path / "c", seed=4, entities=12)
    assert first.train.read_bytes() == again.train.read_bytes()
    assert first.things == again.things != other.things


def test_another_world_is_not_replaced_and_a_too_small_world_is_refused(tmp_path):
    write_world(tmp_path / "a", seed=0, entities=12)
    with pytest.raises(ArtefactError, match="--overwrite"):
        write_world(tmp_path / "a", seed=1, entities=12)
    with pytest.raises(ConfigError, match="ten entities"):
        write_world(tmp_path / "b", seed=0, entities=5)
