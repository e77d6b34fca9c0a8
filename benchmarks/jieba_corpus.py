"""Captions and entity names generated from jieba's dictionary, shared by the benchmarks."""

import importlib.util
from pathlib import Path

import numpy as np

LATIN = ["iPhone15", "T恤", "KFC", "2024", "SUV", "logo", "3D", "NBA", "100", "DIY"]


def jieba_words() -> tuple[list[str], np.ndarray]:
    """Return the 349,046 words of the dictionary and their frequencies."""
    found = importlib.util.find_spec("jieba")
    lines = Path(found.submodule_search_locations[0], "dict.txt").read_text("utf-8").splitlines()
    words, counts = zip(*(line.split(" ")[:2] for line in lines), strict=True)
    return list(words), np.array(counts, np.float64)


def make_captions(count: int, rng: np.random.Generator) -> list[str]:
    """Return captions of about 21 characters: words by frequency, some Latin, a comma, a stop."""
    words, counts = jieba_words()
    sampled = rng.choice(len(words), (count, 12), p=counts / counts.sum())
    latin = rng.integers(0, 8 * len(LATIN), count)
    captions = []
    for row, extra in zip(sampled.tolist(), latin.tolist(), strict=True):
        parts = [words[i] for i in row]
        parts[6] = LATIN[extra] if extra < len(LATIN) else parts[6]
        captions.append(f"{''.join(parts[:6])}，{''.join(parts[6:])}。")
    return captions


def make_names(count: int | None, rng: np.random.Generator) -> list[str]:
    """Return the dictionary, or `count` names: the dictionary, then concatenated pairs of words."""
    words, _ = jieba_words()
    if count is None:
        return words
    pairs = rng.integers(0, len(words), (max(0, count - len(words)), 2)).tolist()
    return words[:count] + [words[a] + words[b] for a, b in pairs]
