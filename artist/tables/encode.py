"""Encode the images of a lattice table: write a table with a `codes` column.

Threads decode images while the model encodes earlier ones, so all cores are busy; only a few
batches are in memory at a time, for tables of any length. Sets with several captions per image
repeat the image in adjacent rows; it is encoded once.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.models.image_tokenizer import ImageTokenizer, channels_last, from_uint8
from artist.tables.config import EncodeConfig, Versions
from data import schema
from data.device import choose_device
from data.errors import InputError, RowError, SchemaError
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

    def __str__(self) -> str:
        if self.already_finished:
            return f"{self.outcome()}: {self.encoded} images in codes."
        text = (
            f"{self.out}: {self.encoded} of {self.rows} images as {self.image_len} codes each, "
            f"{self.codes_used} of them different; "
            f"{self.rows / max(self.seconds, 1e-9):.0f} images/s."
        )
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
        overwrite: Replace the output of another run.

    Raises:
        InputError: No image could be read, or `vqgan` is not an image tokenizer.
        SchemaError: `table` is not a lattice table with images.
    """
    config, versions = config or EncodeConfig(), versions or Versions()
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
        used = torch.zeros(model.codebook_size, dtype=torch.bool)
        encoded, waiting = 0, list[pa.RecordBatch]()
        with (
            schema.table_writer(run.work, target) as writer,
            tqdm(total=source.num_rows, unit="image", disable=None) as bar,
        ):
            batch_size = config.batch_size
            batches = source.iter_batches(_READ * batch_size)
            prepare = partial(
                _pixels, size=model.resolution, resize=config.resize, versions=versions
            )
            # Further versions depend on the row.
            decoded = _decoded(batches, prepare, rejects, once=versions.count == 1)
            for rows, images, which in decoded:
                if images:
                    pixels = [version for image in images for version in image]
                    parts = (pixels[n : n + batch_size] for n in range(0, len(pixels), batch_size))
                    codes = torch.cat([_encode(model, part, on) for part in parts])
                    used[codes.long().flatten()] = True
                    codes = codes.view(len(images), versions.count, -1)[which]
                    waiting.append(_with_codes(rows, codes, target))
                    encoded += rows.num_rows
                if sum(batch.num_rows for batch in waiting) >= _ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(waiting, target))
                    waiting = []
                bar.update(rows.num_rows)
            writer.write_table(pa.Table.from_batches(waiting, target))
        if not encoded:
            raise InputError(f"{table}: no image could be encoded ({rejects.first or 'no rows'}).")
        counts: dict[str, Any] = {
            "rows": source.num_rows,
            "encoded": encoded,
            "rejected": dict(rejects.reasons),
            "image_len": model.image_len,
            "codes_used": int(used.sum()),
            "seconds": round(time.monotonic() - start, 3),
        }
        if tokenizer_folder(table).is_dir():  # of the token ids, which are unchanged
            shutil.copytree(tokenizer_folder(table), tokenizer_folder(out), dirs_exist_ok=True)
        run.finish(counts)
    return EncodeReport(out=out, **counts)


def _decoded(
    batches: Iterator[pa.RecordBatch],
    prepare: Callable[..., _Versions],
    rejects: Rejects,
    *,
    once: bool,
) -> Iterator[tuple[pa.RecordBatch, list[_Versions], list[int]]]:
    """Yield rows with a usable image, their prepared images, and the index of each row's image.

    `prepare` is called with (bytes, row number, caption). With `once`, rows of one batch with equal
    images share the result. Images are decoded in threads (Pillow releases the GIL), a few batches
    ahead.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submitted() -> Iterator[tuple[pa.RecordBatch, list[Future[_Versions]]]]:
            begun = 0
            for batch in batches:
                contents = batch.column(schema.IMAGE.name).field("bytes").to_pylist()
                numbers, texts = range(begun, begun + batch.num_rows), batch["text"].to_pylist()
                shared: dict[Any, Future[_Versions]] = {}
                of_rows = []
                for row in zip(contents, numbers, texts, strict=True):
                    image = row[0] if once else row[1]
                    if image not in shared:
                        shared[image] = pool.submit(prepare, *row)
                    of_rows.append(shared[image])
                yield batch, of_rows
                begun += batch.num_rows

        row_number = 0
        for batch, futures in lookahead(submitted(), _AHEAD):
            kept, which, prepared = [], [], list[_Versions]()
            place: dict[Future[_Versions], int] = {}
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


def _with_codes(rows: pa.RecordBatch, codes: torch.Tensor, target: pa.Schema) -> pa.RecordBatch:
    """Return rows with their codes (B, versions, L)."""
    values = codes.numpy().astype(np.uint16)
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
