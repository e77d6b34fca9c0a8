"""A compiled vocabulary matches as its names, or raises a specific error."""

from dataclasses import replace

import pytest

from data.errors import ConfigError
from data.kg_folder import write_names
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


def test_variants_senses_and_stop_names_belong_to_a_compiled_vocabulary(pieces, tmp_path):
    write_names(tmp_path / "entity2id.txt", ["鹦鹉", "鹦鹉（鸟）", "照片"])
    config = LatticeConfig(fold_variants=True, senses="all", stop_names=("照片",))
    compiled = tmp_path / "compiled"
    compile_vocabulary(tmp_path / "entity2id.txt", compiled, tokenizer=pieces, config=config)
    given = {"names": compiled, "tokenizer": pieces}
    [row] = match_texts(["鸚鵡照片"], config=config, **given).to_pylist()
    assert row["lex_ids"] == [0, 1]
    with pytest.raises(ConfigError, match="was compiled with senses all, now by default"):
        match_texts(["鸚鵡"], config=replace(config, senses="own"), **given)
    with pytest.raises(ConfigError, match="was compiled with fold_variants True, now by default"):
        match_texts(["鸚鵡"], **given)
