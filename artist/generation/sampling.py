"""From text to image codes: prefill, then one-token steps over a key-value cache. Tensors only.

    B rows   T text tokens   L image codes   V codebook_size

Randomness is drawn before the first step, `(B, L)` numbers from one generator a row, and a code is
picked by inverting its cumulative distribution. So a row depends on its own seed and never on its
neighbours in the batch (up to float rounding in the matrix products of other batch sizes), and the
cached sampler and the plain one, which recomputes everything at each step, draw the same codes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from artist.generation.config import SamplingConfig
from artist.models.conditioning import Entities
from artist.models.gpt import GPT, KVCache
from artist.models.packed_linear import packed
from data.errors import ConfigError


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Logits with all below the k-th largest at minus infinity; ties with it are kept."""
    top_k = min(top_k, logits.shape[-1])
    smallest = logits.topk(top_k).values[..., -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Logits with all outside the smallest set of probability `top_p` at minus infinity."""
    ordered, order = logits.softmax(-1).sort(descending=True, dim=-1)
    surplus = ordered.cumsum(-1) - ordered >= top_p  # what comes before already suffices
    return logits.masked_fill(torch.zeros_like(surplus).scatter(-1, order, surplus), -torch.inf)


def pick(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """One code a row: logits (B, V), numbers in [0, 1) (B,) -> codes (B,)."""
    logits = logits.float() / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    cumulative = logits.softmax(-1).double().cumsum(-1)  # (B, V)
    target = uniform.double()[:, None] * cumulative[:, -1:]
    code = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    # Rounding may put the target on the total itself: then the last code that has any probability.
    last = logits.shape[-1] - 1 - logits.isfinite().flip(-1).int().argmax(-1)
    return torch.minimum(code, last)


def guidance(config: SamplingConfig, n: int, image_len: int) -> float:
    """The guidance scale for code n of an image."""
    way = n / max(1, image_len - 1)  # 0 at the first code, 1 at the last
    share = {"constant": 1.0, "linear": way, "cosine": (1 - math.cos(math.pi * way)) / 2}
    return 1.0 + (config.cfg_scale - 1.0) * share[config.cfg_schedule]


def uniforms(seeds: Sequence[int], image_len: int, device: torch.device) -> Tensor:
    """The random numbers (B, L) of a batch: row i depends on seeds[i] alone."""
    rows = [torch.rand(image_len, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(rows).to(device)


@torch.no_grad()
def sample(
    model: GPT,
    text_ids: Tensor,
    entities: Entities | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    *,
    empty_ids: Tensor | None = None,
    given: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw the codes of one image a row.

    Args:
        model: In eval mode.
        text_ids: `(B, T)`, shifted by the codebook's size.
        entities: What the lattice knows of the captions, or None.
        seeds: One a row.
        config: See `SamplingConfig`.
        empty_ids: `(T,)`, the empty caption; needed for guidance.
        given: `(B, G)`, the first codes of each image, which are kept; the others are drawn.
        dtype: Precision of matrix products and cache; logits are always compared in float32.

    Returns:
        Codes `(B, L)`, row-major.
    """
    B, device = len(text_ids), text_ids.device
    guided = config.cfg_scale != 1.0
    if guided:
        text_ids, entities = with_empty(text_ids, entities, empty_ids)
    random = uniforms(seeds, model.config.image_len, device)
    cache = KVCache(model.config, len(text_ids), device=device, dtype=dtype)
    codes = torch.empty(B, model.config.image_len, dtype=torch.long, device=device)
    fresh, first = text_ids, 0
    if given is not None:
        first = given.shape[1]
        codes[:, :first] = given
        fresh = torch.cat([text_ids, given.repeat(2 if guided else 1, 1)], 1)
    # Around the loop, since autocast keeps the weights it has cast only until it ends.
    with (
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        packed(model, len(text_ids), dtype),
    ):
        for n in range(first, model.config.image_len):
            logits = model(fresh, entities, cache=cache, first=fresh.shape[1] - 1)[:, -1]
            if guided:
                logits = guide(logits, guidance(config, n, model.config.image_len))
            codes[:, n] = pick(logits, random[:, n], config)
            fresh = codes[:, n : n + 1].repeat(2 if guided else 1, 1)
    return codes


@torch.no_grad()
def sample_plain(
    model: GPT,
    text_ids: Tensor,
    entities: Entities | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    *,
    empty_ids: Tensor | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """`sample` without a cache, a full forward pass for each code: slow, and its oracle."""
    random = uniforms(seeds, model.config.image_len, text_ids.device)
    codes = text_ids.new_empty(len(text_ids), 0) if given is None else given
    guided = config.cfg_scale != 1.0
    if guided:
        text_ids, entities = with_empty(text_ids, entities, empty_ids)
    for n in range(codes.shape[1], model.config.image_len):
        past = codes.repeat(2, 1) if guided else codes
        logits = model(torch.cat([text_ids, past], 1), entities)[:, -1]
        if guided:
            logits = guide(logits, guidance(config, n, model.config.image_len))
        codes = torch.cat([codes, pick(logits, random[:, n], config)[:, None]], 1)
    return codes


def guide(logits: Tensor, scale: float | Tensor) -> Tensor:
    """Logits with and without the caption, (2 B, V) -> (B, V)."""
    known, empty = logits.float().chunk(2)
    return empty + scale * (known - empty)


def with_empty(
    text_ids: Tensor, entities: Entities | None, empty_ids: Tensor | None
) -> tuple[Tensor, Entities | None]:
    """The batch followed by as many empty captions, which no entity covers."""
    if empty_ids is None:
        raise ConfigError("guidance (cfg_scale other than 1) needs the ids of the empty caption.")
    both = torch.cat([text_ids, empty_ids.expand_as(text_ids)])
    if entities is not None:
        entities = Entities(
            torch.cat([entities.vectors, torch.zeros_like(entities.vectors)]),
            torch.cat([entities.covers, torch.zeros_like(entities.covers)]),
            entities.filler,
        )
    return both, entities
