"""Encode the images of a lattice table: write a table with a `codes` column.

Threads decode images while the model encodes earlier ones, so all cores are busy; only a few
batches are in memory at a time, for tables of any length. Sets with several captions per image
repeat the image in adjacent rows; it is encoded once.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.models.image_tokenizer import ImageTokenizer, channels_last, from_uint8
from artist.tables.code_store import CodeStore, image_key
from artist.tables.config import EncodeConfig, Versions
from data import schema
from data.device import choose_device
from data.errors import ConfigError, InputError, RowError, SchemaError
from data.images import decode_image, square
from data.opencv_resize import opencv_square
from data.read_ahead import lookahead
from data.runs import Run, StageReport, fingerprint
from data.seeds import stream
from data.tokenizer import tokenizer_folder
from data.tsv import Rejects

_log = logging.getLogger(__name__)
_Versions = list[NDArray[np.uint8]]  # versions of one image

_REJECTS = ".rejects.tsv"
_ROW_GROUP = 512  # rows, at least, that are read together later on
_AHEAD = 2  # reads whose images are decoded while the model works
_READ = 4  # batches of rows that are read at once and searched for equal images
_SIDES = frozenset("左右")  # captions with these name a side, so their images are not mirrored


def image_versions(
    versions: Versions, image: Image.Image, row: int, text: str
) -> Iterator[Image.Image]:
    """Yield the versions of the image of a row: first the image itself, then augmented ones.

    An image is never mirrored if its caption has 左 or 右.
    """
    yield image
    for number in range(1, versions.count):
        rng = np.random.default_rng(stream(versions.seed, "version", row, number))
        side = min(image.size)
        kept = round(side * rng.uniform(versions.crop, 1))
        left, top = (int(rng.integers(length - kept + 1)) for length in image.size)
        whole = versions.crop == 1
        mirrored = rng.random() < 0.5 or whole
        version = image if whole else image.crop((left, top, left + kept, top + kept))
        if versions.flip and mirrored and not _SIDES & set(text):
            version = ImageOps.mirror(version)
        yield version


@dataclass(frozen=True, kw_only=True)
class EncodeReport(StageReport):
    """Result of `encode_table`."""

    rows: int
    encoded: int
    rejected: dict[str, int] = field(default_factory=dict)
    image_len: int
    codes_used: int
    seconds: float
    from_store: int = 0

    def __str__(self) -> str:
        if self.already_finished:
            return f"{self.outcome()}: {self.encoded} images in codes."
        text = (
            f"{self.out}: {self.encoded} of {self.rows} images as {self.image_len} codes each, "
            f"{self.codes_used} of them different; "
            f"{self.rows / max(self.seconds, 1e-9):.0f} images/s."
        )
        if self.from_store:
            text += f"\n  {self.from_store} images were in the code store"
        for reason, count in sorted(self.rejected.items()):
            text += f"\n  rejected {count}: {reason}"
        if self.rejected:
            text += f"\n  rejected rows are listed in {self.out}{_REJECTS}"
        return text


def encode_table(
    table: Path,
    out: Path,
    *,
    vqgan: Path | FrozenTokenizer,
    device: str = "auto",
    config: EncodeConfig | None = None,
    versions: Versions | None = None,
    code_store: Path | None = None,
    overwrite: bool = False,
) -> EncodeReport:
    """Write the rows of a lattice table with the codes of their images.

    Rows whose image is missing or damaged are left out, counted, and listed in a file next to the
    table. The text tokenizer's folder of `table` is copied.

    Args:
        table: A lattice table with an `image` column, or a folder of its shards.
        out: The table to write.
        vqgan: Folder of an image tokenizer or taming-transformers checkpoint, or the loaded
            tokenizer.
        device: `auto`, `cpu` or `cuda`.
        config: Resizing, batch size, and whether to keep the images.
        versions: Further versions of each image for training, in the column `more_codes`.
        code_store: Folder of a `CodeStore`: images in it are not encoded again, others are added.
        overwrite: Replace the output of another run.

    Raises:
        ConfigError: `code_store` is given with several versions.
        InputError: No image could be read, or `vqgan` is not an image tokenizer.
        SchemaError: `table` is not a lattice table with images.
    """
    config, versions = config or EncodeConfig(), versions or Versions()
    if code_store is not None and versions.count > 1:
        raise ConfigError(
            "--code-store keeps the codes of unchanged images; leave it out with --versions, whose "
            "images differ by row."
        )
    source = schema.open_shards(table, schema.LATTICE, [schema.IMAGE])
    if schema.IMAGE.name not in source.schema_arrow.names:
        raise SchemaError(
            f"{table} has no images to encode. Build it with `cli.py lattice build` from a TSV "
            "whose third column is a base64 image."
        )
    tokenizer = vqgan if isinstance(vqgan, FrozenTokenizer) else FrozenTokenizer.load(vqgan)
    model, made_by = tokenizer.model, tokenizer.fingerprint
    with Run.open(
        out,
        kind="codes",
        settings={
            "keep_images": config.keep_images,
            "resize": config.resize,
            **_settings(versions),
        },
        inputs={"table": fingerprint(table), "vqgan": made_by},
        folder=False,
        overwrite=overwrite,
    ) as run:
        if run.finished:
            return EncodeReport(out=out, **run.finished.counts, already_finished=True)
        start = time.monotonic()
        on = choose_device(device)
        channels_last(model.to(on))
        target = _target_schema(source.schema_arrow, model, made_by, config.keep_images, versions)
        rejects = Rejects(run.companion(_REJECTS))
        with _open_store(code_store, tokenizer, config.resize) as store:
            encoder = _Encoder(model, config.batch_size, versions.count, on, store)
            encoded = _write_rows(run.work, target, source, encoder, rejects, config, versions)
        if not encoded:
            raise InputError(f"{table}: no image could be encoded ({rejects.first or 'no rows'}).")
        counts: dict[str, Any] = {
            "rows": source.num_rows,
            "encoded": encoded,
            "rejected": dict(rejects.reasons),
            "image_len": model.image_len,
            "codes_used": int(encoder.used.sum()),
            "seconds": round(time.monotonic() - start, 3),
        }
        if code_store is not None:
            counts["from_store"] = encoder.from_store
        if tokenizer_folder(table).is_dir():  # of the token ids, which are unchanged
            shutil.copytree(tokenizer_folder(table), tokenizer_folder(out), dirs_exist_ok=True)
        run.finish(counts)
    return EncodeReport(out=out, **counts)


@contextmanager
def _open_store(
    folder: Path | None, tokenizer: FrozenTokenizer, resize: str
) -> Iterator[CodeStore | None]:
    """Open the store of a tokenizer and a way of resizing; None without a folder."""
    if folder is None:
        yield None
        return
    resolution = tokenizer.model.resolution
    with closing(
        CodeStore(folder, fingerprint=tokenizer.fingerprint, resolution=resolution, resize=resize)
    ) as store:
        yield store


def _write_rows(
    path: Path,
    target: pa.Schema,
    source: schema.Shards,
    encoder: "_Encoder",
    rejects: Rejects,
    config: EncodeConfig,
    versions: Versions,
) -> int:
    """Write all rows with a usable image and their codes; return their number."""
    encoded, waiting = 0, list[pa.RecordBatch]()
    with (
        schema.table_writer(path, target) as writer,
        tqdm(total=source.num_rows, unit="image", disable=None) as bar,
    ):
        batches = source.iter_batches(_READ * config.batch_size)
        prepare = partial(_pixels, size=encoder.side, resize=config.resize, versions=versions)
        # Further versions depend on the row.
        once = versions.count == 1
        for rows, images, which in _decoded(batches, prepare, rejects, encoder.store, once=once):
            if images:
                waiting.append(_with_codes(rows, encoder(images)[which], target))
                encoded += rows.num_rows
            if sum(batch.num_rows for batch in waiting) >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting, target))
                waiting = []
            bar.update(rows.num_rows)
        writer.write_table(pa.Table.from_batches(waiting, target))
    return encoded


class _Image(NamedTuple):
    """An image to encode: its prepared versions, or its codes (L,) from a store.

    `key` is that of the store, or empty without one.
    """

    key: bytes
    versions: _Versions
    codes: NDArray[np.uint16] | None


class _Encoder:
    """Encode images, and keep their codes in a store if there is one.

    Args:
        model: On its device.
        batch_size: Images per forward pass.
        num_versions: Versions of each image.
        device: The model's device.
        store: Codes of known images.

    Attributes:
        store: As given.
        used: Whether each code was used (V,).
        from_store: Number of images that the store had.
    """

    def __init__(
        self,
        model: ImageTokenizer,
        batch_size: int,
        num_versions: int,
        device: torch.device,
        store: CodeStore | None,
    ) -> None:
        self._model, self._batch_size, self._num_versions = model, batch_size, num_versions
        self._device, self.store = device, store
        self.used = np.zeros(model.codebook_size, dtype=bool)
        self.from_store = 0

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self._model.resolution

    def __call__(self, images: Sequence[_Image]) -> NDArray[np.uint16]:
        """Return codes (len(images), versions, L)."""
        codes = np.zeros((len(images), self._num_versions, self._model.image_len), dtype=np.uint16)
        new = [n for n, image in enumerate(images) if image.codes is None]
        pixels = [version for n in new for version in images[n].versions]
        parts = (pixels[n : n + self._batch_size] for n in range(0, len(pixels), self._batch_size))
        if new:
            made = torch.cat([_encode(self._model, part, self._device) for part in parts])
            codes[new] = made.numpy().astype(np.uint16).reshape(len(new), self._num_versions, -1)
        for n, image in enumerate(images):
            if image.codes is not None:
                codes[n, 0] = image.codes
        if self.store is not None:
            self.store.add({images[n].key: codes[n, 0] for n in new})
        self.from_store += len(images) - len(new)
        self.used[codes.ravel()] = True
        return codes


def _decoded(
    batches: Iterator[pa.RecordBatch],
    prepare: Callable[..., _Versions],
    rejects: Rejects,
    store: CodeStore | None,
    *,
    once: bool,
) -> Iterator[tuple[pa.RecordBatch, list[_Image], list[int]]]:
    """Yield rows with a usable image, their images, and the index of each row's image.

    `prepare` is called with (bytes, row number, caption). With `once`, rows of one batch with equal
    images share the result. Images are decoded in threads (Pillow releases the GIL), a few batches
    ahead; those in the store are not decoded.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submitted() -> Iterator[tuple[pa.RecordBatch, list[Future[_Image]]]]:
            begun = 0
            for batch in batches:
                contents = batch.column(schema.IMAGE.name).field("bytes").to_pylist()
                numbers, texts = range(begun, begun + batch.num_rows), batch["text"].to_pylist()
                keys, known = _look_up(store, contents)
                shared: dict[Any, Future[_Image]] = {}
                of_rows = []
                for row in zip(contents, numbers, texts, strict=True):
                    image = row[0] if once else row[1]
                    if image not in shared:
                        key = keys.get(row[0], b"")
                        shared[image] = pool.submit(_prepared, prepare, row, key, known.get(key))
                    of_rows.append(shared[image])
                yield batch, of_rows
                begun += batch.num_rows

        row_number = 0
        for batch, futures in lookahead(submitted(), _AHEAD):
            kept, which, prepared = [], [], list[_Image]()
            place: dict[Future[_Image], int] = {}
            for i, future in enumerate(futures):
                row_number += 1
                try:
                    made = future.result()
                except RowError as error:
                    rejects.add(row_number, error.reason, batch["idx"][i].as_py())
                    continue
                if future not in place:
                    place[future] = len(prepared)
                    prepared.append(made)
                kept.append(i)
                which.append(place[future])
            yield batch.take(pa.array(kept, pa.int32())), prepared, which


