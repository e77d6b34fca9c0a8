"""Memory, disk space and duration of a training run, before it starts; and its devices."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.errors import ConfigError
from kg.config import KGConfig
from kg.training.batches import Batches
from kg.training.row_adagrad import RowAdagrad
from kg.training.transe import make_loop, make_model, tables

logger = logging.getLogger(__name__)


def default_batch_size(num_triples: int) -> int:
    """Return a batch size for about 20 steps per epoch, within 256..8192."""
    return min(8192, max(256, 1 << (num_triples // 20).bit_length()))


def default_epochs(num_triples: int) -> int:
    """Return 60 epochs for small graphs, which then converge, down to 5 for large ones."""
    return int(min(60, max(5, 30 * (270_000 / max(1, num_triples)) ** 0.5)))


@dataclass(frozen=True)
class Requirements:
    """Memory and disk space of a run, in bytes.

    Attributes:
        tables: Vectors and accumulators.
        triples: The triples and the order of an epoch.
        step: Temporary tensors of one batch.
        disk: Checkpoint (the old one is kept until the new one is complete), best vectors, result.
    """

    tables: int
    triples: int
    step: int
    disk: int

    @property
    def memory(self) -> int:
        """All but the disk space."""
        return self.tables + self.triples + self.step

    @classmethod
    def of(
        cls, num_triples: int, num_entities: int, num_relations: int, config: KGConfig, batch: int
    ) -> "Requirements":
        """Compute them from the sizes of the graph and the settings."""
        rows, row = num_entities + num_relations, 4 * config.dim
        looked_up = batch * (3 + config.num_negatives / min(config.chunk_size, batch))
        return cls(
            tables=rows * (row + 4),
            triples=num_triples * (12 + 8),
            step=int(3 * looked_up * row + 6 * 4 * batch * config.num_negatives),
            disk=rows * (3 * row + 8) + num_entities * 2 * row,
        )


@dataclass(frozen=True)
class Placement:
    """The devices on which a run stores its tables and triples, and on which it computes."""

    tables: torch.device
    triples: torch.device
    compute: torch.device

    @classmethod
    def choose(cls, device: torch.device, need: Requirements) -> "Placement":
        """Place what fits on the GPU, the tables first, and the rest in host memory.

        Raises:
            ConfigError: The host's memory is too small.
        """
        host = torch.device("cpu")
        free = 0.9 * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0
        on_gpu = need.tables + need.step <= free
        placement = cls(
            tables=device if on_gpu else host,
            triples=device if on_gpu and need.memory <= free else host,
            compute=device,
        )
        if device.type == "cuda" and placement.triples != device:
            logger.warning(
                "the GPU has %.1f GB free, too little for %s; %s kept in host memory, which is "
                "slower",
                free / 1e9,
                "the vectors" if not on_gpu else "vectors and triples",
                "they and the triples are" if not on_gpu else "the triples are",
            )
        wanted = (placement.tables == host) * need.tables + need.step
        # Of 20 bytes per triple, 12 are already loaded.
        wanted += (placement.triples == host) * need.triples * 8 // 20
        available = available_bytes()
        if available is not None and wanted > available:
            raise ConfigError(
                f"the run needs {wanted / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are "
                "available. Use a smaller --dim, raise --min-tail-count to drop rare names, or "
                "train on a larger machine (or with DGL-KE or PyTorch-BigGraph) and import the "
                "vectors with `cli.py kg import`."
            )
        return placement


def available_bytes() -> int | None:
    """Return the memory left for this process, in bytes; None if the system does not report it."""
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


def check_disk(folder: Path, need: Requirements) -> None:
    """Check the free disk space before a run.

    Raises:
        ConfigError: The files of the run do not fit.
    """
    free = shutil.disk_usage(folder).free
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if need.disk > free + held:
        raise ConfigError(
            f"the run needs {need.disk / 1e9:.1f} GB at {folder.parent} for checkpoints and the "
            f"result, {free / 1e9:.1f} GB are free. Free some space, or choose another --out."
        )


def seconds_per_step(config: KGConfig, batch_size: int, device: torch.device) -> float:
    """Measure the duration of a step, which does not depend on the size of the graph.

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


def log_requirements(
    num_entities: int,
    need: Requirements,
    config: KGConfig,
    batches: Batches,
    epochs: int,
    placement: Placement,
) -> None:
    """Log the memory, disk space and duration of a run, unless it takes only seconds."""
    steps = epochs * len(batches)
    if steps < 500:
        return
    seconds = seconds_per_step(config, batches.batch_size, placement.compute)
    logger.info(
        "%d entities: %.2f GB of memory, %.2f GB of disk; %d epochs of %d steps, about %s "
        "(%.0f ms per step, measured)",
        num_entities,
        need.memory / 1e9,
        need.disk / 1e9,
        epochs,
        len(batches),
        in_words(steps * seconds),
        seconds * 1000,
    )


def in_words(seconds: float) -> str:
    """Return a duration as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
