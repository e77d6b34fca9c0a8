"""The optimizers of a GPT and the schedule of their learning rate."""

import math

import torch

from artist.models.gpt import GPT, parameter_groups
from artist.training.config import TrainConfig
from artist.training.muon import Muon

_MUON_RATE = 10.0  # Muon's learning rate as a multiple of AdamW's


def make_optimizers(gpt: GPT, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Return AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the rest.

    Each parameter group holds the learning rate at the peak of the schedule as `peak_lr`.
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
        # Updates are independent of the gradient's norm, so decay is relative to Muon's own rate.
        rate = _MUON_RATE * config.learning_rate
        optimizers.append(Muon(matrices, lr=rate, weight_decay=config.weight_decay))
    optimizers.append(
        torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
        )
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, total_steps: int, config: TrainConfig) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine or linear.

    It is a pure function of the step, so a resumed run needs no scheduler state.
    """
    warmup = max(1, round(config.warmup * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_learning_rate + (1 - config.final_learning_rate) * left
