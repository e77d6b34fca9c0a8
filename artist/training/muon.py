"""Muon: orthogonalised momentum (Jordan et al. 2024), for matrices and convolutions.

A step of gradient descent changes a weight matrix mostly along a few strong directions. An
orthogonalised step changes all directions equally, and small networks need far fewer steps. torch's
`Muon` updates matrices only, one at a time; here convolutions are matrices (out, in x k x k), and
matrices of equal shape are updated in one batch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # coefficients of the iteration below
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Update weights of two dimensions or more by orthogonalised Nesterov momentum.

    Args:
        params: Weights (out, in, ...), each flattened to a matrix (out, the rest).
        lr: Step size, equal for all singular directions.
        momentum: Share of the previous direction that is kept.
        weight_decay: Decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape = defaultdict[tuple[int, int], list[Tensor]](list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape[0], weight[0].numel()].append(weight)
            for (rows, columns), weights in by_shape.items():
                directions = [self._direction(weight, group["momentum"]) for weight in weights]
                stack = orthogonalise(torch.stack([d.flatten(1) for d in directions]))
                length = group["lr"] * max(1.0, rows / columns) ** 0.5
                for weight, update in zip(weights, stack, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(weight.shape), alpha=-length)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        assert weight.grad is not None
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(state["momentum"], momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return nearly (semi-)orthogonal matrices, with singular values between 0.7 and 1.2.

    Computed by a quintic Newton-Schulz iteration in bfloat16, which needs only matrix products.

    Args:
        matrices: (batch, rows, columns).

    Returns:
        float32, of the same shape.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result.float()
