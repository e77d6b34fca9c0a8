"""How weights move: optimizers, the learning rate's way, averaged weights, and when to give up."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from artist.models.gpt import GPT, parameter_groups
from artist.training.config import TrainConfig
from artist.training.muon import Muon
from data.errors import ToolkitError

_MUON_RATE = 10.0  # Muon's learning rate as a multiple of AdamW's
_FAR = 3.0  # a loss so many times that of guessing is no learning
_TOO_LONG = 20  # steps in a row that such a loss is watched
_SMALLEST_SCALE = 1.0  # of float16 gradients; below it they overflow whatever is done


def make_optimizers(gpt: GPT, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest.

    Each group remembers its learning rate at the top of the schedule as `top_lr`.
    """
    groups = parameter_groups(gpt, config.weight_decay)
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        matrices = [p for p in gpt.blocks.parameters() if p.ndim == 2]
        taken = {id(p) for p in matrices}
        groups = [
            {**group, "params": [p for p in group["params"] if id(p) not in taken]}
            for group in groups
        ]
        # Its update does not grow with the gradient, so decay is relative to its own rate.
        rate = _MUON_RATE * config.learning_rate
        optimizers.append(Muon(matrices, lr=rate, weight_decay=config.weight_decay))
    optimizers.append(
        torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
        )
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["top_lr"] = group["lr"]
    return optimizers


def rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, then half a cosine or a line down."""
    warmup = max(1, round(config.warmup * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_learning_rate + (1 - config.final_learning_rate) * left


class Average:
    """Weights averaged over the steps (EMA), faster at the beginning.

    Attributes:
        weights: By their names in the model.
    """

    def __init__(self, gpt: GPT, decay: float) -> None:
        self.gpt, self.decay = gpt, decay
        self.weights = {k: v.detach().clone() for k, v in gpt.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model's weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        now = self.gpt.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [now[k] for k in self.weights], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights while the block runs."""
        now: dict[str, Tensor] = {k: v.clone() for k, v in self.gpt.state_dict().items()}
        self.gpt.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.gpt.load_state_dict(now)


class Watch:
    """Stops a training that no longer learns.

    Args:
        config: For the advice.
        codebook_size: A guess among so many codes costs log(codebook_size) nats.
    """

    def __init__(self, config: TrainConfig, codebook_size: int) -> None:
        self.config, self.far = config, 0
        self.limit = _FAR * math.log(max(2, codebook_size))

    @property
    def calm(self) -> bool:
        """Whether the last step's loss was one that learning can have."""
        return self.far == 0

    def check(self, step: int, loss: float, norm: float, scale: float) -> None:
        """Look at a step's loss, gradient norm and (float16) loss scale before it is taken.

        Raises:
            ToolkitError: It is not a number, or has been absurd for long.
        """
        self.far = self.far + 1 if loss > self.limit else 0
        overflowing = not math.isfinite(norm) and scale <= _SMALLEST_SCALE
        if math.isfinite(loss) and not overflowing and self.far < _TOO_LONG:
            return
        what = f"the loss at step {step} is {loss:g} (gradient norm {norm:g})"
        if self.far >= _TOO_LONG:
            what += f", {_TOO_LONG} steps in a row above {self.limit:.1f}"
        raise ToolkitError(
            f"{what}: the training has exploded. The last checkpoint is from before. Lower "
            f"--learning-rate (now {self.config.learning_rate:g}) and begin again with "
            "--overwrite; if it happens at once, try --precision fp32, or look for broken rows "
            "with --batch-size 1."
        )
