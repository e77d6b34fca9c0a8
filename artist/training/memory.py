"""Peak memory of a training, and advice when memory runs out."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from artist.training.config import SIZES, TrainConfig
from data.errors import ToolkitError

_SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory of tensors on a GPU, or of this process on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def advice_on_memory(advice: str, where: str) -> Iterator[None]:
    """Convert out-of-memory errors to an error that lists the options to lower, in order.

    Raises:
        ToolkitError: Memory ran out inside the block.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if type(error) is RuntimeError and not any(sign in text.lower() for sign in _SIGNS):
            raise
        reason = (text.splitlines() or ["no more memory"])[0].strip().rstrip(".")
        raise ToolkitError(f"out of memory ({reason}). {advice} {where}") from None


def what_to_lower(config: TrainConfig, processes: int = 1) -> str:
    """Return the options that reduce the memory of a GPT's training, the cheapest first."""
    steps = []
    micro = config.micro_batch_size or max(1, config.batch_size // processes)
    if micro > 1:
        smaller = next(n for n in range(micro // 2, 0, -1) if config.batch_size % n == 0)
        steps.append(f"--micro-batch-size {smaller} (now {micro}; the same training)")
    if not config.checkpoint_activations:
        steps.append("--checkpoint-activations (the same training, slower)")
    if config.precision == "fp32":
        steps.append("--precision auto")
    names = list(SIZES)
    if config.size != names[0]:
        steps.append(f"--size {names[names.index(config.size) - 1]} (a smaller model)")
    return f"Try, in this order: {', then '.join(steps)}." if steps else "Use a larger machine."
