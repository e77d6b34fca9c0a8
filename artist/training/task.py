"""The contract between the Trainer and its tasks.

A task defines the model, its losses and optimizers, its batches, and its validation. The Trainer
does the rest: precision, accumulation, averaged weights, several processes, checkpoints and
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

from artist.training.process_group import ProcessGroup


class TaskBatch(Protocol):
    """A micro-batch: rows that can be moved to a device."""

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
            the trained ones (several processes exchange their gradients).
        parameters: Parameters that the phase trains.
        optimizers: Optimizers of these parameters.
        grad_clip: Largest gradient norm; None means no clipping.
    """

    loss: nn.Module
    parameters: Sequence[nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]
    grad_clip: float | None = None


class Task(ABC):
    """A model with everything that its training needs.

    Attributes:
        model: The model whose weights are averaged, validated and kept.
        modules: All modules whose weights a checkpoint contains, by name; includes `model`.
        optimizers: All optimizers, in a fixed order.
        processes: The processes that train together.
        batch_size: Rows per step, total of all processes.
        steps_per_epoch: None if rows are sampled with replacement.
        loss_limit: A loss that stays above it is divergence.
        learning_rate: Peak learning rate, for messages.
        memory_advice: A sentence with the options to lower when memory runs out.
    """

    model: nn.Module
    modules: nn.ModuleDict
    optimizers: Sequence[torch.optim.Optimizer]
    processes: ProcessGroup
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
        """Return measurements of the model; empty if it is too early.

        The weights with the lowest `valid_loss`, if present, are the best. All processes call this
        and get the same values.
        """

    def begin_step(self, step: int) -> None:  # noqa: B027 (optional)
        """Prepare a step, before its losses are computed."""

    def end_step(self, step: int) -> None:  # noqa: B027 (optional)
        """Complete a step, after its optimizers."""

    def reported_loss(self, loss: Tensor) -> Tensor:
        """Return the loss to report, given the one of the first phase."""
        return loss

    def preview(self, step: int, dtype: torch.dtype) -> NDArray[np.uint8] | None:
        """Write a preview image of the current model; return its pixels (H, W, 3)."""
        return None

    def state(self) -> dict[str, Any]:
        """Return further state that a checkpoint contains, without weights and optimizers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027 (optional)
        """Restore the result of `state()`."""

    def loading(self) -> AbstractContextManager[Any]:
        """Return a context in which batches are loaded ahead."""
        return nullcontext()
