"""The lattice of one sentence, rendered in the terminal and as SVG."""

import xml.etree.ElementTree as ET

import pytest

from data.kg_folder import write_names
from lattice.config import LatticeConfig
from lattice.inspecting.explain import explain_text
from lattice.inspecting.show import columns, lanes_of, render
from lattice.inspecting.svg import lattice_svg

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "phone", "T恤", "t恤", "狗", "李娜（歌手）"]
NAMES += ["研究生", "生命"]


@pytest.fixture
def explain(names, characters):
    def run(text, **options):
        config = LatticeConfig(**options)
        return explain_text(text, names=names, tokenizer=characters, config=config)

    return run


def test_the_command_renders_kept_and_dropped_matches(command, names):
    options = ["--segment", "jieba", "--max-entities", "3"]
    code, stdout, _ = command(
        "lattice", "show", "北 京故宫的iPhone研究生命，狗", "--entities", names, *options
    )
    assert code == 0
    assert stdout.splitlines() == [
        "北 京 故 宫 的 i·p·h·o·n·e 研 究 生 命 ， 狗",
        "╰───╯                                         北京 0",
        "╰─────────╯                                   北京故宫 2",
        "      ╰───╯                                   故宫 1",
        "                           ╰╌╌╌╌╌╌╯           ✗ crosses a word boundary: 研究生",
        "                 ╰╌╌╌╌╌╌╌╯                    ✗ cuts a word: phone",
        "               ╰╌╌╌╌╌╌╌╌╌╯       ╰╌╌╌╯        ✗ over the cap of 3: iphone, 生命",
        "                                          ╰╯  ✗ shorter than --min-length 2: 狗",
    ]


def test_the_notes_list_the_claims_to_a_surface(explain):
    rendering = render(explain("李娜的T恤"))
    assert rendering.endswith(
        "\n\n李娜 = 李娜（歌手） 8 (without its bracket)\n"
        "t恤 = t恤 6 (as written); not T恤 5 (folded: t恤 equals it)"
    )


def test_a_long_text_is_broken_between_tokens_with_open_bars(explain):
    lines = render(explain("看北京故宫"), width=9).splitlines()
    assert lines[0] == "看 北 京"
    assert lines[1] == "   ╰───╯ 北京 0"
    assert lines[2] == "   ╰──── 北京故宫 2"
    assert "故 宫" in lines
    assert "────╯ 北京故宫 2" in lines


def test_colour_adds_only_escape_codes(explain):
    found = explain("北京故宫的iPhone和T恤，狗")
    coloured = render(found, colour=True)
    assert coloured.count("\x1b[0m") > 5
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"):
        coloured = coloured.replace(code, "")
    assert coloured == render(found)


def test_a_text_without_tokens_or_without_names(explain):
    assert render(explain(" ")) == "(no tokens)"
    assert render(explain("一只猫")) == "一 只 猫"


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("北京", 4),
        ("ab", 2),
        ("，", 2),
        ("é", 1),
        ("e\u0301", 1),
        ("\u200d", 0),
        ("ｶ", 1),
        ("Ａ", 2),
    ],
)
def test_east_asian_widths(text, width):
    assert columns(text) == width


def test_spans_of_a_lane_do_not_touch():
    assert lanes_of([(0, 5), (3, 6), (6, 9), (5, 8), (20, 21)], gap=1) == [0, 1, 0, 2, 0]


SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg: str) -> list[tuple[str, float, float, float]]:
    """Return title, left, right and top of each bar."""
    found = []
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            x, y, width = (float(rect.get(name)) for name in ("x", "y", "width"))
            found.append((title.text, x, x + width, y))
    return found


def test_the_svg_has_tokens_bars_and_reasons(explain):
    svg = lattice_svg(explain("北京故宫的iPhone和T恤，研究生命", segment="jieba"))
    texts = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert [t for t in texts if len(t) == 1][:5] == list("北京故宫的")
    assert {"北京", "北京故宫", "iPhone", "crosses a word boundary", "cuts a word"} <= {*texts}
    bars = {title: (left, right, top) for title, left, right, top in boxes(svg)}
    assert bars.keys() == {"北京 0", "故宫 1", "北京故宫 2", "iPhone 3", "t恤 6", "生命 10"}
    small, large = bars["北京 0"], bars["北京故宫 2"]
    assert large[0] == small[0] < small[1] < large[1] == bars["故宫 1"][1]
    assert large[2] < small[2], "the longer bar is above the bars it covers"


def test_bars_do_not_overlap(explain):
    found = boxes(lattice_svg(explain("北京故宫北京T恤")))
    for n, (_, left, right, top) in enumerate(found):
        for _, other_left, other_right, other_top in found[:n]:
            assert top != other_top or left >= other_right or other_left >= right


def test_the_svg_escapes_names_and_text(explain, names):
    write_names(names, ['<b>&"', "北京"])
    svg = lattice_svg(explain('看<b>&"和北京</svg>'))
    assert '<b>&" 0' in {title for title, *_ in boxes(svg)}
    assert ET.fromstring(svg).find(f"{SVG}title").text == '看<b>&"和北京</svg>'


def test_the_command_writes_the_complete_svg(command, names, tmp_path):
    file = tmp_path / "lattice.svg"
    code, stdout, _ = command("lattice", "show", "北京", "--entities", names, "--svg", file)
    assert (code, stdout.splitlines()[0]) == (0, "北 京")
    assert ET.parse(file).getroot().tag == f"{SVG}svg"
    assert not list(tmp_path.glob("*.partial"))
    impossible = names / "lattice.svg"
    code, _, err = command("lattice", "show", "北京", "--entities", names, "--svg", impossible)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err
