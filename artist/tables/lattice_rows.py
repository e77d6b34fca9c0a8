"""Read lattice tables and assemble batches; inclusive spans become half-open ones here.

    N rows   B batch   T text_len   L image_len   K entities per caption   D entity_dim

A table is read without its images and padded to (N, T) and (N, L): about 770 bytes per row at T=32
and L=256. Large ones are memory-mapped; see `artist.tables.mmap_rows`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from artist.models.conditioning import Conditioning, Entities
from artist.models.config import GPTConfig
from data.errors import SchemaError
from data.kg_folder import kg_fingerprint
from data.schema import CODES, IMAGE, LATTICE, MORE_CODES, Shards, open_shards, table_metadata
from data.seeds import stream
from data.select import select

_MANY = 1 << 22  # entities per chunk
_MANY_ROWS = 1 << 16  # captions per chunk
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Fibonacci hashing)
_SAMPLED_VECTORS = 100_000


class Batch(NamedTuple):
    """Captions and the codes of their images, (B, L); (B, 0) without codes."""

    conditioning: Conditioning
    codes: Tensor

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return len(self.codes)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        codes = self.codes.to(device, non_blocking=True)
        return Batch(self.conditioning.to(device), codes)

    def pinned(self) -> "Batch":
        """Return the batch in page-locked memory, which a GPU reads while it computes."""
        return Batch(self.conditioning.pinned(), self.codes.pin_memory())


@dataclass(frozen=True)
class Rows:
    """A lattice table, in memory or mapped.

    Attributes:
        idx: Ids of the rows in the table.
        texts: Captions as given.
        bert_ids: `(N, T)`, padded with `pad_id`.
        codes: `(N, L)` uint16, or `(N, 0)` for a table without codes.
        first_entity: `(N + 1,)`; row i has the entities first_entity[i] .. first_entity[i + 1] - 1.
        entity_ids: Ids in the KG.
        starts: First token of each entity.
        ends: One past its last token, at most T.
        metadata: Key-value pairs of the table.
        more_codes: `(N, V, L)`, codes of V further versions of each image, or None.
    """

    idx: Sequence[str]
    texts: Sequence[str]
    bert_ids: NDArray[np.integer]
    codes: NDArray[np.uint16]
    first_entity: NDArray[np.int64]
    entity_ids: NDArray[np.integer]
    starts: NDArray[np.integer]
    ends: NDArray[np.integer]
    metadata: dict[str, str]
    more_codes: NDArray[np.uint16] | None = None

    def __len__(self) -> int:
        return len(self.bert_ids)

    @cached_property
    def largest_entity(self) -> int:
        """The largest entity id; -1 without entities."""
        return int(self.entity_ids.max(initial=-1))

    def named_entities(self) -> NDArray[np.int64]:
        """Return the distinct ids of all entities that occur, ascending; read in chunks."""
        named = np.zeros(0, dtype=np.int64)
        for begin in range(0, len(self.entity_ids), _MANY):
            named = np.union1d(named, self.entity_ids[begin : begin + _MANY])
        return named.astype(np.int64)

    def tokens(self, vocab_size: int) -> NDArray[np.int64]:
        """Return the distinct token ids of all captions, ascending; read in chunks."""
        found = np.zeros(vocab_size, dtype=bool)
        for begin in range(0, len(self), _MANY_ROWS):
            found[self.bert_ids[begin : begin + _MANY_ROWS].ravel()] = True
        return np.flatnonzero(found)

    def take(self, chosen: NDArray[np.int64]) -> "Rows":
        """Return the chosen rows, in the given order."""
        counts = np.diff(self.first_entity)[chosen]
        row, place = _places(counts)
        at = self.first_entity[chosen[row]] + place
        return replace(
            self,
            idx=[self.idx[n] for n in chosen],
            texts=[self.texts[n] for n in chosen],
            bert_ids=self.bert_ids[chosen],
            codes=self.codes[chosen],
            first_entity=np.concatenate([[0], np.cumsum(counts)]),
            entity_ids=self.entity_ids[at],
            starts=self.starts[at],
            ends=self.ends[at],
            more_codes=None if self.more_codes is None else self.more_codes[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """How the captions of a table are truncated and padded, and which entities are kept.

    The field names are also keys of the manifest that `artist.tables.mmap_rows` writes.

    Attributes:
        text_len: Tokens per caption (T). Entities that begin after it are dropped, those that cross
            it are truncated (as in EasyNLP).
        pad_id: BERT id that pads shorter captions.
        max_entities: Entities kept per caption.
        policy: Which entities are kept if a caption has more; see `data.select`.
    """

    text_len: int
    pad_id: int
    max_entities: int
    policy: str = "first"

    @classmethod
    def of_model(cls, gpt: GPTConfig, pad_id: int) -> "RowsConfig":
        """Return the settings of a model; `pad_id` is its tokenizer's."""
        return cls(
            text_len=gpt.text_len,
            pad_id=pad_id,
            max_entities=gpt.max_entities,
            policy=gpt.entity_policy,
        )


