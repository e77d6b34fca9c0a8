"""The lattice of one sentence as it is drawn: in the terminal and as SVG."""

import xml.etree.ElementTree as ET

import pytest

from data.kg_folder import write_names
from lattice.inspecting.explain import explain_text
from lattice.inspecting.show import columns, draw, lanes_of
from lattice.inspecting.svg import lattice_svg
from lattice.matching.kernel import LatticeConfig

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "phone", "T恤", "t恤", "狗", "李娜（歌手）"]
NAMES += ["研究生", "生命"]


@pytest.fixture
def names(tmp_path):
    write_names(tmp_path / "entity2id.txt", NAMES)
    return tmp_path / "entity2id.txt"


@pytest.fixture
def explain(names, characters):
    def run(text, **options):
        config = LatticeConfig(**options)
        return explain_text(text, names=names, tokenizer=characters, config=config)

    return run


def test_the_command_draws_what_counts_and_what_does_not(command, names):
    options = ["--segment", "jieba", "--max-entities", "3"]
    code, said, _ = command(
        "lattice", "show", "北 京故宫的iPhone研究生命，狗", "--entities", names, *options
    )
    assert code == 0
    assert said.splitlines() == [
        "北 京 故 宫 的 i·p·h·o·n·e 研 究 生 命 ， 狗",
        "╰───╯                                         北京 0",
        "╰─────────╯                                   北京故宫 2",
        "      ╰───╯                                   故宫 1",
        "                           ╰╌╌╌╌╌╌╯           ✗ crosses a word boundary: 研究生",
        "                 ╰╌╌╌╌╌╌╌╯                    ✗ cuts a word: phone",
        "               ╰╌╌╌╌╌╌╌╌╌╯       ╰╌╌╌╯        ✗ over the cap of 3: iphone, 生命",
        "                                          ╰╯  ✗ shorter than --min-length 2: 狗",
    ]


def test_the_notes_say_who_has_a_surface_and_who_lost_it(explain):
    drawing = draw(explain("李娜的T恤"))
    assert drawing.endswith(
        "\n\n李娜 = 李娜（歌手） 8 (without its bracket)\n"
        "t恤 = t恤 6 (as written); not T恤 5 (folded: t恤 is written so)"
    )


def test_a_long_text_is_broken_between_tokens_and_bars_stay_open(explain):
    lines = draw(explain("看北京故宫"), width=9).splitlines()
    assert lines[0] == "看 北 京"
    assert lines[1] == "   ╰───╯ 北京 0"
    assert lines[2] == "   ╰──── 北京故宫 2"
    assert "故 宫" in lines
    assert "────╯ 北京故宫 2" in lines


def test_colour_adds_paint_and_nothing_else(explain):
    found = explain("北京故宫的iPhone和T恤，狗")
    painted = draw(found, colour=True)
    assert painted.count("\x1b[0m") > 5
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"):
        painted = painted.replace(code, "")
    assert painted == draw(found)


def test_no_token_has_no_drawing_and_no_name_draws_tokens(explain):
    assert draw(explain(" ")) == "(no tokens)"
    assert draw(explain("一只猫")) == "一 只 猫"


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


def test_lanes_hold_spans_that_do_not_touch():
    assert lanes_of([(0, 5), (3, 6), (6, 9), (5, 8), (20, 21)], gap=1) == [0, 1, 0, 2, 0]


SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg: str) -> list[tuple[str, float, float, float]]:
    """What is in each bar: its title, left, right and top."""
    found = []
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            x, y, width = (float(rect.get(name)) for name in ("x", "y", "width"))
            found.append((title.text, x, x + width, y))
    return found


def test_the_svg_holds_tokens_bars_and_reasons(explain):
    svg = lattice_svg(explain("北京故宫的iPhone和T恤，研究生命", segment="jieba"))
    texts = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert [t for t in texts if len(t) == 1][:5] == list("北京故宫的")
    assert {"北京", "北京故宫", "iPhone", "crosses a word boundary", "cuts a word"} <= {*texts}
    bars = {title: (left, right, top) for title, left, right, top in boxes(svg)}
    assert bars.keys() == {"北京 0", "故宫 1", "北京故宫 2", "iPhone 3", "t恤 6", "生命 10"}
    small, large = bars["北京 0"], bars["北京故宫 2"]
    assert large[0] == small[0] < small[1] < large[1] == bars["故宫 1"][1]
    assert large[2] < small[2], "the longer bar lies above what it covers"


def test_no_bar_lies_over_another(explain):
    found = boxes(lattice_svg(explain("北京故宫北京T恤")))
    for n, (_, left, right, top) in enumerate(found):
        for _, other_left, other_right, other_top in found[:n]:
            assert top != other_top or left >= other_right or other_left >= right


def test_the_svg_escapes_what_comes_from_outside(explain, names):
    write_names(names, ['<b>&"', "北京"])
    svg = lattice_svg(explain('看<b>&"和北京</svg>'))
    assert '<b>&" 0' in {title for title, *_ in boxes(svg)}
    assert ET.fromstring(svg).find(f"{SVG}title").text == '看<b>&"和北京</svg>'


def test_the_command_writes_the_svg_whole(command, names, tmp_path):
    file = tmp_path / "lattice.inspecting.svg"
    code, said, _ = command("lattice", "show", "北京", "--entities", names, "--svg", file)
    assert (code, said.splitlines()[0]) == (0, "北 京")
    assert ET.parse(file).getroot().tag == f"{SVG}svg"
    assert not list(tmp_path.glob("*.partial"))
    impossible = names / "lattice.inspecting.svg"
    code, _, err = command("lattice", "show", "北京", "--entities", names, "--svg", impossible)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err
