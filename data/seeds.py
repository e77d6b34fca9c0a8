"""Independent random streams, derived from the one seed of a run."""

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed of the stream called `names`; new streams do not affect others.

    For example `torch.Generator().manual_seed(stream(seed, "negatives", epoch))`.
    """
    digest = hashlib.sha256("\0".join([str(seed), *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
