"""Matching of entity names in captions: text in, lattice rows out, without side effects.

The matcher alone is `Trie.build(surfaces).find(codes)`, the whole kernel is
`LatticeKernel(tokenizer, vocabulary, config)(record_batch)`.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from lattice.config import LatticeConfig, LexiconConfig
    from lattice.matching.kernel import LatticeKernel
    from lattice.matching.lexicon import Lexicon, load_lexicon, make_lexicon
    from lattice.matching.matcher import AhoCorasick, Matcher, Matches
    from lattice.matching.tokens import BatchTokenizer, TokenBatch
    from lattice.matching.trie import Trie
    from lattice.matching.vocabulary import Vocabulary, compile_vocabulary, load_vocabulary

__all__ = [
    "AhoCorasick",
    "BatchTokenizer",
    "LatticeConfig",
    "LatticeKernel",
    "Lexicon",
    "LexiconConfig",
    "Matcher",
    "Matches",
    "TokenBatch",
    "Trie",
    "Vocabulary",
    "compile_vocabulary",
    "load_lexicon",
    "load_vocabulary",
    "make_lexicon",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "AhoCorasick": "lattice.matching.matcher",
        "BatchTokenizer": "lattice.matching.tokens",
        "LatticeConfig": "lattice.config",
        "LatticeKernel": "lattice.matching.kernel",
        "Lexicon": "lattice.matching.lexicon",
        "LexiconConfig": "lattice.config",
        "Matcher": "lattice.matching.matcher",
        "Matches": "lattice.matching.matcher",
        "TokenBatch": "lattice.matching.tokens",
        "Trie": "lattice.matching.trie",
        "Vocabulary": "lattice.matching.vocabulary",
        "compile_vocabulary": "lattice.matching.vocabulary",
        "load_lexicon": "lattice.matching.lexicon",
        "load_vocabulary": "lattice.matching.vocabulary",
        "make_lexicon": "lattice.matching.lexicon",
    },
)
