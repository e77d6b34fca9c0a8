"""Exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Weights averaged over the steps, with a shorter horizon at the beginning.

    torch's `AveragedModel` keeps a second module and would need the same warm-up function; this
    keeps a state dict, which checkpoints and model folders store as it is.

    Args:
        module: Its weights are averaged.
        decay: Decay per step; after step n at most (1 + n) / (10 + n).

    Attributes:
        weights: Averaged weights by their names in the module.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        now = self.module.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [now[k] for k in self.weights], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the module inside the block."""
        now: dict[str, Tensor] = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.module.load_state_dict(now)
