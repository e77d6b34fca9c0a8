"""How much faster is `lattice build` than the reference's way, on one core, from TSV to table?

The baseline is a plain re-creation of the reference's preprocessing: captions one at a time, BERT's
basic and WordPiece tokenizing in Python, a trie of dictionaries walked token by token, a line of
text written for each. Its tokens are checked to be ours, and all its matches to be among ours.
Captions are generated from words of jieba's dictionary by their frequency; the names are the whole
dictionary, or as many generated names as asked for.

    python benchmarks/bench_lattice.py [--names N] [--captions N] [--backend ahocorasick]
"""

import argparse
import importlib.util
import json
import os
import tempfile
import unicodedata
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow.parquet as pq

from data.kg_folder import write_names
from data.tokenizer import Tokenizer, write_character_vocabulary
from lattice.build import LatticeReport, build_lattice

LATIN = ["iPhone15", "T恤", "KFC", "2024", "SUV", "logo", "3D", "NBA", "100", "DIY"]


def jieba_words() -> tuple[list[str], np.ndarray]:
    found = importlib.util.find_spec("jieba")
    lines = Path(found.submodule_search_locations[0], "dict.txt").read_text("utf-8").splitlines()
    words, counts = zip(*(line.split(" ")[:2] for line in lines), strict=True)
    return list(words), np.array(counts, np.float64)


def write_captions(path: Path, count: int, rng: np.random.Generator) -> None:
    """Captions of about 21 characters: words by frequency, some Latin, a comma and a full stop."""
    words, counts = jieba_words()
    drawn = rng.choice(len(words), (count, 12), p=counts / counts.sum())
    latin = rng.integers(0, 8 * len(LATIN), count)
    with path.open("w", encoding="utf-8") as file:
        for n, (row, extra) in enumerate(zip(drawn.tolist(), latin.tolist(), strict=True)):
            parts = [words[i] for i in row]
            parts[6] = LATIN[extra] if extra < len(LATIN) else parts[6]
            file.write(f"{n}\t{''.join(parts[:6])}，{''.join(parts[6:])}。\n")


def make_names(count: int | None, rng: np.random.Generator) -> list[str]:
    """Jieba's words, or with them as many joined pairs as asked for."""
    words, _ = jieba_words()
    if count is None:
        return words
    pairs = rng.integers(0, len(words), (max(0, count - len(words)), 2)).tolist()
    return words[:count] + [words[a] + words[b] for a, b in pairs]


def is_blank(c: str) -> bool:
    return c in " \t\n\r" or unicodedata.category(c) == "Zs"


def is_control(c: str) -> bool:
    return c not in "\t\n\r" and unicodedata.category(c).startswith("C")


def is_ideograph(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )


def is_punctuation(c: str) -> bool:
    code = ord(c)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(c).startswith("P")


def split_at_punctuation(word: str) -> list[str]:
    parts: list[list[str]] = []
    new = True
    for c in word:
        if is_punctuation(c):
            parts.append([c])
            new = True
        else:
            if new:
                parts.append([])
            parts[-1].append(c)
            new = False
    return ["".join(part) for part in parts]


