"""Word Lattice Fusion: how entity vectors enter a text encoder. Tensors only.

B captions   T text tokens   K entities per caption   D entity_dim   C n_embd
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artist.models.conditioning import Entities


class LatticeFusion(nn.Module):
    """Word Lattice Fusion at the input: each text token attends to the entities that cover it.

    e_k = W c v_k;  a_tk = softmax over the entities that cover t of x_t . e_k / sqrt(C);
    x_t <- x_t + sum_k a_tk e_k.  Where no entity covers t, nothing is added. (Liu et al. 2022,
    section 3.2, applied to the embeddings, so that every image position can depend on it.)

    Args:
        entity_dim: Width of the entity vectors, D.
        width: Width of the text embeddings, C.
        entity_scale: The constant c. A training sets it so that the vectors' components have a mean
            square of 1, as layers expect; unit-length vectors would have a tenth of the magnitude.
    """

    def __init__(self, entity_dim: int, width: int, entity_scale: float = 1.0) -> None:
        super().__init__()
        self.project = nn.Linear(entity_dim, width, bias=False)
        self.entity_scale = entity_scale
        self.scale = width**-0.5

    def forward(self, text: Tensor, entities: Entities) -> Tensor:
        """Return text embeddings (B, T, C) with knowledge; the identity without entities."""
        covers = entities.covers.transpose(1, 2)  # (B, T, K)
        if covers.shape[-1] == 0:
            return text
        # Padding slots may contain NaN, and zero times NaN is NaN.
        vectors = entities.vectors.masked_fill(~entities.covers.any(-1, keepdim=True), 0.0)
        word = self.project(vectors * self.entity_scale)  # (B, K, D) -> (B, K, C)
        score = torch.einsum("btc,bkc->btk", text, word.to(text.dtype)) * self.scale  # (B, T, K)
        score = score.float().masked_fill(~covers, torch.finfo(torch.float32).min)
        weight = score.softmax(-1) * covers  # all zero where no entity covers the token
        return text + torch.einsum("btk,bkc->btc", weight.to(word.dtype), word).to(text.dtype)


class EasyNLPFusion(nn.Module):
    """The exact fusion of the released code, for the released checkpoints only.

    It is applied after the blocks, to the hidden states h of the text positions. Entity k becomes a
    matrix: m_k(t) = W v_k + b where k covers t, W v_0 + b elsewhere. One score per caption and
    entity, s_k = sum_t h_t . m_k(t), unscaled; h_t <- h_t + sum_k softmax(s)_k m_k(t). Padding
    slots are included. Only the first of the L predicted codes can depend on it, and for captions
    shorter than T tokens its value is the same for every entity.

    Computed without the released code's [B, K, T, C] tensor.

    Args:
        entity_dim: Width of the entity vectors, D.
        width: Width of the hidden states, C.
    """

    def __init__(self, entity_dim: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(entity_dim, width)

    def scores(self, hidden: Tensor, entities: Entities) -> Tensor:
        """Return a score per slot: (B, T, C) -> (B, K)."""
        covers = entities.covers.to(hidden.dtype)  # (B, K, T)
        inside = torch.einsum("bkt,btc->bkc", covers, hidden)  # sum over covered tokens
        total = hidden.sum(1, keepdim=True)  # (B, 1, C)
        word = F.linear(entities.vectors, self.project.weight)  # (B, K, C)
        filler = F.linear(entities.filler, self.project.weight)  # (C,)
        score = (inside * word).sum(-1) + (total - inside) @ filler  # (B, K)
        score = score + total.squeeze(1) @ self.project.bias[:, None]
        # The released mask tests for an exact zero, so with a bias it has no effect.
        return score.masked_fill(score == 0, torch.finfo(score.dtype).min)

    def forward(self, hidden: Tensor, entities: Entities) -> Tensor:
        """Return hidden states of the text positions (B, T, C) with knowledge."""
        weight = self.scores(hidden, entities).softmax(-1)  # (B, K)
        inside = weight[:, :, None] * entities.covers  # (B, K, T)
        vector = torch.einsum("bkt,bkd->btd", inside, entities.vectors)  # (B, T, D)
        vector = vector + (1.0 - inside.sum(1))[:, :, None] * entities.filler
        fused: Tensor = hidden + self.project(vector)
        return fused
