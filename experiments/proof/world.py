"""A generated world: meaningless names, a graph of their attributes, and images.

Every entity has a name of random characters. The graph contains its colour and its shape (and its
origin and its material, which no image shows); its images show that shape in that colour. Captions
contain the name only. So only a model with the graph can generate the right image for a name that
no training caption contains. `classify_image` reads colour and shape from the pixels.
"""

import base64
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.errors import ConfigError
from data.images import encode_png
from data.runs import Run
from data.seeds import stream
from experiments.world import WorldFolder, read_table, write_tsv

COLOURS: dict[str, tuple[int, int, int]] = {
    "红色": (220, 30, 40),
    "橙色": (255, 140, 0),
    "黄色": (250, 225, 40),
    "草绿色": (140, 215, 50),
    "深绿色": (0, 105, 45),
    "青色": (0, 205, 205),
    "天蓝色": (95, 160, 255),
    "深蓝色": (20, 30, 165),
    "紫色": (155, 50, 215),
    "粉色": (255, 130, 200),
    "棕色": (135, 80, 25),
    "黑色": (10, 10, 10),
}
_ORIGINS = ("东岛", "西岛", "南岛", "北岛", "山城", "河港", "沙镇", "林乡")
_MATERIALS = ("木头", "玻璃", "陶土", "金属", "羊毛", "纸张")
_TEMPLATES = ("{name}", "一个{name}", "一张{name}的图片", "画的是{name}", "这是{name}")
_VALID_VARIANTS = 2
_SUPERSAMPLE = 4
_FINGERPRINT = 24  # shapes are compared at 24x24 pixels
_EXTENT = (0.68, 0.78)  # a shape's longer side, as a fraction of the image's side
_SHIFT = 0.04


def _bars(*boxes: tuple[float, float, float, float]) -> list[list[complex]]:
    """Return the corners of upright rectangles (x0, y0, x1, y1) in -1..1, y upwards."""
    return [
        [complex(x0, y0), complex(x1, y0), complex(x1, y1), complex(x0, y1)]
        for x0, y0, x1, y1 in boxes
    ]


# A shape is the polygons that it fills and those cut out of them, in -1..1, y upwards.
_CIRCLE: list[complex] = [1j * np.exp(2j * np.pi * (n / 48)) for n in range(48)]
SHAPES: dict[str, tuple[list[list[complex]], list[list[complex]]]] = {
    "圆形": ([_CIRCLE], []),
    "方形": (_bars((-1, -1, 1, 1)), []),
    "三角形": ([[-1 - 0.9j, 1 - 0.9j, 0.9j]], []),
    "倒三角形": ([[-1 + 0.9j, 1 + 0.9j, -0.9j]], []),
    "菱形": ([[-0.7 + 0j, 1j, 0.7 + 0j, -1j]], []),
    "十字形": (_bars((-0.4, -1, 0.4, 1), (-1, -0.4, 1, 0.4)), []),
    "圆环": ([_CIRCLE], [[0.45 * z for z in _CIRCLE]]),
    "方框": (_bars((-1, -1, 1, 1)), _bars((-0.45, -0.45, 0.45, 0.45))),
    "横条": (_bars((-1, -0.4, 1, 0.4)), []),
    "竖条": (_bars((-0.4, -1, 0.4, 1)), []),
    "沙漏形": ([[-0.9 - 1j, 0.9 - 1j, 0.15 + 0j, 0.9 + 1j, -0.9 + 1j, -0.15 + 0j]], []),
    "月牙形": ([_CIRCLE], [[0.85 * z + 0.7 for z in _CIRCLE]]),
}


class Thing(NamedTuple):
    """An entity: its meaningless name, and its attributes, which only the graph contains."""

    name: str
    colour: str
    shape: str
    origin: str
    material: str
    held_out: bool


