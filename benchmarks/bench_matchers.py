"""How fast does the trie find all overlapping matches, compared with Aho-Corasick libraries?

Names are jieba's dictionary (349,046 words) in order of frequency, which pyahocorasick is fastest
with, and for more names concatenated pairs of its words; captions are generated from it by word
frequency.
Each matcher runs in a child process: it builds its automaton, finds all overlapping matches, saves
the automaton and opens it again where the library offers that. Each is timed both per caption and
per 4,096 captions joined by line feeds; the faster way counts. Ours returns arrays and the
libraries return lists of tuples, so ours is also timed with tuples. All matches of a sample are
compared. Times of building and matching are CPU seconds on one core, the minimum of the
repetitions; times of opening are wall seconds with the file in the page cache.

The libraries are optional: `pip install 'artist-toolkit[bench]'`. A missing one is skipped.

    python benchmarks/bench_matchers.py [--captions N] [--repetitions N] [--texts FILE ...]
    python benchmarks/bench_matchers.py --names 10000000 --repetitions 1 [--only ours daachorse]
"""

import argparse
import ctypes
import gc
import hashlib
import json
import mmap
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from jieba_corpus import jieba_words, make_captions, make_names
from measuring import in_child, memory, processor

Found = Iterable[tuple[int, int, int]]  # start, end, name

_JOINED = 4096  # captions per joined text
_SAMPLE = 2000  # captions whose matches are compared
_ARRAYS = ("letters", "slots", "short")


class Library:
    """A library that returns triples and cannot save its automaton, unless a subclass can."""

    save = open = None

    def triples(self, found: Any) -> Found:
        return found


class Ours:
    """`lattice.matching.trie.Trie`."""

    def __init__(self, names: Sequence[str]) -> None:
        from lattice.matching.trie import Trie

        self.trie = Trie.build(names)

    def find(self, text: str) -> Any:
        return self.trie.find(np.frombuffer(text.encode("utf-32-le"), np.uint32))

    def triples(self, found: Any) -> Found:
        return zip(*(column.tolist() for column in found), strict=True)

    def save(self, folder: Path) -> None:
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self.trie, name), allow_pickle=False)

    def open(self, folder: Path) -> None:
        from lattice.matching.trie import Trie

        self.trie = Trie(*(np.load(folder / f"{n}.npy", mmap_mode="r") for n in _ARRAYS))


class OursAsTuples(Ours):
    """The trie, with its matches converted to tuples, which the libraries return."""

    def find(self, text: str) -> Any:
        return list(super().triples(super().find(text)))

    def triples(self, found: Any) -> Found:
        return found


class OursLibrary:
    """`lattice.Matcher`: lists of tuples per text, or Arrow lists for many texts."""

    def __init__(self, names: Sequence[str]) -> None:
        from lattice import Matcher

        self.load = Matcher.open
        self.matcher = Matcher.build(names)

    def find(self, text: str) -> Any:
        return self.matcher.find(text)

    def find_many(self, texts: Sequence[str]) -> Any:
        return self.matcher.find_batch(texts)

    def triples(self, found: Any) -> Found:
        return found

    def save(self, folder: Path) -> None:
        self.matcher.save(folder / "matcher")

    def open(self, folder: Path) -> None:
        self.matcher = self.load(folder / "matcher")


class OursRecoded(Ours):
    """`lattice.matching.matcher.AhoCorasick`: pyahocorasick over a recoded alphabet."""

    def __init__(self, names: Sequence[str]) -> None:
        from lattice.matching.matcher import AhoCorasick

        self.trie = AhoCorasick(names)

    save = open = None


class Daachorse(Library):
    """The character-wise automaton, which is the faster one for Chinese."""

    def __init__(self, names: Sequence[str]) -> None:
        from daachorse import CharwiseDoubleArrayAhoCorasick

        self.load = CharwiseDoubleArrayAhoCorasick.deserialize
        self.automaton = CharwiseDoubleArrayAhoCorasick(names)

    def find(self, text: str) -> Any:
        return self.automaton.find_overlapping(text)

    def save(self, folder: Path) -> None:
        (folder / "automaton").write_bytes(self.automaton.serialize())

    def open(self, folder: Path) -> None:
        self.automaton = self.load((folder / "automaton").read_bytes())


class AhoCorasickRs(Library):
    """The default implementation of ahocorasick_rs; it cannot be saved."""

    def __init__(self, names: Sequence[str]) -> None:
        import ahocorasick_rs

        self.automaton = ahocorasick_rs.AhoCorasick(names)

    def find(self, text: str) -> Any:
        return self.automaton.find_matches_as_indexes(text, overlapping=True)

    def triples(self, found: Any) -> Found:
        return ((start, end, name) for name, start, end in found)


