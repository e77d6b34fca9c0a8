"""The gallery shows all values, no text becomes markup, nothing is fetched."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artist.generation.gallery import (
    Card,
    ComparisonTable,
    Entity,
    GalleryImage,
    ImageRow,
    Note,
    gallery_environment,
    write_gallery,
)
from data.errors import InputError

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: its tags in order and its visible text; asserts that tags nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags nest"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def text(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [
            a
            for t, a in self.tags
            if t == tag and (kind is None or kind in (a.get("class") or "").split())
        ]


def image(size: int = 8, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 80, 40)).save(buffer, kind)
    return buffer.getvalue()


def parts() -> Any:
    """The macros of galleries."""
    return gallery_environment().get_template("parts.html.j2").module


def lattice_html(tokens: list[str], entities: list[Entity]) -> str:
    return str(parts().lattice(tokens, entities))


def page(tmp_path: Path, **arguments: object) -> Page:
    path = tmp_path / "gallery.html"
    write_gallery(path, **{"title": "Gallery", "cards": [], **arguments})  # type: ignore[arg-type]
    return Page(path.read_text("utf-8"))


def test_a_card_shows_its_prompt_badges_lattice_and_images(tmp_path: Path) -> None:
    card = Card(
        prompt="一颗西兰花",
        tokens=list("一颗西兰花"),
        entities=[Entity(start=2, end=5, label="西兰花", note="蔬菜")],
        badges=["never seen in training"],
        note="seed 7",
        rows=[
            ImageRow(label="with", images=[GalleryImage(content=image(), right=True)] * 2),
            ImageRow(
                label="without", images=[GalleryImage(content=image(), caption="a", right=False)]
            ),
        ],
    )
    read = page(tmp_path, cards=[card])
    assert read.text("h2") == ["一颗西兰花"]
    assert read.text("h3") == ["with", "without"]
    assert "蔬菜" in read.text("small")
    assert {"never seen in training", "seed 7", "西兰花"} <= set(read.text("span"))
    assert len(read.all("img")) == 3
    assert [len(read.all("span", k)) for k in ("right", "wrong")] == [2, 1]
    assert "1 prompt, 3 images" in read.text("p")


def test_hostile_text_stays_text_in_every_place(tmp_path: Path) -> None:
    bad = '<script>alert(\'1\')</script>"><img src=x onerror="alert(2)">&amp;'
    card = Card(
        prompt=bad,
        tokens=[bad],
        entities=[Entity(start=0, end=1, label=bad, note=bad)],
        badges=[bad],
        note=bad,
        rows=[ImageRow(label=bad, images=[GalleryImage(content=image(), caption=bad)])],
    )
    table = ComparisonTable(title=bad, header=[bad, bad], rows=[[bad, bad]], note=bad)
    read = page(
        tmp_path,
        title=bad,
        subtitle=bad,
        cards=[card],
        notes=[Note(title=bad, text=bad)],
        table=table,
        footer=bad,
    )
    assert not read.all("script")
    assert len(read.all("img")) == 1
    assert not any(name.startswith("on") for _, attrs in read.tags for name in attrs)
    assert sum(bad in text for _, text in read.texts) >= 15


def test_hostile_entity_names_and_types_stay_text(tmp_path: Path) -> None:
    labels = [
        "</span></div><script>alert(1)</script>",
        '" style="background:url(https://example.org/a)" x="',
        "{{ 7 * 7 }}{% include 'gallery.css' %}{# x #}",
        "<!--",
        "&lt;b&gt;",
        "\u202e猫",
    ]
    entities = [
        Entity(start=n, end=n + 1, label=label, note=label) for n, label in enumerate(labels)
    ]
    read = page(tmp_path, cards=[Card(prompt="p", tokens=list("一二三四五六"), entities=entities)])
    bars = read.all("span", "entity")
    assert all(set(bar) == {"class", "style"} for bar in bars)
    assert [bar["style"] for bar in bars] == [f"grid-area:1/{n}/2/{n + 1}" for n in range(1, 7)]
    assert read.text("small") == labels
    assert [text for text in read.text("span") if text in labels] == labels
    assert not {tag for tag, _ in read.tags} & {"script", "img", "b"}


@given(text=st.text(max_size=40))
def test_any_text_is_read_back_from_the_page_unchanged(text: str) -> None:
    environment = gallery_environment()
    element = environment.from_string("<p>{{ text }}</p>").render(text=text)
    paragraphs = parts().paragraphs("x" + text.replace("\n", ""))
    for source in (element, paragraphs):
        read = Page(source)
        assert {tag for tag, _ in read.tags} <= {"p", "a"}
    image = environment.from_string('<img alt="{{ text }}">').render(text=text)
    attribute = Page(image).tags[0][1]["alt"]
    kept = [c for c in text if c.isprintable() and c != "\r"]
    assert [c for c in (attribute or "") if c in kept] == kept


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    row = ImageRow(label="", images=[GalleryImage(content=image(kind="JPEG"))])
    read = page(
        tmp_path, cards=[Card(prompt="猫咪", rows=[row])], footer="see https://example.org/a."
    )
    assert all((a["src"] or "").startswith("data:image/jpeg;base64,") for a in read.all("img"))
    assert not read.all("script")
    assert not read.all("link")
    policy = read.all("meta")[1]["content"]
    assert policy is not None
    assert "default-src 'none'" in policy
    source = (tmp_path / "gallery.html").read_text("utf-8")
    assert "url(" not in source
    assert "@import" not in source
    assert [a["href"] for a in read.all("a")] == ["https://example.org/a"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_are_embedded_byte_for_byte(tmp_path: Path, kind: str) -> None:
    content = image(64, kind)
    row = ImageRow(label="", images=[GalleryImage(content=content)])
    tag = page(tmp_path, cards=[Card(prompt="鸟类", rows=[row])]).all("img")[0]
    head, _, data = (tag["src"] or "").partition(",")
    assert head == f"data:image/{kind.lower()};base64"
    assert base64.b64decode(data) == content
    assert (tag["width"], tag["height"]) == ("64", "64")


@pytest.mark.parametrize("content", [b"", b"<svg onload='alert(1)'/>", image(kind="BMP")])
def test_formats_that_browsers_do_not_display_are_refused_and_nothing_is_written(
    tmp_path: Path, content: bytes
) -> None:
    row = ImageRow(label="", images=[GalleryImage(content=content)])
    with pytest.raises(InputError):
        write_gallery(tmp_path / "g.html", title="t", cards=[Card(prompt="p", rows=[row])])
    assert list(tmp_path.iterdir()) == []


def test_overlapping_entities_get_lanes_with_the_longest_nearest_to_the_tokens() -> None:
    entities = [
        Entity(start=0, end=2, label="ab"),
        Entity(start=0, end=4, label="abcd"),
        Entity(start=2, end=4, label="cd"),
    ]
    line = lattice_html(list("abcd"), entities)
    assert 'style="grid-area:2/1/3/5">abcd<' in line
    assert 'style="grid-area:1/1/2/3">ab<' in line
    assert 'style="grid-area:1/3/2/5">cd<' in line
    assert 'style="grid-area:3/1">a<' in line


def test_a_long_lattice_breaks_into_lines_and_marks_split_entities() -> None:
    read = Page(lattice_html(list("甲" * 20), [Entity(start=12, end=16, label="乙")]))
    assert len(read.all("div", "line")) == 2
    assert len(read.all("span", "token")) == 20
    assert len(read.all("span", "covered")) == 4
    assert len(read.all("span", "ends-later")) == len(read.all("span", "starts-earlier")) == 1


@st.composite
def lattices(draw: st.DrawFn) -> tuple[int, list[Entity]]:
    length = draw(st.integers(1, 40))
    spans = draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(1, 8)), max_size=8))
    return length, [Entity(start=s, end=min(s + n, length), label="x") for s, n in spans]


@given(lattice=lattices())
def test_no_two_bars_of_a_line_overlap(lattice: tuple[int, list[Entity]]) -> None:
    length, entities = lattice
    _, *lines = lattice_html(["甲"] * length, entities).split('<div class="line">')
    assert len(lines) == -(-length // 14)
    for source in lines:
        taken: set[tuple[int, int]] = set()
        line = Page(source.partition("</div>")[0])
        for bar in line.all("span", "entity"):
            area = (bar["style"] or "").removeprefix("grid-area:").split("/")
            row, first, _, last = map(int, area)
            cells = {(row, column) for column in range(first, last)}
            assert cells
            assert not cells & taken
            taken |= cells


def test_the_table_highlights_its_best_row(tmp_path: Path) -> None:
    table = ComparisonTable(
        title="Does it help?",
        header=["model", "right"],
        rows=[["with", "0.9"], ["without", "0.5"]],
        best=0,
        note="first line\nsecond line",
    )
    read = page(tmp_path, table=table)
    assert read.text("td") == ["0.9", "0.5"]
    assert len(read.all("tr", "best")) == 1
    assert {"first line", "second line"} <= set(read.text("p"))


@pytest.mark.parametrize("number", [0, 1, 200])
def test_a_page_has_any_number_of_prompts(tmp_path: Path, number: int) -> None:
    row = ImageRow(label="seed 0", images=[GalleryImage(content=image(64))])
    read = page(tmp_path, cards=[Card(prompt=f"第{n}张", rows=[row]) for n in range(number)])
    assert len(read.all("article")) == number
    assert len(read.all("img")) == number


def test_lone_surrogates_and_control_characters_are_replaced(tmp_path: Path) -> None:
    read = page(tmp_path, cards=[Card(prompt="猫\ud800咪\x00")])
    assert read.text("h2") == ["猫\ufffd咪\ufffd"]
