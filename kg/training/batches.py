"""Batches of triples with negatives shared by chunks, determined by seed, epoch and number."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from data.seeds import stream
from kg.config import KGConfig

# Legend: B triples per batch, S chunk_size, G = B / S chunks, N negatives per chunk


class Batch(NamedTuple):
    """Triples as translations `target = source + sign * relation`, and shared negatives."""

    source: Tensor  # [B]
    relation: Tensor  # [B]
    target: Tensor  # [B]
    sign: Tensor  # [B]: +1 to predict the tail, -1 the head
    negatives: Tensor  # [G, N]
    false: Tensor  # [K]: indices into [B, N], ascending, of negatives that are true


class _TrueAnswers:
    """The true answers of each (source, relation, sign), as a table; for small graphs.

    In a graph of a thousand entities one negative in ten may be true, and separates entities that
    have a triple in common; in a large graph they are too rare to matter, except the target itself.
    """

    LARGEST = 1 << 26  # cells of the table, one byte each

    def __init__(self, triples: Tensor, num_entities: int) -> None:
        self.num_entities = num_entities
        head, relation, tail = triples.long().unbind(1)
        forward = torch.ones_like(head, dtype=torch.bool)
        key = torch.cat([self._key(head, relation, forward), self._key(tail, relation, ~forward)])
        self._keys, row = torch.unique(key, return_inverse=True)
        self.usable = len(self._keys) * num_entities <= self.LARGEST
        if self.usable:
            size = (len(self._keys), num_entities)
            self.table = torch.zeros(size, dtype=torch.bool, device=triples.device)
            self.table[row, torch.cat([tail, head])] = True

    @classmethod
    def of(cls, triples: Tensor, num_entities: int) -> "_TrueAnswers | None":
        """Return the table, or None if it would be too large."""
        if len(triples) > cls.LARGEST // num_entities:  # about as many rows as triples
            return None
        answers = cls(triples, num_entities)
        return answers if answers.usable else None

    def _key(self, source: Tensor, relation: Tensor, forward: Tensor) -> Tensor:
        return (relation * 2 + forward) * self.num_entities + source

    def __call__(
        self, source: Tensor, relation: Tensor, forward: Tensor, negatives: Tensor
    ) -> Tensor:
        """[B], [B], [B], [G, N] -> [K]: the indices of true negatives in [B, N]."""
        row = torch.searchsorted(self._keys, self._key(source, relation, forward))
        negatives = negatives.repeat_interleave(len(source) // len(negatives), 0)
        return self.table[row.unsqueeze(1), negatives].flatten().nonzero()[:, 0]


def _equal_to_target(target: Tensor, negatives: Tensor) -> Tensor:
    """[B], [G, N] -> [K]: the indices of negatives in [B, N] that equal the target."""
    chunks, num_negatives = negatives.shape
    chunk = torch.arange(chunks, device=target.device).unsqueeze(1) << 32
    key, order = (negatives + chunk).flatten().sort(stable=True)
    wanted = (target.view(chunks, -1) + chunk).flatten()
    first = torch.searchsorted(key, wanted)
    times = torch.searchsorted(key, wanted, right=True) - first
    triple = torch.arange(len(target), device=target.device).repeat_interleave(times)
    nth = torch.arange(len(triple), device=target.device) - (times.cumsum(0) - times)[triple]
    place: Tensor = triple * num_negatives + order[first[triple] + nth] % num_negatives
    return place.sort().values


def _keep_one_negative(false: Tensor, num_negatives: int) -> Tensor:
    """Remove the indices of triples without a false negative, whose softmax would be empty."""
    triple = false // num_negatives
    return false[torch.bincount(triple)[triple] < num_negatives] if len(false) else false


class Batches:
    """The batches of each epoch: a random order, random sides and random negatives.

    A batch consists of whole chunks; triples of an incomplete chunk are skipped in that epoch.

    Attributes:
        epoch: The epoch of the next batches.
        skip: The number of its batches already done.
    """

    def __init__(
        self, triples: Tensor, num_entities: int, config: KGConfig, batch_size: int
    ) -> None:
        self.triples, self.num_entities, self.config = triples, num_entities, config
        self.chunk = min(config.chunk_size, batch_size, len(triples))
        self.batch_size = batch_size // self.chunk * self.chunk
        self.used = len(triples) // self.chunk * self.chunk
        self.epoch, self.skip = 1, 0
        self.answers = _TrueAnswers.of(triples, num_entities)

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        device = self.triples.device
        generator = torch.Generator(device)
        generator.manual_seed(stream(self.config.seed, "order", self.epoch))
        kind = torch.int32 if len(self.triples) < 1 << 31 else torch.int64
        order = torch.randperm(len(self.triples), generator=generator, device=device, dtype=kind)
        for number in range(self.skip, len(self)):
            begin = number * self.batch_size
            chosen = order[begin : min(begin + self.batch_size, self.used)].long()
            generator.manual_seed(stream(self.config.seed, "batch", self.epoch, number))
            head, relation, tail = self.triples[chosen].long().unbind(1)
            forward = torch.rand(len(chosen), generator=generator, device=device) < 0.5
            source, target = torch.where(forward, head, tail), torch.where(forward, tail, head)
            shape = (len(chosen) // self.chunk, self.config.num_negatives)
            # [G, N]
            negatives = torch.randint(self.num_entities, shape, generator=generator, device=device)
            if self.answers is not None:
                false = self.answers(source, relation, forward, negatives)
            else:
                false = _equal_to_target(target, negatives)
            sign = forward.float() * 2 - 1
            false = _keep_one_negative(false, self.config.num_negatives)
            yield Batch(source, relation, target, sign, negatives, false)
