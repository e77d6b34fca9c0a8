"""Word Lattice Fusion: how entity vectors enter a text encoder. Tensors only.

B captions   T text tokens   K entities per caption   D entity_dim   C n_embd
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artist.models.config import GPTConfig


class Entities(NamedTuple):
    """What the lattice knows of a batch of captions.

    Attributes:
        vectors: `(B, K, D)`; the values of padding slots are never used.
        covers: `(B, K, T)` bool, whether the entity's span holds the token. A slot that covers
            nothing is padding.
        filler: `(D,)`, the vector of entity 0, which `easynlp` puts wherever no entity is.
    """

    vectors: Tensor
    covers: Tensor
    filler: Tensor

    def to(self, device: torch.device) -> "Entities":
        """The same on another device."""
        return Entities(*(t.to(device, non_blocking=True) for t in self))


class LatticeFusion(nn.Module):
    """Word Lattice Fusion at the input: each text token hears the entities that cover it.

    e_k = W c v_k;  a_tk = softmax over the entities that cover t of x_t . e_k / sqrt(C);
    x_t <- x_t + sum_k a_tk e_k.  Where no entity covers t, nothing is added. (Liu et al. 2022,
    section 3.2, applied to the embeddings so that every image position can depend on it. The
    constant c is `entity_scale`.)
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.entity_dim, config.n_embd, bias=False)
        self.entity_scale = config.entity_scale
        self.scale = config.n_embd**-0.5

    def forward(self, text: Tensor, entities: Entities) -> Tensor:
        """Text embeddings (B, T, C) -> the same, with knowledge."""
        covers = entities.covers.transpose(1, 2)  # (B, T, K)
        if covers.shape[-1] == 0:
            return text
        # A padding slot may hold anything, even NaN; zero times NaN would still be NaN.
        vectors = entities.vectors.masked_fill(~entities.covers.any(-1, keepdim=True), 0.0)
        word = self.project(vectors * self.entity_scale)  # (B, K, D) -> (B, K, C)
        score = torch.einsum("btc,bkc->btk", text, word.to(text.dtype)) * self.scale  # (B, T, K)
        score = score.float().masked_fill(~covers, torch.finfo(torch.float32).min)
        weight = score.softmax(-1) * covers  # all zero where no entity covers the token
        return text + torch.einsum("btk,bkc->btc", weight.to(word.dtype), word).to(text.dtype)


class EasyNLPFusion(nn.Module):
    """The released code's fusion, to the letter, for the released checkpoints only.

    It runs after the blocks, on the hidden states h of the text positions. Entity k becomes a
    matrix: m_k(t) = W v_k + b where k covers t, W v_0 + b elsewhere. One score for the caption,
    s_k = sum_t h_t . m_k(t), unscaled; h_t <- h_t + sum_k softmax(s)_k m_k(t). Padding slots take
    part. Of the L predicted codes only the first can see it, and for captions shorter than T
    tokens it says the same whatever the entity is.

    Computed without the released code's [B, K, T, C] tensor.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.entity_dim, config.n_embd)

    def scores(self, hidden: Tensor, entities: Entities) -> Tensor:
        """One score for each slot: (B, T, C) -> (B, K)."""
        covers = entities.covers.to(hidden.dtype)  # (B, K, T)
        inside = torch.einsum("bkt,btc->bkc", covers, hidden)  # sum over covered tokens
        total = hidden.sum(1, keepdim=True)  # (B, 1, C)
        word = F.linear(entities.vectors, self.project.weight)  # (B, K, C)
        filler = F.linear(entities.filler, self.project.weight)  # (C,)
        score = (inside * word).sum(-1) + (total - inside) @ filler  # (B, K)
        score = score + total.squeeze(1) @ self.project.bias[:, None]
        # The released mask: it tests for an exact zero, so with a bias it never acts.
        return score.masked_fill(score == 0, torch.finfo(score.dtype).min)

    def forward(self, hidden: Tensor, entities: Entities) -> Tensor:
        """Hidden states of the text positions (B, T, C) -> the same, with knowledge."""
        weight = self.scores(hidden, entities).softmax(-1)  # (B, K)
        inside = weight[:, :, None] * entities.covers  # (B, K, T)
        vector = torch.einsum("bkt,bkd->btd", inside, entities.vectors)  # (B, T, D)
        vector = vector + (1.0 - inside.sum(1))[:, :, None] * entities.filler
        fused: Tensor = hidden + self.project(vector)
        return fused
