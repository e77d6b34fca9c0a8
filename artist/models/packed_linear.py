"""Linear layers with weights in the fastest layout for products of few rows. CPU.

With few rows a product is bound by reading the weight, and torch's linear converts its layout each
time. Converted once for oneDNN, products of four rows take 0.6 of the time in float32 and 0.7 in
bfloat16, with the same results up to rounding. In float32, one row is fastest with the weight
transposed (0.9 of torch's linear, 0.8 of oneDNN's), two rows with the weight as it is. Where this
build of torch lacks the operations, nothing changes. Tensors only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether oneDNN's layout is available for products of this precision."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@contextmanager
def packed(model: nn.Module, rows: int, dtype: torch.dtype) -> Iterator[None]:
    """Compute all linear layers of `model` in `dtype` with packed copies of their weights.

    For inference; the weights must not change inside the block.

    Args:
        model: On the CPU; on other devices nothing is done.
        rows: Rows of the products to optimise for; other numbers work as well.
        dtype: float32 or bfloat16, also of the results.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    single = dtype == torch.float32 and rows == 1
    as_it_is = dtype == torch.float32 and rows == 2
    if not layers or not can_pack(layers[0].weight.device, dtype) or as_it_is:
        yield
        return
    try:
        for layer in layers:
            weight = layer.weight.detach().to(dtype)
            bias = None if layer.bias is None else layer.bias.detach().to(dtype)
            if single:
                forward = partial(_transposed, weight.T.contiguous(), bias)
            else:
                weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
                forward = partial(_linear, weight, bias)
            layer.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    dtype = weight.dtype
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, "none", [], "")
    return result


def _transposed(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.flatten(0, -2)
    result = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    return result.view(*x.shape[:-1], -1)
