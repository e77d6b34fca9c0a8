"""Warn of captions with tokens that no training caption has: their embeddings are random."""

import numpy as np
from numpy.typing import NDArray

from artist.tables.lattice_rows import Rows
from data.tokenizer import Tokenizer

_LISTED = 12


def untrained_tokens(rows: Rows, tokenizer: Tokenizer, trained: NDArray[np.int64] | None) -> str:
    """Return a warning if captions have tokens that were never trained, else an empty text.

    Args:
        rows: The captions, cut to the model's text length.
        tokenizer: The model's.
        trained: Ids of the tokens in the training captions; None if they are not known.
    """
    if trained is None:
        return ""
    known = np.zeros(tokenizer.vocab_size, dtype=bool)
    known[trained] = known[tokenizer.pad_id] = True
    new = np.setdiff1d(rows.tokens(tokenizer.vocab_size), np.flatnonzero(known))
    if not len(new):
        return ""
    captions = int((~known[rows.bert_ids]).any(1).sum())
    listed = " ".join(tokenizer.token(n) for n in new[:_LISTED].tolist())
    more = " ..." if len(new) > _LISTED else ""
    return (
        f"{captions} of {len(rows)} captions contain tokens that no training caption contains, so "
        f"their embeddings are random: {listed}{more} ({len(new)} in all)."
    )