class Cyac(Library):
    """The automaton of cyac, opened from a memory map."""

    def __init__(self, names: Sequence[str]) -> None:
        import cyac

        self.load = cyac.AC.from_buff
        self.automaton = cyac.AC.build(names)
        self.names = names
        self.position: dict[int, int] = {}

    def find(self, text: str) -> Any:
        return list(self.automaton.match(text))

    def triples(self, found: Any) -> Found:
        if not self.position:  # cyac numbers names in an order of its own
            position = {name: n for n, name in enumerate(self.names)}
            self.position = {n: position[name] for name, n in self.automaton.items()}
        return ((start, end, self.position[name]) for name, start, end in found)

    def save(self, folder: Path) -> None:
        self.automaton.save(str(folder / "automaton"))

    def open(self, folder: Path) -> None:
        with (folder / "automaton").open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.automaton = self.load(self.map, copy=False)


class Pyahocorasick(Library):
    """pyahocorasick with integers as values."""

    def __init__(self, names: Sequence[str]) -> None:
        import ahocorasick

        self.load = ahocorasick.load
        self.lengths = [len(name) for name in names]
        self.automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        for n, name in enumerate(names):
            self.automaton.add_word(name, n)
        self.automaton.make_automaton()

    def find(self, text: str) -> Any:
        return list(self.automaton.iter(text))

    def triples(self, found: Any) -> Found:
        return ((last + 1 - self.lengths[n], last + 1, n) for last, n in found)

    def save(self, folder: Path) -> None:
        self.automaton.save(str(folder / "automaton"))

    def open(self, folder: Path) -> None:
        self.automaton = self.load(str(folder / "automaton"), int)


MATCHERS: dict[str, tuple[Callable[[Sequence[str]], Any], str]] = {
    "ours": (Ours, "numba"),
    "ours, as tuples": (OursAsTuples, "numba"),
    "Matcher": (OursLibrary, "numba"),
    "daachorse": (Daachorse, "daachorse"),
    "ahocorasick_rs": (AhoCorasickRs, "ahocorasick-rs"),
    "cyac": (Cyac, "cyac"),
    "pyahocorasick": (Pyahocorasick, "pyahocorasick"),
    "ours, --backend ahocorasick": (OursRecoded, "pyahocorasick"),
}


def settled_mb(field: str) -> float:
    """Return a field of `memory` in MB, without freed memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory(field) / 1.024e6


def digest(matcher: Any, captions: Sequence[str]) -> str:
    """Return a hash of all matches of the captions, whatever their order within a caption."""
    hashed = hashlib.sha256()
    for caption in captions:
        triples = sorted(map(tuple, matcher.triples(matcher.find(caption))))
        hashed.update(repr(triples).encode())
    return hashed.hexdigest()


def many_seconds(matcher: Any, captions: Sequence[str]) -> float:
    """Return the CPU seconds of matching all captions in batches that the matcher offers."""
    matcher.find_many(captions[:100])
    began = process_time()
    matcher.find_many(captions)
    return process_time() - began


def match_seconds(matcher: Any, texts: Sequence[str]) -> float:
    """Return the CPU seconds of matching all texts, after a pass over some of them."""
    for text in texts[:100]:
        matcher.find(text)
    began = process_time()
    for text in texts:
        matcher.find(text)
    return process_time() - began


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Build, match, save and open one matcher; `folder` has the names and the corpora."""
    # Read from files, so that the process has little freed memory that a matcher could reuse.
    names = read_lines(folder / "names.txt")
    corpora = {path.stem: read_lines(path) for path in sorted(folder.glob("*.captions"))}
    make = MATCHERS[name][0]
    make(names[:100]).find("北京")  # imports and compiled loops
    before = settled_mb("VmRSS")
    began = process_time()
    matcher = make(names)
    found: dict[str, Any] = {
        "build_cpu_seconds": process_time() - began,
        "built_mb": settled_mb("VmRSS") - before,
        "peak_mb": settled_mb("VmHWM"),
    }
    for label, captions in corpora.items():
        joined = ["\n".join(captions[n : n + _JOINED]) for n in range(0, len(captions), _JOINED)]
        ways = {"caption": captions, "joined": joined}
        for way, texts in ways.items():
            found[f"{label}_{way}_cpu_seconds"] = match_seconds(matcher, texts)
        if hasattr(matcher, "find_many"):
            found[f"{label}_joined_cpu_seconds"] = many_seconds(matcher, captions)
        found[f"{label}_digest"] = digest(matcher, captions[:_SAMPLE])
    if matcher.save is not None:
        with tempfile.TemporaryDirectory() as saved:
            matcher.save(Path(saved))
            files = [path for path in Path(saved).rglob("*") if path.is_file()]
            found["saved_mb"] = sum(path.stat().st_size for path in files) / 1e6
            began = perf_counter()
            matcher.open(Path(saved))
            found["open_wall_seconds"] = perf_counter() - began
            label, captions = next(iter(corpora.items()))
            opened = digest(matcher, captions[:_SAMPLE])
            assert opened == found[f"{label}_digest"], f"{name}: the saved automaton differs"
    return found


