"""How likely a model finds held-out images, and whether the knowledge in its entities matters.

    N captions   L image codes   n seeds of shuffling

The controls answer different questions. `none` takes the entities away: it tells whether the model
uses them at all. `shuffled` keeps the spans but gives each entity another entity's vector: what it
costs is the *content* of the graph, beyond knowing where the words are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artist.dataset import Batches, read_rows
from artist.device import choose_device, choose_dtype
from artist.encode import with_codes
from artist.intervals import Interval, interval
from artist.likelihood import check_table, row_losses, shuffled_vectors
from artist.model_folder import VQGAN_FOLDER, load_model
from data.kg_folder import read_vectors

KNOWLEDGE = ("given", "none", "shuffled")


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
        policy=loaded.gpt.config.entity_policy,
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
