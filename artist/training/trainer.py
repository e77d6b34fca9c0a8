"""The Trainer: the loop of every training.

Every random choice of a step depends only on the seed and the number of the step. So a checkpoint
needs no generator states, and a run that was killed and resumed equals an uninterrupted one, bit
for bit on one machine. Under torchrun each process computes its part of the step's rows, and only
the leader writes.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from artist.device import choose_dtype
from artist.formats.state_dict import load_strict
from artist.models.compiled import Compiled
from artist.training.checkpoints import Checkpoints
from artist.training.divergence_guard import DivergenceGuard
from artist.training.ema import EMA
from artist.training.memory import advice_on_memory
from artist.training.metrics import MetricsLogger
from artist.training.process_group import peer_failure_guard
from artist.training.task import Phase, Task, TaskBatch
from data.errors import Interrupted, ToolkitError
from data.seeds import stream
from data.signals import StopFlag, stop_signals

log = logging.getLogger(__name__)

_CHECKPOINT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Settings of the loop, the same for all tasks.

    Attributes:
        total_steps: Steps of the run.
        validations: Validations per run, evenly spaced.
        precision: `auto`, `bf16`, `fp16` (on a GPU, with loss scaling) or `fp32`.
        seed: Seed of all random choices.
        ema_decay: Decay of the averaged weights, which are validated and kept; 0 means off.
        keep: `best` (by `valid_loss`) or `last` weights.
        patience: Stop after this many validations without improvement; None means off.
        compile: Compile the losses by `torch.compile`.
        checkpoint_seconds: Time between two checkpoints.
        keep_checkpoints: Checkpoints that are kept while the run is unfinished.
        preview_every: Steps between two previews; None means off.
        tensorboard: Write event files as well.
    """

    total_steps: int
    validations: int = 10
    precision: str = "auto"
    seed: int = 0
    ema_decay: float = 0.0
    keep: str = "last"
    patience: int | None = None
    compile: bool = False
    checkpoint_seconds: float = 300.0
    keep_checkpoints: int = 1
    preview_every: int | None = None
    tensorboard: bool = False

    @classmethod
    def of(cls, config: object, total_steps: int) -> "TrainerConfig":
        """Return the settings of this class that another configuration contains."""
        names = {field.name for field in fields(cls)} - {"total_steps"}
        shared = {name: getattr(config, name) for name in names if hasattr(config, name)}
        return cls(total_steps=total_steps, **shared)


