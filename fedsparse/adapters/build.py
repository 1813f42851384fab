"""From base model and settings to an adapter on it."""

from __future__ import annotations

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.bases import BaseModel
from fedsparse.adapters.kinds import KindSpec, inject
from fedsparse.adapters.layers import matches
from fedsparse.delta import AdapterSpace, TensorSpec


def build_adapter(base: BaseModel, spec: KindSpec) -> Adapter:
    """Put an adapter on the base model's network and derive its space, the same on every site.

    Raises:
        ConfigError: a glob matches nothing, or the kind does not fit a layer.
        ModelError: a weight cannot be adapted; names its module.
    """
    injection = inject(base.network, spec)
    tensors = [TensorSpec(name, tuple(base.network.get_parameter(name).shape)) for name in injection.names]
    dense = [position for position, tensor in enumerate(tensors) if matches(tensor.name, spec.dense)]
    return Adapter(base.network, AdapterSpace(base.fingerprint, tuple(tensors)), dense, injection)
