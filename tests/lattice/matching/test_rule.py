"""The table equals the rule for any names, captions and tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokenizer import SPECIAL_TOKENS, Tokenizer
from lattice.building.caption_reader import CAPTIONS
from lattice.config import LatticeConfig
from lattice.matching.kernel import LatticeKernel
from lattice.matching.lexicon import make_lexicon
from lattice.matching.variants import fold_variants
from lattice.matching.vocabulary import Vocabulary
from tests.lattice.oracle import meanings, meanings_of, scan

# Latin in both cases, digits, full-width forms, an accent and a combining one, a ligature, jamo,
# emoji of one and of several code points, kana, white space of several kinds, a control character,
# ideographs inside and outside the first plane, brackets, and characters of special tokens.
LETTERS = (
    "北京故宫的手机aAbB1２ＴｔéÉe\u0301ﬁß한😀👩\u200d🚀ギカ\u3099 \u3000\u2028\u00ad龘𠀀（）()[]#"
)
LETTERS += "機发發髮"  # variants of one character, and two of another
PIECES = ["ab", "##b", "##a", "##1", "11", "##ab", "aa", "##京", "##é", "e", "##e", "t", "##t"]

BRACKETS = ["（{}）", "({})", " （{}） ", "[{}]", "【{}】", "〔{}〕"]


def words(letters):
    return st.text(letters, max_size=4)


def all_names(letters):
    """Generate plain and bracketed names of few letters, so that many are equal or fold alike."""
    kinds = st.sampled_from(BRACKETS)
    bracketed = st.builds(
        lambda a, b, kind: a + kind.format(b), words(letters), words("北a"), kinds
    )
    return st.lists(words(letters) | bracketed, min_size=1, max_size=15)


@st.composite
def tokenizers(draw, folder):
    """Generate a tokenizer of some of the letters and pieces; all others are [UNK]."""
    known = draw(st.lists(st.sampled_from(sorted(set(LETTERS.lower()))), unique=True, max_size=40))
    pieces = draw(st.lists(st.sampled_from(PIECES), unique=True))
    file = folder / "vocab.txt"
    tokens = [c for c in known if not c.isspace() and c != "\u00ad"]
    lines = [*SPECIAL_TOKENS, *dict.fromkeys(tokens + pieces)]
    file.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return Tokenizer.load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("random")


def entities(row: dict) -> list[tuple[int, int, int]]:
    n = row["seq_len"]
    return list(zip(row["pos_s"][n:], row["pos_e"][n:], row["lex_ids"], strict=True))


def check(tokenizer, names, texts, mentions=(), num_triples=None, **options) -> int:
    """Compare both backends with the slow scan; return the number of entities."""
    import numpy as np
    import pyarrow as pa

    config = LatticeConfig(**options)
    known = meanings(names, tokenizer, config, mentions, num_triples)
    counted = None if num_triples is None else lambda: np.array(num_triples)
    lexicon = make_lexicon(names, tokenizer, config, mentions, counted)
    assert meanings_of(lexicon) == known
    batch = pa.RecordBatch.from_arrays(
        [pa.array([str(n) for n in range(len(texts))]), pa.array(texts, pa.string())],
        schema=CAPTIONS,
    )
    written = {i: token for token, i in tokenizer.vocab.items()}
    fold = fold_variants if config.fold_variants else str
    expected = [
        scan(list(map(fold, surfaces)), [written[i].startswith("##") for i in ids], known)
        for ids, surfaces in tokenizer.encode(texts)
    ]
    for backend in ("ahocorasick", "trie"):
        rows = LatticeKernel(tokenizer, Vocabulary.from_lexicon(lexicon, backend), config)(batch)
        for row, wanted in zip(rows.to_pylist(), expected, strict=True):
            assert entities(row) == sorted(wanted), (backend, row["text"])
            n = row["seq_len"]
            assert n == len(row["input_ids"])
            assert row["pos_s"][:n] == row["pos_e"][:n] == list(range(n))
    return sum(map(len, expected))


@settings(max_examples=150)
@given(data=st.data())
def test_the_table_equals_a_slow_scan(data, folder):
    tokenizer = data.draw(tokenizers(folder))
    # Few letters, so that names overlap; captions of names and other characters.
    letters = "".join(data.draw(st.lists(st.sampled_from(LETTERS), min_size=2, max_size=8)))
    names = data.draw(all_names(letters))
    bare = [name.strip().rstrip("）)").rpartition("（")[0] for name in names]
    known = st.sampled_from([*names, *filter(None, bare), "[MASK]", "[UNK]"])
    parts = st.lists(known | st.text(letters, max_size=3), max_size=6)
    texts = data.draw(st.lists(parts.map("".join), min_size=1, max_size=4))
    mentions = data.draw(st.lists(st.tuples(known | words(letters), known), max_size=4))
    check(
        tokenizer,
        names,
        texts,
        mentions,
        min_length=data.draw(st.sampled_from([1, 2, 3])),
        bracket_aliases=data.draw(st.booleans()),
        max_senses=data.draw(st.sampled_from([1, 2, 8])),
        senses=data.draw(st.sampled_from(["own", "all"])),
        fold_variants=data.draw(st.booleans()),
        stop_names=data.draw(st.lists(known, max_size=2)),
        num_triples=data.draw(
            st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names))
        ),
    )


def test_the_slow_scan_on_readable_cases(characters):
    """The oracle itself, on fixed cases."""
    names = [
        "北京",
        "T恤",
        "iPhone",
        "iphone",
        "手机",
        "5手机",
        "😀京",
        "李娜（歌手）",
        "café",
        "한국",
    ]
    texts = [
        "我在北 京买T恤",
        "iPhone15手机",
        "5手机",
        "😀京",
        "李娜（歌手）",
        "CAFE\u0301",
        "한국",
    ]
    assert check(characters, names, texts) == 11
