"""How likely a model finds held-out images, and whether the knowledge in its entities matters.

    N captions   L image codes   n seeds of shuffling

The controls answer different questions. `none` takes the entities away: it tells whether the model
uses them at all. `shuffled` keeps the spans but gives each entity another entity's vector: what it
costs is the *content* of the graph, beyond knowing where the words are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artist.dataset import Batches, Rows, read_rows
from artist.device import choose_device, choose_dtype
from artist.encode import with_codes
from artist.gpt import GPT, Entities
from artist.model_folder import VQGAN_FOLDER, load_model
from data.errors import SchemaError
from data.kg_folder import kg_fingerprint, read_vectors
from data.seeds import stream

KNOWLEDGE = ("given", "none", "shuffled")


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % interval over captions (normal approximation)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.half_width:.4f}"


def interval(values: NDArray[np.float64]) -> Interval:
    """Mean of values (N,) with its 95 % interval."""
    spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Interval(float(values.mean()), float(1.96 * spread))


@torch.inference_mode()
def row_losses(
    gpt: GPT,
    batches: Batches,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
    use_entities: bool = True,
) -> NDArray[np.float64]:
    """Mean negative log-likelihood per code, in nats, of each row: (N,)."""
    device = next(gpt.parameters()).device
    training = gpt.training
    gpt.eval()
    losses = []
    for batch in tqdm(
        batches.in_order(batch_size),
        total=-(-len(batches.rows) // batch_size),
        desc="likelihood",
        leave=False,
        disable=None,
    ):
        batch = batch.to(device)
        entities: Entities | None = batch.entities if use_entities else None
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = gpt.code_losses(gpt.text_ids(batch.bert_ids), batch.codes, entities)
        losses.append(loss.mean(1).double().cpu().numpy())
    gpt.train(training)
    return np.concatenate(losses)


def shuffled_vectors(rows: Rows, vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The graph's vectors `(num_entities, D)`, permuted among the entities that the rows name.

    No entity keeps its own vector (where there are two or more).
    """
    named = np.unique(rows.entity_ids)
    order = np.random.default_rng(stream(seed, "shuffle")).permutation(named)
    mixed = np.array(vectors, dtype=np.float32)
    mixed[order] = vectors[np.roll(order, 1)]
    return mixed


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Likelihood of a table's images under a model.

    Attributes:
        rows: Captions evaluated.
        with_entity: How many of them hold an entity.
        losses: Nats per code for each way of giving knowledge in `KNOWLEDGE`.
        costs: What taking knowledge away costs each caption, paired: `none` and `shuffled` minus
            `given`, over the captions that hold an entity.
    """

    rows: int
    with_entity: int
    losses: dict[str, Interval]
    costs: dict[str, Interval]

    def __str__(self) -> str:
        lines = [f"{self.rows} captions, {self.with_entity} with an entity. Nats per code:"]
        lines += [
            f"  {name:9} {value.mean:.4f} ± {value.half_width:.4f}"
            for name, value in self.losses.items()
        ]
        lines += [
            f"  {name} costs {value} (paired, captions with an entity)"
            for name, value in self.costs.items()
        ]
        return "\n".join(lines)


def evaluate(
    table: Path,
    *,
    model: Path,
    kg: Path,
    device: str = "auto",
    precision: str = "fp32",
    seed: int = 0,
) -> EvaluationReport:
    """Negative log-likelihood of a table's codes with entities, without, and with vectors shuffled.

    Args:
        table: A lattice table with images, or with the codes of the model's VQGAN.
        model: The model folder.
        kg: The KG folder it was trained with.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `bf16` or `fp32`.
        seed: Of the shuffling.

    Raises:
        SchemaError: Table, model and KG do not belong together.
    """
    on = choose_device(device)
    loaded = load_model(model, on)
    rows = read_rows(
        with_codes(table, model / VQGAN_FOLDER, device),
        text_len=loaded.gpt.config.text_len,
        pad_id=loaded.tokenizer.pad_id,
        max_entities=loaded.gpt.config.max_entities,
    )
    check_table(rows, loaded.tokenizer.fingerprint, loaded.kg_fingerprint, kg, str(table))
    vectors = read_vectors(kg)
    dtype = choose_dtype(precision, on)
    given = Batches(rows, vectors, loaded.gpt.config)
    mixed = Batches(rows, shuffled_vectors(rows, vectors, seed), loaded.gpt.config)
    losses = {
        "given": row_losses(loaded.gpt, given, dtype=dtype),
        "none": row_losses(loaded.gpt, given, dtype=dtype, use_entities=False),
        "shuffled": row_losses(loaded.gpt, mixed, dtype=dtype),
    }
    known = np.diff(rows.first_entity) > 0
    return EvaluationReport(
        rows=len(rows),
        with_entity=int(known.sum()),
        losses={name: interval(values) for name, values in losses.items()},
        costs={
            name: interval((losses[name] - losses["given"])[known])
            for name in ("none", "shuffled")
            if known.any()
        },
    )


def check_table(rows: Rows, tokenizer: str, kg_used: str, kg: Path, source: str) -> None:
    """Refuse a table whose ids mean something else to the model.

    Raises:
        SchemaError: It was built with another tokenizer or KG than the model was trained with.
    """
    if rows.metadata.get("tokenizer_fingerprint") != tokenizer:
        raise SchemaError(
            f"{source} was built with another tokenizer than the model's. Build it with "
            "`--tokenizer` set to the model folder."
        )
    if not kg_used:
        return
    for name, found in (
        (source, rows.metadata.get("kg_fingerprint")),
        (str(kg), kg_fingerprint(kg)),
    ):
        if found != kg_used:
            raise SchemaError(
                f"{name} belongs to another KG than the one the model was trained with."
            )
