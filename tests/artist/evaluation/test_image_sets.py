"""Images from folders, TSV files and tables: the same pixels, and rejected images are counted."""

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artist.evaluation.image_sets import ImageSet
from data.errors import InputError, SchemaError
from data.images import encode_png
from data.schema import IMAGE

PIXELS = [np.random.default_rng(n).integers(0, 256, (6, 8, 3)).astype(np.uint8) for n in range(3)]
PNGS = [encode_png(p) for p in PIXELS]
BASE64 = [base64.b64encode(c).decode() for c in PNGS]


def folder(at: Path) -> Path:
    (at / "deep").mkdir(parents=True)
    for name, content in zip(("0.png", "1.PNG", "deep/2.png"), PNGS, strict=True):
        (at / name).write_bytes(content)
    (at / "readme.txt").write_text("not an image")
    return at


def tsv(path: Path) -> Path:
    path.write_text("".join(f"{n}\t图{n}\t{b}\n" for n, b in enumerate(BASE64)), encoding="utf-8")
    return path


def table(path: Path) -> Path:
    schema = pa.schema([("idx", pa.string()), ("text", pa.string()), IMAGE])
    rows = [
        {"idx": str(n), "text": f"图{n}", "image": {"bytes": c, "path": None}}
        for n, c in enumerate(PNGS)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def shards(at: Path) -> Path:
    at.mkdir()
    whole = pq.read_table(table(at / "all.parquet"))
    (at / "all.parquet").unlink()
    pq.write_table(whole.slice(0, 2), at / "0.parquet")
    pq.write_table(whole.slice(2), at / "1.parquet")
    return at


@pytest.mark.parametrize(
    ("make", "has_captions"), [(folder, False), (tsv, True), (table, True), (shards, True)]
)
def test_every_kind_of_set_gives_the_same_images(tmp_path, make, has_captions):
    found = list(ImageSet(path=make(tmp_path / "set")))
    assert [p.idx for p in found] == ["0", "1", "2"]
    assert [p.text for p in found] == ([f"图{n}" for n in range(3)] if has_captions else [None] * 3)
    for image, pixels in zip(found, PIXELS, strict=True):
        np.testing.assert_array_equal(image.pixels, pixels)


def test_predictions_are_read_with_their_captions_and_all_images_of_each(tmp_path):
    (tmp_path / "predictions.tsv").write_text(
        f"a\t虎\t{json.dumps(BASE64[:2])}\nb\t象\t{BASE64[2]}\n", encoding="utf-8"
    )
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(PNGS[0])
    found = list(ImageSet(path=tmp_path))
    assert [(p.idx, p.text) for p in found] == [("a", "虎"), ("a", "虎"), ("b", "象")]


def test_two_columns_are_an_id_and_an_image(tmp_path):
    (tmp_path / "imgs.tsv").write_text(f"7\t{BASE64[0]}\n")
    (found,) = ImageSet(path=tmp_path / "imgs.tsv")
    assert (found.idx, found.text) == ("7", None)


def test_the_centre_square_is_taken_where_a_side_is_given(tmp_path):
    images = ImageSet(path=tsv(tmp_path / "x.tsv"), side=6)
    np.testing.assert_array_equal(next(iter(images)).pixels, PIXELS[0][:, 1:7])
    assert images.fingerprint != ImageSet(path=tmp_path / "x.tsv").fingerprint


def test_bad_images_are_counted_with_their_place(tmp_path):
    path = tmp_path / "x.tsv"
    truncated = base64.b64encode(PNGS[0][:60]).decode()
    path.write_text(f"0\t{BASE64[0]}\n1\t!!!\n2\t[1]\n3\t{truncated}\n4\ta\tb\tc\n5\t{BASE64[1]}\n")
    images = ImageSet(path=path)
    assert [p.idx for p in images] == ["0", "5"]
    assert images.rejects.count == 4
    assert images.rejects.first.startswith("line 2: invalid base64")
    list(images)
    assert images.rejects.count == 4  # of the last pass alone


def test_a_set_without_an_image_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image files such as \*\.png"):
        list(ImageSet(path=tmp_path / "empty"))
    (tmp_path / "bad.tsv").write_text("0\t!!!\n")
    with pytest.raises(InputError, match="line 1: invalid base64"):
        list(ImageSet(path=tmp_path / "bad.tsv"))
    with pytest.raises(InputError, match="does not exist"):
        ImageSet(path=tmp_path / "none")
    pq.write_table(pa.table({"idx": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(SchemaError, match="no column image"):
        list(ImageSet(path=tmp_path / "t.parquet"))
