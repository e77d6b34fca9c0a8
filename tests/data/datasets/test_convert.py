"""Datasets become the toolkit's TSV: each caption has its image or is counted as rejected."""

import base64
import contextlib
import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.datasets.captions import join_words
from data.datasets.config import ImageOptions, SetOptions
from data.datasets.convert import convert_dataset
from data.datasets.file_names import files_of_split
from data.errors import ConfigError, InputError, ToolkitError
from data.images import decode_base64, decode_image
from data.runs import read_manifest, verify
from tests.data.encoded import encoded

COLOURS = {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200), "d": (200, 200, 30)}


def image_bytes(name: str, kind: str = "PNG", size=(12, 10)) -> bytes:
    """Return an image that its colour identifies."""
    return encoded(Image.new("RGB", size, COLOURS[name]), kind)


def who(content: bytes) -> str:
    """Return the name of an image."""
    seen = np.array(decode_image(content).getpixel((3, 3)))
    return min(COLOURS, key=lambda name: abs(seen - COLOURS[name]).sum())


def b64(name: str, **options) -> str:
    return base64.urlsafe_b64encode(image_bytes(name, **options)).decode()


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def image_files(folder: Path, names: dict[str, str]) -> Path:
    """Write image files, given their names and which image each is."""
    for name, which in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(which, "JPEG" if path.suffix == ".jpg" else "PNG"))
    return folder


def converted(source: Path, options: SetOptions | None = None, **more):
    """Return the rows that are written, (idx, text, image name), and the report."""
    out = source.parent / f"{source.name}.out.tsv"
    report = convert_dataset(source, out, options=options, workers=2, **more)
    rows = [line.split("\t") for line in out.read_text("utf-8").split("\n")[:-1]]
    found = [(*row[:2], *(who(decode_base64(cell)) for cell in row[2:])) for row in rows]
    assert report.counts["rows"] == len(found)
    return found, report


@pytest.mark.parametrize("middle", ["text", "txt"])
def test_muge_text_to_image(tmp_path, middle):
    folder = tmp_path / "ECommerce-T2I"
    write(folder / "T2I_train.img.tsv", f"id-b\t{b64('b')}", f"id-a\t{b64('a')}", f"x\t{b64('c')}")
    write(folder / f"T2I_train.{middle}.tsv", "id-a\t红色短裤", "id-b\t绿色上衣", "id-z\t没有图")
    write(folder / "T2I_val.img.tsv", f"id-d\t{b64('d')}")
    write(folder / f"T2I_val.{middle}.tsv", "id-d\t黄色帽子")
    rows, report = converted(folder)
    assert rows == [("id-a", "红色短裤", "a"), ("id-b", "绿色上衣", "b")]
    assert report.source.startswith("muge: captions of")
    assert report.counts["reasons"] == {"no such image": 1}
    assert report.counts["images_without_caption"] == 1
    kept = (tmp_path / "ECommerce-T2I.out.tsv.rejects.tsv").read_text()
    assert kept == "3\tno such image: id-z\tid-z\\t没有图\n"


def test_muge_test_captions_become_prompts(tmp_path):
    write(tmp_path / "T2I" / "T2I_test.text.tsv", "id-1\t红色短裤", "id-2\t绿色上衣")
    write(tmp_path / "T2I" / "T2I_test.tsv", "id-1\t", "id-2\t")
    with pytest.raises(InputError, match="convert the captions to prompts with --no-images"):
        converted(tmp_path / "T2I", SetOptions(split="test"))
    rows, _ = converted(tmp_path / "T2I", SetOptions(split="test", with_images=False))
    assert rows == [("id-1", "红色短裤"), ("id-2", "绿色上衣")]
    for line in ('{"query_id": 352962, "query_text": "厚底鞋"}',
                 '{"text_id": 352962, "text": "厚底鞋", "image_ids": []}'):  # fmt: skip
        queries = write(tmp_path / "MR" / "MR_test_queries.jsonl", line)
        rows, _ = converted(queries.parent, SetOptions(split="test", with_images=False),
                            overwrite=True)  # fmt: skip
        assert rows == [("352962", "厚底鞋")]
    table = write(tmp_path / "t.csv", "id,caption", "7,长裤")
    assert converted(table, SetOptions(with_images=False))[0] == [("7", "长裤")]
    keyed = write(tmp_path / "k.txt", "a.jpg#zhc#0 一", "a.jpg#zhc#1 二", "b.jpg#zhc#0 三")
    rows, _ = converted(keyed, SetOptions(captions="first", with_images=False))
    assert rows == [("a.jpg", "一"), ("b.jpg", "三")]


