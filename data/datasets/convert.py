"""Convert a dataset to the toolkit's TSV: `idx<TAB>text<TAB>base64`, one row per caption.

Samples are streamed: threads read, check and optionally reduce a bounded number of images ahead.
Unusable samples are rejected and counted. Without `size`, images are copied byte for byte.
"""

import base64
import io
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from tqdm import tqdm

from data.datasets.captions import EMPTY_CAPTION
from data.datasets.config import ImageOptions, SetOptions
from data.datasets.readers import open_dataset
from data.datasets.samples import ImageTextDataset, Sample
from data.encoding import has_surrogates
from data.errors import ArtefactError, ConfigError, InputError, RowError, SkipReason
from data.images import check_image, decode_image
from data.quoted_rows import quoted_note
from data.read_ahead import lookahead
from data.runs import Manifest, Run, StageReport
from data.tsv import NUL, Rejects, one_line

_RECENT = 16  # images kept in memory for further captions

_NOTES = {  # of the report: count -> what it counts
    "reduced": "Reduced images",
    "images_without_caption": "Images without captions",
    "ambiguous_image_names": "Images with the name of another image",
    "captions_of_other_images": "Skipped captions of other images",
    "rows_of_other_splits": "Skipped rows of other splits",
    "texts_with_breaks": "Texts whose tabs or line ends became spaces",
}


@dataclass(frozen=True, kw_only=True)
class ConvertReport(StageReport):
    """What was read and written.

    Attributes:
        source: Description of the dataset.
        counts: The counts of the manifest.
    """

    source: str
    counts: dict[str, Any]

    def __str__(self) -> str:
        counts = self.counts
        lines = [
            f"Read as {self.source}.",
            f"{self.outcome()}: {counts['rows']:,} rows, {counts['bytes'] / 1e6:,.1f} MB"
            + (f"; {counts['images']:,} images have captions" if "images" in counts else "")
            + ".",
        ]
        lines += [f"{text}: {counts[name]:,}." for name, text in _NOTES.items() if counts.get(name)]
        if counts["rejected"]:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts["reasons"].items())
            lines.append(
                f"Rejected {counts['rejected']:,}: {reasons}; first: {counts['first_reject']}."
                f" They are listed in {self.out}.rejects.tsv."
            )
        if note := quoted_note(counts):
            lines.append(note)
        return "\n".join(lines)


