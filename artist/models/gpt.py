"""The GPT of ARTIST and its three ways to use knowledge. Tensors only: it opens no file.

    B captions   T text tokens (text_len)   L image codes (image_len)   S positions
    K entities per caption   D entity_dim   C n_embd   V image_vocab_size   H heads

A sequence is a caption's T text tokens, padded with [PAD], followed by its L image codes. One
embedding table serves both: codes are ids 0..V-1, and text ids are shifted by V. The arithmetic is
minGPT's: pre-LN blocks, learned positions, exact GELU, a separate head without bias that predicts
image codes only.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
from artist.models.fusion import EasyNLPFusion, LatticeFusion


class KVCache:
    """Keys and values of all layers for up to S positions; filled from the left.

    Each layer holds two tensors `(B, H, S, C/H)`. By default S is one less than a sequence has: the
    last code is predicted from the position before it, so it is never an input.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        positions: int | None = None,
    ) -> None:
        size = positions or config.block_size - 1
        shape = (batch, config.n_head, size, config.n_embd // config.n_head)
        # Zeros: what is masked takes part with weight 0, and 0 times NaN would be NaN.
        self.layers = [
            (
                torch.zeros(shape, device=device, dtype=dtype),
                torch.zeros(shape, device=device, dtype=dtype),
            )
            for _ in range(config.n_layer)
        ]
        self.length = 0


class Attention(nn.Module):
    """Causal multi-head self-attention with one fused projection."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.attn_pdrop = config.attn_pdrop
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None, past: int = 0
    ) -> Tensor:
        """Attend over `x` and, with a cache, over the `past` positions it holds."""
        B, S, C = x.shape
        q, k, v = self.qkv(x).view(B, S, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        if cache is not None:
            keys, values = cache
            keys[:, :, past : past + S] = k
            values[:, :, past : past + S] = v
            k, v = keys[:, :, : past + S].to(q.dtype), values[:, :, : past + S].to(q.dtype)
        pdrop = self.attn_pdrop if self.training else 0.0
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and torch.is_grad_enabled():
            y = _plain_attention(q, k, v, pdrop)
        else:
            # One new token may see everything before it, so only several need the mask.
            y = F.scaled_dot_product_attention(q, k, v, is_causal=S > 1, dropout_p=pdrop)
        out: Tensor = self.drop(self.proj(y.transpose(1, 2).reshape(B, S, C)))
        return out

    def step(
        self, x: Tensor, cache: tuple[Tensor, Tensor], position: Tensor, mask: Tensor
    ) -> Tensor:
        """Attend from one position over the cache as far as the mask reaches: (B, C) -> (B, C)."""
        B, C = x.shape
        q, k, v = self.qkv(x).view(B, 3, self.n_head, 1, C // self.n_head).unbind(1)
        keys, values = cache
        keys.index_copy_(2, position, k.to(keys.dtype))
        values.index_copy_(2, position, v.to(values.dtype))
        seen = mask.shape[-1]
        k, v = keys[:, :, :seen].to(q.dtype), values[:, :, :seen].to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        out: Tensor = self.proj(y.reshape(B, C))
        return out


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, pdrop: float) -> Tensor:
    """Causal attention (B, H, S, C/H) by two matrix products.

    On CPUs that multiply bfloat16 the fused kernel does not use those instructions: forward and
    backward take three times as long at 79 positions, 1.5 times at 287 (torch 2.13, AMX).
    """
    S = q.shape[2]
    later = torch.ones(S, S, dtype=torch.bool, device=q.device).triu(1)
    score = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, H, S, S)
    weight = score.masked_fill(later, -torch.inf).softmax(-1, dtype=torch.float32).to(q.dtype)
    return F.dropout(weight, pdrop) @ v


class Block(nn.Module):
    """Pre-LN transformer block."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.resid_pdrop),
        )

    def forward(
        self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None, past: int = 0
    ) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        x = x + self.attn(self.ln1(x), cache, past)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out

    def step(
        self, x: Tensor, cache: tuple[Tensor, Tensor], position: Tensor, mask: Tensor
    ) -> Tensor:
        """One position, (B, C) -> (B, C); see `GPT.step`."""
        x = x + self.attn.step(self.ln1(x), cache, position, mask)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class GPT(nn.Module):
    """Text tokens, then image codes; predicts the next code at every position."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        self.drop = nn.Dropout(config.embd_pdrop)
        self.fusion: LatticeFusion | EasyNLPFusion | None = None
        if config.fusion == "lattice":
            self.fusion = LatticeFusion(config.entity_dim, config.n_embd, config.entity_scale)
        elif config.fusion == "easynlp":
            self.fusion = EasyNLPFusion(config.entity_dim, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.checkpoint_activations = False  # for training: see `hidden`
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.image_vocab_size, bias=False)
        self.apply(_init)
        nn.init.normal_(self.pos_emb, std=0.02)

    def text_ids(self, bert_ids: Tensor) -> Tensor:
        """BERT ids -> ids of this model's embedding table."""
        return bert_ids + self.config.image_vocab_size

    def hidden(
        self, ids: Tensor, entities: Entities | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """States before the final norm: ids (B, S) -> (B, S, C).

        Without a cache, or with an empty one, `ids` begin at position 0 with the whole text; with a
        filled one they follow its positions. Under `checkpoint_activations` the blocks are computed
        again in the backward pass, instead of keeping what they computed.
        """
        past = cache.length if cache is not None else 0
        S, T = ids.shape[1], self.config.text_len
        x = self.tok_emb(ids)  # (B, S, C)
        if past == 0 and entities is not None and isinstance(self.fusion, LatticeFusion):
            x = torch.cat([self.fusion(x[:, :T], entities), x[:, T:]], 1)
        x = self.drop(x + self.pos_emb[:, past : past + S])
        again = self.checkpoint_activations and cache is None and torch.is_grad_enabled()
        for n, block in enumerate(self.blocks):
            if again:
                x = checkpoint(block, x, use_reentrant=False)
                continue
            x = block(x, cache.layers[n] if cache is not None else None, past)
        if past == 0 and entities is not None and isinstance(self.fusion, EasyNLPFusion):
            x = torch.cat([self.fusion(x[:, :T], entities), x[:, T:]], 1)
        if cache is not None:
            cache.length = past + S
        assert isinstance(x, Tensor)
        return x

    def forward(
        self,
        ids: Tensor,
        entities: Entities | None = None,
        *,
        cache: KVCache | None = None,
        first: int = 0,
    ) -> Tensor:
        """Logits of the next code at positions `first` and later: (B, S) -> (B, S - first, V)."""
        x = self.hidden(ids, entities, cache)[:, first:]
        logits: Tensor = self.head(self.ln_f(x))
        return logits

    def step(self, codes: Tensor, position: Tensor, cache: KVCache, seen: int) -> Tensor:
        """Logits of the code after those at `position`: codes (B,) -> (B, V). For inference.

        It computes what `forward` computes with a filled cache, but the position is a tensor, so
        that shapes and launches are the same at every position, and a CUDA graph of them can be
        replayed.

        Args:
            codes: The last code of each row.
            position: `(1,)`, where it stands, counted with the text; below `seen`.
            cache: Holds all positions before; this one is written. Its `length` stays.
            seen: Look at so many positions of the cache; those after `position` are masked.
        """
        x = self.tok_emb(codes) + self.pos_emb[0].index_select(0, position)  # (B, C)
        later = torch.arange(seen, device=position.device) > position
        mask = torch.zeros(1, 1, 1, seen, device=x.device).masked_fill(later, -torch.inf)
        mask = mask.to(cache.layers[0][0].dtype)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, layer, position, mask)
        logits: Tensor = self.head(self.ln_f(x))
        return logits

    def code_losses(
        self,
        ids: Tensor,
        codes: Tensor,
        entities: Entities | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Negative log-likelihood of each code in nats: text ids (B, T), codes (B, L) -> (B, L).

        With `label_smoothing` that share of each target is spread evenly over all codes.
        """
        sequence = torch.cat([ids, codes[:, :-1]], 1)  # the last code is only a target
        logits = self(sequence, entities, first=self.config.text_len - 1)  # (B, L, V)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1),
            codes.flatten(),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return losses.view_as(codes)


def _init(module: nn.Module) -> None:
    """GPT-2's initialisation."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def parameter_groups(model: GPT, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (matrices of linear layers) and without (all others)."""
    decays: Callable[[str, nn.Parameter], bool] = lambda name, p: (  # noqa: E731
        p.ndim == 2 and not name.startswith("tok_emb")
    )
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
