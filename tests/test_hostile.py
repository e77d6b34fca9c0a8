"""Files made by an enemy: nothing runs, nothing outside is touched, memory stays bounded."""

import gzip
import json
import os
import pickle  # noqa: TID251 (to write what must not be read)
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import MAX_PIXELS
from data.kg_folder import EASYNLP_VECTORS, VECTORS, write_names
from data.runs import Run, write_json
from tests.data.encoded import b64, encoded

RUN = "touch {}"


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (RUN.format(self.mark),)


def refused(command, *words: object) -> str:
    """Run a command that must fail with one line; return the line."""
    code, _, error = command(*words)
    assert code == 2, error
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert len(error) < 2000
    return error


def kg(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write_names(folder / "entity2id.txt", ["红果", "青果"])
    return folder


def image_table(command, folder: Path, graph: Path) -> Path:
    image = b64(encoded(Image.new("RGB", (16, 16))))
    (folder / "i.tsv").write_text(f"1\t红果\t{image}\n", "utf-8")
    words = ["lattice", "build", folder / "i.tsv", "--entities", graph / "entity2id.txt"]
    code, _, error = command(*words, "--out", folder / "i.parquet")
    assert code == 0, error
    return folder / "i.parquet"


def test_pickles_with_code_run_nowhere(command, tmp_path):
    mark, folder = tmp_path / "ran", kg(tmp_path / "kg")
    torch.save({"state_dict": Payload(mark)}, tmp_path / "model.ckpt")
    torch.save(Payload(mark), folder / EASYNLP_VECTORS)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(mark)))
    np.save(tmp_path / "x_entity.npy", np.array([Payload(mark)], object), allow_pickle=True)
    table = image_table(command, tmp_path, folder)
    error = refused(command, "kg", "nearest", "红果", "--kg", folder)
    assert "cannot be loaded as a tensor" in error
    (tmp_path / "plain.pt").replace(folder / EASYNLP_VECTORS)
    refused(command, "kg", "nearest", "红果", "--kg", folder)
    refused(command, "artist", "encode", table, "--vqgan", tmp_path / "model.ckpt",
            "--out", tmp_path / "o.parquet")  # fmt: skip
    refused(command, "kg", "import", tmp_path, "--out", tmp_path / "imported")
    assert not mark.exists()


LYING = {
    "an endless header": struct.pack("<Q", 1 << 62) + b"{}",
    "a short header": struct.pack("<Q", 100) + b"{}",
    "no tensors": b"[]",
    "offsets behind the end": {"data_offsets": [0, 1 << 40], "shape": [2, 1 << 37]},
    "offsets before the beginning": {"data_offsets": [-24, 0], "shape": [2, 3]},
    "a negative shape": {"data_offsets": [0, 24], "shape": [-2, -3]},
    "an overflowing shape": {"data_offsets": [0, 24], "shape": [1 << 62, 1 << 62]},
    "a shape of texts": {"data_offsets": [0, 24], "shape": ["2", "3"]},
    "an empty shape": {"data_offsets": [0, 0], "shape": [0, 3]},
    "another type": {"data_offsets": [0, 24], "shape": [2, 3], "dtype": "F16"},
    "deep nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("case", LYING)
def test_safetensors_headers_that_lie_are_refused(command, tmp_path, case):
    content = LYING[case]
    if isinstance(content, dict):
        content = json.dumps({"entity_vectors": {"dtype": "F32", **content}}).encode()
    if "header" not in case:
        content = struct.pack("<Q", len(content)) + content
    folder = kg(tmp_path / "kg")
    (folder / VECTORS).write_bytes(content + bytes(24))
    assert f"{VECTORS} is not a file of entity vectors" in refused(
        command, "kg", "nearest", "红果", "--kg", folder
    )


def test_bombs_fill_no_memory(command, tmp_path):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with gzip.open(tmp_path / "t.tsv", "wb", 1) as file:
        for _ in range(200):
            file.write(bytes(1 << 20))
    assert "a row of more than 64 MB" in refused(
        command, "kg", "train", tmp_path / "t.tsv", "--out", tmp_path / "kg"
    )
    large = encoded(Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)))
    (tmp_path / "i.tsv").write_text(f"1\t红\t{b64(large)}\n2\t果\t{b64(large[:100])}\n", "utf-8")
    assert "2 rejected" in refused(
        command, "data", "convert", tmp_path / "i.tsv", "--out", tmp_path / "o.tsv"
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) >> 10
    assert grown < 600, f"{grown} MB"


def test_a_checkpoint_in_a_zip_of_other_files_is_refused(command, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as file:
        file.writestr("../../outside", b"x")
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    table = image_table(command, tmp_path, kg(tmp_path / "kg"))
    refused(command, "artist", "encode", table, "--vqgan", tmp_path / "model.ckpt",
            "--out", tmp_path / "o.parquet")  # fmt: skip
    assert not (tmp_path.parent / "outside").exists()


def test_a_manifest_names_no_file_outside_and_no_device(command, tmp_path):
    (tmp_path / "c.tsv").write_text("1\t红果\n", "utf-8")
    out = tmp_path / "o.tsv"
    words = ["data", "unquote", tmp_path / "c.tsv", "--out", out]
    assert command(*words)[0] == 0
    manifest = json.loads((tmp_path / "o.tsv.manifest.json").read_text("utf-8"))
    for name in ("../../../../../../dev/zero", "/dev/zero", "a/../../x"):
        write_json(tmp_path / "o.tsv.manifest.json", manifest | {"files": {name: "0"}})
        assert "outside its output" in refused(command, *words)
    (tmp_path / "zero").symlink_to("/dev/zero")
    write_json(tmp_path / "o.tsv.manifest.json", manifest | {"files": {"zero": "0"}})
    assert "is missing" in refused(command, *words)


def test_replacing_an_output_follows_no_link_in_it(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(precious)
    with Run.open(out, kind="x", settings={}, overwrite=True) as run:
        (run.work / "a").write_text("a")
        run.finish({})
    assert (precious / "file").read_text() == "x"
    assert sorted(path.name for path in out.iterdir()) == ["a", "manifest.json"]


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "\u202e../../etc/passwd", "../" * 20 + "x", "=cmd()",
     "é" * 10**6],
    ids=["script", "override", "path", "formula", "long"],
)  # fmt: skip
def test_names_and_captions_stay_text_in_every_output(command, tmp_path, text):
    (tmp_path / "t.tsv").write_text(f"{text}\t类\t水果\n青果\t类\t水果\n", "utf-8")
    (tmp_path / "c.tsv").write_text(f"{text}\t{text}\n", "utf-8")
    before = {path for path in tmp_path.parent.iterdir() if path != tmp_path}
    out = tmp_path / "out"
    for words in (
        ["kg", "clean", tmp_path / "t.tsv", "--out", out / "clean.tsv"],
        ["lattice", "build", tmp_path / "c.tsv", "--entities", tmp_path / "names.txt",
         "--out", out / "c.parquet"],
        ["lattice", "show", text[:60], "--entities", tmp_path / "names.txt", "--svg",
         out / "c.svg"],
    ):  # fmt: skip
        write_names(tmp_path / "names.txt", [text[:60], "青果"])
        code, _, error = command(*words)
        assert code == 0, error
    assert "<script" not in (out / "c.svg").read_text("utf-8")
    assert {path for path in tmp_path.parent.iterdir() if path != tmp_path} == before