def test_muge_retrieval_and_captioning(tmp_path):
    folder = tmp_path / "retrieval"
    write(folder / "MR_valid_imgs.tsv", f"1000002\t{b64('a')}", f"1000016\t{b64('b')}")
    write(folder / "MR_valid_queries.jsonl",
          '{"query_id": 8426, "query_text": "长裤", "item_ids": [1000016]}',
          '{"query_id": 8428, "query_text": "斜挎包", "item_ids": [1000002, 1000016]}')  # fmt: skip
    rows, _ = converted(folder, SetOptions(split="val"))
    assert rows == [
        ("1000016", "长裤", "b"),
        ("1000002", "斜挎包", "a"),
        ("1000016#1", "斜挎包", "b"),
    ]
    folder = tmp_path / "captioning"
    write(folder / "IC_train.tsv", f"0a\t{b64('a')}", f"0b\t{b64('b')}")
    write(folder / "IC_train.jsonl", '{"image_id": "0b", "text": ["甲", "乙"]}')
    assert converted(folder)[0] == [("0b", "甲", "b"), ("0b#1", "乙", "b")]


def test_chinese_clip(tmp_path):
    write(tmp_path / "s" / "train_imgs.tsv", f"1000002\t{b64('a')}", f"42967\t{b64('b')}")
    write(tmp_path / "s" / "train_texts.jsonl",
          '{"text_id": 8428, "text": "高级感托特包", "image_ids": [42967, 1000002]}',
          '{"text_id": 8429, "text": "长裤", "image_ids": []}',
          '{"text_id": 8430, "text": "", "image_ids": [42967]}',
          '{"text_id": 8431, "text": "坏\\ud800", "image_ids": [42967]}',
          '{"text_id": 8432, "text": "一\\t二\\n三", "image_ids": [42967]}',
          "no json")  # fmt: skip
    rows, report = converted(tmp_path / "s")
    assert report.source.startswith("chinese-clip")
    assert rows == [
        ("42967", "高级感托特包", "b"),
        ("1000002", "高级感托特包", "a"),
        ("42967#2", "一 二 三", "b"),
    ]
    assert report.counts["reasons"] == {
        "no image named": 1, "empty caption": 1, "not valid Unicode": 1, "not JSON": 1
    }  # fmt: skip
    assert report.counts["texts_with_breaks"] == 1


def test_flickr8k_cn_with_the_list_of_a_split(tmp_path):
    folder = tmp_path / "flickr8kcn" / "data"
    write(folder / "flickr8kzhc.caption.txt",
          "10_a.jpg#zhc#0 两个小孩 在玩。", "10_a.jpg#zhc#1 孩子们。", "20_b.jpg#zhc#0 一条狗。",
          "30_c.jpg#zhc#0 海边。")  # fmt: skip
    write(folder / "flickr8kzhb.caption.txt", "10_a.jpg#zhb#0 机器翻译。")
    write(folder / "flickr7ktrain.txt", "10_a", "20_b.jpg")
    write(folder / "flickr7kval.txt", "30_c")
    images = image_files(tmp_path / "Images", {"10_a.jpg": "a", "20_b.jpg": "b", "30_c.jpg": "c"})
    rows, report = converted(folder.parent, images=images)
    first = ("10_a.jpg", "两个小孩 在玩。", "a")
    assert rows == [first, ("10_a.jpg#1", "孩子们。", "a"), ("20_b.jpg", "一条狗。", "b")]
    assert "only those in" in report.source
    assert report.counts["captions_of_other_images"] == 1
    out = tmp_path / "first.tsv"
    convert_dataset(folder.parent, out, options=SetOptions(captions="first"), images=images)
    assert [line.split("\t")[0] for line in out.read_text().splitlines()] == [
        "10_a.jpg",
        "20_b.jpg",
    ]