def read_lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")


def installed() -> dict[str, str]:
    """Return the version of each matcher whose library is installed; report the others."""
    versions = {}
    for name, (_, package) in MATCHERS.items():
        try:
            versions[name] = f"{package} {version(package)}"
        except PackageNotFoundError:
            print(f"{name}: skipped, {package} is not installed (pip install '.[bench]')")
    return versions


def by_frequency(count: int | None) -> list[str]:
    """Return distinct names: the dictionary by frequency, then pairs of its words."""
    words, counts = jieba_words()
    names = [words[n] for n in np.argsort(-counts).tolist()]
    if count is None:
        return names
    if count > len(names):
        more = make_names(count + count // 50, np.random.default_rng(1))[len(names) :]
        names = list(dict.fromkeys([*names, *more]))
    return names[:count]


def read_texts(paths: Sequence[Path]) -> list[str]:
    """Return the second column of TSV files."""
    return [
        line.split("\t")[1]
        for path in paths
        for line in path.read_text("utf-8").split("\n")
        if "\t" in line
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--names", type=int, help="default: the dictionary, 349,046")
    parser.add_argument("--only", nargs="*", choices=list(MATCHERS), help="of the matchers")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="TSV files: idx, text")
    options = parser.parse_args()

    corpora = {"generated": make_captions(options.captions, np.random.default_rng(0))}
    if options.texts:
        corpora["given"] = read_texts(options.texts)
    versions = {n: v for n, v in installed().items() if not options.only or n in options.only}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    names = by_frequency(options.names)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "names.txt").write_text("\n".join(names), "utf-8")
        for label, captions in corpora.items():
            (folder / f"{label}.captions").write_text("\n".join(captions), "utf-8")
        for _ in range(options.repetitions):  # in rounds, so that other load affects all matchers
            for name in versions:
                runs[name].append(in_child(measure, name, folder))
    best: dict[str, dict[str, Any]] = {}
    for name, results in runs.items():
        for label in corpora:
            key = f"{label}_digest"
            first = next(iter(runs.values()))[0]
            assert {r[key] for r in results} == {first[key]}, f"{name} finds others"
        best[name] = {
            key: round(min(r[key] for r in results), 4)
            for key in results[0]
            if not key.endswith("_digest")
        }
        for label in corpora:
            ways = [best[name][f"{label}_{way}_cpu_seconds"] for way in ("caption", "joined")]
            best[name][f"{label}_cpu_seconds"] = min(ways)
            for key, ours in (("ratio", "ours"), ("ratio_to_tuples", "ours, as tuples")):
                if ours in best:
                    seconds = best[ours][f"{label}_cpu_seconds"]
                    best[name][f"{label}_{key}"] = round(min(ways) / seconds, 2)

    for label, captions in corpora.items():
        print(f"\n{len(captions):,} captions ({label}), {len(names):,} names")
        header = ["matcher", "CPU s", "ratio", "to tuples", "per caption", "joined"]
        header += ["build CPU s", "MB", "peak MB", "file MB", "open s", "bytes per name"]
        print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
        keys = [f"{label}_{key}" for key in ("cpu_seconds", "ratio", "ratio_to_tuples")]
        keys += [f"{label}_caption_cpu_seconds", f"{label}_joined_cpu_seconds"]
        keys += ["build_cpu_seconds", "built_mb", "peak_mb", "saved_mb", "open_wall_seconds"]
        keys += ["bytes_per_name"]
        for name, found in best.items():
            found["bytes_per_name"] = round(1e6 * found["built_mb"] / len(names), 1)
            cells = [f"{found[key]:.4g}" if key in found else "-" for key in keys]
            print(f"| {name} | {' | '.join(cells)} |")
    answer = {
        "processor": processor(),
        "python": platform.python_version(),
        "names": len(names),
        "captions": {label: len(captions) for label, captions in corpora.items()},
        "versions": versions,
        "matchers": best,
    }
    print(json.dumps(answer, ensure_ascii=False))


if __name__ == "__main__":
    main()
