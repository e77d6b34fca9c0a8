"""Training the GPT on codes: the loop, readable from top to bottom.

Every random choice of a step (order of rows, dropped captions, dropout) comes from a seed derived
from the run's seed and the step's number. So a checkpoint needs no generator states, and a run that
was killed and resumed equals one that was not, bit for bit on one machine. Under torchrun each
process takes its slice of the step's rows, and only the first writes.
"""

import logging
import math
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from artist.device import choose_dtype
from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.formats.model_folder import save_model, save_seen
from artist.formats.state_dict import load_strict
from artist.models.compiled import Compiled
from artist.models.fusion import Entities
from artist.models.gpt import GPT
from artist.tables.encode import with_codes
from artist.tables.lattice_rows import Batch, Batches
from artist.training.checkpoints import FOLDER, Snapshots
from artist.training.config import TrainConfig
from artist.training.loader import Feed
from artist.training.memory import advice_on_memory
from artist.training.metrics import METRICS, Journal, plot_losses
from artist.training.optimizers import Average, Watch, make_optimizers, rate_at
from artist.training.preview import Preview
from artist.training.process_group import Team, check_inputs, check_shared, join, noticing_loss
from artist.training.training_inputs import load_materials
from artist.training.validation import row_losses
from data.errors import Interrupted
from data.kg_folder import kg_fingerprint
from data.runs import Run, fingerprint
from data.seeds import stream
from data.signals import StopFlag, stop_signals