@dataclass(frozen=True, kw_only=True)
class World(WorldFolder):
    """A world that `write_world` wrote.

    Attributes:
        folder: Contains `triples.tsv`, `train.tsv`, `valid.tsv` and `things.tsv`.
        things: All named entities; the row ids of the TSVs begin with their index here.
    """

    things: tuple[Thing, ...]

    def thing(self, idx: str) -> Thing:
        """Return the entity of a row of `train.tsv` or `valid.tsv`."""
        return self.things[int(idx.partition("-")[0])]

    def __str__(self) -> str:
        held = sum(thing.held_out for thing in self.things)
        return (
            f"{self.folder}: {len(self.things)} entities, {len(COLOURS)} colours, "
            f"{len(SHAPES)} shapes; {held} entities are in the graph only"
        )


def write_world(
    folder: Path,
    *,
    seed: int,
    entities: int = 600,
    held_out: float = 0.2,
    variants: int = 4,
    size: int = 48,
    overwrite: bool = False,
) -> World:
    """Write a world: its graph, and captions with images for training and for held-out names.

    Args:
        folder: The output folder; a finished, unchanged world is not written again.
        seed: Seed of all random choices.
        entities: Number of names.
        held_out: Share of them that no training caption contains.
        variants: Images per name in `train.tsv`, with different captions.
        size: Width and height of the images.
        overwrite: Replace another world at `folder`.

    Raises:
        ConfigError: A size is out of range.
        ArtefactError: `folder` contains another output.
    """
    if entities < 10 or not 0 < held_out < 1:
        raise ConfigError("a world needs ten entities or more and a held-out share in (0, 1).")
    settings = {
        "seed": seed,
        "entities": entities,
        "held_out": held_out,
        "variants": variants,
        "size": size,
    }
    with Run.open(folder, kind="proof world", settings=settings, overwrite=overwrite) as run:
        if run.finished is None:
            things = make_things(entities, held_out, seed)
            _write(run, things, seed, variants, size)
    return read_world(folder)


def read_world(folder: Path) -> World:
    """Read a world from its folder."""
    rows = read_table(folder / "things.tsv", len(Thing._fields))
    return World(
        folder=folder, things=tuple(Thing._make((*row[:5], row[5] == "1")) for row in rows)
    )


def make_things(count: int, held_out: float, seed: int) -> list[Thing]:
    """Return entities whose attributes are independent of each other and of their names."""
    rng = np.random.default_rng(stream(seed, "things"))
    columns = [
        # Every value is equally frequent; the order is random.
        rng.permutation([values[n % len(values)] for n in range(count)]).tolist()
        for values in (list(COLOURS), list(SHAPES), _ORIGINS, _MATERIALS)
    ]
    hidden = set(rng.permutation(count)[: max(1, round(held_out * count))].tolist())
    return [
        Thing._make((*values, n in hidden))
        for n, values in enumerate(zip(_names(count, rng), *columns, strict=True))
    ]


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Return different pairs of characters; each character occurs in about four names."""
    used = set("".join((*_TEMPLATES, *COLOURS, *SHAPES, *_ORIGINS, *_MATERIALS)))
    characters = [chr(c) for c in range(0x4E00, 0x9FA6) if chr(c) not in used]
    pool = rng.choice(characters, max(16, count // 2), replace=False).tolist()
    found: dict[str, None] = {}
    while len(found) < count:
        first, second = rng.choice(pool, 2, replace=False)
        found[f"{first}{second}"] = None
    return list(found)


def _write(run: Run, things: list[Thing], seed: int, variants: int, size: int) -> None:
    triples = [
        (thing.name, relation, value)
        for thing in things
        for relation, value in zip(("颜色", "形状", "产地", "材料"), thing[1:5], strict=True)
    ]
    write_tsv(run.work / "triples.tsv", triples)
    write_tsv(
        run.work / "things.tsv",
        [Thing._fields, *((*thing[:5], str(int(thing.held_out))) for thing in things)],
    )
    rows: dict[str, list[tuple[str, ...]]] = {"train.tsv": [], "valid.tsv": []}
    for n, thing in enumerate(things):
        name, count = ("valid.tsv", _VALID_VARIANTS) if thing.held_out else ("train.tsv", variants)
        for variant in range(count):
            rng = np.random.default_rng(stream(seed, "picture", n, variant))
            image = base64.b64encode(encode_png(paint(thing.colour, thing.shape, size, rng)))
            text = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))].format(name=thing.name)
            rows[name].append((f"{n:05d}-{variant}", text, image.decode()))
    for name, found in rows.items():
        write_tsv(run.work / name, found)
    run.finish(
        {
            "entities": len(things),
            "held_out": sum(thing.held_out for thing in things),
            "triples": len(triples),
            "train_rows": len(rows["train.tsv"]),
            "valid_rows": len(rows["valid.tsv"]),
        }
    )


# --- painting and classification ------------------------------------------------------------------
def paint(colour: str, shape: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a shape in a colour on pale grey, at a random position and scale: (H, W, 3)."""
    side = size * _SUPERSAMPLE
    extent = rng.uniform(*_EXTENT) * side / 2
    x, y = side / 2 + rng.uniform(-_SHIFT, _SHIFT, 2) * side
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for polygons, value in zip(SHAPES[shape], (255, 0), strict=True):
        for corners in polygons:
            draw.polygon([(x + extent * z.real, y - extent * z.imag) for z in corners], value)
    cover = np.asarray(mask.resize((size, size), Image.Resampling.BOX), np.float64)[..., None] / 255
    paper = np.full(3, rng.uniform(232, 248))
    ink = np.clip(np.array(COLOURS[colour]) + rng.uniform(-6, 6, 3), 0, 255)
    pixels: NDArray[np.uint8] = np.rint(paper + cover * (ink - paper)).astype(np.uint8)
    return pixels


