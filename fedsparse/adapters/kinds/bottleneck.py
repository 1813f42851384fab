"""`bottleneck`: h + up(gelu(down(h))) after a layer; Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751).

Placed as Pfeiffer et al. (https://arxiv.org/abs/2005.00247) do, after each layer that narrows; sparse as in
SparseAdapter (https://arxiv.org/abs/2210.04284).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedsparse.adapters.kinds.injection import initial, insert, zeros
from fedsparse.adapters.layers import Layer, LayerType
from fedsparse.errors import ConfigError, ModelError


class Bottleneck(nn.Module):
    """Down to ``width`` features and up again; `up` starts at zero, so that it changes nothing untrained.

    Raises:
        ConfigError: that is more than the layer has, so no bottleneck.
    """

    def __init__(self, layer: Layer, width: int) -> None:
        super().__init__()
        features = layer.outputs
        if width > features:
            raise ConfigError(
                f"adapter.width = {width} is no bottleneck after {layer.name}, which has {features} features",
                "Choose a smaller width, or leave this layer out of adapter.include",
            )
        self.down = initial(
            f"{layer.name}.bottleneck.down", (width, features), 1 / math.sqrt(features), layer.weight
        )
        self.up = zeros((features, width), layer.weight)
        self._channels_first = layer.type is LayerType.CONVOLUTION

    def forward(self, h: Tensor) -> Tensor:
        """Return the layer's output with what the bottleneck adds; (..., features) or (n, features, h, w)."""
        rows = h.movedim(1, -1) if self._channels_first else h
        added = F.linear(F.gelu(F.linear(rows, self.down)), self.up)
        return h + (added.movedim(-1, 1) if self._channels_first else added)


class BottleneckInjection:
    """Bottlenecks after some layers.

    Args:
        layers: get one each.
        dense: names of further weights in the space, as they are.

    Raises:
        ConfigError: a layer has fewer features than ``width``.
        ModelError: a layer's output is never seen, as its owner computes with the weight itself.
    """

    kind = "bottleneck"

    def __init__(self, layers: Sequence[Layer], dense: Sequence[str], width: int) -> None:
        for layer in layers:
            _require_called(layer)
        insert({layer: Bottleneck(layer, width) for layer in layers}, "bottleneck")
        self._layers = layers
        self._handles = [layer.module.register_forward_hook(_pass_through) for layer in layers]
        self.names = (*(f"{layer.name}.bottleneck.{part}" for layer in layers for part in ("down", "up")), *dense)

    def merge(self) -> None:
        """Refuse: a non-linearity lies between the factors.

        Raises:
            ModelError: always.
        """
        raise ModelError("a bottleneck cannot be merged into the base's weights", "Choose delta or lora for that")

    def unmerge(self) -> None:
        """Do nothing: it is never merged."""

    def remove(self) -> None:
        """Take the bottlenecks out."""
        for handle in self._handles:
            handle.remove()
        for layer in self._layers:
            del layer.module._modules["bottleneck"]


def _pass_through(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    result: Tensor = module.get_submodule("bottleneck")(output)
    return result


def _require_called(layer: Layer) -> None:
    if isinstance(layer.module, NonDynamicallyQuantizableLinear):  # part of nn.MultiheadAttention
        raise ModelError(
            f"no bottleneck fits after {layer.name}: torch's attention uses its weight without calling it",
            "Leave it out of adapter.include, or choose delta or lora",
        )
