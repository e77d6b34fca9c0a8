"""Read folders of photographs, and write the captions of a fold."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from data.images import decode_base64
from data.tsv import Rejects, read_rows
from experiments.photos.config import PhotosConfig
from experiments.photos.photo_folder import (
    NEVER,
    TRAIN,
    VAL,
    Photograph,
    decode_photographs,
    read_photo_folder,
)
from experiments.photos.tables import TEMPLATES, class_of, usable_templates, write_tables
from experiments.world import write_tsv
from tests.experiments.photos.photographs import write_photographs

SMALL = PhotosConfig(photographs=3, test_photographs=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


def table(path):
    return [row.fields for row in read_rows(path, {2, 3}, Rejects())]


def test_folds_and_opaque_names_are_made_where_the_folder_has_none(folder):
    photos = read_photo_folder(folder)
    assert {c.fold for c in photos.classes} == {NEVER, "0", "1", "2", "3", "4"}
    assert len(photos.unseen("0")) == 2
    characters = "".join(c.opaque for c in photos.classes)
    assert len(set(characters)) == len(characters) == 2 * 12
    assert photos.classes == read_photo_folder(folder).classes
    assert photos.classes[1].name("natural") == "物亍"
    assert photos.classes[1].superclass == photos.classes[1].group == "植物"
    assert len(photos.photographs(TRAIN)[3]) == 8
    assert len(photos.photographs(VAL)[3]) == 4


def test_given_names_folds_and_groups_are_used(folder, tmp_path):
    labels = [row[0] for row in table(folder / "classes.tsv")]
    write_tsv(folder / "opaque_names.tsv", [(label, f"甲{n}") for n, label in enumerate(labels)])
    write_tsv(
        folder / "folds.tsv", [(label, "x" if n < 3 else "-") for n, label in enumerate(labels)]
    )
    write_tsv(folder / "groups.tsv", [("动物", "生物"), ("植物", "生物")])
    photos = read_photo_folder(folder)
    assert photos.classes[5].opaque == "甲5"
    assert photos.unseen("x").tolist() == [0, 1, 2]
    assert {c.group for c in photos.classes} == {"生物", "车辆"}
    write_tsv(tmp_path / "groups.tsv", [("车辆", "机器")])
    photos = read_photo_folder(folder, tmp_path / "groups.tsv")
    assert {c.group for c in photos.classes} == {"动物", "植物", "机器"}


def test_without_test_photographs_some_of_each_class_are_held_out(folder):
    shutil.rmtree(folder / "val")
    photos = read_photo_folder(folder)
    train, val = photos.photographs(TRAIN)[0], photos.photographs(VAL)[0]
    assert len(train) == 7
    assert len(val) == 1
    assert not {p.id for p in train} & {p.id for p in val}


def test_parquet_files_are_read_like_folders(folder):
    before = read_photo_folder(folder)
    want = [[p.content for p in found] for found in before.photographs(TRAIN)]
    for split in (TRAIN, VAL):
        rows = [
            {"id": p.id, "class": c.label, "image": {"bytes": p.content, "path": "p.png"}}
            for c, found in zip(before.classes, before.photographs(split), strict=True)
            for p in found
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        shutil.rmtree(folder / split)
    found = read_photo_folder(folder).photographs(TRAIN)
    assert [[p.content for p in one] for one in found] == want
    (folder / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"train\.parquet cannot be read"):
        read_photo_folder(folder).photographs(TRAIN)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "kg.tsv").unlink(), r"kg\.tsv does not exist"),
        (lambda f: (f / "kg.tsv").write_text("物二\t属于\n", "utf-8"), r"cannot be used.*line 1"),
        (lambda f: write_tsv(f / "kg.tsv", [("物二", "属于", "x")]), "no triple of 11 classes"),
        (lambda f: write_tsv(f / "classes.tsv", [("a", "甲"), ("a", "乙")]), "the class 'a'"),
        (lambda f: write_tsv(f / "classes.tsv", [("a", "甲"), ("b", "甲")]), "the name '甲'"),
        (lambda f: write_tsv(f / "folds.tsv", [("class-00", "0")]), "no row for 11 classes"),
        (lambda f: shutil.rmtree(f / "train"), "neither train.parquet nor train/"),
        (lambda f: shutil.rmtree(f / "val" / "class-03"), "class class-03 has 8 photographs"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_one_clear_line(folder, change, said):
    change(folder)
    with pytest.raises(InputError, match=said):
        read_photo_folder(folder).photographs(TRAIN)


def test_folds_that_hold_every_class_out_and_unknown_folds_are_refused(folder):
    with pytest.raises(InputError, match=r"fold '7' has 0 classes.*Its folds are -, 0, 1"):
        read_photo_folder(folder).unseen("7")
    labels = [row[0] for row in table(folder / "classes.tsv")]
    write_tsv(folder / "folds.tsv", [(label, "0") for label in labels])
    with pytest.raises(InputError, match="holds every class out"):
        read_photo_folder(folder)


def test_a_damaged_photograph_is_named():
    with pytest.raises(InputError, match="photograph a/1: not an image"):
        decode_photographs([Photograph("a/1", b"nothing")], 16)


@pytest.mark.parametrize("names", ["opaque", "natural"])
def test_no_caption_of_the_training_table_names_an_unseen_class(folder, tmp_path, names):
    photos = read_photo_folder(folder)
    config = PhotosConfig(names=names, photographs=3, test_photographs=2)
    tables = write_tables(tmp_path / "out", photos, "1", config, False)
    unseen = photos.unseen("1").tolist()
    train, valid = table(tables.train), table(tables.valid)
    assert {class_of(row[0]) for row in train} == set(range(12)) - set(unseen)
    assert len(train) == 3 * 10
    assert {class_of(row[0]) for row in valid} == set(range(12))
    assert len(valid) == 2 * 12
    for idx, text, image in train + valid:
        number = class_of(idx)
        assert photos.classes[number].name(names) in text
        assert len(text) <= tables.text_len
        split = photos.photographs(TRAIN)[number] + photos.photographs(VAL)[number]
        assert decode_base64(image) in [p.content for p in split]
    for number in unseen:
        assert not any(photos.classes[number].name(names) in text for _, text, _ in train)
    graph = {name for head, _, tail in table(tables.triples) for name in (head, tail)}
    assert {c.name(names) for c in photos.classes} <= graph
    other = {c.natural if names == "opaque" else c.opaque for c in photos.classes}
    assert not other & graph


def test_the_vqgan_sees_only_classes_that_no_fold_holds_out(folder, tmp_path):
    photos = read_photo_folder(folder)
    tables = write_tables(tmp_path / "out", photos, NEVER, SMALL, False)
    never = set(photos.unseen(NEVER).tolist())
    for path in (tables.train, tables.valid):
        assert {class_of(row[0]) for row in table(path)} == never


def test_templates_that_would_add_an_entity_are_left_out():
    assert usable_templates(["狗森"], {"狗森", "动物"}) == list(TEMPLATES)
    left = usable_templates(
        ["狗森", "见氧"], {"狗森", "看见", "森在"}
    )  # 看见 and 森在 are entities
    assert set(TEMPLATES) - set(left) == {"看见了{name}", "{name}在这里"}
    assert usable_templates(["狗森"], {"这是", "那是", "有狗", "见了", "在这", "这样"}) == [
        "{name}"
    ]


def test_photographs_are_decoded_at_the_asked_size(folder):
    photos = read_photo_folder(folder)
    pixels = decode_photographs(photos.photographs(TRAIN)[0], 16)
    assert pixels.shape == (8, 16, 16, 3)
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), (200, 120, 60), atol=12)
