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
from artist.generation.jacobi import GumbelNoise, jacobi
from artist.models.conditioning import Entities
from artist.models.config import GPTConfig
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


def filtered(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Return logits (..., V) at the temperature, with codes that must not occur at -infinity."""
    logits = logits.float() / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    return logits


def sample_code(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """Sample one code per row: logits (B, V), numbers in [0, 1) (B,) -> codes (B,)."""
    logits = filtered(logits, config)
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

    def next_logits(past: Tensor, n: int) -> Tensor:
        if not cache.length:
            ids = torch.cat([text_ids, past], 1)
        else:
            cache.length = model.config.text_len + n - 1  # what follows was guessed
            ids = past[:, n - 1 :]
        first = ids.shape[1] - 1 - (past.shape[1] - n)
        logits: Tensor = model(ids, entities, cache=cache, first=first)
        return logits

    window = config.jacobi_window if len(seeds) == 1 else None
    # Around the loop: autocast caches the weights it casts only until it exits.
    with (
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        packed(model, len(text_ids) * (window or 1), dtype),
    ):
        return _sample_codes(next_logits, seeds, config, model.config, device, given, window)


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

    def next_logits(past: Tensor, n: int) -> Tensor:
        logits: Tensor = model(torch.cat([text_ids, past], 1), entities)
        return logits[:, -1:]

    return _sample_codes(next_logits, seeds, config, model.config, device, given)


def _sample_codes(
    next_logits: Callable[[Tensor, int], Tensor],
    seeds: Sequence[int],
    config: SamplingConfig,
    sizes: GPTConfig,
    device: torch.device,
    given: Tensor | None,
    window: int | None = None,
) -> Tensor:
    """Sample codes (B, L), one by one or, with a window, several per pass.

    `next_logits` maps codes (B, E), repeated to (2 B, E) with guidance, of which the first n are
    final, and n to the logits of codes n to E: (B or 2 B, E + 1 - n, V).
    """
    L = sizes.image_len
    codes = torch.empty(len(seeds), L, dtype=torch.long, device=device)
    first = 0
    if given is not None:
        first = given.shape[1]
        codes[:, :first] = given
    if first == L:
        return codes
    guided = config.cfg_scale != 1.0
    scales = torch.tensor([guidance_scale(config, n, L) for n in range(L)]).to(device)

    def logits_from(past: Tensor, n: int) -> Tensor:  # (B, E + 1 - n, V)
        logits = next_logits(past.repeat(2, 1) if guided else past, n)
        return guide(logits, scales[n : past.shape[1] + 1, None]) if guided else logits

    if config.jacobi_window is None:
        random = random_numbers(seeds, L, device)
        for n in range(first, L):
            codes[:, n] = sample_code(logits_from(codes[:, :n], n)[:, 0], random[:, n], config)
        return codes
    noise = GumbelNoise(seeds, sizes.image_vocab_size, device)
    if window is not None:
        jacobi(
            lambda past, n: filtered(logits_from(past, n), config)[0], noise, codes, first, window
        )
        return codes
    for n in range(first, L):
        logits = filtered(logits_from(codes[:, :n], n)[:, 0], config)
        codes[:, n] = (logits + noise.at(n)).argmax(-1)
    return codes


def guide(logits: Tensor, scale: float | Tensor) -> Tensor:
    """Combine logits with and without the caption by the scale: (2 B, ..., V) -> (B, ..., V)."""
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
