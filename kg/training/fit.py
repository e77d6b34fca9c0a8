"""The training run around the step: how long, where, in which memory; checkpoints, and stopping.

A run is what its seed, its settings and its step number say: each batch draws from a generator of
its own, so a run that is resumed from a checkpoint, even one amid an epoch, goes on exactly as if
it had not been interrupted.

Knows nothing of names and files of triples.
"""

import gc
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.device import choose_device
from data.errors import ConfigError, Interrupted
from data.signals import StopFlag, stop_signals
from kg.config import CHECKPOINTS, KGConfig
from kg.tensors import load_into, save_tensors
from kg.training.kernels import FROZEN
from kg.training.transe import Batches, RowAdagrad, make_loop, make_model, tables

logger = logging.getLogger(__name__)

Ids = NDArray[np.int32]
# Measures entity and relation vectors; larger is better.
Measure = Callable[[Tensor, Tensor], float]


@dataclass
class Trained:
    """Vectors and how they came about.

    Attributes:
        entity: `[num_entities, dim]`, float32, on the CPU; of length 1 unless `scale` is 0.
        relation: `[num_relations, dim]`.
        losses: Mean loss of each epoch.
        scores: Epoch -> the measure that early stopping went by.
        best_epoch: The epoch whose vectors these are.
        seconds: Time spent in epochs, over all resumed runs.
    """

    entity: Tensor
    relation: Tensor
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Known:
    """Vectors from an earlier run: where they stand now, and where they stood.

    Attributes:
        vectors: Name of the table -> its old rows, which may be a memory map.
        new_ids: Name of the table -> ids of the rows that are known.
        old_ids: Name of the table -> their ids in the old table.
        freeze: They stay as they are; else training goes on from them.
    """

    vectors: dict[str, NDArray[np.float32]]
    new_ids: dict[str, NDArray[np.int64]]
    old_ids: dict[str, NDArray[np.int64]]
    freeze: bool = True

    def unknown_in(self, triples: Ids, num_entities: int, num_relations: int) -> Ids:
        """The triples that hold a name without a vector."""
        new = {
            name: np.ones(size, bool)
            for name, size in (("entity", num_entities), ("relation", num_relations))
        }
        for name, ids in self.new_ids.items():
            new[name][ids] = False
        head, relation, tail = triples.T
        touched: Ids = triples[
            new["entity"][head] | new["relation"][relation] | new["entity"][tail]
        ]
        return touched

    @torch.no_grad()
    def fill(self, name: str, weight: Tensor, scale: float) -> None:
        """Write the known rows of one table, `scale` times as long."""
        for begin in range(0, len(self.new_ids[name]), 1 << 16):
            at = slice(begin, begin + (1 << 16))
            rows = torch.from_numpy(self.vectors[name][self.old_ids[name][at]])
            new_ids = torch.from_numpy(self.new_ids[name][at]).to(weight.device)
            weight[new_ids] = rows.to(weight.device) * scale


# ---- How long, where, in which memory


