"""A compiled vocabulary matches as its names, or raises a specific error."""

from pathlib import Path

import pytest

from data.errors import ArtefactError, ConfigError
from data.kg_folder import write_names
from lattice.building.build import match_texts
from lattice.config import BACKENDS, LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.vocabulary import compile_vocabulary, load_vocabulary

NAMES = ["北京", "故宫", "北京故宫", "iPhone", "T恤", "t恤", "李娜（歌手）", "李娜（网球）", "龘鱻"]
TEXTS = ["北 京故宫的iPhone15手机", "T恤", "李娜（歌手）", "看龘鱻", "", "😀北京"]


@pytest.fixture
def names(tmp_path) -> Path:
    write_names(tmp_path / "entity2id.txt", NAMES)
    return tmp_path / "entity2id.txt"


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


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found(names, pieces, tmp_path, damage):
    compile_vocabulary(names, tmp_path / "compiled", tokenizer=pieces)
    file = tmp_path / "compiled" / "slots.npy"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-8])
    with pytest.raises(ArtefactError, match=r"slots\.npy (changed since|is missing)"):
        match_texts(TEXTS, names=tmp_path / "compiled", tokenizer=pieces)
