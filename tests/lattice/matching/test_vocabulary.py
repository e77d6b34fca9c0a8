"""A compiled vocabulary matches as its names, or raises a specific error."""

import pytest

from data.errors import ConfigError
from lattice.building.build import match_texts
from lattice.config import BACKENDS, LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.vocabulary import compile_vocabulary, load_vocabulary

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "T恤", "t恤", "李娜（歌手）", "李娜（网球）", "龘鱻"]
TEXTS = ["北 京故宫的iPhone15手机", "T恤", "李娜（歌手）", "看龘鱻", "", "😀北京"]


def test_every_backend_gives_the_same_table(names, pieces, tmp_path):
    config = LatticeConfig()
    expected = match_texts(TEXTS, names=names, tokenizer=pieces)
    assert sum(map(len, expected["lex_ids"].to_pylist())) == 10
    compile_vocabulary(names, tmp_path / "compiled", tokenizer=pieces)
    assert match_texts(TEXTS, names=tmp_path / "compiled", tokenizer=pieces) == expected
    batch = expected.select(["idx", "text"]).to_batches()[0]
    for backend in BACKENDS:
        vocabulary = load_vocabulary(names, pieces, config, backend=backend)
        rows = LatticeKernel(pieces, vocabulary, config)(batch)
        assert rows.to_pylist() == expected.to_pylist()


def test_compiling_again_is_a_no_op(names, pieces, tmp_path):
    first = compile_vocabulary(names, tmp_path / "compiled", tokenizer=pieces)
    before = (tmp_path / "compiled" / "slots.npy").stat().st_mtime_ns
    assert compile_vocabulary(names, tmp_path / "compiled", tokenizer=pieces) == first
    assert (tmp_path / "compiled" / "slots.npy").stat().st_mtime_ns == before
    assert "9 names" in str(first)


def test_another_tokenizer_or_setting_is_refused(names, pieces, characters, tmp_path):
    compile_vocabulary(names, tmp_path / "compiled", tokenizer=pieces)
    with pytest.raises(ConfigError, match="was compiled with tokenizer"):
        match_texts(TEXTS, names=tmp_path / "compiled", tokenizer=characters)
    with pytest.raises(ConfigError, match="was compiled with min_length 2, now 3"):
        match_texts(
            TEXTS, names=tmp_path / "compiled", tokenizer=pieces, config=LatticeConfig(min_length=3)
        )
