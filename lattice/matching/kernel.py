"""The kernel of the stage: a RecordBatch of captions in, a RecordBatch of lattice rows out.

Without side effects, so local processes and distributed engines can run the same function.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.jit import jit
from data.schema import IMAGE, LATTICE
from data.select import select
from data.tokenizer import Tokenizer
from lattice.config import LatticeConfig
from lattice.matching.align import Spans, align
from lattice.matching.arrays import Ids, Ints
from lattice.matching.segment import crosses_word
from lattice.matching.senses import Senses
from lattice.matching.tokens import BatchTokenizer, TokenBatch
from lattice.matching.variants import fold_codes
from lattice.matching.vocabulary import Vocabulary


class Entities(NamedTuple):
    """The entities of a batch; int64 (num_entities,) each.

    Ordered by row, first token, last token and id. Tokens `[first, end)` count through the batch.
    """

    row: Ints
    first: Ints
    end: Ints
    entity_id: Ints


class LatticeKernel:
    """Maps captions to lattice rows, with one vocabulary and one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, config: LatticeConfig) -> None:
        self._tokenize, self.unk_id = BatchTokenizer(tokenizer), tokenizer.unk_id
        self._vocabulary, self._config = vocabulary, config

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the lattice rows of a batch of captions.

        Args:
            batch: Columns `idx`, `text` and optionally `image`.
        """
        return self.run(batch)[0]

    def run(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """Return lattice rows, and the number of captions tokenized by the tokenizer itself."""
        tokens = self._tokenize(batch.column("text"))
        entities = self._entities(tokens)
        columns = [batch.column("idx"), batch.column("text"), *_columns(tokens, entities)]
        schema = LATTICE
        if IMAGE.name in batch.schema.names:
            columns.append(batch.column(IMAGE.name))
            schema = schema.append(IMAGE)
        return pa.RecordBatch.from_arrays(columns, schema=schema), tokens.num_undecided

    def _entities(self, tokens: TokenBatch) -> Entities:
        if self._config.fold_variants:  # for matching and segmenting; the columns have the tokens
            tokens = tokens._replace(codes=fold_codes(tokens.codes))
        spans = align(tokens, self._tokenize.continues, self._vocabulary.matcher.find(tokens.codes))
        if self._config.segment == "jieba":
            spans = spans.keep(~crosses_word(tokens, spans))
        entities = self._expand(tokens, spans)
        if self._config.max_entities is not None:
            row, first, end, _ = entities
            kept = select(row, first, end, self._config.max_entities, self._config.policy)
            entities = Entities(*(column[kept] for column in entities))
        return entities

    def _expand(self, tokens: TokenBatch, spans: Spans) -> Entities:
        """Return each span once per entity of its surface."""
        room = len(spans.first)
        while True:
            entities = Entities(*(np.empty(room, np.int64) for _ in range(4)))
            count = _expand(tokens.row_tokens, spans, self._vocabulary.senses, entities)
            if count <= room:
                return Entities(*(column[:count] for column in entities))
            room = count


@jit
def _expand(row_tokens: Ints, spans: Spans, senses: Senses, entities: Entities) -> int:
    """Fill `entities` while there is room and return the number of all entities.

    Args:
        row_tokens: See `TokenBatch`; int64 (num_rows + 1,), the last is greater than every
            `spans.first`.
        spans: Ordered by first token; every ordinal is below `len(senses.entity_of)`.
        senses: See `Senses`.
        entities: int64 (room,) each.
    """
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
    """Return `input_ids`, `seq_len`, `lex_ids`, `pos_s`, `pos_e` as EasyNLP defines them."""
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
def _fill(row_tokens: Ints, entities: Entities, out: tuple[Ids, ...]) -> None:
    """Write lengths, offsets and positions: the tokens of a row, then its entities.

    Args:
        row_tokens: int64 (num_rows + 1,), ascending, from 0 to num_tokens.
        entities: Ordered by row; rows are below num_rows, tokens within their row.
        out: int32 arrays: `seq_len` (num_rows,); the offsets of `input_ids`, of `lex_ids` and of
            the positions, (num_rows + 1,) each and 0 at 0; `pos_s` and `pos_e`,
            (num_tokens + num_entities,) each.
    """
    seq_len, token_at, entity_at, both_at, starts, lasts = out
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