def default_batch_size(num_triples: int) -> int:
    """About twenty steps an epoch, within 256..8192."""
    return min(8192, max(256, 1 << (num_triples // 20).bit_length()))


def default_epochs(num_triples: int) -> int:
    """Enough for a small graph to converge, few enough for a large one to end: 60 down to 5."""
    return int(min(60, max(5, 30 * (270_000 / max(1, num_triples)) ** 0.5)))


@dataclass(frozen=True)
class Need:
    """What a run takes, in bytes.

    Attributes:
        tables: Vectors and accumulators.
        triples: The triples and the order of an epoch.
        step: What one batch holds at once.
        disk: Checkpoint (the old one stays until the new one is whole), best vectors, result.
    """

    tables: int
    triples: int
    step: int
    disk: int

    @classmethod
    def of(
        cls, num_triples: int, num_entities: int, num_relations: int, config: KGConfig, batch: int
    ) -> "Need":
        """By the sizes of the graph and the settings."""
        rows, row = num_entities + num_relations, 4 * config.dim
        looked_up = batch * (3 + config.num_negatives / min(config.chunk_size, batch))
        return cls(
            tables=rows * (row + 4),
            triples=num_triples * (12 + 8),
            step=int(3 * looked_up * row + 6 * 4 * batch * config.num_negatives),
            disk=rows * (3 * row + 8) + num_entities * 2 * row,
        )


@dataclass(frozen=True)
class Place:
    """Where a run keeps its tables and triples, and where it computes."""

    tables: torch.device
    triples: torch.device
    compute: torch.device

    @classmethod
    def choose(cls, device: torch.device, need: Need) -> "Place":
        """On the GPU what fits there, the tables first; the rest in the memory of the host.

        Raises:
            ConfigError: The host's memory is too small.
        """
        host = torch.device("cpu")
        free = 0.9 * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0
        on_gpu = need.tables + need.step <= free
        place = cls(
            tables=device if on_gpu else host,
            triples=device if on_gpu and sum_of(need) <= free else host,
            compute=device,
        )
        if device.type == "cuda" and place.triples != device:
            logger.warning(
                "the GPU has %.1f GB free, too little for %s; %s kept in the host's memory, "
                "which is slower",
                free / 1e9,
                "the vectors" if not on_gpu else "vectors and triples",
                "they and the triples are" if not on_gpu else "the triples are",
            )
        wanted = (place.tables == host) * need.tables + need.step
        wanted += (place.triples == host) * need.triples * 8 // 20  # they are there already
        available = available_bytes()
        if available is not None and wanted > available:
            raise ConfigError(
                f"the run needs {wanted / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
                "available. Use a smaller --dim, raise --min-tail-count to leave rare names out, "
                "or train on a larger machine (or with DGL-KE or PyTorch-BigGraph) and bring the "
                "vectors here by `cli.py kg import`."
            )
        return place


def sum_of(need: Need) -> int:
    """Bytes in all, but for the disk."""
    return need.tables + need.triples + need.step


def available_bytes() -> int | None:
    """Memory that this process may still take; None where the system does not say."""
    found = []
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        found.append(int(words[words.index("MemAvailable:") + 1]) * 1024)
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            stat = (group / "memory.stat").read_text(encoding="ascii").split()
            cached = int(stat[stat.index("inactive_file") + 1])
            used = int((group / "memory.current").read_text(encoding="ascii")) - cached
            found.append(int(limit) - used)
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def check_disk(folder: Path, need: Need) -> None:
    """Refuse a run whose files would not fit.

    Raises:
        ConfigError: There is too little room.
    """
    free = shutil.disk_usage(folder).free
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if need.disk > free + held:
        raise ConfigError(
            f"the run needs {need.disk / 1e9:.1f} GB at {folder.parent} for checkpoints and the "
            f"result, {free / 1e9:.1f} GB are free. Make room, or choose another --out."
        )


def seconds_per_step(config: KGConfig, batch_size: int, device: torch.device) -> float:
    """The time of a step, measured: it does not depend on the size of the graph.

    Two steps on a small random graph, after one to warm up.
    """
    num_entities, num_relations, steps = 100_000, 1000, 3
    generator = np.random.default_rng(0)
    sizes = (num_entities, num_relations, num_entities)
    rows = [generator.integers(0, size, steps * batch_size, np.int32) for size in sizes]
    model = make_model(num_entities, num_relations, config, device)
    optimizer = RowAdagrad(tables(model), lr=config.learning_rate)
    batches = Batches(
        torch.from_numpy(np.stack(rows, axis=1)).to(device), num_entities, config, batch_size
    )
    loop = make_loop(model, optimizer, batches, device)
    begun = 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            begun = time.perf_counter()
        loop._process_batch(batch, 0, len(batch.source)).backward()
        optimizer.step()
        optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / max(1, len(batches) - 1)


# ---- The run


def train(
    triples: Ids,
    num_entities: int,
    num_relations: int,
    config: KGConfig,
    *,
    device: str = "auto",
    work: Path | None = None,
    measure: Measure | None = None,
    known: Known | None = None,
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
        work: A folder for checkpoints; those found there are resumed. None: no checkpoints.
        measure: What early stopping goes by; called about ten times.
        known: Vectors to begin with. Where they are frozen, only triples that hold a new name are
            learned, and nothing stops early: the measure would be that of the old vectors.
        finish_now: Take the vectors of the checkpoint found as they are.
        checkpoint_seconds: At least so long between checkpoints, and twenty times as long as it
            takes to write one.

    Raises:
        ConfigError: The loss became infinite, the device does not exist, or the run does not fit.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
        ArtefactError: A checkpoint is damaged, or the disk is full.
    """
    if known is not None and known.freeze:
        triples, measure = known.unknown_in(triples, num_entities, num_relations), None
    batch_size = config.batch_size or default_batch_size(len(triples))
    epochs = config.epochs or default_epochs(len(triples))
    need = Need.of(len(triples), num_entities, num_relations, config, batch_size)
    place = Place.choose(choose_device(device), need)
    if work is not None:
        check_disk(work, need)
    model = make_model(num_entities, num_relations, config, place.tables)
    entity, relation = tables(model)
    weights = {"entity": entity, "relation": relation}
    optimizer = RowAdagrad([entity, relation], lr=config.learning_rate)
    state = _State(weights, optimizer, config.scale or 1.0, work)
    if known is not None:
        state.begin_with(known)
    state.resume()
    if finish_now and not state.losses and not state.step:
        raise ConfigError("--finish-now: nothing has been trained yet that could be finished.")
    if not len(triples):  # all names are known
        return state.result()
    batches = Batches(
        torch.from_numpy(np.ascontiguousarray(triples)).to(place.triples),
        num_entities,
        config,
        batch_size,
    )
    if not finish_now and state.epoch < epochs and not state.stopped(config.patience):
        announce(num_entities, need, config, batches, epochs - state.epoch, place)
        loop = make_loop(model, optimizer, batches, place.compute)
        with stop_signals() as flag:
            _Training(loop, state, config, epochs, measure, checkpoint_seconds, flag).run()
    return state.result()


def announce(
    num_entities: int, need: Need, config: KGConfig, batches: Batches, epochs: int, place: Place
) -> None:
    """Say what a run will take, before it begins."""
    steps = epochs * len(batches)
    if steps < 500:  # seconds
        return
    pace = seconds_per_step(config, batches.batch_size, place.compute)
    logger.info(
        "%d entities: %.2f GB of memory, %.2f GB of disk; %d epochs of %d steps, about %s "
        "(%.0f ms a step, measured)",
        num_entities,
        sum_of(need) / 1e9,
        need.disk / 1e9,
        epochs,
        len(batches),
        in_words(steps * pace),
        pace * 1000,
    )


def in_words(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Training:
    """The loop's callbacks: schedule, progress, measuring, early stopping, checkpoints."""

    def __init__(
        self,
        loop: Any,
        state: "_State",
        config: KGConfig,
        epochs: int,
        measure: Measure | None,
        checkpoint_seconds: float,
        flag: StopFlag,
    ) -> None:
        self.loop, self.state, self.config, self.epochs = loop, state, config, epochs
        self.measure, self.checkpoint_seconds, self.flag = measure, checkpoint_seconds, flag
        self.steps = len(loop.batches)  # an epoch
        self.begun = self.saved = time.monotonic()
        self.spent = state.seconds

    def run(self) -> None:
        """Train to the end, or to where patience runs out."""
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
                    continue_training=True,  # the model and the optimizer are set up already
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
        """Leave if asked to, save if it is time, set the learning rate."""
        if self.flag:
            self._save()
            where = f" lies in {self.state.work}" if self.state.work else " is not kept"
            raise Interrupted(
                f"stopped in epoch {self.state.epoch + 1} of {self.epochs}; what is trained{where}."
                " The same command goes on from there; with --finish-now it measures and writes "
                "the best vectors so far."
            )
        if time.monotonic() - self.saved >= self.checkpoint_seconds:
            self._save()
        step = self.state.epoch * self.steps + self.state.step
        rate = self.config.learning_rate * (1 - step / (self.epochs * self.steps))
        self.loop.optimizer.param_groups[0]["lr"] = rate

    def after_step(self, epoch: int, triples: int, loss: float) -> None:
        """Count; called when the loss is known, before the vectors move."""
        self.state.step += 1
        self.state.loss += loss
        self.bar.update(triples)
        if self.state.step % 16 == 0:
            mean = self.state.loss / self.state.step
            self.bar.set_postfix(epoch=f"{epoch}/{self.epochs}", loss=f"{mean:.4f}", refresh=False)

    def after_epoch(self, epoch: int) -> None:
        """Measure, stop early, save."""
        state = self.state
        state.losses.append(state.loss / self.steps)
        state.epoch, state.step, state.loss = epoch, 0, 0.0
        self.loop.batches.epoch, self.loop.batches.skip = epoch + 1, 0
        every = max(1, self.epochs // 10)
        if self.measure is not None and (epoch % every == 0 or epoch == self.epochs):
            score = self.measure(*(weight.detach() for weight in state.weights.values()))
            state.note(score, last=epoch == self.epochs)
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
            kept = (
                f"; {self.state.work} holds the last good checkpoint, which --finish-now would use"
            )
        return (
            f"the loss became infinite in epoch {self.state.epoch + 1}; try a lower "
            f"--learning-rate than {self.config.learning_rate:g}, with --overwrite{kept}."
        )


class _State:
    """What a run is made of between two steps, and its checkpoint.

    `checkpoint.safetensors` holds weights and accumulators of the last step saved;
    `best.safetensors` the weights that measured best, if they are not the last ones.
    """

    def __init__(
        self,
        weights: dict[str, torch.nn.Parameter],
        optimizer: RowAdagrad,
        scale: float,
        work: Path | None,
    ) -> None:
        self.weights, self.optimizer, self.scale, self.work = weights, optimizer, scale, work
        self.epoch = 0  # that are complete
        self.step = 0  # of the epoch that has begun
        self.loss = 0.0  # sum over these steps
        self.losses: list[float] = []
        self.scores: dict[int, float] = {}
        self.seconds = 0.0
        self.known: Known | None = None
        self._best: dict[str, Tensor] | None = None  # in memory where there is no work folder

    @property
    def best_epoch(self) -> int:
        """The epoch that measured best; without measures, the last."""
        return max(self.scores, key=lambda e: self.scores[e]) if self.scores else self.epoch

    @property
    def since_best(self) -> int:
        """How many measures came after the best one."""
        return sum(epoch > self.best_epoch for epoch in self.scores)

    def stopped(self, patience: int) -> bool:
        """Whether patience ran out."""
        return bool(patience) and self.since_best >= patience

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        powers = {
            f"{name}.power": self.optimizer.state[weight]["power"]
            for name, weight in self.weights.items()
        }
        return {name: weight.detach() for name, weight in self.weights.items()} | powers

    @torch.no_grad()
    def begin_with(self, known: Known) -> None:
        """Put known vectors in their places."""
        self.known = known
        for name, weight in self.weights.items():
            known.fill(name, weight, self.scale)
            if known.freeze:
                power = self.optimizer.state[weight]["power"]
                power[torch.from_numpy(known.new_ids[name]).to(power.device)] = FROZEN

    def note(self, score: float, *, last: bool) -> None:
        """Keep the weights if they measure best so far; the last ones need no keeping."""
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
        """Take up the checkpoint, if there is one."""
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
        """The best vectors, entities brought to length 1; the tables themselves, not copies."""
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
            if self.known is not None and self.known.freeze:  # to the bit
                self.known.fill(name, weight, 1.0)
        return Trained(
            entity=vectors["entity"].cpu(),
            relation=vectors["relation"].cpu(),
            losses=self.losses,
            scores=self.scores,
            best_epoch=self.best_epoch,
            seconds=self.seconds,
        )
