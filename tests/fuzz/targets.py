"""Readers of foreign bytes, each with valid files to damage.

A target writes the bytes into a folder and reads them as a command does. It may raise
`ToolkitError`; anything else is a fault. Readers of rows also check that none is lost.
"""

import base64
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from artist.evaluation.fid_kid_is import load_statistics
from artist.formats.state_dict import read_state
from artist.formats.taming import read_taming_checkpoint
from artist.generation.prompts import read_prompts
from artist.tables.lattice_rows import open_lattice
from data.datasets.convert import convert_dataset
from data.datasets.table_scan import TableScanner
from data.datasets.unquote import unquote_tsv
from data.images import decode_base64, decode_image, split_images
from data.kg_folder import EASYNLP_VECTORS, VECTORS, VECTORS_KEY, read_names, read_vectors
from data.quoted_rows import QuotedRows, records, unquoted
from data.runs import read_manifest, verify
from data.tokenizer import Tokenizer
from data.tsv import Rejects, read_rows
from kg.reading.triples import read_triples
from lattice.building.build import build_lattice
from lattice.building.easynlp_tsv import import_table
from tests.data.encoded import encoded

VOCAB = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只猫红果a"]) + "\n"
_PNG = encoded(Image.linear_gradient("L").resize((8, 8)))
_IMAGE = base64.b64encode(_PNG).decode()
_TSV = f'1\t一只猫\t{_IMAGE}\n2\t"红""果"\t{_IMAGE}\nidx\ttext\r\n3\t\0\n'.encode()
_CAPTIONS = 'idx\ttext\n1\t一只猫\n2\t"红""果"\n\n3\t"甲\n乙"\n'.encode()
_TRIPLES = (
    'head\trelation\ttail\n红果\t类\t水果\n青果\t类\t水果\n"5""屏"\t类\t水果\n红\t类\n'.encode()
)
_CSV_TRIPLES = '实体,属性,值\n红果,类,水果\n"青,果",类,水果\n'.encode()


class Target(NamedTuple):
    """A reader: valid content to damage, and what reads the damaged content in a folder."""

    seeds: list[bytes]
    read: Callable[[bytes, Path], object]


