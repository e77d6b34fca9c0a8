"""Every backend equals a slow scan."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.matching.matcher import AhoCorasick
from lattice.matching.trie import Trie

BACKENDS = [AhoCorasick, Trie.build]


def codes(text):
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def found(matcher, text):
    return sorted(zip(*(column.tolist() for column in matcher.find(codes(text))), strict=True))


def scanned(surfaces, text):
    return sorted(
        (start, start + len(surface), n)
        for n, surface in enumerate(surfaces)
        for start in range(len(text) - len(surface) + 1)
        if text.startswith(surface, start)
    )


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    surfaces=st.lists(st.text("甲乙丙ab1😀", min_size=1, max_size=5), unique=True, max_size=30),
    text=st.text("甲乙丙丁ab1😀\n", max_size=40),
)
def test_matches_equal_a_slow_scan(backend, surfaces, text):
    assert found(backend(surfaces), text) == scanned(surfaces, text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_equal_a_slow_scan_with_many_letters(backend):
    # More letters than single symbols, so that most are encoded as two.
    letters = [chr(0x4E00 + n) for n in range(3000)]
    rng = np.random.default_rng(0)
    surfaces = sorted({"".join(rng.choice(letters[::3], 2)) for _ in range(1000)} | set(letters))
    text = "".join(rng.choice([*letters, "龠", "\n"], 1000))
    assert found(backend(surfaces), text) == scanned(surfaces, text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_vocabulary_finds_nothing(backend):
    assert found(backend([]), "北京") == []
    assert found(backend(["北京"]), "") == []
