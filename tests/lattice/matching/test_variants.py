"""Traditional and simplified characters as one class."""

import numpy as np
import pytest

from lattice.matching.variants import fold_codes, fold_variants


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("鸚鵡", "鹦鹉"),
        ("頭髮發", "头发发"),  # several forms, one class
        ("臺灣颱風", "台湾台风"),
        ("裏裡里", "里里里"),  # regional forms
        ("乾坤", "干坤"),
        ("鹦鹉abcＡ１，😀", "鹦鹉abcＡ１，😀"),
    ],
)
def test_each_character_becomes_that_of_its_class(written, folded):
    assert fold_variants(written) == folded
    codes = np.frombuffer(written.encode("utf-32-le"), np.uint32)
    assert fold_codes(codes).tobytes().decode("utf-32-le") == folded


def test_folding_twice_equals_folding_once():
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    once = fold_variants(every)
    assert len(once) == len(every)
    assert fold_variants(once) == once
    assert sum(a != b for a, b in zip(once, every, strict=True)) == 4129
