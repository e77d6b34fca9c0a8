"""Sample image codes from text: prefill, then one-token steps over a key-value cache. Tensors only.

    B batch   T text tokens   L image codes   V codebook_size

All random numbers, `(B, L)`, are generated before the first step, by one generator per row. A code
is sampled by inverting its cumulative distribution. So a row depends on its own seed and not on the
other rows of its batch (up to float rounding in matrix products of another batch size), and cached
and uncached sampling give the same codes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from artist.generation.config import SamplingConfig
from artist.models.conditioning import Entities
from artist.models.gpt import GPT, KVCache
from artist.models.packed_linear import packed
from data.errors import ConfigError


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Return logits with all below the k-th largest set to minus infinity; ties are kept."""
    top_k = min(top_k, logits.shape[-1])
    smallest = logits.topk(top_k).values[..., -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Return logits with all outside the smallest set of probability `top_p` at minus infinity."""
    ordered, order = logits.softmax(-1).sort(descending=True, dim=-1)
    surplus = ordered.cumsum(-1) - ordered >= top_p  # more likely codes reach top_p already
    return logits.masked_fill(torch.zeros_like(surplus).scatter(-1, order, surplus), -torch.inf)


def sample_code(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """Sample one code per row: logits (B, V), numbers in [0, 1) (B,) -> codes (B,)."""
    logits = logits.float() / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    cumulative = logits.softmax(-1).double().cumsum(-1)  # (B, V)
    target = uniform.double()[:, None] * cumulative[:, -1:]
    code = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    # Rounding can move the target to the total; then take the last code of nonzero probability.
    last = logits.shape[-1] - 1 - logits.isfinite().flip(-1).int().argmax(-1)
    return torch.minimum(code, last)


def guidance_scale(config: SamplingConfig, n: int, image_len: int) -> float:
    """Return the guidance scale for code n of an image."""
    t = n / max(1, image_len - 1)  # 0 at the first code, 1 at the last
    share = {"constant": 1.0, "linear": t, "cosine": (1 - math.cos(math.pi * t)) / 2}
    return 1.0 + (config.cfg_scale - 1.0) * share[config.cfg_schedule]


def random_numbers(seeds: Sequence[int], image_len: int, device: torch.device) -> Tensor:
    """Return uniform random numbers (B, L); row i depends on seeds[i] only."""
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
    """Sample the codes of one image per row.

    Args:
        model: In eval mode.
        text_ids: `(B, T)`, shifted by the codebook's size.
        entities: Entities of the captions, or None.
        seeds: One per row.
        config: See `SamplingConfig`.
        empty_ids: `(T,)`, the empty caption; required for guidance.
        given: `(B, G)`, the first codes of each image, which are kept; the others are sampled.
        dtype: Precision of matrix products and cache; logits are always compared in float32.

    Returns:
        Codes `(B, L)`, row-major.

    Raises:
        ConfigError: Guidance is on and `empty_ids` is missing.
    """
    device = text_ids.device
    if config.cfg_scale != 1.0:
        text_ids, entities = with_empty(text_ids, entities, empty_ids)
    cache = KVCache(model.config, len(text_ids), device=device, dtype=dtype)

    def next_logits(past: Tensor) -> Tensor:
        ids = past[:, -1:] if cache.length else torch.cat([text_ids, past], 1)
        logits: Tensor = model(ids, entities, cache=cache, first=ids.shape[1] - 1)
        return logits[:, -1]

    # Around the loop: autocast caches the weights it casts only until it exits.
    with (
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        packed(model, len(text_ids), dtype),
    ):
        return _sample_codes(next_logits, seeds, config, model.config.image_len, device, given)


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
    """Do what `sample` does without a cache, by a forward pass per code; slow, for tests."""
    device = text_ids.device
    if config.cfg_scale != 1.0:
        text_ids, entities = with_empty(text_ids, entities, empty_ids)

    def next_logits(past: Tensor) -> Tensor:
        logits: Tensor = model(torch.cat([text_ids, past], 1), entities)
        return logits[:, -1]

    return _sample_codes(next_logits, seeds, config, model.config.image_len, device, given)


def _sample_codes(
    next_logits: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    config: SamplingConfig,
    image_len: int,
    device: torch.device,
    given: Tensor | None,
) -> Tensor:
    """Sample codes (B, L) one by one.

    `next_logits` maps the past codes (B, n), repeated to (2 B, n) with guidance, to (B or 2 B, V).
    """
    random = random_numbers(seeds, image_len, device)
    codes = torch.empty(len(seeds), image_len, dtype=torch.long, device=device)
    first = 0
    if given is not None:
        first = given.shape[1]
        codes[:, :first] = given
    guided = config.cfg_scale != 1.0
    for n in range(first, image_len):
        past = codes[:, :n]
        logits = next_logits(past.repeat(2, 1) if guided else past)
        if guided:
            logits = guide(logits, guidance_scale(config, n, image_len))
        codes[:, n] = sample_code(logits, random[:, n], config)
    return codes


def guide(logits: Tensor, scale: float | Tensor) -> Tensor:
    """Combine logits with and without the caption by the guidance scale: (2 B, V) -> (B, V)."""
    conditional, empty = logits.float().chunk(2)
    return empty + scale * (conditional - empty)


def with_empty(
    text_ids: Tensor, entities: Entities | None, empty_ids: Tensor | None
) -> tuple[Tensor, Entities | None]:
    """Return the batch (2 B) followed by B empty captions without entities.

    Raises:
        ConfigError: `empty_ids` is missing.
    """
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