def _look_up(
    store: CodeStore | None, contents: Sequence[bytes | None]
) -> tuple[dict[bytes, bytes], dict[bytes, NDArray[np.uint16]]]:
    """Return the key of each image, and the codes of those keys that the store has."""
    if store is None:
        return {}, {}
    keys = {content: image_key(content) for content in set(contents) if content is not None}
    return keys, store.get([*keys.values()])


def _prepared(
    prepare: Callable[..., _Versions],
    row: tuple[Any, ...],
    key: bytes,
    codes: NDArray[np.uint16] | None,
) -> _Image:
    return _Image(key, prepare(*row) if codes is None else [], codes)


def _pixels(
    content: bytes | None, row: int, text: str, *, size: int, resize: str, versions: Versions
) -> _Versions:
    """Return the versions of an image file, (size, size, 3) each."""
    if content is None:
        raise RowError("no image")
    images = image_versions(versions, decode_image(content), row, text)
    if resize == "easynlp":
        return [opencv_square(np.asarray(image), size) for image in images]
    return [square(image, size) for image in images]


def _settings(versions: Versions) -> dict[str, Any]:
    """Return the settings of the versions for a manifest; empty for a single version."""
    return {"versions": asdict(versions)} if versions.count > 1 else {}


def with_codes(table: Path, tokenizer: FrozenTokenizer, device: str) -> Path:
    """Return the table itself if it contains the codes of this tokenizer, else an encoded copy.

    The copy is `<table>.codes-<fingerprint>.parquet` next to it; it is written if missing.

    Raises:
        SchemaError: The table contains the codes of another tokenizer.
    """
    found = schema.open_shards(table, schema.LATTICE, [schema.CODES]).schema_arrow
    made_by = tokenizer.fingerprint
    if schema.CODES.name not in found.names:
        encoded = encoded_path(table, made_by)
        report = encode_table(table, encoded, vqgan=tokenizer, device=device)
        if not report.already_finished:
            _log.info("%s", report)
        return encoded
    if schema.table_metadata(found).get("vqgan_fingerprint") != made_by:
        raise SchemaError(
            f"{table} contains codes of another image tokenizer than {tokenizer.source}. Encode "
            "the images again with `cli.py artist encode`."
        )
    return table


