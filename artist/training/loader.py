"""Assemble the batches of each step in a thread, while the model computes the previous step.

    B batch_size, over all processes

The rows of a step, their order, the dropped captions and the versions of the images depend on the
seed and the number of the step only. They do not depend on the number of processes, each of which
loads its part of the step's rows.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artist.tables.lattice_rows import Batch, Batches
from artist.training.config import TrainConfig
from artist.training.process_group import ProcessGroup
from data.errors import ConfigError
from data.seeds import stream


class Loader:
    """Return the batches of each step, assembled one step ahead.

    Args:
        batches: The table.
        config: Batch sizes, caption dropout, seed.
        processes: The processes that share the rows of a step.
        pad_id: BERT id of [PAD], which fills the empty caption.

    Raises:
        ConfigError: The rows of a step cannot be split evenly over the processes.
    """

    def __init__(
        self, batches: Batches, config: TrainConfig, processes: ProcessGroup, pad_id: int
    ) -> None:
        self.batches, self.config, self.processes, self.pad_id = batches, config, processes, pad_id
        self.size = min(config.batch_size, len(batches.rows))
        if self.size % processes.size:
            raise ConfigError(
                f"{self.size} rows per step cannot be split evenly over {processes.size} "
                f"processes. Set --batch-size to a multiple of {processes.size}, at most "
                f"{len(batches.rows)}, the rows of the table."
            )
        self.steps_per_epoch = len(batches.rows) // self.size
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._ahead: tuple[int, Future[list[Batch]]] | None = None

    def get(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of a step, on the CPU."""
        expected, future = self._ahead or (None, None)
        found = future.result() if future else []
        if expected != step:
            found = self.make(step)
        self._ahead = (step + 1, self._pool.submit(self.make, step + 1))
        return found

    def make(self, step: int) -> list[Batch]:
        """Assemble the micro-batches of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self.batches.epoch_order(self.config.seed, epoch))
        share = self.processes.shard(self.size)
        chosen = self._order[1][place * self.size : (place + 1) * self.size][share]
        dropped, names = self._dropped(step)[share], self._dropped_names(step)
        micro = self.config.micro_batch_size or len(chosen)
        made = []
        for begin in range(0, len(chosen), micro):
            part = slice(begin, begin + micro)
            batch = self.batches.get(chosen[part], epoch)
            conditioning, unknown = batch.conditioning, self.batches.config.unknown_id
            if names is not None and unknown is not None:
                slots = conditioning.entities.covers.shape[1]
                conditioning = conditioning.without_names(names[share][part, :slots], unknown)
            conditioning = conditioning.dropped(dropped[part], self.pad_id)
            batch = batch._replace(conditioning=conditioning)
            made.append(batch.pinned() if self.processes.device.type == "cuda" else batch)
        return made

    def _dropped(self, step: int) -> Tensor:
        """Return which captions of a step are replaced by the empty one: (B,)."""
        generator = torch.Generator().manual_seed(stream(self.config.seed, "captions", step))
        return torch.rand(self.size, generator=generator) < self.config.caption_dropout

    def _dropped_names(self, step: int) -> Tensor | None:
        """Return which entities of a step lose their name, (B, max_entities); None: none does."""
        if self.batches.config.unknown_id is None:
            return None
        generator = torch.Generator().manual_seed(stream(self.config.seed, "names", step))
        random = torch.rand(self.size, self.config.max_entities, generator=generator)
        done = step / self.config.num_steps(len(self.batches.rows))
        return random < self.config.name_dropout * (1 - done)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
