"""How much cheaper is reading a dump here than pykeen's `TriplesFactory.from_path`?

Both read the same generated dump (Zipf-distributed heads, relations and tails, Chinese names, two
fifths literals), each in a process of its own. CPU seconds, and peak memory above that of imports.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSTOW_HOME", tempfile.mkdtemp(prefix="pystow-"))

import numpy as np

_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程"
)
_BLOCK = 500_000


def make_dump(path: Path, lines: int) -> None:
    """Write a dump with about one head in seven lines, as CN-DBpedia has."""
    generator = np.random.default_rng(0)
    alphabet = np.array([chr(c) for c in range(0x4E00, 0x4E00 + 3000)])
    num_heads = max(100, lines // 7)

    def zipf(size: int, n: int, exponent: float) -> np.ndarray:
        # Inverse of the distribution function of a bounded power law.
        u = generator.random(size)
        power = 1 - exponent
        return ((u * (n**power - 1) + 1) ** (1 / power)).astype(np.int64) - 1

    def name(i: int) -> str:
        mixed = (i * 2_654_435_761 + 12345) % (1 << 40)
        text = _SURNAMES[i % len(_SURNAMES)]
        for _ in range(2 + i % 5):
            text += alphabet[mixed % 3000]
            mixed = mixed // 3000 + i * 31
        suffix = ("", "", "", "（电影）", " (album)", "·" + text[:2], "A1")[i % 7]
        return f"{text}{i % 977 if i % 3 == 0 else ''}{suffix}"

    with path.open("w", encoding="utf-8", newline="\n") as file:
        for begin in range(0, lines, _BLOCK):
            size = min(_BLOCK, lines - begin)
            heads, tails = zipf(size, num_heads, 0.6), zipf(size, num_heads, 0.9)
            relations = zipf(size, 20_000, 1.2)
            literal = generator.random(size) < 0.4
            numbers = generator.integers(0, 1 << 40, size)
            file.writelines(
                f"{name(h)}\t关系{r}\t{f'值{v}：{name(t)}，{v}' if x else name(t)}\n"
                for h, r, t, x, v in zip(
                    heads.tolist(),
                    relations.tolist(),
                    tails.tolist(),
                    literal.tolist(),
                    numbers.tolist(),
                    strict=True,
                )
            )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(how: str, path: Path, answer: Connection) -> None:
    if how == "ours":
        from kg.triples import read_triples
    else:
        from pykeen.triples import TriplesFactory
    before, begun = _peak_mb(), time.process_time()
    if how == "ours":
        triples = len(read_triples([path]).train)
    else:
        triples = TriplesFactory.from_path(path).num_triples
    answer.send(
        {"cpu_s": time.process_time() - begun, "mb": _peak_mb() - before, "triples": triples}
    )


def measure(how: str, path: Path) -> dict[str, float]:
    """CPU seconds and memory of one reader, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(how, path, theirs))
    process.start()
    result: dict[str, float] = mine.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument(
        "--only-ours", action="store_true", help="for dumps that pandas cannot hold"
    )
    parser.add_argument("--dump", type=Path, help="keep the generated dump here and use it again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.dump or Path(folder) / "dump.tsv"
        if not path.exists():
            make_dump(path, args.lines)
        ours = measure("ours", path)
        print(f"ours:      {ours['cpu_s']:7.1f} CPU s, {ours['mb']:7.0f} MB")
        result = {"lines": args.lines, "bytes": path.stat().st_size, "ours": ours}
        if not args.only_ours:
            stock = measure("stock", path)
            print(f"from_path: {stock['cpu_s']:7.1f} CPU s, {stock['mb']:7.0f} MB")
            result |= {
                "stock": stock,
                "cpu_ratio": stock["cpu_s"] / ours["cpu_s"],
                "memory_ratio": stock["mb"] / ours["mb"],
            }
    result["lines_per_cpu_s"] = args.lines / ours["cpu_s"]
    print(json.dumps({**result, "python": platform.python_version()}))


if __name__ == "__main__":
    main()
