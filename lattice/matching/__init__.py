"""Matching of entity names in captions: text in, lattice rows out, without side effects.

`library.Matcher` finds names in texts and depends on nothing else of the stage. The whole kernel is
`kernel.LatticeKernel(tokenizer, vocabulary, config)(record_batch)`; `vocabulary` has
`compile_vocabulary` and `load_vocabulary`.
"""

__all__ = ["kernel", "lexicon", "library", "matcher", "tokens", "trie", "vocabulary"]
