"""TransE (Bordes et al. 2013) trained with pykeen, at a cost that does not grow with the graph.

pykeen supplies the training loop, the model and the losses; through its extension points come
- an embedding without the constraint that would touch the whole table,
- AdaGrad with one float of state a row, which touches and projects only the rows of a batch,
- a loop whose negatives are shared by chunks of triples, so that distances are matrix products, and
  which takes the loss and its gradient in one pass over blocks that fit a cache,
- callbacks for the schedule, progress, measuring, early stopping and checkpoints.

All randomness follows from the seed and the numbers of epoch and batch.

pykeen is imported inside functions: it takes seconds, and writes where `PYSTOW_HOME` says.
Knows nothing of names and files of triples.
"""

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.seeds import stream
from kg.config import KGConfig
from kg.training.kernels import FROZEN, adagrad_rows, in_torchs_threads, l1_distances, l1_gradients

# Legend: B triples of a batch, S chunk_size, G = B / S chunks, N negatives, D dim, U distinct ids

MARGINS = {"nssa": 9.0, "margin": 1.0}


# ---- The parts that are given to pykeen


class RowAdagrad(torch.optim.Optimizer):
    """AdaGrad with one accumulator a row, on sparse gradients.

    A parameter with an attribute `row_length` has the rows it touches scaled to that length: the
    projection of TransE's constraint ||e|| = 1, on the rows of the batch only. A row whose
    accumulator is FROZEN does not move.
    """

    # pykeen may rebuild an optimizer from its param_groups, so all arguments stand in the defaults.
    def __init__(self, params: Any, lr: float = 0.1, eps: float = 1e-10) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["power"] = torch.zeros(len(weight), device=weight.device)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                # (M,), (M, D): a row may stand there several times, its gradient is their sum
                ids, grad = weight.grad._indices()[0], weight.grad._values()
                step = _step_on_cpu if weight.device.type == "cpu" else _step_on_gpu
                power, length = self.state[weight]["power"], getattr(weight, "row_length", 0.0)
                step(weight, power, ids, grad, group["lr"], group["eps"], length)


def _step_on_cpu(
    weight: Tensor, power: Tensor, ids: Tensor, grad: Tensor, rate: float, eps: float, length: float
) -> None:
    # Place and id in one number: a plain sort is several times quicker than a stable argsort.
    key = np.sort(ids.numpy() << 32 | np.arange(len(ids)))
    ascending, origin = key >> 32, key & 0xFFFF_FFFF
    first = np.flatnonzero(np.diff(ascending, prepend=-1))
    in_torchs_threads(
        adagrad_rows,
        len(first),
        weight.numpy(),
        power.numpy(),
        ascending[first],
        np.append(first, len(ids)),
        origin,
        grad.numpy(),
        rate,
        eps,
        length,
    )


def _step_on_gpu(
    weight: Tensor, power: Tensor, ids: Tensor, grad: Tensor, rate: float, eps: float, length: float
) -> None:
    ids, place = torch.unique(ids, return_inverse=True)
    grad = grad.new_zeros(len(ids), grad.shape[1]).index_add_(0, place, grad)  # (U, D)
    total = power[ids] + grad.square().mean(1)
    power[ids] = total
    pace = rate / (total.sqrt() + eps)
    rows = torch.addcmul(weight[ids], grad, pace.unsqueeze(1), value=-1)
    if length:
        rows *= length / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    weight[ids] = torch.where((total >= FROZEN).unsqueeze(1), weight[ids], rows)


class Unconstrained:
    """Mixed into pykeen's Embedding: no constraint on the whole table after each step."""

    def post_parameter_update(self) -> None:
        """Nothing: the optimizer has projected the rows that it moved."""


class Batch(NamedTuple):
    """Triples as translations `target = source + sign * relation`, and shared negatives."""

    source: Tensor  # [B]
    relation: Tensor  # [B]
    target: Tensor  # [B]
    sign: Tensor  # [B]: +1 where the tail is to be found, -1 where the head
    negatives: Tensor  # [G, N]
    false: Tensor  # [K]: places in [B, N], ascending, of negatives that are true


