"""`lora`: W + (alpha / rank)·B·A with A (rank, in) and B (out, rank); https://arxiv.org/abs/2106.09685.

Masked for federation as in FLASC (https://arxiv.org/abs/2406.05233): what travels of A and B is sparse.
Convolutions and embeddings see their weight as a matrix (out, in·h·w) or (vocabulary, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedsparse.adapters.kinds.injection import initial, insert, zeros
from fedsparse.adapters.layers import Layer, LayerType
from fedsparse.errors import ConfigError


def matrix_shape(layer: Layer) -> tuple[int, int]:
    """Return (out, in) of the layer's weight seen as a matrix."""
    rows = layer.weight.shape[0]
    columns = layer.weight.numel() // rows
    return (columns, rows) if layer.type is LayerType.CONV1D else (rows, columns)


def saves(layer: Layer, rank: int) -> bool:
    """Return whether factors of this rank are smaller than the weight."""
    rows, columns = matrix_shape(layer)
    return rank * (rows + columns) < rows * columns


class LowRank(nn.Module):
    """The factors of one layer; A starts uniform as in PEFT, B at zero.

    Raises:
        ConfigError: they would be no smaller than the weight.
    """

    def __init__(self, layer: Layer, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = matrix_shape(layer)
        if not saves(layer, rank):
            raise ConfigError(
                f"adapter.rank = {rank} saves nothing at {layer.name}, whose weight is {rows} × {columns}",
                "Choose a smaller rank, or leave this layer out of adapter.include",
            )
        self.A = initial(f"{layer.name}.lora.A", (rank, columns), 1 / math.sqrt(columns), layer.weight)
        self.B = zeros((rows, rank), layer.weight)
        self.scale = alpha / rank
        self._shape = layer.weight.shape
        self._transposed = layer.type is LayerType.CONV1D

    def product(self) -> Tensor:
        """Return what is added to the weight, in its shape."""
        product = (self.B @ self.A) * self.scale
        return product.t() if self._transposed else product.view(self._shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to a linear layer's output; (..., in) to (..., out)."""
        return F.linear(F.linear(x, self.A), self.B) * self.scale


class LoraInjection:
    """Low-rank factors beside some layers' weights.

    Args:
        layers: get factors.
        dense: names of further weights in the space, as they are.
        factors: "both" are trained, or "b" alone: with the same frozen A everywhere the average of the products is
            the product of the averages, exactly (FFA-LoRA, https://arxiv.org/abs/2403.12313). Of both, averaging
            A and B apart is an approximation (as in https://arxiv.org/abs/2305.05644).
    """

    kind = "lora"

    def __init__(
        self,
        layers: Sequence[Layer],
        dense: Sequence[str],
        rank: int,
        alpha: float,
        factors: Literal["both", "b"] = "both",
    ) -> None:
        self.rank, self.alpha = rank, alpha
        self.factors = {layer.name: LowRank(layer, rank, alpha) for layer in layers}
        self._layers = layers
        self._originals: list[Tensor] = []
        insert({layer: self.factors[layer.name] for layer in layers}, "lora")
        self._disconnections = [_connect(layer, self.factors[layer.name]) for layer in layers]
        trained = "AB" if factors == "both" else "B"
        self.names = (*(f"{layer.name}.lora.{part}" for layer in layers for part in trained), *dense)

    @torch.no_grad()
    def merge(self) -> None:
        """Add each product to its weight and compute nothing beside it any more."""
        self._disconnect()
        self._originals = [layer.weight.detach().clone() for layer in self._layers]
        for layer in self._layers:
            layer.weight.add_(self.factors[layer.name].product())

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the weights from their copies."""
        for layer, original in zip(self._layers, self._originals, strict=True):
            layer.weight.copy_(original)
        self._originals = []
        self._disconnections = [_connect(layer, self.factors[layer.name]) for layer in self._layers]

    def remove(self) -> None:
        """Take the factors out."""
        self._disconnect()
        for layer in self._layers:
            del layer.module._modules["lora"]

    def _disconnect(self) -> None:
        for disconnect in self._disconnections:
            disconnect()
        self._disconnections = []


def _connect(layer: Layer, factors: LowRank) -> Callable[[], object]:
    """Let the layer compute with its factors; return what ends this."""
    if layer.computes_plainly:
        return layer.module.register_forward_hook(_add_product, with_kwargs=True).remove
    # Elsewhere the weight is computed anew each time: cheap beside a convolution, and right for every layout.
    order = list(layer.module._parameters)
    parametrize.register_parametrization(layer.module, "weight", _Sum(factors), unsafe=True)

    def disconnect() -> None:
        parametrize.remove_parametrizations(layer.module, "weight", leave_parametrized=False)
        for name in order:  # or the weight would come last, and the space of the next adapter be another one
            layer.module._parameters[name] = layer.module._parameters.pop(name)

    return disconnect


def _add_product(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
    (x,) = (*given, *named.values())
    result: Tensor = output + module.get_submodule("lora")(x)
    return result


class _Sum(nn.Module):
    """A weight plus a product of factors that another module owns."""

    def __init__(self, factors: LowRank) -> None:
        super().__init__()
        self._product = factors.product  # a bound method: the factors do not become parameters here too

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self._product()