def encoded_path(table: Path, vqgan_fingerprint: str) -> Path:
    """Return the path at which `with_codes` writes the encoded copy of a table."""
    stem = table.name.removesuffix(".parquet")
    return table.with_name(f"{stem}.codes-{vqgan_fingerprint[:8]}.parquet")


@torch.inference_mode()
def _encode(
    model: ImageTokenizer, pixels: list[NDArray[np.uint8]], device: torch.device
) -> torch.Tensor:
    """Return codes (B, h*w) on the CPU."""
    batch = torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2)  # (B, 3, H, W)
    return model.encode(from_uint8(batch)).cpu()


def _target_schema(
    source: pa.Schema, model: ImageTokenizer, made_by: str, keep_images: bool, versions: Versions
) -> pa.Schema:
    """Return the schema of the output, with metadata of the source and of the tokenizer."""
    names = {schema.CODES.name, schema.MORE_CODES.name}
    names |= set() if keep_images else {schema.IMAGE.name}
    kept = [f for f in source if f.name not in names]
    more = [schema.MORE_CODES] if versions.count > 1 else []
    return schema.with_metadata(
        pa.schema([*kept, schema.CODES, *more], metadata=source.metadata),
        {
            "vqgan_fingerprint": made_by,
            "codebook_size": model.codebook_size,
            "image_len": model.image_len,
            **_settings(versions),
        },
    )


def _with_codes(
    rows: pa.RecordBatch, values: NDArray[np.uint16], target: pa.Schema
) -> pa.RecordBatch:
    """Return rows with their codes (B, versions, L)."""
    made = {
        schema.CODES.name: _lists(values[:, 0]),
        schema.MORE_CODES.name: _lists(values[:, 1:].reshape(len(values), -1)),
    }
    arrays = [made[f.name] if f.name in made else rows.column(f.name) for f in target]
    return pa.record_batch(arrays, schema=target)


def _lists(values: NDArray[np.uint16]) -> pa.Array:
    """Return values (B, n) as a column of lists."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(values).ravel())