class Trainer:
    """The state of a training and its loop.

    Args:
        task: The task; its modules are on the device of its processes.
        config: Settings of the loop.
        folder: Folder of checkpoints and metrics.

    Attributes:
        step: Number of completed steps.
        best: Lowest `valid_loss` so far and its step.
    """

    def __init__(self, task: Task, config: TrainerConfig, folder: Path) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.processes, self.device = task.processes, task.processes.device
        self.dtype = choose_dtype(config.precision, self.device)
        self.total_steps = config.total_steps
        self.validate_every = max(1, math.ceil(self.total_steps / config.validations))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.ema = EMA(task.model, config.ema_decay) if config.ema_decay else None
        self.guard = DivergenceGuard(task.loss_limit, task.learning_rate)
        self.checkpoints = Checkpoints(folder, config.keep_checkpoints)
        self.metrics = MetricsLogger(
            folder,
            total_steps=self.total_steps,
            images_per_step=task.batch_size,
            tensorboard=config.tensorboard,
            quiet=not self.processes.is_leader,
        )
        self.stop = StopFlag()
        self.step = 0
        self.best = {"loss": math.inf, "step": 0}
        self.seconds = 0.0
        self.train_loss = self.valid_loss = math.nan
        self._losses: dict[nn.Module, nn.Module] = {}  # of phases, compiled and wrapped for DDP

    def run(self) -> None:
        """Train to the end, from the last checkpoint if any; load the kept weights."""
        self._resume()
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        where = f"The same command continues from the last checkpoint in {self.folder}."
        with (
            stop_signals(once=self.processes.size > 1) as self.stop,
            self.task.loading(),
            self.metrics,
            advice_on_memory(self.task.memory_advice, where),
            peer_failure_guard(),
        ):
            self.metrics.start(self.step)
            while self.step < self.total_steps and not self._out_of_patience():
                stopped = self._train_step()
                self.step += 1
                due = time.monotonic() - saved > self.config.checkpoint_seconds
                if self.step % self.validate_every == 0 or self.step == self.total_steps:
                    self._validate(time.monotonic() - began)
                    due = True
                if self.config.preview_every and self.step % self.config.preview_every == 0:
                    self._preview()
                if (due and self.guard.calm) or stopped:
                    self.seconds = time.monotonic() - began
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    self._end_early()
        self._load_kept_weights()
        self.seconds = time.monotonic() - began

    def take_steps(self, count: int) -> list[float]:
        """Take steps without validations and checkpoints; return their durations in seconds."""
        seconds = []
        with self.task.loading():
            for _ in range(count):
                began = time.monotonic()
                self._train_step()
                self.step += 1
                seconds.append(time.monotonic() - began)
        return seconds

    @property
    def kept_step(self) -> int:
        """The step whose weights are kept."""
        return int(self.best["step"]) if self.config.keep == "best" else self.step

    def _train_step(self) -> bool:
        """Do one step; return whether any process received a signal to stop."""
        began, task, step = time.monotonic(), self.task, self.step
        batches, phases = task.batches(step), task.phases(step)
        self._wrap_losses(phases, batches)
        # Only dropout depends on the process.
        names = (step,) if self.processes.is_leader else (step, self.processes.rank)
        torch.manual_seed(stream(self.config.seed, "step", *names))
        task.modules.train()
        task.begin_step(step)
        learning_rate = task.set_learning_rates(step)
        shared = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, request to stop
        norm = 0.0
        for n, phase in enumerate(phases):
            loss = self._backward(phase, batches)
            if n == 0:
                shared[0] = task.reported_loss(loss) / self.processes.size
                shared[1] = bool(self.stop)
                loss_now, stopping = self.processes.all_reduce(shared).tolist()
            for optimizer in phase.optimizers:
                self.scaler.unscale_(optimizer)
            if phase.grad_clip is not None:
                found = float(nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip))
                norm = found if n == 0 else norm
                self.guard.check(step, loss_now, found, self.scaler.get_scale())
                if not math.isfinite(found):  # float16 overflowed: lower the scale, skip the step
                    continue
            for optimizer in phase.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        task.modules.zero_grad(set_to_none=True)
        task.end_step(step)
        if self.ema is not None:
            self.ema.update(step)
        self.metrics.step(step + 1, loss_now, norm, learning_rate, time.monotonic() - began)
        return bool(stopping)

    def _backward(self, phase: Phase, batches: Sequence[TaskBatch]) -> Tensor:
        """Compute the gradients of a phase; return its loss, float64, a mean over the rows."""
        for parameter in phase.parameters:  # other phases may have left gradients
            parameter.grad = None
        module = self._losses[phase.loss]
        rows = sum(batch.num_rows for batch in batches)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for n, batch in enumerate(batches, 1):
            with _without_exchange(module) if n < len(batches) else nullcontext():
                with self._autocast():
                    loss = module(batch.to(self.device)) * (batch.num_rows / rows)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _wrap_losses(self, phases: Sequence[Phase], batches: Sequence[TaskBatch]) -> None:
        """Compile new losses if requested, and wrap them in DDP for several processes.

        DDP fixes the order of gradient buckets after its first backward pass; the last bit of a sum
        over three or more processes depends on that order. So a first pass is done here and
        discarded: otherwise the first step of a resumed run would differ from that step of another.
        """
        new = [phase.loss for phase in phases if phase.loss not in self._losses]
        for loss in new:
            module = loss
            if self.config.compile:
                module = Compiled(module)
            if self.processes.size > 1:
                on = [self.device] if self.device.type == "cuda" else None
                module = DistributedDataParallel(
                    module, device_ids=on, gradient_as_bucket_view=True
                )
            self._losses[loss] = module
        if new and self.processes.size > 1:
            for phase in phases:
                self._backward(phase, batches[:1])
            self.task.modules.zero_grad(set_to_none=True)

    def _validate(self, seconds: float) -> None:
        """Measure the averaged weights; keep them if they are the best so far."""
        with self._averaged():
            measured = self.task.validate(self.step, self.dtype)
        if not measured:
            return
        self.train_loss = float(np.mean(self.metrics.losses))
        self.metrics.losses.clear()
        loss = measured.get("valid_loss", math.nan)
        self.valid_loss = loss
        if loss < self.best["loss"]:
            self.best = {"loss": loss, "step": self.step}
            if self.processes.is_leader:
                self.checkpoints.save_best(self.step, self._weights())
        per_epoch = self.task.steps_per_epoch
        self.metrics.validation(
            self.step,
            measured,
            **({"epoch": round(self.step / per_epoch, 3)} if per_epoch else {}),
            train_loss=self.train_loss,
            learning_rate=self.metrics.learning_rate,
            seconds=round(seconds, 1),
        )

    def _preview(self) -> None:
        """Write a preview of the averaged weights, in the leader."""
        if self.processes.is_leader:
            with self._averaged():
                pixels = self.task.preview(self.step, self.dtype)
            if pixels is not None:
                self.metrics.image(self.step, pixels)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.ema.applied() if self.ema is not None else nullcontext()

    def _weights(self) -> dict[str, Tensor]:
        """Return the weights that are validated and kept."""
        return self.ema.weights if self.ema is not None else self.task.model.state_dict()

    def _out_of_patience(self) -> bool:
        patience, since = self.config.patience, self.step - self.best["step"]
        return (
            patience is not None
            and self.best["step"] > 0
            and since >= patience * self.validate_every
        )

    def _end_early(self) -> None:
        """End the run after a signal, with the checkpoint saved.

        Raises:
            Interrupted: In the leader.
            SystemExit: In the other processes.
        """
        self.processes.barrier()  # otherwise torchrun would end the process that saves
        if not self.processes.is_leader:
            raise SystemExit(130)
        raise Interrupted(
            f"stopped at step {self.step} of {self.total_steps}; the checkpoint is in "
            f"{self.folder}. Repeat the command to continue."
        )

    def _load_kept_weights(self) -> None:
        """Load the kept weights into the model; the best ones in the leader only."""
        weights = self._weights()
        if self.config.keep == "best" and self.processes.is_leader:
            weights = self.checkpoints.load_best(self.kept_step, self.device)
        load_strict(self.task.model, weights, "the best checkpoint")

    def _save(self) -> None:
        """Write a complete checkpoint."""
        if not self.processes.is_leader:
            return
        self.checkpoints.save(
            self.step,
            {
                "version": _CHECKPOINT_VERSION,
                "modules": self.task.modules.state_dict(),
                "ema": self.ema.weights if self.ema is not None else {},
                "optimizers": [o.state_dict() for o in self.task.optimizers],
                "scaler": self.scaler.state_dict(),
                "task": self.task.state(),
                "metrics": self.metrics.state(),
                "step": self.step,
                "best": self.best,
                "train_loss": self.train_loss,
                "valid_loss": self.valid_loss,
                "seconds": self.seconds,
            },
        )

    def _resume(self) -> None:
        """Load the last checkpoint, if any.

        Raises:
            ToolkitError: Another version of the toolkit wrote it.
        """
        state = self.checkpoints.load(self.device) if self.processes.is_leader else None
        step = self.processes.broadcast(state["step"] if state else None)
        if step is None:
            return
        state = state or self.checkpoints.read(step, self.device)  # the leader has read it
        if state.get("version") != _CHECKPOINT_VERSION:
            raise ToolkitError(
                f"the checkpoint in {self.folder} was written by another version of this toolkit. "
                "Start the training again with --overwrite."
            )
        load_strict(self.task.modules, state["modules"], str(self.folder))
        if self.ema is not None:
            self.ema.weights = state["ema"]
        for optimizer, saved in zip(self.task.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.task.load_state(state["task"])
        self.metrics.load_state(state["metrics"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.train_loss, self.valid_loss = state["train_loss"], state["valid_loss"]
        log.info("Resuming at step %d of %d.", self.step, self.total_steps)


def _without_exchange(module: nn.Module) -> AbstractContextManager[None]:
    """Keep gradients local while the block runs; the last micro-batch of a step sends their sum."""
    if isinstance(module, DistributedDataParallel):
        context: AbstractContextManager[None] = module.no_sync()
        return context
    return nullcontext()
