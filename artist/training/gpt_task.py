"""Train a GPT on the codes of a frozen image tokenizer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artist.models.conditioning import Entities
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batch, Batches
from artist.training.config import TrainConfig
from artist.training.loader import Loader
from artist.training.memory import what_to_lower
from artist.training.optimizers import learning_rate_factor, make_optimizers
from artist.training.preview import Preview
from artist.training.process_group import ProcessGroup
from artist.training.task import Phase, Task
from artist.training.validation import measure_losses

_LOSS_LIMIT = 3.0  # times the loss of a uniform guess: the training has diverged


class CodeLoss(nn.Module):
    """Compute the mean negative log-likelihood of a batch's codes; a module, as DDP requires."""

    def __init__(self, gpt: GPT, label_smoothing: float) -> None:
        super().__init__()
        self.gpt, self.label_smoothing = gpt, label_smoothing

    def forward(self, batch: Batch) -> Tensor:
        """Return a scalar in nats per code."""
        entities = batch.conditioning.entities
        if self.gpt.config.fusion == "lattice":
            entities = _with_a_slot(entities)
        losses = self.gpt.code_losses(
            self.gpt.text_ids(batch.conditioning.token_ids),
            batch.codes,
            entities,
            self.label_smoothing,
        )
        return losses.mean()


def _with_a_slot(entities: Entities) -> Entities:
    """Return the entities with at least one slot, which may be padding.

    Without one the fusion's weights would have no gradient, which DDP would wait for.
    """
    B, K, D = entities.vectors.shape
    if K:
        return entities
    vectors = entities.vectors.new_zeros(B, 1, D)
    covers = entities.covers.new_zeros(B, 1, entities.covers.shape[2])
    return Entities(vectors, covers, entities.filler)


class GPTTask(Task):
    """A GPT that learns the codes of images from captions and their entities.

    Args:
        gpt: On the device of `processes`.
        train: Rows to train on.
        valid: Rows that select the best weights.
        config: Settings.
        pad_id: BERT id of [PAD], which fills the empty caption.
        processes: The processes that share the rows of a step.

    Attributes:
        total_steps: Steps of the run.
        images: Writes the previews, if set.
    """

    model: GPT

    def __init__(
        self,
        gpt: GPT,
        train: Batches,
        valid: Batches,
        config: TrainConfig,
        *,
        pad_id: int,
        processes: ProcessGroup,
    ) -> None:
        self.model, self.valid, self.config, self.processes = gpt, valid, config, processes
        self.modules = nn.ModuleDict({"gpt": gpt})
        gpt.checkpoint_activations = config.checkpoint_activations
        self.optimizers = make_optimizers(gpt, config)
        self.loader = Loader(train, config, processes, pad_id)
        self.num_rows = len(train.rows)
        self.batch_size = self.loader.size
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.total_steps = config.num_steps(self.num_rows)
        self.loss_limit = _LOSS_LIMIT * log(max(2, gpt.config.image_vocab_size))
        self.learning_rate = config.learning_rate
        self.memory_advice = what_to_lower(config, processes.size)
        self.images: Preview | None = None
        parameters = list(gpt.parameters())
        loss = CodeLoss(gpt, config.label_smoothing)
        self._phase = Phase(loss, parameters, self.optimizers, config.grad_clip)

    def phases(self, step: int) -> Sequence[Phase]:
        """Return the only phase."""
        return [self._phase]

    def batches(self, step: int) -> Sequence[Batch]:
        """Return this process's micro-batches; start loading those of the next step."""
        return self.loader.get(step)

    def set_learning_rates(self, step: int) -> float:
        """Set the rates of the schedule; return AdamW's."""
        factor = learning_rate_factor(step, self.total_steps, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        return self.config.learning_rate * factor

    def validate(self, step: int, dtype: torch.dtype) -> dict[str, float]:
        """Return the mean loss of the validation rows, in nats per code."""
        part = (self.processes.rank, self.processes.size)
        losses = measure_losses(self.model, self.valid, dtype=dtype, share=part).rows
        found = torch.tensor(
            [losses.sum(), len(losses)], dtype=torch.float64, device=self.processes.device
        )
        total, count = self.processes.all_reduce(found).tolist()
        return {"valid_loss": total / count}

    def preview(self, step: int, dtype: torch.dtype) -> NDArray[np.uint8] | None:
        """Sample the preview's prompts, if there is one."""
        return self.images.sample(self.model, step, dtype) if self.images is not None else None

    def loading(self) -> AbstractContextManager[Any]:
        """Return the loader, whose thread ends with the block."""
        return self.loader
