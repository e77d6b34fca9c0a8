"""The input of a small chain of all stages: a graph, captions with images, prompts."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {"西兰花": "蔬菜", "胡萝卜": "蔬菜", "大白菜": "蔬菜", "老虎": "动物", "大象": "动物",
         "长颈鹿": "动物", "火车": "交通", "飞机": "交通", "自行车": "交通"}  # fmt: skip


def png(colour: tuple[int, int, int]) -> str:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:] = colour
    pixels[4:12, 4:12] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_inputs(folder: Path) -> None:
    colours = {"蔬菜": (20, 160, 40), "动物": (180, 120, 40), "交通": (40, 60, 200)}
    triples = [f"{name}\t类别\t{kind}" for name, kind in NAMES.items()]
    triples += [f"{name}\t属于\t事物" for name in NAMES]
    (folder / "triples.tsv").write_text("\n".join(triples) + "\n", encoding="utf-8")
    rows = [
        f"{n}\t一个{name}\t{png(colours[kind])}" for n, (name, kind) in enumerate(NAMES.items())
    ]
    (folder / "train.tsv").write_text("\n".join(rows * 2) + "\n", encoding="utf-8")
    (folder / "val.tsv").write_text("\n".join(rows[:4]) + "\n", encoding="utf-8")
    (folder / "test.tsv").write_text("a/../1\t一只老虎\nb\t没有实体\n", encoding="utf-8")
