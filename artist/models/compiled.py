"""`torch.compile` with a fallback: where compilation fails, everything runs uncompiled."""

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
        """Call the module."""
        return self._call(*values)


@contextmanager
def many_variants(*, constant_weights: bool) -> Iterator[None]:
    """Allow any number of compiled variants (shapes, settings) of `compiled` functions.

    With `constant_weights` the compiler may change the layout of weights, which must stay constant.
    """
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    with dynamo.patch(recompile_limit=1000), inductor.patch(freezing=constant_weights):
        yield


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, compiled at its first call.

    If that fails (no C++ compiler, no Triton, an unsupported operation), the reason is logged as a
    warning, and the function runs uncompiled from then on.
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
