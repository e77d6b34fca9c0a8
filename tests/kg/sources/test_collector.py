"""Names, triples and mentions of generated graphs, against the rule in plain Python."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.reading import dumps
from kg.reading.row_scanner import normalise
from kg.sources.config import ConvertConfig
from kg.sources.convert import convert_graph
from tests.kg.sources.samples import ALT, LABEL, direct, item

ORDER = ["zh", "zh-hans", "zh-cn", "zh-sg", "zh-hant", "zh-tw", "zh-hk", "zh-mo", "en"]
ids = st.integers(0, 5).map(lambda n: f"Q{n}")
texts = st.sampled_from(["甲", "乙", "Ａ", "A", "丙（人）", " 丁 "])
labels = st.lists(st.tuples(ids, st.sampled_from([*ORDER, "de"]), texts), max_size=14)
aliases = st.lists(st.tuples(ids, st.sampled_from(["zh", "zh-TW", "en", "fr"]), texts), max_size=6)
claims = st.lists(st.tuples(ids, st.sampled_from(["P1", "P2"]), ids), min_size=1, max_size=8)


def expected(labels, aliases, claims) -> tuple[list, set]:
    """Return the triples in order, and the mentions."""
    names: dict[str, str] = {}
    for rank in ORDER:
        for head, tag, text in labels:
            if tag == rank:
                names.setdefault(head, text.strip())
    kept = [(h, r, t) for h, r, t in claims if h in names and t in names]
    uses = Counter(end for h, _, t in kept for end in (h, t))
    same = Counter(normalise(names[used]) for used in uses)
    full = {i: f"{names[i]}（{i}）" if same[normalise(names[i])] > 1 else names[i] for i in uses}
    others = [(i, text) for i, tag, text in labels if tag != "de"]
    others += [(i, text) for i, tag, text in aliases if tag != "fr"]
    others += [(i, names[i]) for i in uses]
    meant = {(text.strip(), full[i]) for i, text in others if i in uses}
    return [(full[h], r, full[t]) for h, r, t in kept], {m for m in meant if m[0] != m[1]}


@pytest.mark.parametrize("block", [64, 1 << 22])
@settings(max_examples=25)
@given(labels=labels, aliases=aliases, claims=claims, shuffle=st.randoms(use_true_random=False))
def test_names_are_chosen_and_told_apart_as_the_rule_states(
    block, labels, aliases, claims, shuffle
):
    triples, mentions = expected(labels, aliases, claims)
    parts = [
        [f'{item(i)} {LABEL} "{text}"@{tag} .' for i, tag, text in labels],
        [f'{item(i)} {ALT} "{text}"@{tag} .' for i, tag, text in aliases],
        [direct(*claim) for claim in claims],
    ]
    shuffle.shuffle(parts)  # labels may come after the statements that need them
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dumps, "_BLOCK", block)
        source, out = Path(folder) / "a.nt", Path(folder) / "t.tsv"
        source.write_text("\n".join(line for part in parts for line in part), encoding="utf-8")
        config = ConvertConfig(format="wikidata", fallback_lang="en")
        if not triples:
            with pytest.raises(Exception, match="has names in zh"):
                convert_graph([source], out, config=config)
            return
        report = convert_graph([source], out, config=config)
        rows = [line.split("\t") for line in out.read_text(encoding="utf-8").splitlines()]
        assert [tuple(row) for row in rows] == triples
        lines = report.mentions.read_text(encoding="utf-8").splitlines()
        assert len(lines) == len({*lines})
        assert {tuple(line.split("\t")) for line in lines} == mentions
