"""The state of a training run: weights, optimizer, progress; saving and resuming it."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kg.config import CHECKPOINTS
from kg.safetensors_io import load_into, save_tensors
from kg.training.kernels import FROZEN
from kg.training.row_adagrad import RowAdagrad
from kg.training.warm_start import KnownVectors

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """Trained vectors and the course of training.

    Attributes:
        entity: `[num_entities, dim]`, float32, on the CPU; unit length unless `scale` is 0.
        relation: `[num_relations, dim]`.
        losses: Mean loss of each epoch.
        scores: Epoch -> validation score, for early stopping.
        best_epoch: The epoch of these vectors.
        seconds: Duration of training, summed over resumed runs.
    """

    entity: Tensor
    relation: Tensor
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0


class TrainState:
    """The state of a run between two steps, and its checkpoint.

    `checkpoint.safetensors` has the weights and accumulators of the last saved step;
    `best.safetensors` the weights with the best score, unless these are the last ones.
    """

    def __init__(
        self,
        weights: dict[str, torch.nn.Parameter],
        optimizer: RowAdagrad,
        scale: float,
        work: Path | None,
    ) -> None:
        self.weights, self.optimizer, self.scale, self.work = weights, optimizer, scale, work
        self.epoch = 0  # completed epochs
        self.step = 0  # completed steps of the current epoch
        self.loss = 0.0  # sum over these steps
        self.losses: list[float] = []
        self.scores: dict[int, float] = {}
        self.seconds = 0.0
        self.known: KnownVectors | None = None
        self._best: dict[str, Tensor] | None = None  # without a work folder: in memory

    @property
    def best_epoch(self) -> int:
        """The epoch with the best score; without scores, the last."""
        return max(self.scores, key=lambda e: self.scores[e]) if self.scores else self.epoch

    @property
    def since_best(self) -> int:
        """The number of scores after the best one."""
        return sum(epoch > self.best_epoch for epoch in self.scores)

    def stopped(self, patience: int) -> bool:
        """Return whether patience ran out."""
        return bool(patience) and self.since_best >= patience

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: weights and accumulators."""
        powers = {
            f"{name}.power": self.optimizer.state[weight]["power"]
            for name, weight in self.weights.items()
        }
        return {name: weight.detach() for name, weight in self.weights.items()} | powers

    @torch.no_grad()
    def start_from(self, known: KnownVectors) -> None:
        """Copy known vectors into the tables, and freeze them if configured."""
        self.known = known
        for name, weight in self.weights.items():
            known.fill(name, weight, self.scale)
            if known.freeze:
                power = self.optimizer.state[weight]["power"]
                power[torch.from_numpy(known.new_ids[name]).to(power.device)] = FROZEN

    def record(self, score: float, *, last: bool) -> None:
        """Add a score; save the weights if it is the best so far and not the last."""
        self.scores[self.epoch] = score
        if self.best_epoch != self.epoch or last:
            return
        if self.work is None:
            self._best = {name: weight.detach().clone() for name, weight in self.weights.items()}
        else:
            save_tensors(self.work / CHECKPOINTS[1], self.weights, {"epoch": self.epoch})

    def save(self) -> None:
        """Write the checkpoint."""
        assert self.work is not None
        names = ("epoch", "step", "loss", "losses", "scores", "seconds")
        about = {name: getattr(self, name) for name in names}
        save_tensors(self.work / CHECKPOINTS[0], self.tensors, about)

    def resume(self) -> None:
        """Load the checkpoint, if it exists."""
        path = self.work / CHECKPOINTS[0] if self.work is not None else None
        if path is None or not path.exists():
            return
        about = load_into(path, self.tensors)
        for name in ("epoch", "step", "loss", "losses", "seconds"):
            setattr(self, name, about[name])
        self.scores = {int(epoch): score for epoch, score in about["scores"].items()}
        logger.info("resumed after epoch %d, step %d", self.epoch, self.step)

    @torch.no_grad()
    def result(self) -> Trained:
        """Return the best vectors, divided by `scale`, in the memory of the tables."""
        vectors = {name: weight.detach() for name, weight in self.weights.items()}
        if self.scores and (self.best_epoch != self.epoch or self.step):
            if self.work is None:
                assert self._best is not None
                vectors = self._best
            else:
                about = load_into(self.work / CHECKPOINTS[1], vectors)
                assert about["epoch"] == self.best_epoch
        for name, weight in vectors.items():
            weight.div_(self.scale)
            if self.known is not None and self.known.freeze:  # exactly
                self.known.fill(name, weight, 1.0)
        return Trained(
            entity=vectors["entity"].cpu(),
            relation=vectors["relation"].cpu(),
            losses=self.losses,
            scores=self.scores,
            best_epoch=self.best_epoch,
            seconds=self.seconds,
        )