def test_coco_cn_as_its_archive_unpacks(tmp_path):
    folder = tmp_path / "coco-cn-version1805v1.1"
    write(folder / "imageid.human-written-caption.txt",
          "COCO_train2014_000000000101#0\t一只猫坐在沙发上", "COCO_train2014_000000000101#1\t猫",
          "COCO_val2014_000000000103#0\t城市夜景")  # fmt: skip
    write(folder / "imageid.human-written-caption.bosonseg.txt",
          "COCO_train2014_000000000101#0 一:m 只:q 猫:n")  # fmt: skip
    write(folder / "imageid.manually-translated-caption.txt", "COCO_train2014_000000000101#0\t译")
    write(folder / "imageid.human-written-tags.txt", "COCO_train2014_000000000101 猫 沙发")
    write(folder / "coco-cn_train.txt", "COCO_train2014_000000000101")
    write(folder / "coco-cn_val.txt", "COCO_val2014_000000000103")
    (folder / "._coco-cn_train.txt").write_bytes(b"\0\xa2\0\0\xd4")
    images = image_files(tmp_path / "coco", {
        "train2014/COCO_train2014_000000000101.jpg": "a",
        "val2014/COCO_val2014_000000000103.jpg": "b",
    })  # fmt: skip
    rows, _ = converted(folder, images=images)
    name = "COCO_train2014_000000000101"
    assert rows == [(name, "一只猫坐在沙发上", "a"), (f"{name}#1", "猫", "a")]
    rows, _ = converted(folder, SetOptions(split="val", format="coco-cn"), images=images,
                        overwrite=True)  # fmt: skip
    assert rows == [("COCO_val2014_000000000103", "城市夜景", "b")]


def test_flickr30k_cn_is_found_by_split_and_its_words_are_joined(tmp_path):
    folder = tmp_path / "flickr30k-cn"
    for name, line in [("flickr30kzhbbosontrain", "100#zhb#0 两个 年轻人  穿着 iPhone 15 T恤 。"),
                       ("flickr30kzhmbosontest", "200#zhm#0 一:m 条:q 狗:n")]:  # fmt: skip
        write(folder / name / "ImageSets" / f"{name}.txt", line.split("#")[0])
        write(folder / name / "TextData" / f"seg.{name}.caption.txt", line)
    images = image_files(tmp_path / "flickr30k-images", {"100.jpg": "a", "200.jpg": "b"})
    assert converted(folder, images=images)[0] == [("100", "两个年轻人穿着iPhone 15 T恤。", "a")]
    rows, _ = converted(folder, SetOptions(split="test"), images=images, overwrite=True)
    assert rows == [("200", "一条狗", "b")]


def test_captions_of_a_file_take_their_images_from_rows_of_a_tsv(tmp_path):
    images = write(tmp_path / "train.tsv", f"x1\t旧\t{b64('a')}", f"x2\t旧\t{b64('b')}")
    captions = write(tmp_path / "captions.tsv", "x2#0\t甲", "x2#1\t乙", "x1#0\t丙")
    rows, _ = converted(captions, images=images)
    assert rows == [("x2", "甲", "b"), ("x2#1", "乙", "b"), ("x1", "丙", "a")]


FOLDER_FILES = {
    "metadata.csv": 'file_name,text\nx/1.png,"红, ""圆"""\n2.jpg,"两\n行"\n',
    "metadata.jsonl": '{"file_name": "x/1.png", "text": "红, \\"圆\\""}\n'
                      '{"file_name": "2.jpg", "text": "两\\n行"}\n',
    "captions.tsv": 'x/1.png\t红, "圆"\n2.jpg\t两 行\n',
    "train.tsv": 'image\tsource\tcaption\nx/1.png\tweb\t红, "圆"\n2.jpg\tweb\t两 行\n',
    "captions.txt": 'x/1.png\t红, "圆"\r\n2.jpg\t两 行\r\n',
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDER_FILES)
def test_a_folder_of_images_with_a_file_of_captions(tmp_path, name):
    folder = image_files(tmp_path / "set", {"x/1.png": "a", "2.jpg": "b", "left.png": "c"})
    (folder / name).write_bytes(FOLDER_FILES[name].encode())
    rows, report = converted(folder)
    assert rows == [("x/1.png", '红, "圆"', "a"), ("2.jpg", "两 行", "b")]
    assert report.source.startswith("folder")
    assert report.counts["images_without_caption"] == 1


