"""The input of image generation: text tokens and the entities that cover them.

B captions   T text tokens   K entities per caption   D entity_dim
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Entities(NamedTuple):
    """The entities of a batch of captions.

    Attributes:
        vectors: `(B, K, D)`; the values of padding slots are never used.
        covers: `(B, K, T)` bool, whether the entity's span contains the token. A slot that
            covers no token is padding.
        filler: `(D,)`, the vector of entity 0, which `easynlp` uses for tokens without one.
    """

    vectors: Tensor
    covers: Tensor
    filler: Tensor

    def to(self, device: torch.device) -> "Entities":
        """Return the entities on another device."""
        return Entities(*(t.to(device, non_blocking=True) for t in self))

    def pinned(self) -> "Entities":
        """Return the entities in page-locked memory, which a GPU reads while it computes."""
        return Entities(*(t.pin_memory() for t in self))

    def dropped(self, which: Tensor) -> "Entities":
        """Return the entities without those of the captions marked in `which` (B,) bool."""
        return self._replace(covers=self.covers & ~which[:, None, None])


class Conditioning(NamedTuple):
    """The captions of a batch.

    Attributes:
        token_ids: `(B, T)` BERT ids, padded with [PAD].
        entities: Entities of the captions, with the tokens that each covers.
    """

    token_ids: Tensor
    entities: Entities

    def to(self, device: torch.device) -> "Conditioning":
        """Return the conditioning on another device."""
        ids = self.token_ids.to(device, non_blocking=True)
        return Conditioning(ids, self.entities.to(device))

    def pinned(self) -> "Conditioning":
        """Return the conditioning in page-locked memory."""
        return Conditioning(self.token_ids.pin_memory(), self.entities.pinned())

    def dropped(self, which: Tensor, pad_id: int) -> "Conditioning":
        """Return the captions, those marked in `which` (B,) bool replaced by the empty one.

        A model trained with dropping can be guided (Ho and Salimans 2022). The empty caption is
        [PAD] only and has no entities.
        """
        if not which.any():
            return self
        ids = self.token_ids.masked_fill(which[:, None], pad_id)
        return Conditioning(ids, self.entities.dropped(which))

    def without_names(self, which: Tensor, unknown_id: int) -> "Conditioning":
        """Return the captions with the names of some entities replaced by `unknown_id`.

        The entities stay. A token that several entities cover belongs to the longest of them, and
        among equally long ones to one that is not in `which`.

        Args:
            which: `(B, K)` bool, the entities whose names are replaced.
            unknown_id: BERT id of [UNK].
        """
        if not which.any():
            return self
        covers = self.entities.covers  # (B, K, T)
        rank = 2 * covers.sum(-1) + ~which  # (B, K)
        longest = (covers * rank[:, :, None]).max(1)  # over K: (B, T)
        replaced = which.gather(1, longest.indices) & (longest.values > 0)
        return self._replace(token_ids=self.token_ids.masked_fill(replaced, unknown_id))
