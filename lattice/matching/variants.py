"""Traditional and simplified characters as one class, for matching only.

`variants.txt` lists the classes: OpenCC's character tables (Apache License 2.0), in which each
traditional or regional form has one simplified character. The fold maps a form to that character,
one code point to one, so positions do not change. Where a simplified character has several forms
(发 for 發 and 髮) all of them are one class, so 頭髮 and 頭發 match alike.
"""

from functools import cache
from importlib.resources import files

import numpy as np

from lattice.matching.arrays import Codes

_CODE_POINTS = 0x110000


def fold_variants(text: str) -> str:
    """Return a text in which each character is replaced by that of its class."""
    return text.translate(_translation())


def fold_codes(codes: Codes) -> Codes:
    """Return the same for code points; uint32 (num_chars,)."""
    return _table()[codes]


@cache
def _translation() -> dict[int, int]:
    """Return the simplified code point of each traditional or regional one."""
    lines = files(__package__).joinpath("variants.txt").read_text(encoding="utf-8").splitlines()
    classes = [line for line in lines if not line.startswith("#")]
    return {ord(form): ord(line[0]) for line in classes for form in line[1:]}


@cache
def _table() -> Codes:
    """Return the folded form of each code point; uint32 (0x110000,)."""
    table = np.arange(_CODE_POINTS, dtype=np.uint32)
    translation = _translation()
    table[list(translation)] = list(translation.values())
    table.flags.writeable = False
    return table
