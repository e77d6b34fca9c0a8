"""A simulated accelerator without values, for machines without a GPU.

Its tensors have shapes and types only. Like a GPU it refuses to mix its tensors with the CPU's;
unlike a GPU it also refuses to return a value (`.item()`, `if tensor:`), which would synchronise a
GPU. It cannot check results: `tests/artist/test_devices.py` compares them where a GPU exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "numberless"


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Create tensors without values inside; `.to(device)` moves them to the accelerator."""
    _register()
    with FakeTensorMode():
        yield torch.device(NAME, 0)


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module on the device; `module.to` does not support tensors without values."""
    for part in module.modules():
        for kind, make in ((part._parameters, nn.Parameter), (part._buffers, lambda t: t)):
            for name, tensor in kind.items():
                if tensor is not None:
                    kind[name] = make(tensor.detach().to(device))
    return module
