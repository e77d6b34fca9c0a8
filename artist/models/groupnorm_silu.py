"""Fused group normalisation and swish on feature maps in bfloat16. CPU, inference.

    B images   C channels   P positions (h * w)   G groups   K parts of the positions

Outside its convolutions a decoder is bound by memory bandwidth. torch needs five passes for a group
normalisation and its swish, this module three (read; read and write); and three to add a
convolution's result to a shortcut, which here the convolution does. Values are rounded to bfloat16
once instead of twice. Inputs other than bfloat16 on a CPU, in channels-last layout and without
gradients, are computed by torch. Tensors only.
"""

import functools
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from data.jit import in_threads, jit

_PART = 2048  # positions that are summed in float32
_LOG2_E = 1.4426950408889634


def norm_swish(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return the swish of the normalised features (B, C, h, w); `x` is unchanged."""
    if not _fits(x, norm.weight):
        return F.silu(norm(x), inplace=not torch.is_grad_enabled())
    B, C, h, w = x.shape
    positions = _positions(x)
    parts = -(-h * w // _PART)
    partial = np.empty((B * parts, 2, C))
    threads = torch.get_num_threads()
    in_threads(_sum_parts, B * parts, threads, positions, partial)
    scale, shift = _scale_and_shift(partial.reshape(B, parts, 2, C).sum(1), norm, h * w)
    out = torch.empty_like(x)
    in_threads(_scale_and_swish, B * parts, threads, positions, scale, shift, _positions(out))
    return out


def add_conv(shortcut: Tensor, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the sum of `shortcut` and conv(x); without gradients `shortcut` may be overwritten."""
    if not (_fits(x, conv.weight) and _fits(shortcut, conv.weight) and _can_add()):
        return shortcut + cast(Tensor, conv(x))
    added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        shortcut, x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation,
        conv.groups, "add", 1.0, None, [], None,
    )  # fmt: skip
    return added


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Return whether this module computes these features."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _can_add() -> bool:
    """Return whether this build of torch has a bfloat16 convolution that adds to its output."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _positions(x: Tensor) -> NDArray[np.uint16]:
    """Return a view of the bits of features (B, C, h, w) as (B, P, C)."""
    bits: NDArray[np.uint16] = x.permute(0, 2, 3, 1).flatten(1, 2).view(torch.uint16).numpy()
    return bits


def _scale_and_shift(
    sums: NDArray[np.float64], norm: nn.GroupNorm, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and shift (B, C) of each channel that normalise it.

    `sums` (B, 2, C) are the sums of the values and of their squares.
    """
    B, _, C = sums.shape
    groups = norm.num_groups
    mean, square = np.moveaxis(sums.reshape(B, 2, groups, -1).sum(3) / (count * C // groups), 1, 0)
    deviation = np.sqrt((square - mean * mean).clip(min=0) + norm.eps)  # (B, G)
    weight, bias = (p.double().numpy().reshape(groups, -1) for p in (norm.weight, norm.bias))
    scale = weight / deviation[:, :, None]  # (B, G, C / G)
    shift = bias - mean[:, :, None] * scale
    return scale.reshape(B, C).astype(np.float32), shift.reshape(B, C).astype(np.float32)


# Sums may be reordered, which allows SIMD, and division by zero is not an error.
_jit = functools.partial(jit, fastmath=True, error_model="numpy")


@_jit
def _sum_parts(
    begin: int, end: int, x: NDArray[np.uint16], out: NDArray[np.float64]
) -> None:  # (B, P, C) -> (B * K, 2, C)
    """Write the sums of the values and of their squares over each of the parts begin..end."""
    size, channels = x.shape[1], x.shape[2]
    parts = -(-size // _PART)
    pivot = np.empty(channels, np.float32)  # float32 sums small differences, not large squares
    total, square = np.empty_like(pivot), np.empty_like(pivot)
    for part in range(begin, end):
        rows, first = x[part // parts], part % parts * _PART
        last = min(first + _PART, size)
        for c in range(channels):
            pivot[c] = np.uint32(np.uint32(rows[first, c]) << np.uint32(16)).view(np.float32)
        total[:] = 0
        square[:] = 0
        for p in range(first, last):
            for c in range(channels):
                value = np.uint32(np.uint32(rows[p, c]) << np.uint32(16)).view(np.float32)
                value -= pivot[c]
                total[c] += value
                square[c] += value * value
        for c in range(channels):
            base, more = np.float64(pivot[c]), np.float64(total[c])
            out[part, 0, c] = more + (last - first) * base
            out[part, 1, c] = square[c] + base * (2 * more + (last - first) * base)


@_jit
def _scale_and_swish(
    begin: int,
    end: int,
    x: NDArray[np.uint16],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.uint16],
) -> None:  # (B, P, C), (B, C), (B, C) -> (B, P, C)
    """Write v / (1 + exp(-v)), v = scale * x + shift, of the parts begin..end into `out`."""
    size, channels = x.shape[1], x.shape[2]
    parts = -(-size // _PART)
    for part in range(begin, end):
        image, first = part // parts, part % parts * _PART
        rows, results, factor, more = x[image], out[image], scale[image], shift[image]
        for p in range(first, min(first + _PART, size)):
            for c in range(channels):
                value = np.uint32(np.uint32(rows[p, c]) << np.uint32(16)).view(np.float32)
                value = value * factor[c] + more[c]
                # exp(-v) = 2^n 2^f with 0 <= f < 1; 2^f by a cubic, whose error of 1e-4 is a
                # twentieth of bfloat16's rounding; 127 is the exponent's bias.
                power = np.float32(-_LOG2_E) * value
                power = min(max(power, np.float32(-126)), np.float32(126)) + np.float32(127)
                n = np.int32(power)
                f = power - np.float32(n)
                cubic = np.float32(0.2274558) + f * np.float32(0.0773493)
                cubic = np.float32(1) + f * (np.float32(0.6951949) + f * cubic)
                exp = cubic * np.uint32(np.uint32(n) << np.uint32(23)).view(np.float32)
                result = np.float32(value / (np.float32(1) + exp))
                rounded = np.uint32(result.view(np.uint32) + np.uint32(0x8000))
                results[p, c] = np.uint16(rounded >> np.uint32(16))