def _file(name: str, content: bytes, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _lines(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")


def _tsv(content: bytes, folder: Path) -> None:
    rejects = Rejects(folder / "rejects.tsv")
    kept = sum(1 for _ in read_rows(_file("a.tsv", content, folder), (2, 3), rejects))
    if not content.startswith(b"\x1f\x8b"):
        assert kept + rejects.count == _lines(content), "a row was lost"


def _triples(content: bytes, folder: Path) -> None:
    rejects = Rejects()
    graph = read_triples([_file("t.tsv", content, folder)], min_tail_count=1, rejects=rejects)
    c = graph.counts
    dropped = ("duplicates_dropped", "self_loops_dropped", "literals_dropped", "rows_rejected")
    assert c["rows_read"] == len(graph.train) + sum(int(c[name]) for name in dropped)
    assert c["rows_rejected"] == rejects.count
    if not content.startswith((b"\x1f\x8b", b"\xef\xbb\xbf")) and c["format"] == "TSV":
        assert c["rows_read"] == _lines(content), "a row was lost"


def _openke(content: bytes, folder: Path) -> None:
    for name in ("entity2id.txt", "relation2id.txt"):
        (folder / name).write_bytes(b"2\na\t0\nb\t1\n")
    _file("train2id.txt", content, folder)
    read_triples([folder])


def _lattice(content: bytes, folder: Path) -> None:
    names = _file("entity2id.txt", "1\n一只\t0\n".encode(), folder)
    corpus, vocab = _file("c.tsv", content, folder), _file("vocab.txt", VOCAB.encode(), folder)
    report = build_lattice(corpus, folder / "o.parquet", names=names, tokenizer=vocab)
    if not content.startswith(b"\x1f\x8b"):
        assert report.num_rows + report.num_rejected == _lines(content), "a row was lost"


def _validate(content: bytes, folder: Path) -> None:
    scan = TableScanner(None, "full", 1, 3).scan(_file("t.tsv", content, folder))
    if not content.startswith(b"\x1f\x8b") and not content.startswith(b"PAR1"):
        assert len(scan) + scan.faults.count == _lines(content), "a row was lost"


def _convert(name: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        (folder / "i").mkdir()
        (folder / "i" / "a.jpg").write_bytes(_PNG)
        source = _file(name, content, folder)
        images = None if name.endswith((".parquet", "rows.tsv")) else folder / "i"
        convert_dataset(source, folder / "o.tsv", images=images, workers=1)

    return read


def _tokenizer(name: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        (folder / "t").mkdir()
        Tokenizer.load(_file(f"t/{name}", content, folder).parent).encode(["一只猫 abc"])

    return read


def _vectors(name: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        _file("entity2id.txt", b"2\na\t0\nb\t1\n", folder)
        _file(name, content, folder)
        read_vectors(folder)

    return read


def _unquote(content: bytes, folder: Path) -> None:
    source = _file("a.tsv", content, folder)
    counts = unquote_tsv(source, folder / "b.tsv").counts
    if not content.startswith(b"\x1f\x8b"):
        assert counts["lines"] == _lines(content), "a row was lost"
        lines = content.removesuffix(b"\n").split(b"\n")
        assert [unquoted(b"\n".join(r)) for r in records(lines)]
        QuotedRows().add_lines(content, 1)


def _text(content: bytes, _: Path) -> None:
    text = content.decode("utf-8", "replace")
    for one in split_images(text):
        decode_base64(one)


def _manifest(content: bytes, folder: Path) -> None:
    _file("a.tsv", b"x", folder)
    _file("a.tsv.manifest.json", content, folder)
    read_manifest(folder / "a.tsv")
    verify(folder / "a.tsv")


def _table(content: bytes, folder: Path) -> None:
    shards = open_lattice(_file("t.parquet", content, folder))
    for batch in shards.iter_batches(100):
        batch.to_pylist()


def _saved(value: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mu=np.zeros(3), sigma=np.eye(3))
    return buffer.getvalue()


def _images() -> list[bytes]:
    gradient = Image.linear_gradient("L").resize((9, 7))
    kinds = {"PNG": "RGBA", "JPEG": "RGB", "WEBP": "RGB", "GIF": "P", "BMP": "RGB", "TIFF": "RGB",
             "ICO": "RGBA", "PPM": "RGB"}  # fmt: skip
    return [encoded(gradient.convert(mode), kind) for kind, mode in kinds.items()]


def _lattice_seed() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _lattice(_CAPTIONS, folder)
        return (folder / "o.parquet").read_bytes()


_TENSORS = {VECTORS_KEY: torch.ones(2, 3)}
_DOCUMENT = {"images": [{"id": 9, "file_name": "a.jpg"}],
             "annotations": [{"id": 1, "image_id": 9, "caption": "一"}]}  # fmt: skip
_EASYNLP = f"1\t一只猫\t0\t0 1 2 0\t0 1 2 1\t3\t{_IMAGE}\n".encode()
_BACKEND = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {t: n for n, t in
            enumerate(VOCAB.split())}}  # fmt: skip

TARGETS = {
    "tsv": Target([_TSV, gzip.compress(_TSV)], _tsv),
    "triples": Target([_TRIPLES, _CSV_TRIPLES, gzip.compress(_TRIPLES)], _triples),
    "openke": Target([b"2\n0 1 0\n1 0 1\n", b"1\n0 1 1\n"], _openke),
    "captions": Target([_CAPTIONS, gzip.compress(_CAPTIONS)], _lattice),
    "captions with images": Target([_TSV], _lattice),
    "validate": Target([_TSV, _CAPTIONS], _validate),
    "unquote": Target([_CAPTIONS, _TRIPLES], _unquote),
    "rows": Target([_TSV], _convert("rows.tsv")),
    "json lines": Target(
        ['{"image": "a", "text": ["一", "二"]}\n{"image": "a.jpg", "text": "三"}\n'.encode()],
        _convert("c.jsonl"),
    ),
    "json document": Target(
        [json.dumps(_DOCUMENT).encode(), b'[{"image_id": "a.jpg", "caption": ["x"]}]'],
        _convert("c.json"),
    ),
    "csv": Target(['file_name,text\na.jpg,"一,""二"""\na,三\n'.encode()], _convert("c.csv")),
    "keyed": Target(["a.jpg#zhc#0 一\na#1\t二\n".encode()], _convert("c.txt")),
    "parquet": Target(
        [
            _parquet(text=["一", "二"], image=[{"bytes": _PNG, "path": "a"}] * 2),
            _parquet(caption=pa.array(["一"]).dictionary_encode(), image=[_IMAGE]),
            _parquet(caption=[["一"]], path=["i/a.jpg"], id=[3]),
        ],
        _convert("c.parquet"),
    ),
    "lattice table": Target([_lattice_seed()], _table),
    "prompts": Target([_CAPTIONS, _TSV], lambda content, folder: read_prompts(
        _file("p.tsv", content, folder), with_images=content.startswith(b"1"))),
    "easynlp tsv": Target([_EASYNLP], lambda content, folder: import_table(
        _file("e.tsv", content, folder), folder / "o.parquet",
        tokenizer=_file("vocab.txt", VOCAB.encode(), folder),
        names=_file("entity2id.txt", "1\n一只\t0\n".encode(), folder))),
    "names": Target(
        ["2\n红果\t0\n青果\t1\n".encode(), b"a 1\nb 0\r\n", gzip.compress(b"1\na\t0\n")],
        lambda content, folder: read_names(_file("entity2id.txt", content, folder)),
    ),
    "vocab.txt": Target([VOCAB.encode()], _tokenizer("vocab.txt")),
    "tokenizer.json": Target(
        [json.dumps({"model": _BACKEND, "normalizer": {"type": "BertNormalizer",
                     "lowercase": True}}).encode()],
        _tokenizer("tokenizer.json"),
    ),
    "safetensors": Target([save_safetensors(_TENSORS)], _vectors(VECTORS)),
    "entity2vec.pt": Target(
        [_saved(torch.ones(2, 3)), _saved(torch.ones(2, 3), zipped=False)],
        _vectors(EASYNLP_VECTORS),
    ),
    "weights": Target(
        [_saved(_TENSORS), _saved(_TENSORS, zipped=False)],
        lambda content, folder: read_state(_file("w.ckpt", content, folder), "is bad", "Go."),
    ),
    "taming": Target(
        [_saved({"state_dict": {"encoder.conv_in.weight": torch.ones(4, 3, 3, 3),
                                "quantize.embedding.weight": torch.ones(8, 4)}})],
        lambda content, folder: read_taming_checkpoint(_file("t.ckpt", content, folder), 16),
    ),
    "images": Target(_images(), lambda content, _: decode_image(content)),
    "base64": Target([_IMAGE.encode(), json.dumps([_IMAGE]).encode()], _text),
    "manifest": Target(
        [json.dumps({"kind": "tsv", "settings": {}, "inputs": {}, "counts": {}, "files":
                     {"a.tsv": "0"}, "versions": {}, "created": ""}).encode()],
        _manifest,
    ),
    "statistics": Target([_npz()], lambda content, folder: load_statistics(
        _file("s.npz", content, folder))),
}  # fmt: skip
assert zipfile.is_zipfile(io.BytesIO(TARGETS["entity2vec.pt"].seeds[0]))
