"""Training the GPT on codes: the loop, readable from top to bottom.

Every random choice of a step (order of rows, dropped captions, dropout) comes from a seed derived
from the run's seed and the step's number. So a checkpoint needs no generator states, and a run that
was killed and resumed equals one that was not, bit for bit on one machine.
"""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artist.checkpoint import load_strict
from artist.config import SIZES, TrainConfig
from artist.dataset import Batch, Batches, Rows, lattice_settings, read_rows
from artist.device import choose_device, choose_dtype
from artist.encode import with_codes
from artist.gpt import GPT, Entities, GPTConfig, parameter_groups
from artist.likelihood import row_losses
from artist.model_folder import CONFIG, Model, load_model, save_model
from artist.muon import Muon
from artist.vqgan_folder import load_vqgan, vqgan_fingerprint
from data.artefact import Run, atomic, fingerprint
from data.errors import Interrupted, SchemaError, ToolkitError
from data.kg_folder import kg_fingerprint, read_vectors
from data.seeds import stream
from data.tokenizer import Tokenizer, tokenizer_of

log = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.pt"
_BEST = "best.pt"
METRICS = "metrics.jsonl"
_MUON_RATE = 10.0  # Muon's learning rate as a multiple of AdamW's


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
    device: str = "auto",
    overwrite: bool = False,
) -> FinetuneReport:
    """Train a model on a lattice table and write it as a folder.

    Tables with images instead of codes are encoded first, each image once: see `with_codes`.

    Args:
        table: Lattice table with images or codes.
        valid: The same, for validation.
        kg: The KG folder whose entities the tables name.
        vqgan: VQGAN folder or checkpoint.
        out: The model folder.
        config: How to train.
        init: A model folder whose weights to begin with; a model without knowledge may become one
            with it, whose outputs are then the same at first.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace another run's output.

    Raises:
        ToolkitError: An input does not fit the others, or an output is in the way.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
    """
    on = choose_device(device)
    table, valid = (with_codes(path, vqgan, device) for path in (table, valid))
    codec, graph = load_vqgan(vqgan), kg_fingerprint(kg)
    inputs = {
        "table": fingerprint(table),
        "valid": fingerprint(valid),
        "kg": graph,
        "vqgan": vqgan_fingerprint(codec),
        **({"init": fingerprint(init)} if init else {}),
    }
    settings = {"train": asdict(config), "device": on.type}
    with Run.open(out, kind="model", settings=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.finished:
            return FinetuneReport(out=out, **run.finished.counts, unchanged=True)
        tokenizer = tokenizer_of(table)
        vectors = read_vectors(kg)
        rows, valid_rows = (
            _read(path, tokenizer, graph if config.fusion != "none" else None, config)
            for path in (table, valid)
        )
        torch.manual_seed(stream(config.seed, "weights"))
        gpt = GPT(
            GPTConfig(
                text_vocab_size=tokenizer.vocab_size,
                image_vocab_size=codec.config.codebook_size,
                text_len=config.text_len,
                image_len=rows.codes.shape[1],
                embd_pdrop=config.dropout,
                resid_pdrop=config.dropout,
                fusion=config.fusion,
                entity_dim=vectors.shape[1],
                max_entities=config.max_entities,
                entity_policy=config.entity_policy,
                **SIZES[config.size],
            )
        )
        if init is not None:
            start_from(gpt, init)
        trainer = Trainer(
            gpt.to(on),
            Batches(rows, vectors, gpt.config),
            Batches(valid_rows, vectors, gpt.config),
            config,
            folder=run.work,
            pad_id=tokenizer.pad_id,
        )
        counts = trainer.run()
        save_model(
            run.work,
            Model(
                gpt=gpt,
                vqgan=codec,
                tokenizer=tokenizer,
                kg_fingerprint=graph if config.fusion != "none" else "",
                lattice=lattice_settings(rows.metadata),
            ),
        )
        for name in (_CHECKPOINT, _BEST):
            (run.work / name).unlink(missing_ok=True)
        run.finish(counts)
    return FinetuneReport(out=out, **counts)


def _read(table: Path, tokenizer: Tokenizer, graph: str | None, config: TrainConfig) -> Rows:
    """The rows of a table, if it was built with this tokenizer and (unless None) this graph."""
    rows = read_rows(
        table,
        text_len=config.text_len,
        pad_id=tokenizer.pad_id,
        max_entities=config.max_entities,
        policy=config.entity_policy,
    )
    if rows.metadata.get("tokenizer_fingerprint") != tokenizer.fingerprint:
        raise SchemaError(f"{table} was built with another tokenizer than the training table.")
    if graph is not None and rows.metadata.get("kg_fingerprint") != graph:
        raise SchemaError(
            f"{table} was built with another KG than the one given, so its entity ids mean others. "
            "Build it again with `cli.py lattice build --kg`."
        )
    return rows


def start_from(gpt: GPT, init: Path) -> None:
    """Take over the weights of a model folder; a fusion that it lacks begins as doing nothing.

    Raises:
        InputError: The model has other sizes.
    """
    other = load_model(init).gpt
    state = dict(other.state_dict())
    if gpt.config.fusion == "lattice" and other.config.fusion == "none":
        state["fusion.project.weight"] = torch.zeros_like(gpt.state_dict()["fusion.project.weight"])
    load_strict(gpt, state, str(init / CONFIG))


class Trainer:
    """The state of a training and its loop.

    Args:
        gpt: On its device; holds the best weights when `run` returns.
        train: What to learn from.
        valid: What to choose the best weights by.
        config: How.
        folder: Where checkpoints and metrics go.
        pad_id: The BERT id of [PAD], which fills the empty caption.
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
    ) -> None:
        self.gpt, self.train, self.valid, self.config = gpt, train, valid, config
        self.folder, self.pad_id = folder, pad_id
        self.device = next(gpt.parameters()).device
        self.dtype = choose_dtype(config.precision, self.device)
        self.steps_per_epoch = max(1, len(train.rows) // config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.validate_every = max(1, math.ceil(self.total_steps / config.validations))
        self.optimizers = make_optimizers(gpt, config)
        self.ema = {k: v.detach().clone() for k, v in gpt.state_dict().items()}
        self.step = 0
        self.best = {"loss": math.inf, "step": 0}
        self.seconds = 0.0
        self.last_loss = self.valid_loss = math.nan

    def run(self) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; what it reached."""
        losses = self._resume()
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        with (
            stop_signals() as stopped,
            tqdm(total=self.total_steps, initial=self.step, unit="step", disable=None) as bar,
        ):
            while self.step < self.total_steps and not self._out_of_patience():
                losses.append(self._train_step())
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.3f}", best=f"{self.best['loss']:.3f}")
                if self.step % self.validate_every == 0 or self.step == self.total_steps:
                    self._validate(float(np.mean(losses)), time.monotonic() - began)
                    losses.clear()
                    self.seconds = time.monotonic() - began
                    self._save()
                    saved = time.monotonic()
                elif time.monotonic() - saved > self.config.checkpoint_seconds or stopped:
                    self.seconds = time.monotonic() - began
                    self._save(losses)
                    saved = time.monotonic()
                if stopped:
                    raise Interrupted(
                        f"stopped at step {self.step} of {self.total_steps}; the checkpoint is in "
                        f"{self.folder}. Repeat the command to go on."
                    )
        kept = self.ema
        if self.config.keep == "best":
            kept = torch.load(self.folder / _BEST, map_location=self.device, weights_only=True)
        load_strict(self.gpt, kept, _BEST)
        return {
            "parameters": sum(p.numel() for p in self.gpt.parameters()),
            "steps": self.step,
            "rows": len(self.train.rows),
            "valid_rows": len(self.valid.rows),
            "train_loss": self.last_loss,
            "valid_loss": self.best["loss"] if self.config.keep == "best" else self.valid_loss,
            "best_loss": self.best["loss"],
            "best_step": self.best["step"],
            "kept_step": self.best["step"] if self.config.keep == "best" else self.step,
            "seconds": round(time.monotonic() - began, 1),
        }

    def _train_step(self) -> float:
        """One step of the optimizer; the mean loss of its batch."""
        config, chosen = self.config, self._chosen()
        torch.manual_seed(stream(config.seed, "step", self.step))
        self.gpt.train()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["top_lr"] * self.schedule(self.step)
        micro = config.micro_batch_size or len(chosen)
        loss = torch.zeros((), device=self.device)
        for begin in range(0, len(chosen), micro):
            batch = self.train.get(chosen[begin : begin + micro])
            batch = drop_captions(batch, config.caption_dropout, self.pad_id).to(self.device)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                ids = self.gpt.text_ids(batch.bert_ids)
                part = self.gpt.code_losses(ids, batch.codes, batch.entities).mean()
            part = part * (len(batch.codes) / len(chosen))
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.gpt.parameters(), config.grad_clip)
        if not math.isfinite(float(loss)) or not math.isfinite(float(norm)):
            raise ToolkitError(
                f"the loss at step {self.step} is {float(loss)} (gradient norm {float(norm)}). "
                f"Nothing was saved of this step. Lower --learning-rate (now "
                f"{config.learning_rate:g}), or look for broken rows with --batch-size 1."
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.gpt.zero_grad(set_to_none=True)
        self._average()
        return float(loss)

    def schedule(self, step: int) -> float:
        """Share of the learning rate at a step: linear warm-up, then half a cosine."""
        config = self.config
        warmup = max(1, round(config.warmup * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.total_steps - warmup)
        floor = config.final_learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    def _chosen(self) -> NDArray[np.int64]:
        """The rows of this step: a slice of the epoch's permutation."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if place == 0 or not hasattr(self, "_order"):
            self._order = self.train.epoch_order(self.config.seed, epoch)
        size = self.config.batch_size
        return self._order[place * size : (place + 1) * size]

    def _average(self) -> None:
        """Move the averaged weights towards the current ones, faster at the beginning."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        if self.config.ema_decay == 0:
            decay = 0.0
        with torch.no_grad():
            now = self.gpt.state_dict()
            old = list(self.ema.values())
            torch._foreach_lerp_(old, [now[k] for k in self.ema], 1 - decay)

    def _validate(self, train_loss: float, seconds: float) -> None:
        """Measure the averaged weights on the validation rows; keep them if they are the best."""
        self.last_loss = train_loss
        now = {k: v.clone() for k, v in self.gpt.state_dict().items()}
        self.gpt.load_state_dict(self.ema)
        loss = float(row_losses(self.gpt, self.valid, dtype=self.dtype).mean())
        self.gpt.load_state_dict(now)
        self.valid_loss = loss
        if loss < self.best["loss"]:
            self.best = {"loss": loss, "step": self.step}
            with atomic(self.folder / _BEST, "wb") as file:
                torch.save(self.ema, file)
        self._record(
            step=self.step,
            epoch=round(self.step / self.steps_per_epoch, 3),
            train_loss=train_loss,
            valid_loss=loss,
            learning_rate=self.config.learning_rate * self.schedule(self.step - 1),
            seconds=round(seconds, 1),
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        since = self.step - self.best["step"]
        return (
            patience is not None
            and self.best["step"] > 0
            and (since >= patience * self.validate_every)
        )

    def _record(self, **values: float) -> None:
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def _save(self, losses: list[float] | None = None) -> None:
        """Write a complete checkpoint under its final name at once."""
        with atomic(self.folder / _CHECKPOINT, "wb") as file:
            torch.save(
                {
                    "model": self.gpt.state_dict(),
                    "ema": self.ema,
                    "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                    "step": self.step,
                    "best": self.best,
                    "losses": losses or [],
                    "last_loss": self.last_loss,
                    "valid_loss": self.valid_loss,
                    "seconds": self.seconds,
                },
                file,
            )

    def _resume(self) -> list[float]:
        """Go back to the last checkpoint, if there is one, and forget what came after it.

        Returns:
            The losses since the last validation before it.
        """
        path, metrics = self.folder / _CHECKPOINT, self.folder / METRICS
        if not path.exists():
            metrics.unlink(missing_ok=True)
            return []
        state = torch.load(path, map_location=self.device, weights_only=True)
        load_strict(self.gpt, state["model"], str(path))
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.last_loss, self.valid_loss = state["last_loss"], state["valid_loss"]
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic(metrics) as file:
                file.writelines(line for line in lines if json.loads(line)["step"] <= self.step)
        log.info("Resuming at step %d of %d.", self.step, self.total_steps)
        losses: list[float] = state["losses"]
        return losses


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
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    optimizers.append(adamw)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["top_lr"] = group["lr"]
    return optimizers


def drop_captions(batch: Batch, share: float, pad_id: int) -> Batch:
    """The batch with a random share of its captions replaced by the empty one, without entities."""
    if share == 0:
        return batch
    dropped = torch.rand(len(batch.bert_ids)) < share  # (B,)
    entities = batch.entities
    return Batch(
        batch.bert_ids.masked_fill(dropped[:, None], pad_id),
        batch.codes,
        Entities(entities.vectors, entities.covers & ~dropped[:, None, None], entities.filler),
    )


class StopFlag:
    """Whether SIGINT or SIGTERM came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """A flag that the first SIGINT or SIGTERM raises; a second one acts as usual."""
    flag = StopFlag()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        flag.signal = number
        for n, handler in before.items():
            signal.signal(n, handler)

    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
        for caught in (signal.SIGINT, signal.SIGTERM):
            before[caught] = signal.signal(caught, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