__all__ = ["METRICS", "FinetuneReport", "Trainer", "finetune"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """What a training reached."""

    out: Path
    parameters: int
    steps: int
    rows: int
    valid_rows: int
    train_loss: float
    valid_loss: float
    best_loss: float
    best_step: int
    kept_step: int
    seconds: float
    unchanged: bool = False

    def __str__(self) -> str:
        done = "is finished and unchanged" if self.unchanged else f"took {self.seconds:.0f} s"
        return (
            f"{self.out} {done}: {self.parameters / 1e6:.1f} M parameters, {self.steps} steps on "
            f"{self.rows} rows.\n"
            f"Validation loss {self.valid_loss:.4f} nats per code on {self.valid_rows} rows "
            f"(weights of step {self.kept_step}; best {self.best_loss:.4f} at step "
            f"{self.best_step}; training loss at the end {self.train_loss:.4f})."
        )


def finetune(
    table: Path,
    *,
    valid: Path,
    kg: Path,
    vqgan: Path,
    out: Path,
    config: TrainConfig,
    init: Path | None = None,
    preview_prompts: pa.Table | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> FinetuneReport:
    """Train a model on a lattice table and write it as a folder.

    Tables with images instead of codes are encoded first, each image once: see `with_codes`.
    Under torchrun all processes call this; each returns the report.

    Args:
        table: Lattice table with images or codes.
        valid: The same, for validation.
        kg: The KG folder whose entities the tables name.
        vqgan: VQGAN folder or checkpoint.
        out: The model folder.
        config: How to train.
        init: A model folder whose weights to begin with; a model without knowledge may become one
            with it, whose outputs are then the same at first.
        preview_prompts: Matched prompts to draw every `config.preview_every` steps; rows of `valid`
            if left out.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: An input does not fit the others, or an output is in the way.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
    """
    with join(device) as team, ExitStack() as stack:
        given = (table, valid)
        table, valid = team.in_turn(lambda: tuple(with_codes(p, vqgan, device) for p in given))
        image_tokenizer = load_image_tokenizer(vqgan)
        inputs = {}
        if team.local_rank == 0:
            inputs = {
                "table": fingerprint(table),
                "valid": fingerprint(valid),
                "kg": kg_fingerprint(kg),
                "vqgan": image_tokenizer.fingerprint(),
                **({"init": fingerprint(init)} if init else {}),
            }
        check_inputs(team, inputs)

        def open_run() -> Run:
            settings = {"train": config.learning, "device": team.device.type}
            return stack.enter_context(
                Run.open(out, kind="model", settings=settings, inputs=inputs, overwrite=overwrite)
            )

        run = team.lead(open_run)
        finished, work = team.share(
            (run.finished and run.finished.counts, run.work) if run else (None, out)
        )
        if finished:
            return FinetuneReport(out=out, **finished, unchanged=True)
        check_shared(team, work / FOLDER)
        tables = (table, valid)
        materials = team.in_turn(  # large tables are written out for mapping, once
            lambda: load_materials(
                *tables, kg=kg, image_tokenizer=image_tokenizer, config=config, init=init
            )
        )
        trainer = Trainer(
            materials.gpt.to(team.device),
            materials.train,
            materials.valid,
            config,
            folder=work,
            pad_id=materials.tokenizer.pad_id,
            team=team,
        )
        if config.preview_every and team.leads:
            trainer.preview = materials.preview(preview_prompts, work, config, team.device)
        counts = trainer.run()
        if run is not None:
            save_model(work, materials.model())
            if config.fusion != "none":
                save_seen(work, materials.train.rows.named_entities())
            plot_losses(work)
            trainer.snapshots.clear()
            run.finish(counts)
        team.wait()
    return FinetuneReport(out=out, **counts)


class StepLoss(nn.Module):
    """The mean loss of a batch, as a module, so that DDP and the compiler can wrap it."""

    def __init__(self, gpt: GPT, label_smoothing: float) -> None:
        super().__init__()
        self.gpt, self.label_smoothing = gpt, label_smoothing

    def forward(self, batch: Batch) -> Tensor:
        """A scalar in nats per code."""
        entities = _with_a_slot(batch.entities) if self.gpt.config.fusion == "lattice" else None
        losses = self.gpt.code_losses(
            self.gpt.text_ids(batch.bert_ids),
            batch.codes,
            entities or batch.entities,
            self.label_smoothing,
        )
        return losses.mean()


def _with_a_slot(entities: Entities) -> Entities:
    """The same with at least one slot, if only for padding.

    Else the fusion's weights would have no gradient in a batch without entities; DDP waits for one.
    """
    B, K, D = entities.vectors.shape
    if K:
        return entities
    vectors = entities.vectors.new_zeros(B, 1, D)
    return Entities(
        vectors, entities.covers.new_zeros(B, 1, entities.covers.shape[2]), entities.filler
    )


class Trainer:
    """The state of a training and its loop.

    Args:
        gpt: On its device; holds the chosen weights when `run` returns.
        train: What to learn from.
        valid: What to choose the best weights by.
        config: How.
        folder: Where checkpoints and metrics go.
        pad_id: The BERT id of [PAD], which fills the empty caption.
        team: The processes that train together.

    Attributes:
        preview: Draws pictures along the way, if set.
    """

    def __init__(
        self,
        gpt: GPT,
        train: Batches,
        valid: Batches,
        config: TrainConfig,
        *,
        folder: Path,
        pad_id: int,
        team: Team | None = None,
    ) -> None:
        self.gpt, self.valid, self.config = gpt, valid, config
        self.rows = len(train.rows)
        self.device = next(gpt.parameters()).device
        self.team = team or Team(self.device)
        self.folder = folder
        self.dtype = choose_dtype(config.precision, self.device)
        self.reduced = self.dtype != torch.float32
        self.feed = Feed(train, config, self.team, pad_id)
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.total_steps = config.epochs * self.steps_per_epoch
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.validate_every = max(1, math.ceil(self.total_steps / config.validations))
        gpt.checkpoint_activations = config.checkpoint_activations
        self.optimizers = make_optimizers(gpt, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.average = Average(gpt, config.ema_decay)
        self.watch = Watch(config, gpt.config.image_vocab_size)
        self.snapshots = Snapshots(folder, config.keep_checkpoints)
        self.journal = Journal(
            folder,
            total_steps=self.total_steps,
            images_per_step=self.feed.size,
            tensorboard=config.tensorboard,
            quiet=not self.team.leads,
        )
        self.preview: Preview | None = None
        self.stop = StopFlag()
        self.step = 0
        self.best = {"loss": math.inf, "step": 0}
        self.seconds = 0.0
        self.last_loss = self.valid_loss = math.nan

    def run(self) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; what it reached."""
        self._resume()
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        step_loss = self._wrapped()
        with (
            stop_signals(once=self.team.size > 1) as self.stop,
            self.feed,
            self.journal,
            advice_on_memory(
                self.config,
                self.team.size,
                f"Repeated so, the command goes on from the last checkpoint in {self.folder}.",
            ),
            noticing_loss(),
        ):
            self._arrange(step_loss)
            self.journal.start(self.step)
            while self.step < self.total_steps and not self._out_of_patience():
                stopped = self._train_step(step_loss)
                self.step += 1
                if self.step % self.validate_every == 0 or self.step == self.total_steps:
                    self._validate(time.monotonic() - began)
                    due = True
                else:
                    due = time.monotonic() - saved > self.config.checkpoint_seconds
                if self.preview is not None and self.step % (self.config.preview_every or 1) == 0:
                    self._draw()
                if (due and self.watch.calm) or stopped:
                    self.seconds = time.monotonic() - began
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    self.team.wait()  # else torchrun would end the one that saves
                    if not self.team.leads:
                        raise SystemExit(130)
                    raise Interrupted(
                        f"stopped at step {self.step} of {self.total_steps}; the checkpoint is in "
                        f"{self.folder}. Repeat the command to go on."
                    )
        self._choose()
        return {
            "parameters": sum(p.numel() for p in self.gpt.parameters()),
            "steps": self.step,
            "rows": self.rows,
            "valid_rows": len(self.valid.rows),
            "train_loss": self.last_loss,
            "valid_loss": self.best["loss"] if self.config.keep == "best" else self.valid_loss,
            "best_loss": self.best["loss"],
            "best_step": self.best["step"],
            "kept_step": self.best["step"] if self.config.keep == "best" else self.step,
            "seconds": round(time.monotonic() - began, 1),
        }

    def take_steps(self, count: int) -> list[float]:
        """The seconds that some steps take, without validations and checkpoints."""
        step_loss, seconds = self._wrapped(), []
        with self.feed:
            for _ in range(count):
                began = time.monotonic()
                self._train_step(step_loss)
                self.step += 1
                seconds.append(time.monotonic() - began)
        return seconds

    def _train_step(self, step_loss: nn.Module) -> bool:
        """One step of the optimizer; whether some process was asked to stop."""
        began, config = time.monotonic(), self.config
        # Of the random choices only dropout depends on the process.
        names = (self.step,) if self.team.leads else (self.step, self.team.rank)
        torch.manual_seed(stream(config.seed, "step", *names))
        self.gpt.train()
        rate = rate_at(self.step, self.total_steps, config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["top_lr"] * rate
        batches = self.feed.get(self.step)
        rows = sum(len(batch.codes) for batch in batches)
        told = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, wish to stop
        for n, batch in enumerate(batches, 1):
            with _no_exchange(step_loss) if n < len(batches) else nullcontext():
                with torch.autocast(self.device.type, self.dtype, enabled=self.reduced):
                    loss = step_loss(batch.to(self.device)) * (len(batch.codes) / rows)
                self.scaler.scale(loss).backward()
            told[0] += loss.detach() / self.team.size
        told[1] = bool(self.stop)
        loss_now, stopping = self.team.sum(told).tolist()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.gpt.parameters(), config.grad_clip))
        self.watch.check(self.step, loss_now, norm, self.scaler.get_scale())
        if math.isfinite(norm):  # else float16 overflowed: the scale is lowered, the step left out
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        self.gpt.zero_grad(set_to_none=True)
        self.average.update(self.step)
        seconds = time.monotonic() - began
        self.journal.step(self.step + 1, loss_now, norm, config.learning_rate * rate, seconds)
        return bool(stopping)

    def _wrapped(self) -> nn.Module:
        """The loss as the steps call it: compiled if asked for, exchanging gradients in a team."""
        module: nn.Module = StepLoss(self.gpt, self.config.label_smoothing)
        if self.config.compile:
            module = Compiled(module)
        if self.team.size > 1:
            on = [self.device] if self.device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=on, gradient_as_bucket_view=True)
        return module

    def _arrange(self, step_loss: nn.Module) -> None:
        """Let DDP put the gradients into the order in which it sends them after its first step.

        The last bit of a sum over three or more processes depends on that order. So the first step
        of a resumed run would differ from the same step of one that was not interrupted.
        """
        if isinstance(step_loss, DistributedDataParallel):
            with torch.autocast(self.device.type, self.dtype, enabled=self.reduced):
                loss = step_loss(self.feed.get(self.step)[0].to(self.device))
            loss.backward()
            self.gpt.zero_grad(set_to_none=True)

    def _validate(self, seconds: float) -> None:
        """Measure the averaged weights on the validation rows; keep them if they are the best."""
        self.last_loss = float(np.mean(self.journal.losses))
        self.journal.losses.clear()
        with self.average.in_place():
            losses = row_losses(
                self.gpt, self.valid, dtype=self.dtype, share=(self.team.rank, self.team.size)
            )
        told = torch.tensor([losses.sum(), len(losses)], dtype=torch.float64, device=self.device)
        total, count = self.team.sum(told).tolist()
        self.valid_loss = loss = total / count
        if loss < self.best["loss"]:
            self.best = {"loss": loss, "step": self.step}
            if self.team.leads:
                self.snapshots.save_best(self.step, self.average.weights)
        self.journal.best = self.best["loss"]
        self.journal.write(
            step=self.step,
            epoch=round(self.step / self.steps_per_epoch, 3),
            train_loss=self.last_loss,
            valid_loss=loss,
            learning_rate=self.config.learning_rate
            * rate_at(self.step - 1, self.total_steps, self.config),
            seconds=round(seconds, 1),
        )

    def _draw(self) -> None:
        """Pictures by the averaged weights."""
        assert self.preview is not None
        with self.average.in_place():
            self.journal.picture(self.step, self.preview.draw(self.gpt, self.step, self.dtype))

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        since = self.step - self.best["step"]
        return (
            patience is not None
            and self.best["step"] > 0
            and (since >= patience * self.validate_every)
        )

    def _choose(self) -> None:
        """Give the model the weights that are kept; only the first process needs them."""
        kept = self.average.weights
        if self.config.keep == "best" and self.team.leads:
            kept = self.snapshots.load_best(int(self.best["step"]), self.device)
        load_strict(self.gpt, kept, "the best checkpoint")

    def _save(self) -> None:
        """Write a complete checkpoint."""
        if not self.team.leads:
            return
        self.snapshots.save(
            self.step,
            {
                "model": self.gpt.state_dict(),
                "ema": self.average.weights,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "scaler": self.scaler.state_dict(),
                "step": self.step,
                "best": self.best,
                "journal": self.journal.state(),
                "last_loss": self.last_loss,
                "valid_loss": self.valid_loss,
                "seconds": self.seconds,
            },
        )

    def _resume(self) -> None:
        """Go back to the last checkpoint, if there is one."""
        state = self.snapshots.load(self.device) if self.team.leads else None
        step = self.team.share(state["step"] if state else None)
        if step is None:
            return
        state = state or self.snapshots.read(step, self.device)  # of which the leader removes none
        load_strict(self.gpt, state["model"], str(self.folder))
        self.average.weights = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.journal.load_state(state["journal"])
        self.last_loss, self.valid_loss = state["last_loss"], state["valid_loss"]
        log.info("Resuming at step %d of %d.", self.step, self.total_steps)


def _no_exchange(module: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay here while the block runs; the last micro-batch of a step sends their sum."""
    if isinstance(module, DistributedDataParallel):
        context: AbstractContextManager[None] = module.no_sync()
        return context
    return nullcontext()
