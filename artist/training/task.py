"""What is trained: the contract between the Trainer and its tasks.

A task is the model, its losses and optimizers, its batches, and how progress is measured. The
Trainer does the rest: precision, accumulation, averaged weights, several processes, checkpoints and
exact resume, metrics, previews, signals.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class TaskBatch(Protocol):
    """A micro-batch: a number of rows that move to a device."""

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on another device."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A backward pass and the step of its optimizers. A GAN has two per step, a GPT has one.

    Attributes:
        loss: Module from a batch to a scalar, the mean over the batch's rows. Its submodules are
            those that the phase trains (several processes exchange their gradients).
        parameters: What the phase trains.
        optimizers: Of these parameters.
        grad_clip: Largest norm of their gradient; None means no clipping.
    """

    loss: nn.Module
    parameters: Sequence[nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]
    grad_clip: float | None = None


class Task(ABC):
    """What is trained.

    Attributes:
        model: The model whose weights are averaged, validated and kept.
        modules: Everything with weights that a checkpoint must hold, by name; holds `model`.
        optimizers: All optimizers, in a fixed order.
        batch_size: Rows per step, over all processes.
        steps_per_epoch: None where rows are drawn with replacement.
        loss_limit: A loss that stays above it is divergence.
        learning_rate: The peak, for messages.
        memory_advice: The options to lower when memory runs out, in one sentence.
    """

    model: nn.Module
    modules: nn.ModuleDict
    optimizers: Sequence[torch.optim.Optimizer]
    batch_size: int
    steps_per_epoch: int | None = None
    loss_limit: float = float("inf")
    learning_rate: float
    memory_advice: str = "Lower --batch-size."

    @abstractmethod
    def phases(self, step: int) -> Sequence[Phase]:
        """Return the phases of a step, in order; the loss of the first one is reported."""

    @abstractmethod
    def batches(self, step: int) -> Sequence[TaskBatch]:
        """Return this process's micro-batches of a step, on the CPU."""

    @abstractmethod
    def set_learning_rates(self, step: int) -> float:
        """Set the learning rates of all optimizers for a step; return the one to report."""

    @abstractmethod
    def validate(self, step: int, dtype: torch.dtype) -> dict[str, float]:
        """Measure the model; nothing if it is too early.

        `valid_loss`, where there is one, decides which weights are the best. All processes call
        this, and all get the same values.
        """

    def begin_step(self, step: int) -> None:  # noqa: B027 (optional)
        """Prepare a step, before its losses are computed."""

    def end_step(self, step: int) -> None:  # noqa: B027 (optional)
        """Complete a step, after its optimizers."""

    def reported_loss(self, loss: Tensor) -> Tensor:
        """Return the loss to report, given the one of the first phase."""
        return loss

    def preview(self, step: int, dtype: torch.dtype) -> NDArray[np.uint8] | None:
        """Write an image that shows what the model does now; return its pixels (H, W, 3)."""
        return None

    def state(self) -> dict[str, Any]:
        """Return state besides weights and optimizers that a checkpoint must hold."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027 (optional)
        """Continue from `state()`."""

    def loading(self) -> AbstractContextManager[Any]:
        """Return a context in which batches are loaded ahead."""
        return nullcontext()