def image_struct(rows: list[dict]) -> pa.Array:
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def test_hugging_face_parquet_in_shards_with_several_captions(tmp_path):
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for n, name in enumerate("ab"):
        table = pa.table({
            "image": image_struct([{"bytes": image_bytes(name), "path": f"{name}.png"}]),
            "caption": [[f"{name}一", f"{name}二"]],
            "img_id": [n],
        })  # fmt: skip
        pq.write_table(table, folder / f"train-0000{n}-of-00002.parquet")
        pq.write_table(table, folder / f"test-0000{n}-of-00002.parquet")
    rows, report = converted(folder.parent)
    assert rows == [("0", "a一", "a"), ("0#1", "a二", "a"), ("1", "b一", "b"), ("1#1", "b二", "b")]
    assert "2 files" in report.source
    rows, _ = converted(folder / "test-00001-of-00002.parquet", SetOptions(captions="first"))
    assert rows == [("1", "b一", "b")]


def test_parquet_with_a_column_for_the_split_and_images_as_bytes_or_paths(tmp_path):
    folder = image_files(tmp_path / "hub", {"c.png": "c"})
    table = pa.table({
        "split": ["train", "validation", "train", "train", "train"],
        "text": ["甲", "乙", "丙", None, "丁"],
        "image": image_struct([
            {"bytes": image_bytes("a"), "path": None}, {"bytes": image_bytes("b"), "path": None},
            {"bytes": None, "path": "c.png"}, {"bytes": image_bytes("a"), "path": None},
            {"bytes": None, "path": "../secret.png"},
        ]),
    })  # fmt: skip
    image_files(tmp_path, {"secret.png": "d"})
    pq.write_table(table, folder / "all.parquet")
    rows, report = converted(folder)
    assert rows == [("1", "甲", "a"), ("3", "丙", "c")]
    assert report.counts["rows_of_other_splits"] == 1
    assert report.counts["reasons"] == {"empty caption": 1, "no image": 1}
    rows, _ = converted(folder, SetOptions(split="val"), overwrite=True)
    assert rows == [("2", "乙", "b")]


