"""A linear layer whose backward pass computes its weight's gradient only at a support."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from fedsparse.adapters.gradients import GradientKernel


class _SparseLinear(torch.autograd.Function):
    """y = x·Wᵀ + b with W frozen in autograd's eyes; the gradient at the support goes to ``sink``.

    ``anchor`` is a parameter that requires gradients, so that the backward pass reaches here; it gets none itself.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, anchor: Tensor, layer: SparseLinear
    ) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            lower = torch.get_autocast_dtype(kind)
            x, weight = x.to(lower), weight.to(lower)
            bias = None if bias is None else bias.to(lower)
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return F.linear(x, weight.t() if layer.transposed else weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, weight = ctx.saved_tensors
        layer: SparseLinear = ctx.layer
        rows, inputs = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        layer.sink.add_(layer.kernel(inputs, rows) if layer.transposed else layer.kernel(rows, inputs))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        return gradient @ (weight.t() if layer.transposed else weight), None, None, None, None


class SparseLinear:
    """Replaces the forward pass of one module until it is removed.

    Args:
        module: a linear layer, or transformers' Conv1D with a weight (in, out).
        kernel: computes the gradient at the support.
        anchor: the parameter that holds the values.
        sink: where their gradient is added up, (k,).
        transposed: the weight is (in, out).
    """

    def __init__(
        self, module: nn.Module, kernel: GradientKernel, anchor: nn.Parameter, sink: Tensor, *, transposed: bool
    ) -> None:
        self.kernel = kernel
        self.sink = sink
        self.transposed = transposed
        self._module = module
        self._anchor = anchor
        module.forward = self._forward

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        del self._module.forward

    def _forward(self, x: Tensor) -> Tensor:
        module = self._module
        result: Tensor = _SparseLinear.apply(x, module.weight, module.bias, self._anchor, self)  # type: ignore[no-untyped-call]
        return result
