"""Depthwise convolution of maps smaller than the kernel, whose gradient PyTorch's CPU code takes very long for.

It takes 4 to 11 times what the sum over shifts below does, and most of a training step; on larger maps
PyTorch's own is faster (`make bench-gradients`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


def is_small(x: Tensor, size: int) -> bool:
    """Tell whether :func:`small_depthwise` is the faster way for inputs (n, c, h, w) and kernels of ``size``."""
    exact = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return exact and min(x.shape[2:]) < size


def small_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the depthwise convolution of stride 1 that keeps the map's size.

    Args:
        x: (n, c, h, w).
        weight: (c, 1, k, k), k odd.
        bias: (c,); gets no gradient.
    """
    result: Tensor = _SmallDepthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _SmallDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_input, to_weight, _ = ctx.needs_input_grad
        size = weight.shape[-1]
        of_input = (
            conv2d_input(  # type: ignore[no-untyped-call]
                x.shape, weight, gradient, padding=size // 2, groups=weight.shape[0]
            )
            if to_input
            else None
        )
        return of_input, _by_shifts(x, gradient, size) if to_weight else None, None


def _by_shifts(x: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Return the kernels' gradient, (c, 1, size, size): at each shift the sum over what then coincides.

    Args:
        x: (n, c, h, w).
        gradient: of the output, (n, c, h, w).
    """
    inputs, outputs = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    rows, columns = (_overlaps(length, size) for length in x.shape[2:])
    result = torch.zeros(size, size, x.shape[1], dtype=gradient.dtype)
    for i, (to_row, from_row) in rows.items():
        for j, (to_column, from_column) in columns.items():
            products = outputs[:, to_row, to_column] * inputs[:, from_row, from_column]
            result[i, j] = products.sum((0, 1, 2))
    return result.permute(2, 0, 1)[:, None]


def _overlaps(length: int, size: int) -> dict[int, tuple[slice, slice]]:
    """Return, for each place in the kernel that meets any input, which outputs it maps from which inputs."""
    found = {}
    for place in range(size):
        shift = place - size // 2
        if abs(shift) < length:
            first, end = max(0, -shift), min(length, length - shift)
            found[place] = slice(first, end), slice(first + shift, end + shift)
    return found
