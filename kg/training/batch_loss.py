"""Loss and gradient of a batch in one pass, block by block, from distances by matrix products."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kg.training.batches import Batch
from kg.training.kernels import in_torchs_threads, l1_distances, l1_gradients

# Legend: B triples per batch, S chunk_size, G = B / S chunks, N negatives per chunk, D dim,
# M looked-up rows of the entity table (B + B + G * N)


def pairwise_distance(query: Tensor, point: Tensor, p_norm: int) -> Tensor:
    """Return ||query_i - point_j||: [G, S, D], [G, N, D] -> [G, S, N]."""
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
    """Gradients of sum(slope * distance): [G, S, N] -> [G, S, D], [G, N, D]."""
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
    """Return a pykeen loss and its derivatives by the distances: [B, 1], [B, N]."""
    if not getattr(loss, "closed_form", False):
        with torch.enable_grad():
            scores = (-positive).requires_grad_(), (-negative).requires_grad_()
            value = loss.process_slcwa_scores(*scores, num_entities=None)
            slopes = torch.autograd.grad(value, scores)
        return value.detach(), -slopes[0], -slopes[1]
    # NSSA: (softplus(d - margin) + sum softmax(-d') softplus(margin - d')) / 2, with constant
    # softmax weights (Sun et al. 2019). One exponential gives both the weights and the odds.
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


class Workspace:
    """Buffers reused by all steps: allocating them costs as much as filling them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device  # of the step; the tables may be on another
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int, width: int) -> Tensor:
        """Return the buffer of a name as `[rows, width]`; the contents are undefined."""
        held = self._held.get(name)
        if held is None or len(held) < rows:
            held = self._held[name] = torch.empty(rows, width, device=self.device)
        return held[:rows]

    def look_up(self, name: str, table: Tensor, ids: Tensor) -> Tensor:
        """Copy rows of a table to the device of the step."""
        rows = self(name, len(ids), table.shape[1])
        if table.device == self.device:
            return torch.index_select(table, 0, ids, out=rows)
        return rows.copy_(table.detach()[ids.to(table.device)])


# Distances at a time per CPU thread: they and their derivatives fit the cache.
_BLOCK = 1 << 16


class BatchLoss(torch.autograd.Function):
    """The loss of a batch; `forward` computes its gradient as well.

    Distances, loss and gradients of a block of chunks are complete before the next block begins.
    """

    @staticmethod
    def forward(
        ctx: Any,
        entity: Tensor,
        relation: Tensor,
        batch: Batch,
        loss: Any,
        p_norm: int,
        workspace: Workspace,
    ) -> Tensor:
        """Return the loss; keep the gradients of the rows."""
        size, (chunks, num_negatives) = len(batch.source), batch.negatives.shape
        ids = torch.cat([batch.source, batch.target, batch.negatives.flatten()])  # (M,)
        sizes = [size, size, chunks * num_negatives]
        vectors = workspace.look_up("vectors", entity, ids)  # (M, D)
        source, target, negative = vectors.split(sizes)  # type: ignore[no-untyped-call]
        kind = workspace.look_up("kinds", relation, batch.relation)  # (B, D)
        sign = batch.sign.unsqueeze(1)
        query = source.addcmul_(kind, sign)  # (B, D)
        offset = torch.sub(query, target, out=target)
        positive = offset.norm(p=p_norm, dim=1, keepdim=True)  # (B, 1)

        grad = workspace("grad", *vectors.shape)
        for_query, for_target, for_negative = grad.split(sizes)  # type: ignore[no-untyped-call]
        query, for_query = (x.view(chunks, -1, x.shape[1]) for x in (query, for_query))
        point, for_point = (x.view(chunks, -1, x.shape[1]) for x in (negative, for_negative))
        along = workspace("along", size, 1)  # derivative of the loss by the positive distance
        total = positive.new_zeros(())
        per_chunk = size // chunks * num_negatives
        block = chunks
        if workspace.device.type == "cpu":
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
        """Return the sparse gradients of the two tables."""
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
    """Return the sparse gradient of some rows of a table, on its device."""
    ids, rows = ids.unsqueeze(0).to(table.device), rows.to(table.device)
    return torch.sparse_coo_tensor(ids, rows, table.shape, check_invariants=False)
