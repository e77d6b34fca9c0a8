"""The kernel of the stage: a RecordBatch of captions in, a RecordBatch of lattice rows out.

Free of side effects, so local processes and distributed engines can run the same function.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import ConfigError, did_you_mean
from data.schema import IMAGE, LATTICE
from data.select import check_policy, select
from data.tokenizer import Tokenizer
from lattice.align import Spans, align, rows_of_tokens
from lattice.lexicon import LexiconConfig
from lattice.segment import crosses_a_word
from lattice.tokens import BatchTokenizer, TokenBatch
from lattice.vocabulary import Vocabulary

SEGMENTS = ("none", "jieba")


@dataclass(frozen=True, kw_only=True)
class LatticeConfig(LexiconConfig):
    """What is matched, and which matches are stored.

    Attributes:
        segment: `jieba` drops matches that cross the boundary of a word.
        max_entities: At most so many entities a caption; None stores all of them.
        policy: Which these are, see `data.select`; stored in text order.
        mentions_sha256: Of the mention file, if one was used; the drivers fill it in.
    """

    segment: str = "none"
    max_entities: int | None = None
    policy: str = "first"
    mentions_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("segment", self.segment, SEGMENTS)
        check_policy("policy", self.policy)
        if self.max_entities is not None and self.max_entities < 1:
            raise ConfigError(f"max_entities={self.max_entities} must be at least 1.")


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Check a choice.

    Raises:
        ConfigError: `value` is not one of `known`.
    """
    if value not in known:
        near = did_you_mean(value, known) or "."
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(known)}{near}")


class Entities(NamedTuple):
    """The entities of a batch, ordered by row, first token, last token and id; int64 arrays.

    Tokens are counted through the batch; `[first, end)`.
    """

    row: NDArray[np.int64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    entity_id: NDArray[np.int64]


class LatticeKernel:
    """Captions to lattice rows, with one vocabulary and one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, config: LatticeConfig) -> None:
        self._tokenise = BatchTokenizer(tokenizer)
        self._vocabulary, self._config = vocabulary, config

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Lattice rows for the captions of a batch.

        Args:
            batch: Columns `idx`, `text` and perhaps `image`.
        """
        return self.run(batch)[0]

    def run(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """Lattice rows, and how many captions the batch tokenizer left to the tokenizer itself."""
        tokens = self._tokenise(batch.column("text").to_pylist())
        entities = self._entities(tokens)
        columns = [batch.column("idx"), batch.column("text"), *_columns(tokens, entities)]
        schema = LATTICE
        if IMAGE.name in batch.schema.names:
            columns.append(batch.column(IMAGE.name))
            schema = schema.append(IMAGE)
        return pa.RecordBatch.from_arrays(columns, schema=schema), tokens.num_undecided

    def _entities(self, tokens: TokenBatch) -> Entities:
        spans = align(tokens, self._tokenise.continues, self._vocabulary.matcher.find(tokens.codes))
        if self._config.segment == "jieba":
            spans = spans.keep(~crosses_a_word(tokens, spans))
        entities = self._name(tokens, spans)
        if self._config.max_entities is not None:
            row, first, end, _ = entities
            kept = select(row, first, end, self._config.max_entities, self._config.policy)
            entities = Entities(*(column[kept] for column in entities))
        return entities

    def _name(self, tokens: TokenBatch, spans: Spans) -> Entities:
        """Each span once for every entity that its surface names."""
        begin = self._vocabulary.offsets[spans.ordinal]
        senses = self._vocabulary.offsets[spans.ordinal + 1] - begin
        which = np.repeat(np.arange(len(senses)), senses)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(senses) - senses, senses)
        first = spans.first[which]
        return Entities(
            rows_of_tokens(tokens)[first],
            first,
            spans.end[which],
            self._vocabulary.entity_ids[begin[which] + nth].astype(np.int64),
        )


def _columns(tokens: TokenBatch, entities: Entities) -> list[pa.Array]:
    """`input_ids`, `seq_len`, `lex_ids`, `pos_s`, `pos_e` as EasyNLP means them."""
    rows = len(tokens.row_tokens) - 1
    seq_len = np.diff(tokens.row_tokens)
    row_entities = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(entities.row, minlength=rows), out=row_entities[1:])
    offsets = tokens.row_tokens + row_entities
    # In both position columns, the row's tokens come first and its entities follow.
    row_of_token = rows_of_tokens(tokens)
    token_at = np.arange(len(tokens.ids)) + row_entities[row_of_token]
    entity_at = np.arange(len(entities.row)) + tokens.row_tokens[entities.row + 1]
    position = np.arange(len(tokens.ids)) - tokens.row_tokens[row_of_token]
    row_begin = tokens.row_tokens[entities.row]
    starts = np.empty(len(token_at) + len(entity_at), np.int32)
    starts[token_at], starts[entity_at] = position, entities.first - row_begin
    lasts = np.empty_like(starts)
    lasts[token_at], lasts[entity_at] = position, entities.end - 1 - row_begin
    return [
        _lists(tokens.row_tokens, tokens.ids),
        pa.array(seq_len.astype(np.int32)),
        _lists(row_entities, entities.entity_id),
        _lists(offsets, starts),
        _lists(offsets, lasts),
    ]


def _lists(offsets: NDArray[np.int64], values: NDArray[np.integer]) -> pa.ListArray:
    assert offsets[-1] < 1 << 31, "a batch is bounded so that its offsets fit 32 bits"
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(values.astype(np.int32))
    )
