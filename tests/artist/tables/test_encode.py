import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
from artist.models.image_tokenizer import from_uint8
from artist.models.vqgan import VQGAN
from artist.tables.config import EncodeConfig, Versions
from artist.tables.encode import encode_table, image_versions
from data import schema
from data.errors import ArtefactError, ConfigError, InputError, SchemaError
from data.images import encode_png, square
from data.opencv_resize import opencv_square
from tests.artist.models.test_vqgan import TINY

CONFIG = replace(TINY, ch_mult=(1, 1), attn_resolutions=())


@pytest.fixture
def vqgan(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = VQGAN(CONFIG)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    save_image_tokenizer(tmp_path / "vqgan", model)
    return tmp_path / "vqgan"


def png(seed: int, size: int = 16) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def write_table(path: Path, images: list[bytes | None] | None, row_group_size: int = 3) -> Path:
    count = 5 if images is None else len(images)
    columns: dict[str, list[object]] = {
        "idx": [f"row{i}" for i in range(count)],
        "text": ["猫"] * count,
        "input_ids": [[100 + i] for i in range(count)],
        "seq_len": [1] * count,
        "lex_ids": [[7]] * count,
        "pos_s": [[0, 0]] * count,
        "pos_e": [[0, 0]] * count,
    }
    fields = schema.with_metadata(schema.LATTICE, {"tokenizer_fingerprint": "abc"})
    if images is not None:
        columns["image"] = [None if b is None else {"bytes": b, "path": None} for b in images]
        fields = fields.append(schema.IMAGE)
    table = pa.table(columns, schema=fields)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def test_rows_are_unchanged_except_for_their_codes(tmp_path: Path, vqgan: Path) -> None:
    images: list[bytes | None] = [png(i) for i in range(7)]
    table = write_table(tmp_path / "in.parquet", images)
    (tmp_path / "in.parquet.tokenizer").mkdir()
    (tmp_path / "in.parquet.tokenizer" / "vocab.txt").write_text("[PAD]\n")
    report = encode_table(
        table, tmp_path / "out.parquet", vqgan=vqgan, config=EncodeConfig(batch_size=2)
    )
    assert (tmp_path / "out.parquet.tokenizer" / "vocab.txt").read_text() == "[PAD]\n"
    assert (report.rows, report.encoded, report.rejected) == (7, 7, {})
    out = schema.open_table(tmp_path / "out.parquet", schema.LATTICE, [schema.CODES]).read()
    assert out.column_names == [*schema.LATTICE.names, "codes"]
    assert out.drop(["codes"]).equals(pq.read_table(table).drop(["image"]))
    metadata = schema.table_metadata(out.schema)
    assert metadata["tokenizer_fingerprint"] == "abc"
    assert (metadata["image_len"], metadata["codebook_size"]) == ("64", "32")
    assert metadata["vqgan_fingerprint"] == load_image_tokenizer(vqgan).fingerprint()
    model = load_image_tokenizer(vqgan)
    for content, codes in zip(images, out["codes"].to_pylist(), strict=True):
        assert content is not None
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
        assert model.encode(from_uint8(pixels)[None])[0].tolist() == codes


def test_an_image_with_several_captions_is_encoded_once(
    tmp_path: Path, vqgan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[bytes | None] = [png(i // 3) for i in range(9)]
    images[4:4] = [None, b"nonsense", b"nonsense"]
    table = write_table(tmp_path / "in.parquet", images, row_group_size=12)
    encoded = 0
    encode = VQGAN.encode

    def counting(model: VQGAN, pixels: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(pixels)
        return encode(model, pixels)

    monkeypatch.setattr(VQGAN, "encode", counting)
    report = encode_table(
        table, tmp_path / "out.parquet", vqgan=vqgan, config=EncodeConfig(batch_size=3)
    )
    assert (report.encoded, encoded) == (9, 3)
    assert report.rejected == {"no image": 1, "not an image": 2}
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    once = encode_table(
        write_table(tmp_path / "once.parquet", [png(i) for i in range(3)]),
        tmp_path / "once.out.parquet",
        vqgan=vqgan,
    )
    codes = pq.read_table(once.out)["codes"].to_pylist()
    kept = [n for n in range(12) if n not in (4, 5, 6)]
    assert [row["idx"] for row in rows] == [f"row{n}" for n in kept]
    assert [row["codes"] for row in rows] == [codes[n // 3] for n in range(9)]


def test_keep_images_keeps_the_column(tmp_path: Path, vqgan: Path) -> None:
    table = write_table(tmp_path / "in.parquet", [png(0), png(1, size=40)])
    encode_table(
        table, tmp_path / "out.parquet", vqgan=vqgan, config=EncodeConfig(keep_images=True)
    )
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["image"].to_pylist() == pq.read_table(table)["image"].to_pylist()
    assert [len(codes) for codes in out["codes"].to_pylist()] == [64, 64]


def test_bad_images_are_left_out_counted_and_listed(tmp_path: Path, vqgan: Path) -> None:
    images = [png(0), None, b"nonsense", png(1)[:60], png(2)]
    table = write_table(tmp_path / "in.parquet", images)
    report = encode_table(
        table, tmp_path / "out.parquet", vqgan=vqgan, config=EncodeConfig(batch_size=3)
    )
    assert pq.read_table(tmp_path / "out.parquet")["idx"].to_pylist() == ["row0", "row4"]
    assert report.rejected == {"no image": 1, "not an image": 1, "damaged image": 1}
    listed = (tmp_path / "out.parquet.rejects.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["2", "3", "4"]
    assert "rejected 1: no image" in str(report)


def test_a_second_call_does_nothing_and_other_settings_are_refused(
    tmp_path: Path, vqgan: Path
) -> None:
    table = write_table(tmp_path / "in.parquet", [png(0)])
    out = tmp_path / "out.parquet"
    first = encode_table(table, out, vqgan=vqgan)
    again = encode_table(table, out, vqgan=vqgan)
    assert again.already_finished
    assert again.encoded == first.encoded
    with pytest.raises(ArtefactError, match="keep_images"):
        encode_table(table, out, vqgan=vqgan, config=EncodeConfig(keep_images=True))
    encode_table(table, out, vqgan=vqgan, config=EncodeConfig(keep_images=True), overwrite=True)


def test_a_table_without_images_or_without_good_ones_is_an_error(
    tmp_path: Path, vqgan: Path
) -> None:
    plain = write_table(tmp_path / "plain.parquet", None)
    with pytest.raises(SchemaError, match="no images"):
        encode_table(plain, tmp_path / "out.parquet", vqgan=vqgan)
    bad = write_table(tmp_path / "bad.parquet", [b"nonsense"])
    with pytest.raises(InputError, match="no image could be encoded"):
        encode_table(bad, tmp_path / "out.parquet", vqgan=vqgan)
    assert not (tmp_path / "out.parquet").exists()


def test_easynlp_s_resize_gives_the_codes_of_its_pixels(tmp_path, vqgan):
    table = write_table(tmp_path / "big.parquet", [png(n, size=50) for n in range(5)])
    encode_table(
        table, tmp_path / "codes.parquet", vqgan=vqgan, config=EncodeConfig(resize="easynlp")
    )
    found = pq.read_table(tmp_path / "codes.parquet")["codes"].to_pylist()
    images = [np.asarray(Image.open(io.BytesIO(png(n, size=50)))) for n in range(5)]
    pixels = torch.from_numpy(np.stack([opencv_square(image, 16) for image in images]))
    codes = load_image_tokenizer(vqgan).encode(from_uint8(pixels.permute(0, 3, 1, 2)))
    assert found == codes.tolist()
    with pytest.raises(ConfigError, match="use antialias or easynlp"):
        encode_table(
            table, tmp_path / "other.parquet", vqgan=vqgan, config=EncodeConfig(resize="nearest")
        )


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    """Return an image that becomes redder to the right and greener to the bottom."""
    red = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, red * 0], -1).astype(np.uint8))


def mirrored(image: Image.Image) -> bool:
    return image.getpixel((0, 0))[0] > image.getpixel((image.width - 1, 0))[0]


def test_further_versions_are_crops_that_depend_on_row_and_seed():
    versions = Versions(count=6, crop=0.5, flip=True)
    first, *further = image_versions(versions, gradient(), 3, "一只狗")
    assert first.size == (40, 24)
    assert all(image.width == image.height and 12 <= image.width <= 24 for image in further)
    assert len({image.tobytes() for image in further}) == 5
    again = list(image_versions(versions, gradient(), 3, "一只狗"))
    assert [image.tobytes() for image in again[1:]] == [image.tobytes() for image in further]
    other = list(image_versions(versions, gradient(), 4, "一只狗"))
    assert [image.tobytes() for image in other[1:]] != [image.tobytes() for image in further]


def test_half_are_mirrored_unless_the_caption_names_a_side():
    versions = Versions(count=41, flip=True)
    turned = [mirrored(image) for image in image_versions(versions, gradient(), 0, "一只狗")]
    assert not turned[0]
    assert 10 < sum(turned) < 30
    for text in ("一个人在左边", "向右转"):
        assert not any(mirrored(image) for image in image_versions(versions, gradient(), 0, text))
    assert not any(
        mirrored(image) for image in image_versions(Versions(count=41), gradient(), 0, "一只狗")
    )
    assert [
        mirrored(i) for i in image_versions(Versions(count=2, crop=1, flip=True), gradient(), 0, "")
    ][1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"count": 2, "crop": 0.0}, r"must be in \(0, 1\]"),
        ({"count": 3, "crop": 1.0, "flip": True}, "Set --crop below 1"),
    ],
)
def test_invalid_versions_are_refused_with_advice(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Versions(**wrong)


def test_versions_are_encoded_in_addition_to_the_image(tmp_path, vqgan):
    table = write_table(tmp_path / "t.parquet", [png(n, 24) for n in range(5)])
    encode_table(table, tmp_path / "plain.parquet", vqgan=vqgan)
    versions = Versions(count=3, crop=0.6, flip=True)
    out = tmp_path / "more.parquet"
    encode_table(table, out, vqgan=vqgan, versions=versions, config=EncodeConfig(batch_size=2))
    plain, more = pq.read_table(tmp_path / "plain.parquet"), pq.read_table(out)
    assert more["codes"].to_pylist() == plain["codes"].to_pylist()
    model = load_image_tokenizer(vqgan)
    length = model.config.image_len
    for n, codes in enumerate(more["more_codes"].to_pylist()):
        image = Image.open(io.BytesIO(png(n, 24)))
        cropped = list(image_versions(versions, image, n, "猫"))[1:]
        pixels = torch.from_numpy(np.stack([square(c, 16) for c in cropped])).permute(0, 3, 1, 2)
        want = model.encode(from_uint8(pixels))
        assert torch.equal(torch.tensor(codes).view(2, length), want)
    metadata = schema.table_metadata(pq.read_schema(out))
    assert '"count": 3' in metadata["versions"]
    with pytest.raises(ArtefactError, match="belongs to another run"):
        encode_table(table, out, vqgan=vqgan)


def test_the_images_of_a_folder_of_shards_are_encoded(tmp_path, vqgan):
    images = [png(n) for n in range(6)]
    whole = write_table(tmp_path / "t.parquet", images)
    encode_table(whole, tmp_path / "whole.parquet", vqgan=vqgan)
    shards = tmp_path / "shards"
    shards.mkdir()
    for name, part in (("a", images[:4]), ("b", images[4:])):
        write_table(shards / f"{name}.parquet", part)
    encode_table(shards, tmp_path / "parts.parquet", vqgan=vqgan)
    assert (
        pq.read_table(tmp_path / "parts.parquet")["codes"].to_pylist()
        == pq.read_table(tmp_path / "whole.parquet")["codes"].to_pylist()
    )
