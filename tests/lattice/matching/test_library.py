"""The matcher as a library."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ArtefactError, InputError
from lattice import Match, Matcher
from lattice.matching.variants import fold_variants
from tests.conftest import ROOT

LETTERS = "甲乙丙鸚鹦发發髮ab1😀\n"
names_of = st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=20)
texts_of = st.lists(st.text(LETTERS + "丁", max_size=15), max_size=5)


def scanned(names, text, fold):
    fold_text = fold_variants if fold else str
    return sorted(
        (start, start + len(name), n)
        for n, name in enumerate(names)
        for start in range(len(text) - len(name) + 1)
        if fold_text(text).startswith(fold_text(name), start)
    )


@settings(max_examples=60)
@given(names=names_of, added=names_of, texts=texts_of, fold=st.booleans())
def test_matches_equal_a_slow_scan_also_of_names_added_later(names, added, texts, fold):
    matcher = Matcher.build(names, fold_variants=fold)
    every = [*names, *added]
    for begin in range(len(names), len(every), 3):
        matcher.add(every[begin : begin + 3])
    assert len(matcher) == len(every)
    expected = [scanned(every, text, fold) for text in texts]
    assert [sorted(matcher.find(text)) for text in texts] == expected
    found = matcher.find_batch(texts).to_pylist()
    assert [sorted(tuple(match.values()) for match in row) for row in found] == expected


def test_the_table_grows_by_names_added_one_by_one():
    words = [f"{a}{b}{c}" for a in "甲乙丙丁戊" for b in "子丑寅卯" for c in "abcdefg"]
    matcher = Matcher.build([])
    for word in words:
        matcher.add([word])
    assert [m.id for m in matcher.find("".join(words))] == list(range(len(words)))


def test_matches_are_ordered_and_equal_names_have_every_id():
    matcher = Matcher.build(["北京", "北京大学", "大学", "北京"])
    assert matcher.find("我在北京大学") == [
        Match(2, 4, 0),
        Match(2, 4, 3),
        Match(2, 6, 1),
        Match(4, 6, 2),
    ]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
def test_arrow_arrays_and_columns_go_in_and_out(type_):
    matcher = Matcher.build(pa.array(["北京", "大学"], type_))
    texts = pa.array(["在北京", None, "", "大学北京"], type_)
    rows = [
        [{"start": 1, "end": 3, "id": 0}],
        None,
        [],
        [{"start": 0, "end": 2, "id": 1}, {"start": 2, "end": 4, "id": 0}],
    ]
    assert matcher.find_batch(texts).to_pylist() == rows
    assert matcher.find_batch(texts.slice(1)).to_pylist() == rows[1:]
    column = pa.chunked_array([texts, texts.slice(3)])
    assert matcher.find_batch(column).to_pylist() == [*rows, rows[3]]
    assert pa.table({"text": column}).append_column("found", matcher.find_batch(column)).num_rows


def test_batches_larger_than_a_block_equal_single_texts():
    matcher = Matcher.build(["北京", "大学", "京大"])
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("北京大学"), 5)) for _ in range(10_000)]
    found = matcher.find_batch(texts).to_pylist()
    for n in range(0, 10_000, 997):
        assert [tuple(match.values()) for match in found[n]] == matcher.find(texts[n])


def test_names_never_match_across_texts():
    matcher = Matcher.build(["京\n大", "京大"])
    assert matcher.find_batch(["北京", "大学"]).to_pylist() == [[], []]
    assert [m.id for m in matcher.find("北京\n大学")] == [0]


def test_an_opened_matcher_can_change_without_changing_the_folder(tmp_path):
    Matcher.build(["北京"]).save(tmp_path / "names")
    changed = Matcher.open(tmp_path / "names")
    changed.add(["北京大学", "北京"])
    assert [m.id for m in changed.find("北京大学")] == [0, 2, 1]
    assert [m.id for m in Matcher.open(tmp_path / "names", check=True).find("北京大学")] == [0]
    with pytest.raises(ArtefactError, match="--overwrite"):
        changed.save(tmp_path / "names")
    changed.save(tmp_path / "names", overwrite=True)
    assert len(Matcher.open(tmp_path / "names").find("北京大学")) == 3


@pytest.mark.parametrize("names", [["北京", ""], pa.array(["北京", None])])
def test_an_empty_name_is_refused_with_its_position(names):
    with pytest.raises(InputError, match="name 1 is empty"):
        Matcher.build(names)


def test_other_folders_and_damaged_ones_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match="has no manifest"):
        Matcher.open(tmp_path)
    Matcher.build(["北京"]).save(tmp_path / "names")
    slots = tmp_path / "names" / "slots.npy"
    slots.write_bytes(slots.read_bytes()[:-1] + b"\1")
    with pytest.raises(ArtefactError, match="changed since it was written"):
        Matcher.open(tmp_path / "names", check=True)


def test_the_library_loads_neither_the_tokenizer_nor_torch():
    code = "import sys; from lattice import Matcher; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "tokenizers", "pandas"} & set(done.stdout.split())