def rows_from_table(table: pa.Table, config: RowsConfig, *, source: str = "the table") -> Rows:
    """Return the rows of an Arrow table with the columns of `data.schema.LATTICE`.

    The columns `codes` and `more_codes` are optional; `source` names the table in messages.

    Raises:
        SchemaError: Columns contradict each other.
    """
    text_len = config.text_len
    table = table.combine_chunks()
    lengths = table["seq_len"].to_numpy().astype(np.int64)
    ids, ids_at = _lists(table, "input_ids")
    lex, lex_at = _lists(table, "lex_ids")
    pos_s, pos_at = _lists(table, "pos_s")
    pos_e, _ = _lists(table, "pos_e")
    counts = np.diff(lex_at)
    if len(pos_s) != len(pos_e) or (np.diff(pos_at) != lengths + counts).any():
        raise SchemaError(
            f"{source}: pos_s and pos_e must have seq_len + len(lex_ids) numbers in each row. "
            "Write it again with `cli.py lattice build`."
        )
    N = len(lengths)
    bert_ids = np.full((N, text_len), config.pad_id, dtype=np.int64)
    row, place = _places(np.minimum(np.diff(ids_at), text_len))
    bert_ids[row, place] = ids[ids_at[row] + place]

    row, place = _places(counts)
    at = pos_at[row] + lengths[row] + place
    kept = np.flatnonzero(pos_s[at] < text_len)
    spans = (row[kept], pos_s[at[kept]], pos_e[at[kept]] + 1)
    kept = kept[select(*spans, config.max_entities, config.policy)]
    row, place, at = row[kept], place[kept], at[kept]
    starts, ends = pos_s[at], np.minimum(pos_e[at] + 1, text_len)
    first_entity = np.zeros(N + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=N), out=first_entity[1:])

    codes = _code_table(table, CODES.name, source)
    more = _code_table(table, MORE_CODES.name, source)
    L = codes.shape[1]
    if more.shape[1] and (not L or more.shape[1] % L):
        raise SchemaError(f"{source}: {MORE_CODES.name} must have a multiple of {L} codes.")
    return Rows(
        idx=table["idx"].to_pylist(),
        texts=table["text"].to_pylist(),
        bert_ids=bert_ids,
        codes=codes,
        first_entity=first_entity,
        entity_ids=lex[lex_at[row] + place].astype(np.int64),
        starts=starts,
        ends=ends,
        metadata=table_metadata(table.schema),
        more_codes=more.reshape(N, -1, L) if more.shape[1] else None,
    )


