"""What do `data convert` and `data validate` cost, compared with straightforward scripts?

The generated set has Chinese-CLIP's format: JPEG images (smooth noise of 256 pixels) in one TSV,
five captions each in JSON lines. The baselines are simple scripts for the same work:
  convert   all images in a dict, the caption's image decoded by Pillow, the row written
  validate  every row's image decoded at full size and hashed on the same grid
Each runs in its own process with one thread; CPU seconds and peak memory without imports.

    bench_data.py --images 2000
"""

import argparse
import base64
import io
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import in_child, measured
from PIL import Image

CAPTIONS = 5


def make_set(folder: Path, images: int) -> None:
    """Write `train_imgs.tsv` and `train_texts.jsonl`."""
    generator = np.random.default_rng(0)
    with (
        (folder / "train_imgs.tsv").open("w") as images_file,
        (folder / "train_texts.jsonl").open("w", encoding="utf-8") as texts,
    ):
        for n in range(images):
            cells = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            image = Image.fromarray(cells).resize((256, 256), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            images_file.write(f"{n}\t{base64.b64encode(buffer.getvalue()).decode()}\n")
            for k in range(CAPTIONS):
                row = {
                    "text_id": n * CAPTIONS + k,
                    "text": f"第{n}张图的第{k}句话",
                    "image_ids": [n],
                }
                texts.write(json.dumps(row, ensure_ascii=False) + "\n")


def convert_here(folder: Path) -> None:
    """Run `data convert`."""
    from data.datasets.convert import convert_dataset

    convert_dataset(folder, folder / "ours.tsv", workers=1, overwrite=True)


def convert_plainly(folder: Path) -> None:
    """Convert with a simple script."""
    images = dict(line.rstrip("\n").split("\t") for line in (folder / "train_imgs.tsv").open())
    with (folder / "plain.tsv").open("w", encoding="utf-8") as out:
        for line in (folder / "train_texts.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            for number in row["image_ids"]:
                encoded = images[str(number)]
                Image.open(io.BytesIO(base64.urlsafe_b64decode(encoded))).convert("RGB")
                out.write(f"{number}\t{row['text']}\t{encoded}\n")


def validate_here(folder: Path) -> None:
    """Run `data validate`."""
    from data.datasets.validate import validate_table

    validate_table(folder / "plain.tsv", workers=1)


def validate_plainly(folder: Path) -> None:
    """Decode every row at full size."""
    from data.datasets.image_hash import difference_hash

    seen: dict[bytes, int] = {}
    for n, line in enumerate((folder / "plain.tsv").open(encoding="utf-8")):
        content = base64.b64decode(line.rstrip("\n").split("\t")[2])
        seen.setdefault(difference_hash(Image.open(io.BytesIO(content)).convert("RGB")), n)


def measure(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Return CPU seconds and peak memory of some work, without imports."""
    import data.datasets.convert
    import data.datasets.validate  # noqa: F401

    cost = measured(lambda: work(folder))
    return {"cpu_seconds": cost["cpu_s"], "peak_mb": cost["mb"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the minimum counts")
    options = parser.parse_args()
    works = (convert_plainly, convert_here, validate_plainly, validate_here)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder, options.images)
        for _ in range(options.rounds):
            for work in works:
                one, best = in_child(measure, work, folder), found.get(work.__name__)
                if best is None or one["cpu_seconds"] < best["cpu_seconds"]:
                    found[work.__name__] = one
        size = (folder / "train_imgs.tsv").stat().st_size
    for name, one in found.items():
        print(f"{name:<18}{one['cpu_seconds']:8.2f} CPU s{one['peak_mb']:9.0f} MB")
    answer: dict[str, Any] = {
        "images": options.images,
        "captions": options.images * CAPTIONS,
        "set_mb": size / 1e6,
        "measured": found,
        "machine": platform.machine(),
        "pillow": __import__("PIL").__version__,
    }
    for what in ("convert", "validate"):
        ours, plain = found[f"{what}_here"], found[f"{what}_plainly"]
        answer[f"{what}_cpu_ratio"] = round(plain["cpu_seconds"] / ours["cpu_seconds"], 2)
        print(f"{what}: {answer[f'{what}_cpu_ratio']} times less CPU time than the simple script")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