class Reference:
    """One caption at a time."""

    def __init__(self, names: list[str], vocab: dict[str, int]) -> None:
        self.vocab = vocab
        self.trie: dict = {}
        for entity_id, name in enumerate(names):
            if len(name) < 2:
                continue
            node = self.trie
            for character in name:
                node = node.setdefault(character, {})
            node["id"] = entity_id

    def words(self, text: str) -> list[str]:
        """BERT's basic tokenizer: its steps, each a pass over the characters."""
        kept = [c for c in text if ord(c) not in (0, 0xFFFD) and not is_control(c)]
        clean = "".join(" " if is_blank(c) else c for c in kept)
        spaced = "".join(f" {c} " if is_ideograph(ord(c)) else c for c in clean)
        words: list[str] = []
        for word in spaced.strip().split():
            folded = unicodedata.normalize("NFD", word.lower())
            bare = "".join(c for c in folded if unicodedata.category(c) != "Mn")
            words += split_at_punctuation(bare)
        return " ".join(words).split()

    def tokens(self, text: str) -> list[str]:
        """BERT's WordPiece: the longest piece first."""
        tokens: list[str] = []
        for word in self.words(text):
            characters = list(word)
            if len(characters) > 100:
                tokens.append("[UNK]")
                continue
            begin, pieces = 0, []
            while begin < len(characters):
                end, found = len(characters), None
                while begin < end:
                    piece = "".join(characters[begin:end])
                    piece = "##" + piece if begin > 0 else piece
                    if piece in self.vocab:
                        found = piece
                        break
                    end -= 1
                if found is None:
                    pieces = ["[UNK]"]
                    break
                pieces.append(found)
                begin = end
            tokens.extend(pieces)
        return tokens

    def row(self, tokens: list[str]) -> tuple[list[int], list[int], list[int]]:
        starts, ends = list(range(len(tokens))), list(range(len(tokens)))
        ids = []
        for start in range(len(tokens)):
            node = self.trie
            for end in range(start, len(tokens)):
                node = node.get(tokens[end])
                if node is None:
                    break
                if "id" in node:
                    ids.append(node["id"])
                    starts.append(start)
                    ends.append(end)
        return ids, starts, ends

    def run(self, corpus: Path, out: Path, limit: int) -> tuple[int, float]:
        """Rows written and the CPU seconds they took."""
        began, rows = process_time(), 0
        with corpus.open(encoding="utf-8") as source, out.open("w", encoding="utf-8") as target:
            for line in source:
                if rows == limit:
                    break
                idx, text = line.rstrip("\n").split("\t")
                tokens = self.tokens(text)
                columns = [" ".join(map(str, column)) for column in self.row(tokens)]
                target.write("\t".join([idx, text, *columns, str(len(tokens))]) + "\n")
                rows += 1
        return rows, process_time() - began


def check(reference: Reference, table: Path, limit: int) -> int:
    """That tokens are equal and no match of the baseline is lost; how many rows were compared."""
    rows = pq.read_table(table).slice(0, limit).to_pylist()
    for row in rows:
        tokens = reference.tokens(row["text"])
        assert [reference.vocab[t] for t in tokens] == row["input_ids"], row["text"]
        ids, starts, ends = reference.row(tokens)
        n = len(tokens)
        theirs = set(zip(ids, starts[n:], ends[n:], strict=True))
        ours = set(zip(row["lex_ids"], row["pos_s"][n:], row["pos_e"][n:], strict=True))
        assert theirs <= ours, (row["text"], theirs - ours)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, help="default: jieba's dictionary, 349,046")
    parser.add_argument("--captions", type=int, default=400_000)
    parser.add_argument("--reference-captions", type=int, default=20_000)
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = make_names(options.names, rng)
        write_names(folder / "entity2id.txt", names)
        write_captions(folder / "captions.tsv", options.captions, rng)
        tokenizer = write_character_vocabulary(folder / "tokenizer")
        vocab = Tokenizer.load(tokenizer).vocab

        def build(corpus: str) -> tuple[LatticeReport, float]:
            began = process_time()
            report = build_lattice(
                folder / corpus,
                folder / f"{corpus}.parquet",
                names=folder / "entity2id.txt",
                tokenizer=tokenizer,
                backend=options.backend,
            )
            return report, process_time() - began

        # CPU time on both sides, so that a busy machine does not matter; loading the names (and the
        # tokenizer library) is what a corpus of a few rows costs, and is left out of both.
        write_captions(folder / "few.tsv", 100, rng)
        write_captions(folder / "warm.tsv", 100, rng)
        build("warm.tsv")
        _, loading = build("few.tsv")
        report, whole = build("captions.tsv")
        ours = report.num_rows / (whole - loading)
        print(f"ours: {ours:,.0f} captions/CPU s; loading names took {loading:.1f} s")

        reference = Reference(names, vocab)
        rows, seconds = reference.run(
            folder / "captions.tsv", folder / "reference.tsv", options.reference_captions
        )
        theirs = rows / seconds
        print(f"reference: {theirs:,.0f} captions/s; ratio {ours / theirs:.1f}x")
        compared = check(reference, folder / "captions.tsv.parquet", 5000)
        print(f"{compared:,} rows compared: equal tokens, no match lost")
    print(
        json.dumps(
            {
                "names": len(names),
                "captions": report.num_rows,
                "backend": options.backend,
                "entities_per_caption": round(report.num_entities / report.num_rows, 2),
                "captions_per_second": round(ours),
                "reference_captions_per_second": round(theirs),
                "ratio": round(ours / theirs, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