def _code_table(table: pa.Table, name: str, source: str) -> NDArray[np.uint16]:
    """Return a column of codes, (N, codes per row), or (N, 0) if it is missing."""
    N = table.num_rows
    if name not in table.column_names or not N:
        return np.zeros((N, 0), dtype=np.uint16)
    flat, at = _flat(table, name)  # not as int64, which would need most of the memory
    if np.ptp(np.diff(at)):
        raise SchemaError(f"{source}: rows have different numbers of codes.")
    codes: NDArray[np.uint16] = flat.reshape(N, -1)
    return codes


def open_lattice(path: Path) -> Shards:
    """Open a lattice table, in one file or a folder of shards.

    Raises:
        SchemaError: It is not a lattice table, or it has no rows.
    """
    shards = open_shards(path, LATTICE, optional=(CODES, MORE_CODES, IMAGE))
    if not shards.num_rows:
        raise SchemaError(f"{path} has no rows. Were all captions rejected? See its .rejects.tsv.")
    return shards


def columns_of(shards: Shards) -> list[str]:
    """Return the columns that training reads: all but the images."""
    wanted = (*LATTICE.names, CODES.name, MORE_CODES.name)
    return [name for name in wanted if name in shards.schema_arrow.names]


def read_rows(path: Path, config: RowsConfig) -> Rows:
    """Read the rows of a lattice table from disk; see `rows_from_table`.

    Raises:
        SchemaError: It is not a lattice table, or it has no rows.
    """
    shards = open_lattice(path)
    return rows_from_table(shards.read(columns_of(shards)), config, source=str(path))


def lattice_settings(metadata: dict[str, str]) -> dict[str, object]:
    """Return the settings of `lattice build`, for matching prompts in the same way."""
    settings: dict[str, object] = json.loads(metadata.get("settings", "{}"))
    return settings


