"""TransE (Bordes et al. 2013) in pykeen, at a cost per step that does not depend on the graph.

pykeen supplies the training loop, the model and the losses. Its extension points take
- an embedding without the constraint that would touch the whole table,
- `RowAdagrad`, which updates and projects only the rows of a batch,
- a loop whose negatives are shared by chunks of triples (`Batches`), so that distances are matrix
  products, and whose loss and gradient are computed in one pass (`BatchLoss`),
- callbacks for the schedule, progress, validation, early stopping and checkpoints.

All randomness is derived from the seed and the numbers of epoch and batch.

pykeen is imported inside functions: it takes seconds, and writes to `PYSTOW_HOME`.
"""

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data.seeds import stream
from kg.config import KGConfig
from kg.training.batch_loss import BatchLoss, Workspace
from kg.training.batches import Batch, Batches
from kg.training.row_adagrad import RowAdagrad

MARGINS = {"nssa": 9.0, "margin": 1.0}


class SharedNegatives:
    """Mixin for pykeen's SLCWATrainingLoop: our batches and their loss."""

    model: Any
    loss: Any
    batches: Batches
    workspace: Workspace

    def _create_training_data_loader(self, triples_factory: Any, **_: Any) -> Batches:
        return self.batches

    @staticmethod
    def _get_batch_size(batch: Batch) -> int:
        return len(batch.source)

    def _process_batch(self, batch: Batch, start: int, stop: int, *_: Any, **__: Any) -> Tensor:
        assert (start, stop) == (0, len(batch.source)), "pykeen split a batch of whole chunks"
        entity, relation = tables(self.model)
        batch = Batch(*(part.to(self.workspace.device) for part in batch))
        p_norm = int(self.model.interaction.p)
        loss: Tensor = BatchLoss.apply(  # type: ignore[no-untyped-call]
            entity, relation, batch, self.loss, p_norm, self.workspace
        )
        return loss


@cache
def _pykeen() -> SimpleNamespace:
    """Import pykeen and return its classes, with our mixins."""
    if "PYSTOW_HOME" not in os.environ:  # pykeen would write to the home directory on import
        home = os.environ["PYSTOW_HOME"] = tempfile.mkdtemp(prefix="pystow-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    logging.getLogger("pykeen").setLevel(logging.ERROR)  # the run logs instead
    from pykeen.losses import MarginRankingLoss, NSSALoss
    from pykeen.models import ERModel
    from pykeen.nn.modules import TransEInteraction
    from pykeen.nn.representation import Embedding
    from pykeen.training import SLCWATrainingLoop, TrainingCallback
    from pykeen.triples import KGInfo
    from pykeen.utils import NoRandomSeedNecessary

    class PlainEmbedding(Embedding):
        """pykeen's embedding without its constraint on the whole table after each step."""

        def post_parameter_update(self) -> None:
            """Do nothing: the optimizer has projected the updated rows."""

    class QuickNSSALoss(NSSALoss):
        """pykeen's loss, marked for the closed form of its derivatives in `loss_and_slopes`."""

        @property
        def closed_form(self) -> bool:
            # exp(margin) must be finite in float32
            return bool(self.margin <= 80 and self.inverse_softmax_temperature == 1)

    class Callback(TrainingCallback):
        """Calls plain functions."""

        def __init__(self, pre_batch: Any, post_batch: Any, post_epoch: Any) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self._functions = pre_batch, post_batch, post_epoch

        def pre_batch(self, **_: Any) -> None:
            self._functions[0]()

        def on_batch(self, epoch: int, batch: Batch, batch_loss: float, **_: Any) -> None:
            self._functions[1](epoch, len(batch.source), batch_loss)

        def post_epoch(self, epoch: int, epoch_loss: float, **_: Any) -> None:
            self._functions[2](epoch)

    class Loop(SharedNegatives, SLCWATrainingLoop):  # type: ignore[misc]
        callback = Callback

    return SimpleNamespace(
        losses={"nssa": QuickNSSALoss, "margin": MarginRankingLoss},
        model=ERModel,
        interaction=TransEInteraction,
        embedding=PlainEmbedding,
        loop=Loop,
        info=KGInfo,
        no_seed=NoRandomSeedNecessary,
    )


def make_model(
    num_entities: int,
    num_relations: int,
    config: KGConfig,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> Any:
    """Return a pykeen TransE without a constraint on the whole table, initialised from the seed.

    The tables are allocated on `device` and filled block by block; the random numbers do not depend
    on the device.
    """
    pykeen = _pykeen()

    def embedding(size: int) -> Any:
        return pykeen.embedding(
            max_id=size, shape=config.dim, initializer=lambda weight: weight, unique=False
        )

    margin = MARGINS[config.loss] if config.margin is None else config.margin
    info = pykeen.info(num_entities, num_relations, create_inverse_triples=False)
    with torch.device("meta"):  # skips the initialisation by torch and pykeen
        model = pykeen.model(
            triples_factory=info,
            interaction=pykeen.interaction,
            interaction_kwargs={"p": config.p_norm},
            entity_representations=embedding(num_entities),
            relation_representations=embedding(num_relations),
            loss=pykeen.losses[config.loss](margin=margin),
            random_seed=pykeen.no_seed,
        )
    model.to_empty(device=device)
    entity, relation = tables(model)
    for name, weight in (("entity", entity), ("relation", relation)):
        _fill(weight.data, config.scale or 10.0, stream(config.seed, "start", name))
    entity.row_length = config.scale  # type: ignore[attr-defined]
    return model


def _fill(weight: Tensor, length: float, seed: int) -> None:
    """Fill a table with random rows of one length."""
    generator = torch.Generator().manual_seed(seed)
    for begin in range(0, len(weight), 1 << 16):
        rows = weight[begin : begin + (1 << 16)]
        random = torch.empty(rows.shape).uniform_(-1, 1, generator=generator)
        rows.copy_(functional.normalize(random, out=random).mul_(length))


def make_loop(model: Any, optimizer: RowAdagrad, batches: Batches, device: torch.device) -> Any:
    """Return pykeen's training loop with our batches and their loss, computed on `device`."""
    loop = _pykeen().loop(
        model=model, triples_factory=None, optimizer=optimizer, automatic_memory_optimization=False
    )
    loop.batches, loop.workspace = batches, Workspace(device)
    return loop


def tables(model: Any) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """Return the entity and relation vectors of a model."""
    parts = model.entity_representations, model.relation_representations
    entity, relation = (part[0]._embeddings.weight for part in parts)
    return entity, relation
