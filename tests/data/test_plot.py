from data.plot import new_figure, save_svg, style, to_svg


def bars():
    figure = new_figure()
    figure.subplots().barh(["花椰菜", "北京故宫"], [3, 1])
    return figure


def test_chinese_labels_stay_text_without_chinese_fonts(tmp_path):
    with style():
        save_svg(bars(), tmp_path / "plot.svg")
    written = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert "花椰菜" in written
    assert "北京故宫" in written


def test_the_same_figure_gives_the_same_svg():
    with style():
        assert to_svg(bars()) == to_svg(bars())


def test_the_style_ends_with_the_block():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with style():
        assert not matplotlib.rcParams["axes.spines.top"]
    assert {k: v for k, v in matplotlib.rcParams.items() if k in before} == before
