"""The code store: several tables encode an image once, and get the same codes as without it."""

import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from artist.formats.image_tokenizer_folder import save_image_tokenizer
from artist.models.vqgan import VQGAN
from artist.tables.code_store import CodeStore, image_key
from artist.tables.config import EncodeConfig, Versions
from artist.tables.encode import encode_table
from data.errors import ConfigError
from tests.artist.tables.test_encode import CONFIG, png, write_table

PLACE = {"fingerprint": "f" * 64, "resolution": 16, "resize": "antialias"}


@pytest.fixture
def vqgan(tmp_path: Path) -> Path:
    return make_vqgan(tmp_path / "vqgan", 0)


def make_vqgan(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_image_tokenizer(path, VQGAN(CONFIG))
    return path


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each forward pass of a tokenizer."""
    sizes: list[int] = []
    encode = VQGAN.encode

    def counting(model: VQGAN, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode(model, pixels)

    monkeypatch.setattr(VQGAN, "encode", counting)
    return sizes


def codes_of(path: Path) -> list[list[int]]:
    return pq.read_table(path)["codes"].to_pylist()


def test_images_of_an_earlier_table_are_not_encoded_again(tmp_path, vqgan, encoded):
    first = write_table(tmp_path / "a.parquet", [png(n) for n in range(6)])
    second = write_table(tmp_path / "b.parquet", [png(n) for n in (9, 5, 3, 5)] + [b"broken"])
    store = tmp_path / "store"
    encode_table(first, tmp_path / "a.out", vqgan=vqgan, code_store=store)
    assert sum(encoded) == 6
    report = encode_table(second, tmp_path / "b.out", vqgan=vqgan, code_store=store)
    assert sum(encoded) == 7
    assert (report.encoded, report.from_store, report.rejected) == (4, 2, {"not an image": 1})
    assert "2 images were in the code store" in str(report)
    plain = encode_table(second, tmp_path / "plain.out", vqgan=vqgan)
    assert codes_of(tmp_path / "b.out") == codes_of(tmp_path / "plain.out")
    assert plain.codes_used == report.codes_used


def test_another_tokenizer_or_resizing_has_codes_of_its_own(tmp_path, vqgan, encoded):
    table, store = (
        write_table(tmp_path / "a.parquet", [png(n, 40) for n in range(3)]),
        tmp_path / "s",
    )
    other = make_vqgan(tmp_path / "other", 1)
    for number, options in enumerate(
        [
            {"vqgan": vqgan},
            {"vqgan": other},
            {"vqgan": vqgan, "config": EncodeConfig(resize="easynlp")},
        ]
    ):
        out = tmp_path / f"{number}.out"
        encode_table(table, out, code_store=store, **options)
        encode_table(table, tmp_path / f"{number}.plain", **options)
        assert codes_of(out) == codes_of(tmp_path / f"{number}.plain")
    assert sum(encoded) == 18


def test_a_run_that_died_leaves_the_codes_of_its_finished_batches(tmp_path, vqgan, monkeypatch):
    table = write_table(tmp_path / "a.parquet", [png(n) for n in range(40)])
    encode, calls = VQGAN.encode, []

    def dying(model: VQGAN, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) > 4:
            raise KeyboardInterrupt
        return encode(model, pixels)

    options = {"vqgan": vqgan, "config": EncodeConfig(batch_size=2), "code_store": tmp_path / "s"}
    with monkeypatch.context() as patched:
        patched.setattr(VQGAN, "encode", dying)
        with pytest.raises(KeyboardInterrupt):
            encode_table(table, tmp_path / "out", **options)
    assert encode_table(table, tmp_path / "out", **options).from_store == 8


def test_a_damaged_store_is_reported_and_changes_nothing(tmp_path, vqgan, caplog):
    table, store = write_table(tmp_path / "a.parquet", [png(n) for n in range(3)]), tmp_path / "s"
    encode_table(table, tmp_path / "a.out", vqgan=vqgan, code_store=store)
    (file,) = store.iterdir()
    file.write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.WARNING):
        report = encode_table(table, tmp_path / "b.out", vqgan=vqgan, code_store=store)
    assert f"{file} is not used further: file is not a database" in caplog.text
    assert report.from_store == 0
    assert codes_of(tmp_path / "a.out") == codes_of(tmp_path / "b.out")


def test_a_full_store_is_read_and_not_extended(tmp_path, caplog):
    codes = {image_key(bytes([n])): np.arange(4, dtype=np.uint16) for n in range(3)}
    first, *others = codes
    store = CodeStore(tmp_path, **PLACE)
    store.add({first: codes[first]})
    store.close()
    full = CodeStore(tmp_path, **PLACE, largest=1)
    with caplog.at_level(logging.WARNING):
        full.add({key: codes[key] for key in others})
    assert "is full" in caplog.text
    assert set(full.get([*codes])) == {first}


def test_two_runs_can_use_one_store_at_the_same_time(tmp_path):
    one, two = CodeStore(tmp_path, **PLACE), CodeStore(tmp_path, **PLACE)
    keys = [image_key(bytes([n % 256, n // 256])) for n in range(1200)]
    one.add(dict.fromkeys(keys[:700], np.array([1, 65_535], np.uint16)))
    two.add(dict.fromkeys(keys[500:], np.array([1, 65_535], np.uint16)))
    found = one.get(keys)
    assert len(found) == 1200
    assert found[keys[-1]].tolist() == [1, 65_535]


def test_versions_of_images_are_not_stored(tmp_path, vqgan):
    table = write_table(tmp_path / "a.parquet", [png(0)])
    with pytest.raises(ConfigError, match="leave it out with --versions"):
        encode_table(
            table,
            tmp_path / "o",
            vqgan=vqgan,
            versions=Versions(count=2),
            code_store=tmp_path / "s",
        )
    assert not (tmp_path / "s").exists()
