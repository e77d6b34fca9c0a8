"""The training run: schedule, validation, early stopping, checkpoints, exact resume.

A run is determined by its seed, its settings and the step number: each batch has a random generator
of its own, so a run resumed from a checkpoint, also within an epoch, continues exactly as without
the interruption.

Names and files of triples are handled elsewhere.
"""

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.device import choose_device
from data.errors import ConfigError, Interrupted
from data.signals import StopFlag, stop_signals
from kg.arrays import Ids
from kg.config import CHECKPOINTS, KGConfig
from kg.training import resources
from kg.training.batches import Batches
from kg.training.row_adagrad import RowAdagrad
from kg.training.train_state import Trained, TrainState
from kg.training.transe import make_loop, make_model, tables
from kg.training.warm_start import KnownVectors

# Validation score of entity and relation vectors; larger is better.
Measure = Callable[[Tensor, Tensor], float]


def train_transe(
    triples: Ids,
    num_entities: int,
    num_relations: int,
    config: KGConfig,
    *,
    device: str = "auto",
    work: Path | None = None,
    measure: Measure | None = None,
    known: KnownVectors | None = None,
    finish_now: bool = False,
    checkpoint_seconds: float = 60.0,
) -> Trained:
    """Train TransE on numbered triples.

    Args:
        triples: `[n, 3]`: head, relation, tail.
        num_entities: Entities are 0..num_entities - 1.
        num_relations: Relations likewise.
        config: The settings.
        device: `auto`, `cpu` or `cuda`.
        work: A folder for checkpoints; an existing one is resumed. None: no checkpoints.
        measure: The validation score for early stopping; called about ten times.
        known: Vectors to start from. If they are frozen, only triples with a new name are trained,
            and without early stopping: the score would be that of the old vectors.
        finish_now: Return the vectors of the checkpoint without further training.
        checkpoint_seconds: Minimum time between checkpoints; also at least 20 times the duration
            of writing one.

    Raises:
        ConfigError: The loss became infinite, the device does not exist, or the run does not fit.
        Interrupted: SIGINT or SIGTERM was received; the checkpoint is saved.
        ArtefactError: A checkpoint is damaged, or the disk is full.
    """
    if known is not None and known.freeze:
        triples, measure = known.unknown_in(triples, num_entities, num_relations), None
    batch_size = config.batch_size or resources.default_batch_size(len(triples))
    epochs = config.epochs or resources.default_epochs(len(triples))
    need = resources.Requirements.of(len(triples), num_entities, num_relations, config, batch_size)
    placement = resources.Placement.choose(choose_device(device), need)
    if work is not None:
        resources.check_disk(work, need)
    model = make_model(num_entities, num_relations, config, placement.tables)
    entity, relation = tables(model)
    weights = {"entity": entity, "relation": relation}
    optimizer = RowAdagrad([entity, relation], lr=config.learning_rate)
    state = TrainState(weights, optimizer, config.scale or 1.0, work)
    if known is not None:
        state.start_from(known)
    state.resume()
    if finish_now and not state.losses and not state.step:
        raise ConfigError("--finish-now: nothing has been trained yet.")
    if not len(triples):  # all names are known
        return state.result()
    batches = Batches(
        torch.from_numpy(np.ascontiguousarray(triples)).to(placement.triples),
        num_entities,
        config,
        batch_size,
    )
    if not finish_now and state.epoch < epochs and not state.stopped(config.patience):
        resources.log_requirements(
            num_entities, need, config, batches, epochs - state.epoch, placement
        )
        loop = make_loop(model, optimizer, batches, placement.compute)
        with stop_signals() as flag:
            _Training(loop, state, config, epochs, measure, checkpoint_seconds, flag).run()
    return state.result()


