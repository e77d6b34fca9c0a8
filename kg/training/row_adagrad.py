"""AdaGrad that updates and projects only the rows of a batch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kg.training.kernels import FROZEN, adagrad_rows, in_torchs_threads

# Legend: M rows with a gradient, U distinct ones, D dim


class RowAdagrad(torch.optim.Optimizer):
    """AdaGrad with one accumulator per row, on sparse gradients.

    If a parameter has an attribute `row_length`, its updated rows are scaled to that length: the
    projection of TransE's constraint ||e|| = 1, on the rows of the batch only. A row whose
    accumulator is FROZEN is not updated.
    """

    # pykeen may rebuild an optimizer from its param_groups: all arguments must be in the defaults.
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
                # (M,), (M, D); a row may occur several times, its gradient is their sum
                ids, grad = weight.grad._indices()[0], weight.grad._values()
                step = _step_on_cpu if weight.device.type == "cpu" else _step_on_gpu
                power, length = self.state[weight]["power"], getattr(weight, "row_length", 0.0)
                step(weight, power, ids, grad, group["lr"], group["eps"], length)


def _step_on_cpu(
    weight: Tensor, power: Tensor, ids: Tensor, grad: Tensor, rate: float, eps: float, length: float
) -> None:
    # Id and index in one integer: a plain sort is several times faster than a stable argsort.
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
