"""Word boundaries by jieba, and the matches that cross them.

Where rjieba is installed (the same algorithm in Rust, the extra `segment`), it does the cutting.

A match crosses a boundary when it shares a word with what stands beside it without one holding the
other: in 研究|生命, 究生 crosses; 研究生命 and 生命 do not. A match inside one long word is kept.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.matching.align import Spans, token_starts
from lattice.matching.tokens import TokenBatch


def crosses_a_word(tokens: TokenBatch, spans: Spans) -> NDArray[np.bool_]:
    """For each span whether it cuts a word of the caption in two."""
    begins, ends = _word_bounds(tokens)  # of the word around each code point
    starts = token_starts(tokens)
    first = starts[spans.first]
    last = starts[spans.end - 1] + tokens.lengths[spans.end - 1] - 1
    one_word = begins[first] == begins[last]
    cut = (begins[first] != first) | (ends[last] != last + 1)
    crosses: NDArray[np.bool_] = ~one_word & cut
    return crosses


def _word_bounds(tokens: TokenBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    """What cuts a text into words: its name with its version, and the function."""

    name: str
    cut: Callable[[str], Iterable[str]]


@cache
def segmenter() -> Segmenter:
    """Rjieba if it is installed, else jieba."""
    try:
        import rjieba
    except ImportError:
        return _jieba()
    return Segmenter(f"rjieba {version('rjieba')}", rjieba.cut)


def _jieba() -> Segmenter:
    """A jieba tokenizer of our own: silent, leaving no cache in the shared temporary folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in jieba 0.42's source
        import jieba
    jieba.setLogLevel(logging.WARNING)
    words = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        words.tmp_dir = folder
        words.initialize()
    return Segmenter(f"jieba {version('jieba')}", words.cut)
