"""The GPT of ARTIST with its three fusions. Tensors only: no file access.

    B captions   T text tokens (text_len)   L image codes (image_len)   S positions
    K entities per caption   D entity_dim   C n_embd   V image_vocab_size   H heads

A sequence is a caption's T text tokens, padded with [PAD], followed by its L image codes. Both
share one embedding table: codes are ids 0..V-1, and text ids are shifted by V. The arithmetic is
minGPT's: pre-LN blocks, learned positions, exact GELU, a separate head without bias that predicts
image codes only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
from artist.models.fusion import EasyNLPFusion, LatticeFusion


class KVCache:
    """Keys and values of all layers for up to S positions, filled from the left.

    Each layer has two tensors `(B, H, S, C/H)`. By default S is one less than the length of a
    sequence: its last code is never an input.
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
        # Zeros: masked positions have weight 0, and 0 times NaN would be NaN.
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
        """Attend to `x` and, with a cache, to its `past` positions: (B, S, C) -> the same."""
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
            # A single new token attends to everything before it and needs no mask.
            mask = _causal_mask(S, past, q.device) if S > 1 and past else None
            causal = S > 1 and not past
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, dropout_p=pdrop)
        out: Tensor = self.drop(self.proj(y.transpose(1, 2).reshape(B, S, C)))
        return out

    def step(
        self, x: Tensor, cache: tuple[Tensor, Tensor], position: Tensor, mask: Tensor
    ) -> Tensor:
        """Attend from one position to the unmasked positions of the cache: (B, C) -> (B, C)."""
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


def _causal_mask(S: int, past: int, device: torch.device) -> Tensor:
    """Return what the last S of `past` + S positions attend to: bool (S, past + S)."""
    return torch.ones(S, past + S, dtype=torch.bool, device=device).tril(past)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, pdrop: float) -> Tensor:
    """Compute causal attention (B, H, S, C/H) by two matrix products.

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
        """Transform (B, S, C) to the same shape."""
        x = x + self.attn(self.ln1(x), cache, past)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out

    def step(
        self, x: Tensor, cache: tuple[Tensor, Tensor], position: Tensor, mask: Tensor
    ) -> Tensor:
        """Transform one position, (B, C) -> (B, C); see `GPT.step`."""
        x = x + self.attn.step(self.ln1(x), cache, position, mask)
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class GPT(nn.Module):
    """Predict the next image code at every position of text tokens and image codes."""

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
        """Convert BERT ids to ids of this model's embedding table."""
        return bert_ids + self.config.image_vocab_size

    def hidden(
        self, ids: Tensor, entities: Entities | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Return states before the final norm: ids (B, S) -> (B, S, C).

        Without a cache, or with an empty one, `ids` begin at position 0 with the whole text; with a
        filled one they follow its positions. `checkpoint_activations` recomputes the blocks in the
        backward pass instead of storing their activations.
        """
        past = cache.length if cache is not None else 0
        S, T = ids.shape[1], self.config.text_len
        x = self.tok_emb(ids)  # (B, S, C)
        if past == 0 and self.config.text_scale != 1.0:
            x = torch.cat([x[:, :T] * self.config.text_scale, x[:, T:]], 1)
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
        """Return logits of the next code at positions >= `first`: (B, S) -> (B, S - first, V)."""
        x = self.hidden(ids, entities, cache)[:, first:]
        logits: Tensor = self.head(self.ln_f(x))
        return logits

    def step(self, codes: Tensor, position: Tensor, cache: KVCache, seen: int) -> Tensor:
        """Return logits of the code after `position`: codes (B,) -> (B, V). For inference.

        Equal to `forward` with a filled cache. The position is a tensor, so shapes and kernel
        launches are the same at every position, and a CUDA graph of them can be replayed.

        Args:
            codes: The last code of each row.
            position: `(1,)`, position of that code in the sequence, text included; below `seen`.
            cache: Contains all earlier positions; this one is written. Its `length` is unchanged.
            seen: Number of positions of the cache to read; those after `position` are masked.
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
        """Return the negative log-likelihood of each code in nats.

        Args:
            ids: Text ids (B, T).
            codes: Codes (B, L).
            entities: Entities of the captions.
            label_smoothing: Share of each target that is spread evenly over all codes.

        Returns:
            Losses (B, L).
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
    """Initialise a module as GPT-2 does."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def parameter_groups(model: GPT, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameters with weight decay (matrices of linear layers) and without (all others)."""
    decayed, free = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and not name.startswith("tok_emb")
        (decayed if is_matrix else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
