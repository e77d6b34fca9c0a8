"""The device that a run computes on. torch is imported when a device is chosen."""

from typing import TYPE_CHECKING

from data.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> "torch.device":
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`.

    `cuda` becomes the current GPU with its index, because tensors name their device with an index
    and devices are compared.

    Raises:
        ConfigError: A GPU was requested and torch finds none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {name}: torch {torch.__version__} sees no GPU. Use --device cpu, or install "
            "a CUDA build of torch."
        )
    return (
        torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)
    )
