"""Datasets as others write them: Parquet dialects, JSON documents, linked folders, GBK names."""

import base64
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.datasets.config import SetOptions
from data.datasets.image_stores import FolderStore
from data.errors import InputError, RowError
from data.folders import walk
from data.runs import fingerprint
from tests.data.datasets.test_convert import b64, converted, image_bytes, image_files, write

TEXTS = ["一只猫", "一条狗", "一只猫"]
FOUND = [("1", "一只猫", "a"), ("2", "一条狗", "b"), ("3", "一只猫", "c")]
BYTES = [image_bytes(name) for name in "abc"]
STRUCTS = [{"bytes": content, "path": None} for content in BYTES]


def parquet(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


TEXT_COLUMNS = {
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "large string": pa.array(TEXTS, pa.large_string()),
    "dictionary of large strings": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "string view": pa.array(TEXTS, pa.string_view()),
    "list": pa.array([[text] for text in TEXTS]),
    "large list": pa.array([[text] for text in TEXTS], pa.large_list(pa.string())),
    "fixed list": pa.array([[text] for text in TEXTS], pa.list_(pa.string(), 1)),
    "Karpathy's": pa.array([[{"raw": text, "sentid": 1}] for text in TEXTS]),
    "struct of a list": pa.array([{"raw": [text]} for text in TEXTS]),
}


@pytest.mark.parametrize("kind", TEXT_COLUMNS)
def test_captions_of_every_layout(tmp_path, kind):
    path = parquet(tmp_path / "t.parquet", caption=TEXT_COLUMNS[kind], image=STRUCTS)
    assert converted(path)[0] == FOUND


def test_a_category_column_of_pandas(tmp_path):
    frame = pd.DataFrame({"text": pd.Categorical(TEXTS), "img": BYTES, "id": [7, 8, 9]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert [row[0] for row in converted(tmp_path / "t.parquet")[0]] == ["7", "8", "9"]


IMAGE_COLUMNS = {
    "binary view": pa.array(BYTES, pa.binary_view()),
    "large binary": pa.array(BYTES, pa.large_binary()),
    "base64": pa.array([b64(name) for name in "abc"]),
    "large base64": pa.array([b64(name) for name in "abc"], pa.large_string()),
    "data URI": pa.array([f"data:image/png;base64,{b64(name)}" for name in "abc"]),
    "base64 in a dictionary": pa.array([b64(name) for name in "abc"]).dictionary_encode(),
    "paths": pa.array(["f/a.png", "f/b.png", "./f/c.png"]),
    "struct of paths": pa.array([{"path": f"f/{name}.png"} for name in "abc"]),
}


@pytest.mark.parametrize("kind", IMAGE_COLUMNS)
def test_images_of_every_layout(tmp_path, kind):
    image_files(tmp_path / "f", {f"{name}.png": name for name in "abc"})
    path = parquet(tmp_path / "t.parquet", text=TEXTS, image=IMAGE_COLUMNS[kind])
    assert converted(path)[0] == FOUND


def test_paths_are_read_below_images_and_never_outside(tmp_path):
    image_files(tmp_path / "f", {"a.png": "a"})
    image_files(tmp_path / "secret", {"b.png": "b"})
    outside = ["../secret/b.png", str(tmp_path / "secret" / "b.png"), "https://example.org/a.png"]
    path = parquet(tmp_path / "t" / "t.parquet", text=["甲"] * 5,
                   image_path=["a.png", *outside, "none.png"])  # fmt: skip
    rows, report = converted(path, images=tmp_path / "f")
    assert rows == [("1", "甲", "a")]
    assert report.counts["reasons"] == {"no image": 3, "image not downloaded": 1}


def test_columns_found_are_listed_with_their_types(command, tmp_path):
    path = parquet(tmp_path / "t.parquet", words=TEXTS, size=[1, 2, 3], x=BYTES)
    code, _, error = command("data", "convert", path, "--out", tmp_path / "o.tsv")
    assert code == 2
    assert "none of its columns (words: string, size: int64, x: binary) is known" in error
    assert "pass --text-column" in error
    for options, said in [
        (["--text-column", "size"], "column size is int64, which cannot hold captions"),
        (["--text-column", "word"], 'found words: string, size: int64, x: binary); did you mean'),
    ]:  # fmt: skip
        assert said in command("data", "convert", path, "--out", tmp_path / "o.tsv", *options)[2]
    words = ["--text-column", "words", "--out", tmp_path / "o.tsv"]
    assert command("data", "convert", path, *words)[0] == 0, "the only binary column"


def test_hugging_face_s_folders_name_the_split(tmp_path):
    for split, name in [("train", "a"), ("test", "b"), ("partial-val", "c")]:
        parquet(tmp_path / "d" / "default" / split / "0000.parquet", text=[split],
                image=[{"bytes": image_bytes(name), "path": "x.png"}])  # fmt: skip
    for split, name in [("train", "a"), ("test", "b"), ("val", "c")]:
        rows, _ = converted(tmp_path / "d", SetOptions(split=split), overwrite=True)
        assert [row[2] for row in rows] == [name]
    rows, _ = converted(tmp_path / "d" / "default" / "test", SetOptions(split="test"))
    assert [row[2] for row in rows] == ["b"]
    with pytest.raises(InputError, match="or of its folder contains train"):
        converted(tmp_path / "d" / "default" / "test")
    parquet(tmp_path / "d" / "zh" / "train" / "0000.parquet", text=["x"], image=STRUCTS[:1])
    with pytest.raises(InputError, match=r"several configurations \(default, zh\)"):
        converted(tmp_path / "d")


def test_img2dataset_s_tables(tmp_path):
    folder = tmp_path / "out"
    parquet(folder / "00000.parquet", key=["000000000", "000000001"], caption=["甲", "乙"],
            url=["https://a/1.jpg", "https://a/2.jpg"], status=["success", "failed_to_download"],
            jpg=pa.array([image_bytes("a", "JPEG"), None], pa.binary()))  # fmt: skip
    rows, report = converted(folder)
    assert [row[1:] for row in rows] == [("甲", "a")]
    assert report.counts["reasons"] == {"no image": 1}
    with pytest.raises(InputError, match="of its folder contains test"):
        converted(folder, SetOptions(split="test"))

    files = tmp_path / "files"
    image_files(files / "00000", {"000000000.jpg": "b"})
    parquet(files / "00000.parquet", key=["000000000", "000000001"], caption=["甲", "乙"],
            url=["https://a/1.jpg", "https://a/2.jpg"])  # fmt: skip
    rows, report = converted(files)
    assert [row[1:] for row in rows] == [("甲", "b")]
    assert report.counts["reasons"] == {"no image": 1}

    alone = parquet(tmp_path / "w" / "00000.parquet", key=["0"], caption=["甲"], sha256=["x"])
    with pytest.raises(InputError, match=r"key: string.*may be in 00000\.tar: unpack it"):
        converted(alone)


DOCUMENTS = {
    "COCO": {
        "info": {"year": 2014},
        "images": [{"id": 9, "file_name": "a.jpg"}, {"id": 10, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "一"}, {"id": 2, "image_id": 10, "caption": "二"},
            {"id": 3, "image_id": 9, "caption": "三"},
        ],
    },
    "Karpathy": {
        "dataset": "coco",
        "images": [
            {"filename": "a.jpg", "filepath": "", "split": "train", "imgid": 0,
             "sentences": [{"raw": "一", "tokens": ["一"]}, {"raw": "三", "tokens": []}]},
            {"filename": "b.jpg", "split": "restval", "sentences": [{"raw": "二"}]},
            {"filename": "c.jpg", "split": "test", "sentences": [{"raw": "四"}]},
        ],
    },
    "AI Challenger": [
        {"url": "http://a", "image_id": "a.jpg", "caption": ["一", "三"]},
        {"url": "http://b", "image_id": "b.jpg", "caption": ["二"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_lists_as_they_are_distributed(tmp_path, name, indent):
    images = image_files(tmp_path / "i", {"a.jpg": "a", "b.jpg": "b", "c.jpg": "c"})
    text = json.dumps(DOCUMENTS[name], ensure_ascii=False, indent=indent)
    path = tmp_path / "captions_train.json"
    path.write_text(f"\ufeff{text}", "utf-8")
    rows, report = converted(path, images=images)
    assert sorted(row[1:] for row in rows) == [("一", "a"), ("三", "a"), ("二", "b")]
    assert report.counts.get("rows_of_other_splits", 0) == (name == "Karpathy")


def test_json_lists_are_found_in_folders_and_read_by_split(tmp_path):
    coco = tmp_path / "coco"
    image_files(coco / "train2014", {"a.jpg": "a"})
    image_files(coco / "val2014", {"b.jpg": "b"})
    for split, line in (("train2014", 0), ("val2014", 1)):
        one = {"images": DOCUMENTS["COCO"]["images"],
               "annotations": DOCUMENTS["COCO"]["annotations"][line : line + 1]}  # fmt: skip
        write(coco / "annotations" / f"captions_{split}.json", json.dumps(one))
        write(coco / "annotations" / f"instances_{split}.json", "{}")
    assert [row[1:] for row in converted(coco)[0]] == [("一", "a")]
    rows, _ = converted(coco, SetOptions(split="val"), overwrite=True)
    assert [row[1:] for row in rows] == [("二", "b")]
    karpathy = tmp_path / "k"
    image_files(karpathy / "images", {f"{name}.jpg": name for name in "abc"})
    write(karpathy / "dataset_coco.json", json.dumps(DOCUMENTS["Karpathy"]))
    rows, _ = converted(karpathy, SetOptions(split="test"))
    assert [row[1:] for row in rows] == [("四", "c")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"image_id": "a.jpg", "caption": "一"}', "one JSON document, and damaged"),
        ('{"version": 1, "kinds": ["x"]}', "pass --text-column"),
        ('[{"a": 1}, {"b": 2}]', "none of its columns"),
        ("[1, 2]", "no caption can be used; 2 rejected"),
        ("[]", "no caption can be used"),
        ('{"a": [{"x": 1}], "b": [{"y": 1}]}', "one JSON document; a list of captions"),
    ],
)
def test_other_documents_are_one_clear_error(tmp_path, text, said):
    images = image_files(tmp_path / "i", {"a.jpg": "a"})
    with pytest.raises(InputError, match=said):
        converted(write(tmp_path / "x.json", text), images=images)


def test_every_ending_of_a_known_format_is_an_image(tmp_path):
    names = ["a.jpe", "b.JFIF", "c.PNG", "d.jpg"]
    folder = image_files(tmp_path / "i", dict(zip(names, "abcd", strict=True)))
    assert len(FolderStore(folder)) == 4
    captions = write(tmp_path / "i" / "captions.tsv", *(f"{n}\t甲" for n in ("a", "b", "c", "d")))
    assert [row[2] for row in converted(captions)[0]] == list("abcd")
    heic = write(tmp_path / "h" / "a.heic", "x").parent
    with pytest.raises(InputError, match=r"no images in a known format \(files: 1 \.heic\)"):
        converted(captions, images=heic, overwrite=True)


def test_linked_folders_are_entered_once(tmp_path):
    real = image_files(tmp_path / "disk", {"x/1.png": "a", "x/2.png": "b"})
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train").symlink_to(real / "x")
    (folder / "again").symlink_to(real / "x")
    (folder / "circle").symlink_to(folder)
    (real / "x" / "up").symlink_to(real)
    write(folder / "captions.tsv", "train/1.png\t甲", "again/2.png\t乙", "2.png\t丙", "x/1\t丁")
    store = FolderStore(folder)
    assert (len(store), store.duplicates) == (2, 0)
    rows, _ = converted(folder)
    assert [row[1:] for row in rows] == [("甲", "a"), ("乙", "b"), ("丙", "b")]
    captions = write(tmp_path / "keyed" / "captions.txt", "1.png#zhc#0 甲")
    (captions.parent / "circle").symlink_to(captions.parent)
    (captions.parent / "images").symlink_to(real)
    assert [row[1:] for row in converted(captions.parent)[0]] == [("甲", "a")]
    before = fingerprint(folder)
    (real / "x" / "1.png").write_bytes(image_bytes("c"))
    assert fingerprint(folder) != before
    for n in range(8):  # many links between many folders
        (tmp_path / "many" / str(n)).mkdir(parents=True)
        for m in range(8):
            (tmp_path / "many" / str(n) / f"to{m}").symlink_to(tmp_path / "many" / str(m))
    assert len(list(walk(tmp_path / "many"))) == 9


def test_file_names_in_gbk_are_found_by_their_text(command, tmp_path):
    folder = tmp_path / os.fsdecode("目录".encode("gbk"))
    folder.mkdir()
    for name, which in [("红果.png", "a"), ("青果.png", "b")]:
        (folder / os.fsdecode(name.encode("gbk"))).write_bytes(image_bytes(which))
    captions = write(tmp_path / "captions.tsv", "红果.png\t一个红果", "青果\t一个青果")
    out = tmp_path / "o.tsv"
    code, said, error = command("data", "convert", captions, "--images", folder,
                                "--out", out)  # fmt: skip
    assert (code, error) == (0, "")
    assert "2 rows" in said
    cells = [line.split("\t") for line in out.read_text("utf-8").splitlines()]
    assert [base64.b64decode(row[2]) for row in cells] == [image_bytes(name) for name in "ab"]
    write(captions, '{"image": "\\ud800.png", "text": "甲"}', '{"image": "红果", "text": "乙"}')
    jsonl = captions.rename(tmp_path / "captions.jsonl")
    code, _, _ = command("data", "convert", jsonl, "--images", folder, "--out", out,
                         "--overwrite")  # fmt: skip
    assert code == 0
    assert "\\ud800" in (tmp_path / "o.tsv.rejects.tsv").read_text("utf-8")


def test_a_store_survives_any_name(tmp_path):
    store = FolderStore(image_files(tmp_path / "i", {"x/1.png": "a"}))
    for name in ("", "/", "../x/1.png", "a\0b/c.png", "x/" + "n" * 100_000, "\ud800/1.png", "//"):
        number = store.find(name)
        assert number is None or store.paths[number] == "x/1.png"
    (tmp_path / "i" / "x" / "1.png").unlink()
    with pytest.raises(RowError):
        store.read(0)