class _Training:
    """Callbacks of the loop: schedule, progress, validation, early stopping, checkpoints."""

    def __init__(
        self,
        loop: Any,
        state: TrainState,
        config: KGConfig,
        epochs: int,
        measure: Measure | None,
        checkpoint_seconds: float,
        flag: StopFlag,
    ) -> None:
        self.loop, self.state, self.config, self.epochs = loop, state, config, epochs
        self.measure, self.checkpoint_seconds, self.flag = measure, checkpoint_seconds, flag
        self.steps = len(loop.batches)  # per epoch
        self.begun = self.saved = time.monotonic()
        self.spent = state.seconds

    def run(self) -> None:
        """Train until the last epoch, or until patience runs out."""
        loop, state, batches = self.loop, self.state, self.loop.batches
        batches.epoch, batches.skip = state.epoch + 1, state.step
        loop._epoch = state.epoch
        done = state.epoch * batches.used + state.step * batches.batch_size
        self.bar = tqdm(
            total=self.epochs * batches.used,
            initial=done,
            desc="kg train",
            unit=" triples",
            unit_scale=True,
            disable=None,
        )
        gc.freeze()  # pykeen collects garbage after each epoch: a tenth of a second with torch
        try:
            with self.bar:
                loop.train(
                    triples_factory=None,
                    num_epochs=self.epochs,
                    batch_size=batches.batch_size,
                    continue_training=True,  # the model and the optimizer are initialised
                    use_tqdm=False,
                    callbacks=loop.callback(self.before_step, self.after_step, self.after_epoch),
                    checkpoint_directory=tempfile.gettempdir(),
                )
        except (RuntimeError, FloatingPointError) as error:
            if type(error).__name__ not in ("NonFiniteLossError", "FloatingPointError"):
                raise
            raise ConfigError(self._diverged()) from None
        finally:
            gc.unfreeze()

    def before_step(self) -> None:
        """Stop on a signal, save if due, set the learning rate."""
        if self.flag:
            self._save()
            where = f"saved in {self.state.work}" if self.state.work else "not saved"
            raise Interrupted(
                f"stopped in epoch {self.state.epoch + 1} of {self.epochs}; the state is {where}. "
                "Run the same command to resume; with --finish-now it evaluates and writes the "
                "best vectors so far."
            )
        if time.monotonic() - self.saved >= self.checkpoint_seconds:
            self._save()
        step = self.state.epoch * self.steps + self.state.step
        rate = self.config.learning_rate * (1 - step / (self.epochs * self.steps))
        self.loop.optimizer.param_groups[0]["lr"] = rate

    def after_step(self, epoch: int, triples: int, loss: float) -> None:
        """Count; called after the loss is computed, before the vectors are updated."""
        self.state.step += 1
        self.state.loss += loss
        self.bar.update(triples)
        if self.state.step % 16 == 0:
            mean = self.state.loss / self.state.step
            self.bar.set_postfix(epoch=f"{epoch}/{self.epochs}", loss=f"{mean:.4f}", refresh=False)

    def after_epoch(self, epoch: int) -> None:
        """Validate, stop early, save."""
        state = self.state
        state.losses.append(state.loss / self.steps)
        state.epoch, state.step, state.loss = epoch, 0, 0.0
        self.loop.batches.epoch, self.loop.batches.skip = epoch + 1, 0
        every = max(1, self.epochs // 10)
        if self.measure is not None and (epoch % every == 0 or epoch == self.epochs):
            score = self.measure(*(weight.detach() for weight in state.weights.values()))
            state.record(score, last=epoch == self.epochs)
            if state.stopped(self.config.patience):
                self.loop._should_stop = True
        over = epoch == self.epochs or self.loop._should_stop
        if over or time.monotonic() - self.saved >= self.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        if self.state.work is None:
            return
        begun = time.monotonic()
        self.state.seconds = self.spent + begun - self.begun
        self.state.save()
        self.saved = time.monotonic()
        if self.checkpoint_seconds:
            self.checkpoint_seconds = max(self.checkpoint_seconds, 20 * (self.saved - begun))

    def _diverged(self) -> str:
        kept = ""
        if self.state.work is not None and (self.state.work / CHECKPOINTS[0]).exists():
            kept = f"; {self.state.work} has the last good checkpoint, which --finish-now would use"
        return (
            f"the loss became infinite in epoch {self.state.epoch + 1}; try a lower "
            f"--learning-rate than {self.config.learning_rate:g}, with --overwrite{kept}."
        )