def test_rows_of_this_toolkit_are_a_set_too(tmp_path):
    folder = tmp_path / "set"
    whole = image_bytes("b", "JPEG", (200, 200))
    half = base64.b64encode(whole[: len(whole) // 2 + 300]).decode()
    write(
        folder / "train.tsv",
        f"1\t甲\t{b64('a')}",
        "2\t乙",
        f"3\t丙\t{half}",
        "4\t丁\t%%",
    )
    write(folder / "train.captions.tsv", "1#0\t甲")
    rows, report = converted(folder)
    assert rows == [("1", "甲", "a")]
    assert report.counts["reasons"] == {
        "wrong column count": 1, "damaged image": 1, "invalid base64": 1
    }  # fmt: skip


def test_images_are_written_as_they_came_unless_a_size_is_asked_for(tmp_path):
    large, small = image_bytes("a", "PNG", (300, 200)), image_bytes("b", "PNG", (90, 64))
    rows = [f"{n}\t甲\t{base64.b64encode(c).decode()}" for n, c in enumerate((large, small))]
    source, out = write(tmp_path / "s.tsv", *rows), tmp_path / "out.tsv"
    convert_dataset(source, out)
    assert out.read_bytes() == source.read_bytes()
    report = convert_dataset(source, out, image_options=ImageOptions(size=100), overwrite=True)
    first, second = [decode_base64(row.split("\t")[2]) for row in out.read_text().splitlines()]
    assert decode_image(first).size == (150, 100)
    assert Image.open(io.BytesIO(first)).format == "JPEG"
    assert second == small
    assert report.counts["reduced"] == 1


def test_the_output_is_complete_or_absent_and_has_a_manifest(tmp_path, monkeypatch):
    source = write(tmp_path / "s.tsv", f"1\t甲\t{b64('a')}")
    out = tmp_path / "out.tsv"
    convert_dataset(source, out)
    manifest = verify(out)
    assert manifest.kind == "captions"
    assert set(manifest.inputs) == {"rows"}
    assert manifest.counts["rows"] == 1
    assert convert_dataset(source, out).already_finished
    with pytest.raises(ToolkitError, match="belongs to another run"):
        convert_dataset(source, out, image_options=ImageOptions(size=64))
    with pytest.raises(ConfigError, match="is an input"):
        convert_dataset(source, source, overwrite=True)
    write(source, "1\t甲\tbroken!")
    before = out.read_bytes()
    with pytest.raises(InputError, match="no caption can be used; 1 rejected"):
        convert_dataset(source, out, overwrite=True)
    assert out.read_bytes() == before
    assert read_manifest(out) == manifest
    assert {p.name for p in tmp_path.iterdir()} == {"s.tsv", "out.tsv", "out.tsv.manifest.json"}


def test_errors_are_one_line(tmp_path):
    images = image_files(tmp_path / "i", {"x/1.png": "a", "y/1.png": "b"})
    cases = [
        (tmp_path / "none", {}, "does not exist"),
        (write(tmp_path / "e" / "notes.md", "x").parent, {}, "no dataset of the format auto"),
        (write(tmp_path / "k.txt", "1.jpg#0\t甲"), {}, "give their place as --images"),
        (write(tmp_path / "k.txt", "1.jpg#0\t甲"), {"images": tmp_path / "e"}, "contains no image"),
        (write(tmp_path / "k.txt", "1#0\t甲"), {"images": images}, "no caption can be used"),
        (write(tmp_path / "a.csv", "1.png,甲"), {"images": images}, "no header"),
        (write(tmp_path / "a.csv", "name,text", "1,甲"), {"images": images}, "no header"),
        (write(tmp_path / "a.jsonl", '{"a": 1}'), {"images": images}, "pass --text-column"),
        (write(tmp_path / "a.json", "["), {"images": images}, "one JSON document"),
        (write(tmp_path / "two" / "T2I_train.text.tsv", "1\ta").parent, {}, "no images next to"),
    ]  # fmt: skip
    for source, more, said in cases:
        with pytest.raises(InputError, match=said) as error:
            convert_dataset(source, tmp_path / "out.tsv", **more)
        assert "\n" not in str(error.value)
        assert not list(tmp_path.glob("out*"))


def test_names_of_two_images_or_of_another_folder_are_not_found(tmp_path):
    images = image_files(tmp_path / "i", {"x/1.png": "a", "y/1.png": "b", "y/2.png": "c"})
    lines = ["x/1.png#0\t甲", "1.png#0\t乙", "x/2.png#0\t丙", "2#0\t丁", "../x/2.png#0\t戊"]
    rows, report = converted(write(tmp_path / "k.txt", *lines), images=images)
    assert rows == [("x/1.png", "甲", "a"), ("2", "丁", "c")]
    assert report.counts["reasons"] == {"no such image": 3}


def test_the_first_image_of_equal_ids_is_used(tmp_path):
    images = write(tmp_path / "x_imgs.tsv", f"1\t{b64('a')}", f"1\t{b64('b')}")
    rows, report = converted(write(tmp_path / "t.tsv", "1\t甲"), images=images)
    assert rows == [("1", "甲", "a")]
    assert report.counts["ambiguous_image_names"] == 1


def test_columns_can_be_named(tmp_path):
    folder = image_files(tmp_path / "i", {"1.png": "a"})
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["图", "英文", "中文"], ["1.png", "red", "红"]])
    options = SetOptions(text_column="中文", image_column="图")
    rows, _ = converted(tmp_path / "t.csv", options, images=folder)
    assert rows == [("1.png", "红", "a")]
    wrong = SetOptions(text_column="中文字", image_column="图")
    with pytest.raises(InputError, match='did you mean "中文"'):
        converted(tmp_path / "t.csv", wrong, images=folder, overwrite=True)


pieces = st.sampled_from([
    b"file_name,text\n", b"image_id\ttext\n", b"a.png", b"a.png#zhc#0 ", b"#0\t", b",", b"\t",
    b"\n", b"\r", b'"', b'{"file_name": "a.png", "text": ', b"}", b"[", b"[" * 5000, b"\xff",
    "甲".encode(), b"\0", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"null", b"1e999",
])  # fmt: skip


