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
from data.jit import jit
from data.schema import IMAGE, LATTICE
from data.select import check_policy, select
from data.tokenizer import Tokenizer
from lattice.matching.align import Spans, align
from lattice.matching.lexicon import LexiconConfig
from lattice.matching.segment import crosses_a_word
from lattice.matching.tokens import BatchTokenizer, TokenBatch
from lattice.matching.vocabulary import Senses, Vocabulary

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
        tokens = self._tokenise(batch.column("text"))
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
        room = len(spans.first)
        while True:
            entities = Entities(*(np.empty(room, np.int64) for _ in range(4)))
            count = _name(tokens.row_tokens, spans, self._vocabulary.senses, entities)
            if count <= room:
                return Entities(*(column[:count] for column in entities))
            room = count


@jit
def _name(
    row_tokens: NDArray[np.int64],
    spans: Spans,
    senses: Senses,
    entities: Entities,
) -> int:
    """How many entities there are; they are filled in as far as there is room."""
    room = len(entities.row)
    row = count = 0
    for n in range(len(spans.first)):
        while row_tokens[row + 1] <= spans.first[n]:
            row += 1
        entity_id = np.int64(senses.entity_of[spans.ordinal[n]])
        first = last = np.int64(0)
        if entity_id < 0:
            first, last = senses.several_at[-1 - entity_id], senses.several_at[-entity_id] - 1
        for at in range(first, last + 1):
            if count < room:
                entities.row[count] = row
                entities.first[count], entities.end[count] = spans.first[n], spans.end[n]
                entities.entity_id[count] = senses.several[at] if entity_id < 0 else entity_id
            count += 1
    return count


def _columns(tokens: TokenBatch, entities: Entities) -> list[pa.Array]:
    """`input_ids`, `seq_len`, `lex_ids`, `pos_s`, `pos_e` as EasyNLP means them."""
    num_tokens, num_entities = len(tokens.ids), len(entities.row)
    assert num_tokens + num_entities < 1 << 31, "batches are bounded so that offsets fit 32 bits"
    rows = len(tokens.row_tokens) - 1
    seq_len = np.empty(rows, np.int32)
    token_at, entity_at, both_at = (np.zeros(rows + 1, np.int32) for _ in range(3))
    starts, lasts = (np.empty(num_tokens + num_entities, np.int32) for _ in range(2))
    _fill(tokens.row_tokens, entities, (seq_len, token_at, entity_at, both_at, starts, lasts))
    return [
        pa.ListArray.from_arrays(token_at, tokens.ids),
        pa.array(seq_len),
        pa.ListArray.from_arrays(entity_at, entities.entity_id.astype(np.int32)),
        pa.ListArray.from_arrays(both_at, starts),
        pa.ListArray.from_arrays(both_at, lasts),
    ]


@jit
def _fill(
    row_tokens: NDArray[np.int64], entities: Entities, made: tuple[NDArray[np.int32], ...]
) -> None:
    """Lengths, offsets and positions: a row's tokens come first and its entities follow."""
    seq_len, token_at, entity_at, both_at, starts, lasts = made
    at = entity = 0
    for row in range(len(seq_len)):
        begin = row_tokens[row]
        seq_len[row] = row_tokens[row + 1] - begin
        for position in range(seq_len[row]):
            starts[at] = lasts[at] = position
            at += 1
        while entity < len(entities.row) and entities.row[entity] == row:
            starts[at] = entities.first[entity] - begin
            lasts[at] = entities.end[entity] - 1 - begin
            at += 1
            entity += 1
        token_at[row + 1] = row_tokens[row + 1]
        entity_at[row + 1] = entity
        both_at[row + 1] = at
