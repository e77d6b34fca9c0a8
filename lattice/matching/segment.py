"""Word boundaries by jieba, and the matches that cross them.

rjieba (the same algorithm in Rust, the extra `segment`) is used where it is installed.

A match crosses a boundary when it overlaps a word at one of its edges without either containing
the other: in 研究|生命, 究生 crosses; 研究生命 and 生命 do not. A match inside one word is kept.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from lattice.matching.align import Spans, token_starts
from lattice.matching.arrays import Bools, Ints
from lattice.matching.tokens import TokenBatch


def crosses_word(tokens: TokenBatch, spans: Spans) -> Bools:
    """Return for each span whether one of its edges cuts a word; bool (num_spans,)."""
    begins, ends = _word_bounds(tokens)
    starts = token_starts(tokens)
    first = starts[spans.first]
    last = starts[spans.end - 1] + tokens.lengths[spans.end - 1] - 1
    one_word = begins[first] == begins[last]
    cut = (begins[first] != first) | (ends[last] != last + 1)
    crosses: Bools = ~one_word & cut
    return crosses


def _word_bounds(tokens: TokenBatch) -> tuple[Ints, Ints]:
    """Return begin and end of the word around each code point; int64 (num_chars,) each."""
    text = tokens.codes.tobytes().decode("utf-32-le")
    cut = segmenter().cut
    lengths = [
        len(word)
        for b, e in zip(tokens.row_chars[:-1], tokens.row_chars[1:], strict=True)
        for word in (*cut(text[b : e - 1]), text[e - 1])
    ]
    widths = np.array(lengths, np.int64)
    ends = np.cumsum(widths)
    return np.repeat(ends - widths, widths), np.repeat(ends, widths)


class Segmenter(NamedTuple):
    """A word segmenter: its name with version, and the function that cuts a text."""

    name: str
    cut: Callable[[str], Iterable[str]]


@cache
def segmenter() -> Segmenter:
    """Return rjieba if it is installed, else jieba."""
    try:
        import rjieba
    except ImportError:
        return _jieba()
    return Segmenter(f"rjieba {version('rjieba')}", rjieba.cut)


def _jieba() -> Segmenter:
    """Return a separate jieba tokenizer: silent, without a cache in the temporary folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in jieba 0.42's source
        import jieba
    jieba.setLogLevel(logging.WARNING)
    words = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        words.tmp_dir = folder
        words.initialize()
    return Segmenter(f"jieba {version('jieba')}", words.cut)