@given(
    content=st.lists(st.one_of(pieces, st.binary(max_size=6)), max_size=12).map(b"".join),
    name=st.sampled_from(["c.txt", "c.csv", "c.tsv", "c.jsonl"]),
    with_images=st.booleans(),
)
def test_any_bytes_as_captions_end_in_rows_or_one_clear_line(
    tmp_path_factory, content, name, with_images
):
    folder = image_files(tmp_path_factory.mktemp("any"), {"i/a.png": "a"})
    (folder / name).write_bytes(content)
    options = SetOptions(with_images=with_images)
    out = folder / "out"
    with contextlib.suppress(ToolkitError):
        convert_dataset(folder / name, out, options=options, images=folder / "i")
        rows = out.read_text("utf-8").split("\n")
        assert rows.pop() == ""
        assert rows
        assert {row.count("\t") for row in rows} == {2 if with_images else 1}
    left = {path.name for path in folder.iterdir()} - {name, "i"}
    assert left <= {"out", "out.manifest.json", "out.rejects.tsv"}
    assert not left or "out" in left


words = st.lists(st.text("甲乙a1。", min_size=1, max_size=4), min_size=1, max_size=6)


@given(words=words)
def test_joined_words_lose_no_letter_and_keep_latin_words_apart(words):
    joined = join_words(" ".join(words))
    assert joined.replace(" ", "") == "".join(words)
    for left, right in pairwise(joined):
        assert not (left == " " and not (right.isascii() and right.isalnum()))


@pytest.mark.parametrize("number", [1, 3, 300])
def test_order_is_kept_however_many_threads_work(tmp_path, number):
    names = [list(COLOURS)[n * 7 % 4] for n in range(number)]
    source = write(tmp_path / "s.tsv", *(f"{n}\t第{n}\t{b64(c)}" for n, c in enumerate(names)))
    rows, _ = converted(source)
    assert rows == [(str(n), f"第{n}", c) for n, c in enumerate(names)]


def test_real_captions_and_photographs(real_data, tmp_path):
    folder = real_data / "flickr8k-cn"
    out = tmp_path / "val.tsv"
    report = convert_dataset(folder / "val.captions.tsv", out, images=folder / "val.tsv",
                     options=SetOptions(captions="first"))  # fmt: skip
    assert report.counts["rows"] == report.counts["images"] == 1000
    assert out.read_bytes() == (folder / "val.tsv").read_bytes()
    assert json.loads((tmp_path / "val.tsv.manifest.json").read_text())["counts"]["rejected"] == 0


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("retrieval_train.tsv", {"train"}),
        ("train_latest.tsv", {"train"}),
        ("latest_val.tsv", {"val"}),
        ("mscoco-retrieval-train-00000-of-00002.parquet", {"train"}),
        ("mscoco-retrieval-test-00000-of-00001.parquet", {"test"}),
        ("interval.tsv", set()),
        ("flickr7ktrain.txt", {"train"}),
        ("flickr30k_cn_val.txt", {"val"}),
        ("train2014.json", {"train"}),
        ("cocoTrain.tsv", {"train"}),
        ("MR_valid_queries.jsonl", {"val"}),
        ("coco-cn.dev.txt", {"val"}),
        ("VAL.tsv", {"val"}),
    ],
)
def test_a_file_belongs_to_the_split_that_is_a_word_of_its_name(name, splits):
    found = {split for split in ("train", "val", "test") if files_of_split([Path(name)], split)}
    assert found == splits


def test_the_command_takes_the_split_and_not_a_name_that_ends_in_its_letters(tmp_path, command):
    image = base64.b64encode(image_bytes("a")).decode()
    for name, text in (("retrieval_train", "训练"), ("retrieval_val", "验证")):
        (tmp_path / f"{name}.tsv").write_text(f"1\t{text}\t{image}\n", encoding="utf-8")
    out = tmp_path / "out.tsv"
    code, _, err = command("data", "convert", tmp_path, "--split", "val", "--out", out)
    assert code == 0, err
    assert out.read_text(encoding="utf-8").split("\t")[1] == "验证"
