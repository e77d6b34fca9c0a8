"""`torch.compile` that needs no compiler: where it fails, everything runs as it is."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """A module, compiled at its first call; see `compiled`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._call = compiled(module)

    def forward(self, *values: Any) -> Any:
        """What the module returns."""
        return self._call(*values)


@contextmanager
def many_variants(*, constant_weights: bool) -> Iterator[None]:
    """For calls of `compiled` functions: any number of shapes and settings may be compiled.

    With `constant_weights` the compiler may lay weights out as it likes: they never change again.
    """
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    with dynamo.patch(recompile_limit=1000), inductor.patch(freezing=constant_weights):
        yield


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, compiled at its first call.

    If that fails (no C++ compiler, no Triton, something that the compiler does not know), a warning
    says why, and it runs uncompiled from then on.
    """
    fast: Callable[..., Any] | None = torch.compile(call)

    def run(*values: Any) -> Any:
        nonlocal fast
        if fast is None:
            return call(*values)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return fast(*values)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            log.warning("--compile does not work here (%s); continuing without it.", reason)
            fast = None
            return call(*values)

    return run
