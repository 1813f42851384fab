"""What stands in a PEFT folder, in the network's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsparse.adapters.adapter import Adapter
from fedsparse.delta import Operation, SparseDelta, TensorDelta


@dataclass(frozen=True)
class Exported:
    """One kind's share of a folder that is written.

    Attributes:
        fields: of adapter_config.json.
        modules: that PEFT is to adapt, by name within the network.
        tensors: by name within the network, with PEFT's suffix.
    """

    fields: dict[str, Any]
    modules: tuple[str, ...]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Imported:
    """One kind's share of a folder that is read.

    Attributes:
        settings: of `config.AdapterSettings`.
        include: names of the weights that are adapted.
        values: what parameters of the adapter space shall be, whole.
        changes: by how much others shall change, and where: flat indices, strictly increasing, and values, (k,).
    """

    settings: dict[str, Any]
    include: tuple[str, ...]
    values: dict[str, Tensor]
    changes: dict[str, tuple[Tensor, Tensor]]


def state_of(
    adapter: Adapter, values: Mapping[str, Tensor], changes: Mapping[str, tuple[Tensor, Tensor]]
) -> SparseDelta:
    """Return the state that gives a fresh adapter these values and changes; what it leaves out stays initial."""
    parts = []
    for position, tensor in enumerate(adapter.space.tensors):
        if tensor.name in values:
            offsets = values[tensor.name].reshape(-1) - adapter.current(position).float().cpu()
            where = torch.arange(tensor.size)
        elif tensor.name in changes:
            where, offsets = changes[tensor.name]
        else:
            continue
        if torch.any(kept := offsets != 0):
            parts.append(TensorDelta(position, where[kept].numpy(), offsets[kept].numpy().astype(np.float32)))
    return SparseDelta(adapter.space.fingerprint, Operation.SET, tuple(parts))