class Batches:
    """Batches of rows with their entities' vectors.

    Args:
        rows: The table.
        vectors: `(num_entities, D)` of the whole graph; may be memory-mapped.
        config: The model's sizes.
        seen: Ids of the entities in the training captions, ascending. Names of other entities are
            read as `config.unknown_id`, if it is set; without `seen` all names stay.

    Raises:
        SchemaError: The table has entities that the graph lacks.
    """

    def __init__(
        self,
        rows: Rows,
        vectors: NDArray[np.float32],
        config: GPTConfig,
        seen: NDArray[np.int64] | None = None,
    ) -> None:
        if rows.largest_entity >= len(vectors):
            raise SchemaError(
                f"the table has entity {rows.largest_entity}, but the KG has only "
                f"{len(vectors)}. Build the table and train the model with the same --kg."
            )
        if config.fusion != "none" and vectors.shape[1] != config.entity_dim:
            raise SchemaError(
                f"the KG's vectors have {vectors.shape[1]} dimensions, the model expects "
                f"{config.entity_dim}. Give the KG the model was trained with."
            )
        self.rows, self.vectors, self.config = rows, vectors, config
        self.seen = seen if config.unknown_id is not None else None

    def get(self, chosen: NDArray[np.int64], epoch: int | None = None) -> Batch:
        """Return the batch of the chosen rows.

        Given an epoch, images with several versions take turns: a row has each of its versions once
        in as many epochs, from a first one that depends on the row.
        """
        rows, config = self.rows, self.config
        counts = rows.first_entity[chosen + 1] - rows.first_entity[chosen]
        if config.fusion == "none":
            counts = np.zeros_like(counts)
        # The released fusion sums over padding slots too, so their number matters there.
        K = config.max_entities if config.fusion == "easynlp" else int(counts.max(initial=0))
        B = len(chosen)
        # In numpy: for these small copies torch would use all its threads, next to a training.
        filler = np.array(self.vectors[0], dtype=np.float32)  # (D,)
        vectors = np.tile(filler, (B, K, 1))
        covers = np.zeros((B, K, config.text_len), dtype=bool)
        row, place = _places(counts)
        at = rows.first_entity[chosen[row]] + place
        if len(at):
            vectors[row, place] = self.vectors[rows.entity_ids[at]]
            token = np.arange(config.text_len)
            inside = (token >= rows.starts[at, None]) & (token < rows.ends[at, None])
            covers[row, place] = inside
        entities = Entities(*(torch.from_numpy(part) for part in (vectors, covers, filler)))
        ids = torch.from_numpy(rows.bert_ids[chosen].astype(np.int64))
        conditioning = Conditioning(ids, entities)
        if self.seen is not None and config.unknown_id is not None:
            unseen = np.zeros((B, K), dtype=bool)
            unseen[row, place] = ~_among(rows.entity_ids[at], self.seen)
            which = torch.from_numpy(unseen)
            conditioning = conditioning.without_names(which, config.unknown_id)
        codes = torch.from_numpy(self._codes(chosen, epoch).astype(np.int64))
        return Batch(conditioning, codes)

    def _codes(self, chosen: NDArray[np.int64], epoch: int | None) -> NDArray[np.uint16]:
        """Return codes (B, L) of the chosen rows; see `get`."""
        codes, more = self.rows.codes[chosen], self.rows.more_codes
        if more is not None and epoch is not None:
            first = (chosen.astype(np.uint64) * _GOLDEN) >> np.uint64(40)
            version = (first.astype(np.int64) + epoch) % (1 + more.shape[1])
            turned = version > 0
            codes[turned] = more[chosen[turned], version[turned] - 1]
        return codes

    def in_order(self, batch_size: int, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yield all rows in order; for `share` (r, n), only the r-th of every n batches."""
        first, every = share
        for begin in range(first * batch_size, len(self.rows), every * batch_size):
            yield self.get(np.arange(begin, min(begin + batch_size, len(self.rows))))

    def epoch_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return a permutation of the rows that depends on seed and epoch only."""
        return np.random.default_rng(stream(seed, "order", epoch)).permutation(len(self.rows))


def _lists(table: pa.Table, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a list column's values, concatenated, and the offset of each row (N + 1,)."""
    values, offsets = _flat(table, name)
    return values.astype(np.int64), offsets


def _flat(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the same as `_lists`, with values of their own type and without a copy."""
    chunks = table[name].chunks
    if not chunks:
        return np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    column = pa.concat_arrays(chunks) if len(chunks) > 1 else chunks[0]
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]


def _among(ids: NDArray[np.integer], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each id occurs in an ascending list; `np.isin` would sort it every time."""
    first, end = (np.searchsorted(ascending, ids, side) for side in ("left", "right"))
    return np.asarray(first < end)


def _places(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for counts (2, 0, 1): rows 0 0 2 and the position within each row, 0 1 0."""
    row = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return row, np.arange(len(row)) - begin[row]


def unit_scale(vectors: NDArray[np.float32]) -> float:
    """Return the factor that scales `vectors` (n, D) to a mean square of 1.

    From 200,000 rows on it is computed from a sample of them.
    """
    some = np.asarray(vectors[:: max(1, len(vectors) // _SAMPLED_VECTORS)], dtype=np.float64)
    square = float(np.square(some).mean())
    return float(square**-0.5) if square > 0 else 1.0


def check_table(rows: Rows, tokenizer: str, kg_used: str, kg: Path | None, source: str) -> None:
    """Check that the ids of a table are those of the model.

    Raises:
        SchemaError: It was built with another tokenizer or KG than the model was trained with.
    """
    if rows.metadata.get("tokenizer_fingerprint") != tokenizer:
        raise SchemaError(
            f"{source} was built with another tokenizer than the model's. Build it with "
            "`--tokenizer` set to the model folder."
        )
    if not kg_used or kg is None:
        return
    for name, found in (
        (source, rows.metadata.get("kg_fingerprint")),
        (str(kg), kg_fingerprint(kg)),
    ):
        if found != kg_used:
            raise SchemaError(
                f"{name} belongs to another KG than the one the model was trained with."
            )
