"""Start from the vectors of an older KG folder (`kg train --from`)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, open_names
from kg.arrays import Floats, Ids, Ints
from kg.config import KGConfig
from kg.kg_store import load_vectors
from kg.reading.name_ids import ids_in
from kg.reading.names import normal_names


@dataclass(frozen=True)
class KnownVectors:
    """Vectors of an earlier run for the names that both graphs have.

    Attributes:
        vectors: Name of the table -> its old rows, float32 `[num_old, dim]`; may be a memory map.
        new_ids: Name of the table -> ids of the known rows in the new table.
        old_ids: Name of the table -> their ids in the old table.
        freeze: The known rows are not trained; else training starts from them.
    """

    vectors: dict[str, Floats]
    new_ids: dict[str, Ints]
    old_ids: dict[str, Ints]
    freeze: bool = True

    def unknown_in(self, triples: Ids, num_entities: int, num_relations: int) -> Ids:
        """Return the triples with a name that has no vector yet."""
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
        """Copy the known rows into a table, multiplied by `scale`."""
        for begin in range(0, len(self.new_ids[name]), 1 << 16):
            at = slice(begin, begin + (1 << 16))
            rows = torch.from_numpy(self.vectors[name][self.old_ids[name][at]])
            new_ids = torch.from_numpy(self.new_ids[name][at]).to(weight.device)
            weight[new_ids] = rows.to(weight.device) * scale


def find_known(old: Path, work: Path, config: KGConfig) -> KnownVectors:
    """Find the names of the run at `work` that have vectors in the KG folder `old`.

    Raises:
        InputError: No name has one, or the vectors have another length or dimension.
    """
    entity, relation = load_vectors(old)
    if entity.shape[1] != config.dim:
        raise InputError(
            f"{old} has vectors of dimension {entity.shape[1]}, the run has {config.dim}. "
            f"Pass --dim {entity.shape[1]}."
        )
    length = float(entity[:1000].norm(dim=1).sub(1).abs().max())
    if config.scale and length > 1e-3:
        raise InputError(
            f"the entity vectors of {old} are not of length 1, as those of a run with --scale "
            f"{config.scale:g} are. Pass --scale 0."
        )
    vectors, new_ids, old_ids = {}, {}, {}
    for name, table, file in (
        ("entity", entity, ENTITY_NAMES),
        ("relation", relation, RELATION_NAMES),
    ):
        place = ids_in(old / file, normal_names(open_names(work / file)))
        new_ids[name] = np.flatnonzero(place >= 0)
        old_ids[name] = place[new_ids[name]]
        vectors[name] = table.numpy()
    if not len(new_ids["entity"]):
        raise InputError(f"{old} has no entity of this graph; omit --from.")
    return KnownVectors(vectors, new_ids, old_ids, config.freeze_known)