class _Answers:
    """Which entities answer which (source, relation, sign), as a table; for small graphs.

    In a graph of a thousand entities one negative in ten may be true, and pushes apart entities
    that have a triple in common; in a large graph they are too rare to matter, but for the target
    itself.
    """

    LARGEST = 1 << 26  # cells of the table, a byte each

    def __init__(self, triples: Tensor, num_entities: int) -> None:
        self.num_entities = num_entities
        head, relation, tail = triples.long().unbind(1)
        forward = torch.ones_like(head, dtype=torch.bool)
        key = torch.cat([self._key(head, relation, forward), self._key(tail, relation, ~forward)])
        self._keys, row = torch.unique(key, return_inverse=True)
        self.table: Tensor | None = None
        if len(self._keys) * num_entities <= self.LARGEST:
            size = (len(self._keys), num_entities)
            self.table = torch.zeros(size, dtype=torch.bool, device=triples.device)
            self.table[row, torch.cat([tail, head])] = True

    @classmethod
    def of(cls, triples: Tensor, num_entities: int) -> "_Answers | None":
        """The table, unless it would be too large."""
        if len(triples) > cls.LARGEST // num_entities:  # about as many rows as triples
            return None
        answers = cls(triples, num_entities)
        return answers if answers.table is not None else None

    def _key(self, source: Tensor, relation: Tensor, forward: Tensor) -> Tensor:
        return (relation * 2 + forward) * self.num_entities + source

    def __call__(
        self, source: Tensor, relation: Tensor, forward: Tensor, negatives: Tensor
    ) -> Tensor:
        """[B], [B], [B], [G, N] -> [K]: which of the [B, N] negatives are true."""
        assert self.table is not None
        row = torch.searchsorted(self._keys, self._key(source, relation, forward))
        negatives = negatives.repeat_interleave(len(source) // len(negatives), 0)
        return self.table[row.unsqueeze(1), negatives].flatten().nonzero()[:, 0]


def _same(target: Tensor, negatives: Tensor) -> Tensor:
    """[B], [G, N] -> [K]: which of the [B, N] negatives are the target itself."""
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


def _spare(false: Tensor, num_negatives: int) -> Tensor:
    """Without those of triples that would have no negative left: a softmax over nothing."""
    triple = false // num_negatives
    return false[torch.bincount(triple)[triple] < num_negatives] if len(false) else false


class Batches:
    """The batches of each epoch: a random order, random sides and random negatives.

    A batch is made of whole chunks; what is left over waits for another epoch's order.

    Attributes:
        epoch: The epoch whose batches come next.
        skip: How many of its batches are left out, because they are done.
    """

    def __init__(
        self,
        triples: Tensor,
        num_entities: int,
        config: KGConfig,
        batch_size: int,
    ) -> None:
        self.triples, self.num_entities, self.config = triples, num_entities, config
        self.chunk = min(config.chunk_size, batch_size, len(triples))
        self.batch_size = batch_size // self.chunk * self.chunk
        self.used = len(triples) // self.chunk * self.chunk
        self.epoch, self.skip = 1, 0
        self.answers = _Answers.of(triples, num_entities)

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
            negatives = torch.randint(
                self.num_entities, shape, generator=generator, device=device
            )  # [G, N]
            if self.answers is not None:
                false = self.answers(source, relation, forward, negatives)
            else:
                false = _same(target, negatives)
            sign = forward.float() * 2 - 1
            yield Batch(
                source, relation, target, sign, negatives, _spare(false, self.config.num_negatives)
            )


def pairwise_distance(query: Tensor, point: Tensor, p_norm: int) -> Tensor:
    """||query_i - point_j||: [G, S, D], [G, N, D] -> [G, S, N]."""
    if p_norm == 2:
        square = query.square().sum(-1, keepdim=True) + point.square().sum(-1).unsqueeze(-2)
        return torch.baddbmm(square, query, point.mT, alpha=-2).clamp_min_(1e-12).sqrt_()
    if query.device.type != "cpu" or query.dtype != torch.float32:
        return torch.cdist(query, point, p=1.0)
    distance = query.new_empty(*query.shape[:2], point.shape[1])
    in_torchs_threads(
        l1_distances, distance[..., 0].numel(), query.numpy(), point.numpy(), distance.numpy()
    )
    return distance


def _distance_gradients(
    query: Tensor, point: Tensor, distance: Tensor, slope: Tensor, p_norm: int
) -> tuple[Tensor, Tensor]:
    """What sum(slope * distance) gives to query and point: [G, S, N] -> [G, S, D], [G, N, D]."""
    if p_norm == 2:  # d|q - p| = (q - p) . (dq - dp) / |q - p|
        pull = slope / distance
        return (
            torch.baddbmm(query * pull.sum(-1, keepdim=True), pull, point, alpha=-1),
            torch.baddbmm(point * pull.sum(-2).unsqueeze(-1), pull.mT, query, alpha=-1),
        )
    if query.device.type != "cpu":
        with torch.enable_grad():
            ends = query.detach().requires_grad_(), point.detach().requires_grad_()
            return torch.autograd.grad(torch.cdist(*ends, p=1.0), ends, slope)  # type: ignore
    gradients = torch.empty_like(query), torch.empty_like(point)
    arrays = (x.numpy() for x in (query, point, slope, *gradients))
    in_torchs_threads(l1_gradients, len(query), *arrays)
    return gradients


def loss_and_slopes(loss: Any, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One of pykeen's losses, and its derivatives by the distances: [B, 1], [B, N]."""
    if not getattr(loss, "closed_form", False):
        with torch.enable_grad():
            scores = (-positive).requires_grad_(), (-negative).requires_grad_()
            value = loss.process_slcwa_scores(*scores, num_entities=None)
            slopes = torch.autograd.grad(value, scores)
        return value.detach(), -slopes[0], -slopes[1]
    # NSSA: (softplus(d - margin) + sum softmax(-d') softplus(margin - d')) / 2, the weights of the
    # softmax taken as constants. One exponential serves both the weights and the odds.
    share = 0.5 / len(positive)
    nearest = negative.amin(1, keepdim=True)
    weight = (nearest - negative).exp_()
    odds = weight * (loss.margin - nearest).exp_()  # exp(margin - d')
    weight /= weight.sum(1, keepdim=True)
    value = functional.softplus(positive - loss.margin).sum()
    value = share * (value + torch.dot(weight.flatten(), odds.log1p().flatten()))
    weight *= odds
    slope = weight.div_(odds.add_(1)).mul_(-share)
    return value, torch.sigmoid(positive - loss.margin).mul_(share), slope


class _Space:
    """Memory that steps use again: to get it afresh from the system costs as much as to fill it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device  # where steps compute; the tables may lie elsewhere
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int, width: int) -> Tensor:
        held = self._held.get(name)
        if held is None or len(held) < rows:
            held = self._held[name] = torch.empty(rows, width, device=self.device)
        return held[:rows]

    def look_up(self, name: str, table: Tensor, ids: Tensor) -> Tensor:
        """The rows of a table, where steps compute."""
        rows = self(name, len(ids), table.shape[1])
        if table.device == self.device:
            return torch.index_select(table, 0, ids, out=rows)
        return rows.copy_(table.detach()[ids.to(table.device)])


# Distances at once, by thread of a CPU: they and what is made of them fit its cache.
_BLOCK = 1 << 16


class _BatchLoss(torch.autograd.Function):
    """The loss of a batch, and on the way its gradient.

    A block of chunks is done with, distances, loss and gradients, before the next one begins.
    """

    @staticmethod
    def forward(
        ctx: Any,
        entity: Tensor,
        relation: Tensor,
        batch: Batch,
        loss: Any,
        p_norm: int,
        space: _Space,
    ) -> Tensor:
        size, (chunks, num_negatives) = len(batch.source), batch.negatives.shape
        ids = torch.cat([batch.source, batch.target, batch.negatives.flatten()])  # (M,)
        sizes = [size, size, chunks * num_negatives]
        vectors = space.look_up("vectors", entity, ids)  # (M, D)
        source, target, negative = vectors.split(sizes)  # type: ignore[no-untyped-call]
        kind = space.look_up("kinds", relation, batch.relation)  # (B, D)
        sign = batch.sign.unsqueeze(1)
        query = source.addcmul_(kind, sign)  # (B, D)
        offset = torch.sub(query, target, out=target)
        positive = offset.norm(p=p_norm, dim=1, keepdim=True)  # (B, 1)

        grad = space("grad", *vectors.shape)
        for_query, for_target, for_negative = grad.split(sizes)  # type: ignore[no-untyped-call]
        query, for_query = (x.view(chunks, -1, x.shape[1]) for x in (query, for_query))
        point, for_point = (x.view(chunks, -1, x.shape[1]) for x in (negative, for_negative))
        along = space("along", size, 1)  # the loss's derivative by the positive distance
        total = positive.new_zeros(())
        per_chunk = size // chunks * num_negatives
        block = chunks
        if space.device.type == "cpu":
            block = min(chunks, max(1, _BLOCK * torch.get_num_threads() // per_chunk))
        for begin in range(0, chunks, block):
            at = slice(begin, min(begin + block, chunks))
            rows = slice(at.start * size // chunks, at.stop * size // chunks)
            distance = pairwise_distance(query[at], point[at], p_norm)  # (g, S, N)
            places = batch.false.new_tensor([at.start, at.stop]) * per_chunk
            first, last = torch.searchsorted(batch.false, places).tolist()
            distance.view(-1)[batch.false[first:last] - at.start * per_chunk] = torch.inf
            value, slope, slopes = loss_and_slopes(loss, positive[rows], distance.flatten(0, 1))
            share = (at.stop - at.start) / chunks
            total += value * share
            along[rows] = slope * share
            for_query[at], for_point[at] = _distance_gradients(
                query[at], point[at], distance, (slopes * share).view_as(distance), p_norm
            )
        direction = offset.sign_() if p_norm == 1 else offset.div_(positive.clamp_min(1e-12))
        pull = direction.mul_(along)
        torch.neg(pull, out=for_target)
        for_source = grad[:size].add_(pull)
        ctx.found = ids, grad, batch.relation, torch.mul(for_source, sign, out=kind)
        ctx.tables = entity, relation
        return total  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids, for_entity, kinds, for_relation = ctx.found
        if grads[0] != 1:
            for_entity, for_relation = for_entity * grads[0], for_relation * grads[0]
        entity, relation = ctx.tables
        return (
            _sparse(ids, for_entity, entity),
            _sparse(kinds, for_relation, relation),
            *(None,) * 4,
        )


def _sparse(ids: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    """A gradient for some rows of a table, on its device."""
    ids, rows = ids.unsqueeze(0).to(table.device), rows.to(table.device)
    return torch.sparse_coo_tensor(ids, rows, table.shape, check_invariants=False)


class SharedNegatives:
    """Mixed into pykeen's SLCWATrainingLoop: its batches, and their loss."""

    model: Any
    loss: Any
    batches: Batches
    space: _Space

    def _create_training_data_loader(self, triples_factory: Any, **_: Any) -> Batches:
        return self.batches

    @staticmethod
    def _get_batch_size(batch: Batch) -> int:
        return len(batch.source)

    def _process_batch(self, batch: Batch, start: int, stop: int, *_: Any, **__: Any) -> Tensor:
        assert (start, stop) == (0, len(batch.source)), "pykeen split a batch of whole chunks"
        entity, relation = tables(self.model)
        batch = Batch(*(part.to(self.space.device) for part in batch))
        p_norm = int(self.model.interaction.p)
        loss: Tensor = _BatchLoss.apply(  # type: ignore[no-untyped-call]
            entity, relation, batch, self.loss, p_norm, self.space
        )
        return loss


@cache
def _pykeen() -> SimpleNamespace:
    """The classes of pykeen, with our parts mixed in."""
    if "PYSTOW_HOME" not in os.environ:  # it would write to the home directory on import
        home = os.environ["PYSTOW_HOME"] = tempfile.mkdtemp(prefix="pystow-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    logging.getLogger("pykeen").setLevel(logging.ERROR)  # what it has to say is said by us
    from pykeen.losses import MarginRankingLoss, NSSALoss
    from pykeen.models import ERModel
    from pykeen.nn.modules import TransEInteraction
    from pykeen.nn.representation import Embedding
    from pykeen.training import SLCWATrainingLoop, TrainingCallback
    from pykeen.triples import KGInfo
    from pykeen.utils import NoRandomSeedNecessary

    class PlainEmbedding(Unconstrained, Embedding):
        pass

    class QuickNSSALoss(NSSALoss):
        """pykeen's own, marked as one whose derivatives are known; see `loss_and_slopes`."""

        @property
        def closed_form(self) -> bool:
            # exp(margin) must be a float
            return bool(self.margin <= 80 and self.inverse_softmax_temperature == 1)

    class Callback(TrainingCallback):
        """Calls plain functions."""

        def __init__(self, pre_batch: Any, post_batch: Any, post_epoch: Any) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self._functions = pre_batch, post_batch, post_epoch

        def pre_batch(self, **_: Any) -> None:
            self._functions[0]()

        def on_batch(self, epoch: int, batch: Batch, batch_loss: float, **_: Any) -> None:
            self._functions[1](epoch, len(batch.source), batch_loss)

        def post_epoch(self, epoch: int, epoch_loss: float, **_: Any) -> None:
            self._functions[2](epoch)

    class Loop(SharedNegatives, SLCWATrainingLoop):  # type: ignore[misc]
        callback = Callback

    return SimpleNamespace(
        losses={"nssa": QuickNSSALoss, "margin": MarginRankingLoss},
        model=ERModel,
        interaction=TransEInteraction,
        embedding=PlainEmbedding,
        loop=Loop,
        info=KGInfo,
        no_seed=NoRandomSeedNecessary,
    )


def make_model(
    num_entities: int,
    num_relations: int,
    config: KGConfig,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> Any:
    """A pykeen TransE without a constraint on the whole table, initialised from the seed.

    The tables are made where they shall lie and filled block by block, always by the same random
    numbers.
    """
    pykeen = _pykeen()

    def embedding(size: int) -> Any:
        return pykeen.embedding(
            max_id=size, shape=config.dim, initializer=lambda weight: weight, unique=False
        )

    margin = MARGINS[config.loss] if config.margin is None else config.margin
    info = pykeen.info(num_entities, num_relations, create_inverse_triples=False)
    with torch.device("meta"):  # torch and pykeen would fill the tables, each in its way
        model = pykeen.model(
            triples_factory=info,
            interaction=pykeen.interaction,
            interaction_kwargs={"p": config.p_norm},
            entity_representations=embedding(num_entities),
            relation_representations=embedding(num_relations),
            loss=pykeen.losses[config.loss](margin=margin),
            random_seed=pykeen.no_seed,
        )
    model.to_empty(device=device)
    entity, relation = tables(model)
    for name, weight in (("entity", entity), ("relation", relation)):
        _fill(weight.data, config.scale or 10.0, stream(config.seed, "start", name))
    entity.row_length = config.scale  # type: ignore[attr-defined]
    return model


def _fill(weight: Tensor, length: float, seed: int) -> None:
    """Random rows of one length."""
    generator = torch.Generator().manual_seed(seed)
    for begin in range(0, len(weight), 1 << 16):
        rows = weight[begin : begin + (1 << 16)]
        random = torch.empty(rows.shape).uniform_(-1, 1, generator=generator)
        rows.copy_(functional.normalize(random, out=random).mul_(length))


def make_loop(model: Any, optimizer: RowAdagrad, batches: Batches, device: torch.device) -> Any:
    """Pykeen's training loop with our batches and their loss; `device` is where it computes."""
    loop = _pykeen().loop(
        model=model, triples_factory=None, optimizer=optimizer, automatic_memory_optimization=False
    )
    loop.batches, loop.space = batches, _Space(device)
    return loop


def tables(model: Any) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """The entity and relation vectors of a model."""
    parts = model.entity_representations, model.relation_representations
    entity, relation = (part[0]._embeddings.weight for part in parts)
    return entity, relation
