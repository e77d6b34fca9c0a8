"""Negative log-likelihood of the rows of a table under a GPT, in nats per code."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from artist.models.conditioning import Entities
from artist.models.gpt import GPT
from artist.tables.lattice_rows import Batches


class Losses(NamedTuple):
    """Nats per code of each row (N,) and of each position of the image (L,)."""

    rows: NDArray[np.float64]
    positions: NDArray[np.float64]


@torch.inference_mode()
def measure_losses(
    gpt: GPT,
    batches: Batches,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
    use_entities: bool = True,
    label: str = "likelihood",
    share: tuple[int, int] = (0, 1),
) -> Losses:
    """Return the mean negative log-likelihood per code, in nats, by row and by position.

    With a `share` (r, n), only the r-th of every n batches is measured.
    """
    device = next(gpt.parameters()).device
    training = gpt.training
    gpt.eval()
    rows, positions = [], np.zeros(gpt.config.image_len)
    for batch in tqdm(
        batches.in_order(batch_size, share),
        total=-(-len(batches.rows) // (batch_size * share[1])),
        desc=label,
        leave=False,
        disable=True if share[0] else None,
    ):
        batch = batch.to(device)
        entities: Entities | None = batch.conditioning.entities if use_entities else None
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = gpt.code_losses(
                gpt.text_ids(batch.conditioning.token_ids), batch.codes, entities
            )  # (B, L)
        rows.append(loss.mean(1).double().cpu().numpy())
        positions += loss.double().sum(0).cpu().numpy()
    gpt.train(training)
    found = np.concatenate([np.zeros(0), *rows])
    return Losses(found, positions / max(1, len(found)))
