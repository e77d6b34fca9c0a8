"""`torch.compile` that needs no compiler: where it fails, the module runs as it is."""

import logging
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """A module, compiled at its first call.

    If that fails (no C++ compiler, no Triton, something that the compiler does not know), a warning
    says why, and the module runs uncompiled from then on.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._call: Any = torch.compile(module)

    def forward(self, *values: Any) -> Any:
        """What the module returns."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._call(*values)
        except TorchDynamoException as error:
            if self._call is self.module:
                raise
            reason = str(error).strip().splitlines()[0]
            log.warning("--compile does not work here (%s); going on without.", reason)
            self._call = self.module
            return self.module(*values)
