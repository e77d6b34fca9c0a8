"""An accelerator without numbers, for machines that have none.

Tensors on it have shapes and types only. Like a GPU it refuses to mix its tensors with the CPU's;
unlike one it also refuses to send a value back (`.item()`, `if tensor:`), for which a GPU's program
would have to wait. It says nothing of results: `tests/artist/test_devices.py` compares those where
there is a GPU.
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
    """Tensors made inside have no numbers; `.to(device)` brings them to the accelerator."""
    _register()
    with FakeTensorMode():
        yield torch.device(NAME, 0)


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """`module.to(device)`, which tensors without numbers do not support."""
    for part in module.modules():
        for kind, make in ((part._parameters, nn.Parameter), (part._buffers, lambda t: t)):
            for name, tensor in kind.items():
                if tensor is not None:
                    kind[name] = make(tensor.detach().to(device))
    return module
