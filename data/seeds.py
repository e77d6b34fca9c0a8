"""One seed for a run, and an independent stream for each of its consumers."""

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """A seed (63 bits) for the consumer called `names`; a new consumer shifts no other.

    For example `torch.Generator().manual_seed(stream(seed, "negatives", epoch))`.
    """
    digest = hashlib.sha256("\0".join([str(seed), *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
