"""A linear layer whose backward pass computes its weight's gradient only at a support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from fedsparse.adapters.gradients import GradientKernel


class _SparseLinear(torch.autograd.Function):
    """y = x·Wᵀ + b with W frozen in autograd's eyes; the gradient at the support goes to the layer's ``sink``.

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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        layer: SparseLinear = ctx.layer
        rows, inputs = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        layer.sink(layer.kernel(inputs, rows) if layer.transposed else layer.kernel(rows, inputs))
        needs_x, _, needs_bias, _, _ = ctx.needs_input_grad
        into_x = gradient @ (weight.t() if layer.transposed else weight) if needs_x else None
        return into_x, None, rows.sum(0) if needs_bias else None, None, None


class SparseLinear:
    """Replaces the forward pass of one module until it is removed.

    Args:
        module: a linear layer, or transformers' Conv1D with a weight (in, out).
        kernel: computes the gradient at the support.
        anchor: the parameter that holds the values.
        sink: gets their gradient, (k,), once per use of the layer.
        transposed: the weight is (in, out).
    """

    def __init__(
        self,
        module: nn.Module,
        kernel: GradientKernel,
        anchor: nn.Parameter,
        sink: Callable[[Tensor], None],
        *,
        transposed: bool,
    ) -> None:
        self.kernel = kernel
        self.sink = sink
        self.transposed = transposed
        self._module = module
        self._weight = module.get_parameter("weight")
        self._anchor = anchor
        module.forward = self._forward

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        del self._module.forward

    def _forward(self, *given: Tensor, **named: Tensor) -> Tensor:
        (x,) = (*given, *named.values())  # torch calls it `input`, transformers `x`
        weight = self._weight.detach()  # other uses of the weight reach autograd, this one does not
        result: Tensor = _SparseLinear.apply(x, weight, self._module.bias, self._anchor, self)  # type: ignore[no-untyped-call]
        return result
