"""From settings to what is put where."""

from __future__ import annotations

from torch import nn

from fedsparse.adapters.kinds.bottleneck import BottleneckInjection
from fedsparse.adapters.kinds.delta import DeltaInjection
from fedsparse.adapters.kinds.injection import Injection, KindSpec
from fedsparse.adapters.kinds.lora import LoraInjection, saves
from fedsparse.adapters.layers import Layer, LayerType, find_layers, matches, select_weights, split_name
from fedsparse.errors import ConfigError


def inject(network: nn.Module, spec: KindSpec) -> Injection:
    """Put an adapter's new parameters, if its kind has any, into ``network``.

    Which layers are adapted without ``include`` depends on the kind: every linear and convolutional weight
    (`delta`), those that factors are smaller than (`lora`), or the layers that narrow (`bottleneck`).

    Raises:
        ConfigError: a glob matches nothing, or the kind does not fit a layer.
        ModelError: a weight cannot be adapted; names its module.
    """
    names = select_weights(network, spec.include, spec.dense)
    if spec.kind == "delta":
        return DeltaInjection(tuple(names))
    dense = [name for name in names if matches(name, spec.dense)]
    layers = _layers(network, [name for name in names if name not in dense])
    if spec.kind == "lora":
        chosen = layers if spec.include else [layer for layer in layers if saves(layer, spec.rank)]
        return LoraInjection(_some(chosen, spec.kind), dense, spec.rank, spec.alpha)
    chosen = layers if spec.include else [layer for layer in layers if _narrows(layer)]
    return BottleneckInjection(_some(chosen, spec.kind), dense, spec.width)


def _layers(network: nn.Module, names: list[str]) -> list[Layer]:
    found = find_layers(network)
    modules = [module for module, parameter in map(split_name, names) if parameter == "weight"]
    return [found[module] for module in modules]


def _narrows(layer: Layer) -> bool:
    """Return whether the layer leads from wide hidden features back to the residual stream."""
    narrow = layer.type is not LayerType.EMBEDDING and layer.outputs < layer.inputs
    kernel = layer.weight.shape[2:]
    return narrow and all(extent == 1 for extent in kernel)


def _some(layers: list[Layer], kind: str) -> list[Layer]:
    if not layers:
        raise ConfigError(f"no layer of the base model takes a {kind} adapter", "Name some in adapter.include")
    return layers
