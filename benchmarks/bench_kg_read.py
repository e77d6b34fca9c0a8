"""How much cheaper is reading a dump here than pykeen's `TriplesFactory.from_path`?

Both read the same generated dump (Zipf-distributed heads, relations and tails, Chinese names, two
fifths literals), each in its own process. CPU seconds of all threads, and peak memory above
that of imports. The compiled loops are loaded from numba's cache, as in every run but the first.

    bench_kg_read.py --lines 3000000
    bench_kg_read.py --lines 65000000 --only-ours --dump /tmp/big.tsv     # 4.5 GB, kept
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np
from measuring import in_child, measured
from numba import njit

_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程"
)
_SUFFIXES = ("", "", "", "（电影）", " (album)", "·" + _SURNAMES[0], "A1")
_BLOCK = 500_000
_LONGEST = 400  # bytes of a line, at most


def _letters(texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of the texts, concatenated, and their offsets `[n + 1]`."""
    raw = [text.encode() for text in texts]
    return np.frombuffer(b"".join(raw), np.uint8), np.cumsum([0, *map(len, raw)])


@njit
def _put(out, at, letters, begin, end):
    for i in range(begin, end):
        out[at] = letters[i]
        at += 1
    return at


@njit
def _put_number(out, at, value):
    digits = 1
    while value >= 10**digits:
        digits += 1
    for i in range(digits):
        out[at + digits - 1 - i] = 48 + value % 10
        value //= 10
    return at + digits


@njit
def _put_name(out, at, i, surnames, suffixes, suffix_at):
    """Write name i: a surname, two to six characters, optionally a number and a bracket."""
    at = _put(out, at, surnames, 3 * (i % (len(surnames) // 3)), 3 * (i % (len(surnames) // 3)) + 3)
    mixed = (i * 2_654_435_761 + 12345) % (1 << 40)
    for _ in range(2 + i % 5):
        # The first of 3000 ideographs are more frequent, as in text.
        code = 0x4E00 + (mixed % 3000) * (mixed // 3000 % 3000) // 3000
        out[at] = 0xE0 | code >> 12
        out[at + 1] = 0x80 | code >> 6 & 0x3F
        out[at + 2] = 0x80 | code & 0x3F
        at += 3
        mixed = mixed // 3000 + i * 31
    if i % 3 == 0:
        at = _put_number(out, at, i % 977)
    return _put(out, at, suffixes, suffix_at[i % 7], suffix_at[i % 7 + 1])


@njit
def _put_lines(heads, relations, tails, literal, numbers, words, word_at, surnames, suffixes, at7):
    out = np.empty(len(heads) * _LONGEST, np.uint8)
    at = 0
    for n in range(len(heads)):
        at = _put_name(out, at, heads[n], surnames, suffixes, at7)
        out[at] = 9
        at = _put(out, at + 1, words, word_at[0], word_at[1])
        at = _put_number(out, at, relations[n])
        out[at] = 9
        at += 1
        if literal[n]:
            at = _put(out, at, words, word_at[1], word_at[2])
            at = _put_number(out, at, numbers[n])
            at = _put(out, at, words, word_at[2], word_at[3])
        at = _put_name(out, at, tails[n], surnames, suffixes, at7)
        if literal[n]:
            at = _put(out, at, words, word_at[3], word_at[4])
            at = _put_number(out, at, numbers[n])
        out[at] = 10
        at += 1
    return out[:at]


def make_dump(path: Path, lines: int) -> None:
    """Write a dump with about one entity in six or seven lines, as CN-DBpedia has."""
    generator = np.random.default_rng(0)
    num_names = max(100, lines // 6)
    surnames, _ = _letters(_SURNAMES)
    suffixes, at7 = _letters(_SUFFIXES)
    words, word_at = _letters(["关系", "值", "：", "，"])

    def zipf(size: int, n: int, exponent: float) -> np.ndarray:
        # Inverse of the distribution function of a bounded power law.
        u = generator.random(size)
        power = 1 - exponent
        return ((u * (n**power - 1) + 1) ** (1 / power)).astype(np.int64) - 1

    with path.open("wb") as file:
        for begin in range(0, lines, _BLOCK):
            size = min(_BLOCK, lines - begin)
            heads, tails = zipf(size, num_names, 0.6), zipf(size, num_names, 0.9)
            relations = zipf(size, 20_000, 1.2)
            literal = generator.random(size) < 0.4
            numbers = generator.integers(0, 1 << 40, size)
            columns = heads, relations, tails, literal, numbers
            file.write(_put_lines(*columns, words, word_at, surnames, suffixes, at7).tobytes())


def measure(how: str, path: Path) -> dict[str, Any]:
    """Return CPU seconds and memory of one reader, and what it has read."""
    if how == "ours":
        from kg.reading.triples import read_triples

        cost = measured(lambda: read_triples([path]).counts)
        counts = cost.pop("found")
        found = {name: counts[name] for name in ("triples", "entities", "relations")}
        return {**cost, **found, "literals": counts["literals_distinct"]}
    from pykeen.triples import TriplesFactory

    cost = measured(lambda: TriplesFactory.from_path(path).num_triples)
    cost["triples"] = cost.pop("found")
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only-ours", action="store_true", help="for dumps too large for pandas")
    parser.add_argument("--dump", type=Path, help="keep and reuse the generated dump here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.dump or Path(folder) / "dump.tsv"
        if not path.exists():
            begun = time.process_time()
            make_dump(path, args.lines)
            print(f"generated in {time.process_time() - begun:.1f} CPU s")
        tiny = Path(folder) / "tiny.tsv"
        make_dump(tiny, 1000)
        in_child(measure, "ours", tiny)  # compiles, once for all processes
        ours = in_child(measure, "ours", path)
        print(f"ours:      {ours['cpu_s']:7.1f} CPU s, {ours['mb']:7.0f} MB")
        result = {"lines": args.lines, "bytes": path.stat().st_size, "ours": ours}
        if not args.only_ours:
            stock = in_child(measure, "stock", path)
            print(f"from_path: {stock['cpu_s']:7.1f} CPU s, {stock['mb']:7.0f} MB")
            result |= {
                "stock": stock,
                "cpu_ratio": stock["cpu_s"] / ours["cpu_s"],
                "memory_ratio": stock["mb"] / ours["mb"],
            }
    result["lines_per_cpu_s"] = args.lines / ours["cpu_s"]
    result["bytes_a_line"] = ours["mb"] * 2**20 / args.lines
    print(json.dumps({**result, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
