"""From settings to what is put where."""

from __future__ import annotations

from collections.abc import Iterable

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
        return LoraInjection(_some(chosen, spec.kind), dense, spec.rank, spec.alpha, spec.factors)
    chosen = layers if spec.include else _narrowing(layers, find_layers(network).values())
    return BottleneckInjection(_some(chosen, spec.kind), dense, spec.width)


def _layers(network: nn.Module, names: list[str]) -> list[Layer]:
    found = find_layers(network)
    modules = [module for module, parameter in map(split_name, names) if parameter == "weight"]
    return [found[module] for module in modules]


def _narrowing(layers: Iterable[Layer], all_layers: Iterable[Layer]) -> list[Layer]:
    """Return those that lead from wide hidden features back to the residual stream: other layers start there.

    Keys and values of fewer heads than queries have are narrow too, but no layer starts from them.
    """
    pointwise = [layer for layer in all_layers if _is_pointwise(layer)]
    starts = {layer.inputs for layer in pointwise}
    narrow = [layer for layer in layers if _is_pointwise(layer) and layer.outputs < layer.inputs]
    return [layer for layer in narrow if layer.outputs in starts]


def _is_pointwise(layer: Layer) -> bool:
    return layer.type is not LayerType.EMBEDDING and all(extent == 1 for extent in layer.weight.shape[2:])


def _some(layers: list[Layer], kind: str) -> list[Layer]:
    if not layers:
        raise ConfigError(f"no layer of the base model takes a {kind} adapter", "Name some in adapter.include")
    return layers