def convert_dataset(
    source: Path,
    out: Path,
    *,
    options: SetOptions | None = None,
    image_options: ImageOptions | None = None,
    images: Path | None = None,
    ids: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> ConvertReport:
    """Write a dataset as the toolkit's TSV.

    Args:
        source: A caption file, a file of captions and images, or a folder.
        out: The TSV to write, with `<out>.rejects.tsv` and `<out>.manifest.json`.
        options: How the dataset is read.
        image_options: How images are checked and reduced.
        images: The folder or TSV of images, if not found from `source`.
        ids: A file of the names of images to keep.
        workers: Threads that check images; all cores if None.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: The set is not found or not readable, nothing of it can be used, or `out` is
            in the way.
    """
    options, image_options = options or SetOptions(), image_options or ImageOptions()
    found = open_dataset(source, options, images, ids)
    try:
        for path in (source, images, ids):
            if path is not None and path.is_file() and out.exists() and out.samefile(path):
                raise ConfigError(f"--out {out} is an input; choose another.")
        settings = {**asdict(options), **asdict(image_options), "source": found.format}
        with Run.open(out, kind="captions", settings=settings, inputs=found.inputs(),
                      folder=False, overwrite=overwrite) as run:  # fmt: skip
            if run.finished is not None:
                return ConvertReport(
                    out=out,
                    source=found.description,
                    counts=run.finished.counts,
                    already_finished=True,
                )
            manifest = _write(found, run, image_options, workers or os.cpu_count() or 1)
            return ConvertReport(out=out, source=found.description, counts=manifest.counts)
    finally:
        found.close()


def _write(found: ImageTextDataset, run: Run, options: ImageOptions, workers: int) -> Manifest:
    rejects = Rejects(run.companion(".rejects.tsv"))
    try:
        with run.work.open("wb") as file:
            counts = _stream(found, file, options, rejects, workers)
    except OSError as error:
        raise ArtefactError(f"{run.out} cannot be written: {error.strerror}.") from None
    manifest = run.finish(counts)
    if not rejects.count:  # of the run that this one replaces
        run.out.with_name(run.out.name + ".rejects.tsv").unlink(missing_ok=True)
    return manifest


def _stream(
    found: ImageTextDataset, file: BinaryIO, options: ImageOptions, rejects: Rejects, workers: int
) -> dict[str, Any]:
    """Write every usable sample; return the counts."""
    counts: Counter[str] = Counter(rows=0, bytes=0, texts_with_breaks=0, reduced=0)
    bar = tqdm(desc="converting", unit=" captions", disable=None)
    try:
        for sample, made in _ahead(found.samples(rejects), options, workers):
            text = one_line(sample.text).strip()
            row = f"{one_line(sample.idx)}\t{text}"
            reason, image = _problem(row, text), None
            try:
                if reason is None and made is not None:
                    image = made.result()
            except RowError as error:
                reason = error.reason
            if reason is not None:
                rejects.add(sample.line, reason, row.encode("utf-8", "replace").decode())
                continue
            encoded = row.encode() + (b"\t" + image.encoded if image is not None else b"") + b"\n"
            file.write(encoded)
            counts["rows"] += 1
            counts["bytes"] += len(encoded)
            counts["texts_with_breaks"] += one_line(sample.text) != sample.text
            if image is not None and image.reduced:
                counts["reduced"] += 1
                image.reduced = False  # counted once; further captions share the image
            bar.update()
    finally:
        bar.close()
    if not counts["rows"]:
        others = found.counts.get("rows_of_other_splits")
        raise InputError(
            f"{found.description}: no caption can be used"
            + (f"; {others} are of other splits" if others else "")
            + (f"; {rejects.count} rejected, the first at {rejects.first}" * bool(rejects.count))
            + f". {quoted_note(rejects.quoted.counts())}".rstrip()
        )
    return {
        **counts,
        **found.counts,
        "rejected": rejects.count,
        "reasons": dict(rejects.reasons),
        "first_reject": rejects.first,
        **rejects.quoted.counts(),
    }


def _problem(row: str, text: str) -> SkipReason | None:
    """Return why a caption cannot be written; None if it can."""
    if not text:
        return EMPTY_CAPTION
    if "\0" in row:
        return NUL
    if has_surrogates(row):
        return SkipReason("not valid Unicode")
    return None


@dataclass
class _EncodedImage:
    """An image, ready to be written."""

    encoded: bytes
    reduced: bool


def _ahead(
    samples: Iterator[Sample], options: ImageOptions, workers: int
) -> Iterator[tuple[Sample, "Future[_EncodedImage] | None"]]:
    """Yield the samples in order, while threads prepare the images of the next ones."""
    recent: OrderedDict[object, Future[_EncodedImage]] = OrderedDict()
    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:

        def submitted() -> Iterator[tuple[Sample, Future[_EncodedImage] | None]]:
            for sample in samples:
                made = None
                if sample.image is not None:
                    made = recent.get(sample.image_key)
                    if made is None:
                        made = pool.submit(_make, sample.image, options)
                        recent[sample.image_key] = made
                        if len(recent) > _RECENT:
                            recent.popitem(last=False)
                yield sample, made

        yield from lookahead(submitted(), 2 * workers + _RECENT)


def _make(read: Callable[[], bytes], options: ImageOptions) -> _EncodedImage:
    """Return an image in base64, checked and optionally reduced."""
    content = read()
    width, height = check_image(content)
    if options.size is not None and min(width, height) > options.size:
        content = reduce_image(decode_image(content), options.size, options.quality)
        return _EncodedImage(base64.b64encode(content), True)
    if options.check == "full":
        decode_image(content)
    return _EncodedImage(base64.b64encode(content), False)


def reduce_image(image: Image.Image, size: int, quality: int) -> bytes:
    """Return a JPEG whose shorter side is `size` pixels, without chroma subsampling."""
    scale = size / min(image.size)
    sides = tuple(max(size, round(side * scale)) for side in image.size)
    small = image.resize(sides, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()
