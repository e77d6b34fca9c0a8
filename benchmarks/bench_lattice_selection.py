"""Which entities should a caption keep when it has too many?

Captions are generated from jieba's dictionary by word frequency, and the names are the dictionary.
The words of a caption are its gold entities; all other matches are noise. Reported are the share of
gold entities that each policy keeps, compared with EasyNLP's policy `first`, and what
`--segment jieba` removes.

    python benchmarks/bench_lattice_selection.py [--captions N] [--words N]
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from jieba_corpus import jieba_words

from data.constants import POLICIES
from data.select import select
from data.tokenizer import Tokenizer, write_character_vocabulary
from lattice.building.caption_reader import CAPTIONS
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import make_lexicon
from lattice.matching.segment import segmenter
from lattice.matching.vocabulary import Vocabulary

LIMITS = (4, 10)


def generate(words: list[str], counts: np.ndarray, captions: int, length: int):
    """Return captions, and the spans of their words of two characters or more."""
    plain = np.array([n for n, w in enumerate(words) if all("一" <= c <= "\u9fff" for c in w)])
    share = counts[plain] / counts[plain].sum()
    sampled = np.random.default_rng(0).choice(plain, (captions, length), p=share).tolist()
    texts, gold = [], []
    for row in sampled:
        parts = [words[n] for n in row]
        ends = np.cumsum([len(p) for p in parts]).tolist()
        texts.append("".join(parts))
        gold.append({(e - len(p), e) for p, e in zip(parts, ends, strict=True) if len(p) > 1})
    return texts, gold


def spans_of(rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, first token and end of every entity."""
    lengths = rows.column("seq_len").to_numpy()
    counts = np.diff(rows.column("lex_ids").offsets.to_numpy())
    row = np.repeat(np.arange(len(counts)), counts)
    starts = [s[n:] for s, n in zip(rows.column("pos_s").to_pylist(), lengths, strict=True)]
    lasts = [s[n:] for s, n in zip(rows.column("pos_e").to_pylist(), lengths, strict=True)]
    return row, np.concatenate(starts).astype(int), np.concatenate(lasts).astype(int) + 1


def found_gold(row, start, end, gold) -> int:
    return len({(r, s, e) for r, s, e in zip(row, start, end, strict=True) if (s, e) in gold[r]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=12, help="words per caption")
    options = parser.parse_args()

    words, counts = jieba_words()
    texts, gold = generate(words, counts, options.captions, options.words)
    total = sum(map(len, gold))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Tokenizer.load(write_character_vocabulary(Path(folder)))
    batch = pa.RecordBatch.from_arrays(
        [pa.array([""] * len(texts)), pa.array(texts)], CAPTIONS.names
    )
    figures = {"captions": len(texts), "gold_entities": total, "segmenter": segmenter().name}
    print("| names found | entities per caption | of which noise | limit | policy | gold kept |")
    print("| --- | --- | --- | --- | --- | --- |")
    for segment in ("none", "jieba"):
        config = LatticeConfig(segment=segment)
        vocabulary = Vocabulary.from_lexicon(make_lexicon(words, tokenizer, config))
        row, start, end = spans_of(LatticeKernel(tokenizer, vocabulary, config)(batch))
        named = "all" if segment == "none" else "within words"
        noise = 1 - found_gold(row, start, end, gold) / len(row)
        for limit in (*LIMITS, None):
            for policy in POLICIES if limit else ("all",):
                kept = select(row, start, end, limit, policy) if limit else slice(None)
                recall = found_gold(row[kept], start[kept], end[kept], gold) / total
                print(
                    f"| {named} | {len(row) / len(texts):.2f} | {100 * noise:.1f} % | "
                    f"{limit or '-'} | {policy} | {100 * recall:.1f} % |"
                )
                figures[f"{segment}_{limit}_{policy}"] = round(recall, 4)
    for limit in LIMITS:
        figures[f"ratio_at_{limit}"] = round(
            figures[f"none_{limit}_leftmost-longest"] / figures[f"none_{limit}_first"], 3
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