def classify_image(pixels: NDArray[np.uint8]) -> tuple[str, str]:
    """Return the colour and the shape that an image (H, W, 3) shows.

    The background is the border's median. The colour is the one nearest to the median of the
    pixels that differ most from the background; the shape is the one whose prototype, cropped and
    scaled in the same way, has the largest overlap. An empty image gets an arbitrary result.
    """
    values = pixels.astype(np.float64)
    border = np.concatenate([values[:2].reshape(-1, 3), values[-2:].reshape(-1, 3)])
    distance = np.linalg.norm(values - np.median(border, axis=0), axis=2)
    strong = distance >= 0.7 * np.quantile(distance, 0.97)
    ink = np.median(values[strong], axis=0)
    colour = min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - ink).sum()))
    cover = _fingerprint(distance / max(float(np.linalg.norm(ink - np.median(border, axis=0))), 1))
    return colour, min(SHAPES, key=lambda name: float(np.abs(_prototypes()[name] - cover).sum()))


def _fingerprint(cover: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre a cover (H, W) of about 0..1 and scale its longer side to a fixed size."""
    cover = np.clip(cover, 0, 1)
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((_FINGERPRINT, _FINGERPRINT))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(y1 - y0, x1 - x0)
    square = np.zeros((side, side))
    top, left = (side - (y1 - y0)) // 2, (side - (x1 - x0)) // 2
    square[top : top + y1 - y0, left : left + x1 - x0] = cover[y0:y1, x0:x1]
    image = Image.fromarray((255 * square).astype(np.uint8))
    small = image.resize((_FINGERPRINT, _FINGERPRINT), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float64) / 255


@cache
def _prototypes() -> dict[str, NDArray[np.float64]]:
    """Return the mean cover of eight painted examples of each shape."""
    black = next(reversed(COLOURS))
    found = {}
    for shape in SHAPES:
        covers = []
        for n in range(8):
            image = paint(black, shape, 48, np.random.default_rng(stream(0, shape, n)))
            paper = float(image[0, 0, 0])
            covers.append(_fingerprint((paper - image.mean(2)) / (paper - 10)))
        found[shape] = np.mean(covers, axis=0)
    return found
