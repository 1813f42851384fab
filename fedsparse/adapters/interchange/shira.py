"""`delta` as a PEFT SHiRA folder; Bhardwaj et al. 2024 (https://arxiv.org/abs/2406.13175).

SHiRA keeps the values of ΔW, (m, n), in a vector and their coordinates beside it. PEFT loads the vectors only if
each is as long as its configuration says: r·(m + n), with one r for all layers, at linear layers alone. So r is
the smallest that has room for every layer's support, and what remains is filled with coordinates whose value is 0,
which change nothing. A folder has no place for a support of more than m·n / (m + n) · r' values, r' whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.interchange.content import Exported, Imported
from fedsparse.adapters.interchange.fields import require_plain_shira
from fedsparse.adapters.interchange.files import TensorFile
from fedsparse.adapters.interchange.keys import Keys
from fedsparse.adapters.interchange.subject import Subject, require_inside
from fedsparse.adapters.layers import LayerType, find_layers, split_name
from fedsparse.delta import SparseDelta, TensorDelta
from fedsparse.errors import DeltaError

WEIGHT, INDICES = "shira_weight", "shira_indices"
SUFFIXES = (WEIGHT, INDICES)


def export_shira(adapter: Adapter, state: SparseDelta, subject: Subject) -> Exported:
    """Return the changed coordinates of every weight that ``state`` changes, dense ones left out.

    Raises:
        DeltaError: nothing is changed, or SHiRA has no place for a change; names the tensor and the reason.
    """
    parts = {adapter.space.tensors[part.tensor].name: part for part in state.tensors if _counts(part, adapter)}
    if not parts:
        raise DeltaError("the adapter changes no weight that SHiRA could hold", "Train it first")
    require_inside(parts, subject)
    shapes = {name: _linear_shape(name, adapter.network) for name in parts}
    r = max(-(-int(np.count_nonzero(part.values)) // sum(shapes[name])) for name, part in parts.items())
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        module, _ = split_name(name)
        values, indices = _padded(name, part, shapes[name], r)
        tensors |= {f"{module}.{WEIGHT}": values, f"{module}.{INDICES}": indices}
    fields = {"peft_type": "SHIRA", "r": r, "mask_type": "random", "init_weights": True, "fan_in_fan_out": False}
    return Exported(fields, tuple(split_name(name)[0] for name in parts), tensors)


def import_shira(config: Mapping[str, Any], file: TensorFile, keys: Keys, network: nn.Module) -> Imported:
    """Read the changes; every tensor is checked against the base before it is read.

    Raises:
        DeltaError: the folder holds more than plain changes, or the tensors are not right.
    """
    r = require_plain_shira(config)
    changes: dict[str, tuple[Tensor, Tensor]] = {}
    for module, found in keys.adapted.items():
        name = f"{module}.weight"
        if missing := {WEIGHT, INDICES} - found.keys():
            raise DeltaError(f"{module} has no {missing.pop()} in the PEFT folder")
        rows, columns = _linear_shape(name, network)
        count = r * (rows + columns)
        _require_room(name, (rows, columns), r)
        row, column = file.read_indices(found[INDICES], (2, count))
        if row.min() < 0 or column.min() < 0 or row.max() >= rows or column.max() >= columns:
            raise DeltaError(f"{found[INDICES]}: a coordinate lies outside {name}, which is {rows} × {columns}")
        flat, order = torch.sort(row * columns + column)
        if torch.any(flat[1:] == flat[:-1]):
            raise DeltaError(f"{found[INDICES]}: a coordinate of {name} stands there twice")
        changes[name] = flat, file.read(found[WEIGHT], (count,))[order]
    return Imported({"kind": "delta"}, tuple(changes), {}, changes)


def _counts(part: TensorDelta, adapter: Adapter) -> bool:
    return part.tensor not in adapter.dense and bool(np.any(part.values))


def _linear_shape(name: str, network: nn.Module) -> tuple[int, int]:
    module, parameter = split_name(name)
    layer = find_layers(network)[module]
    if parameter != "weight" or layer.type is not LayerType.LINEAR or not layer.computes_plainly:
        kind = f"the {parameter} of a {type(layer.module).__name__}"
        raise DeltaError(
            f"SHiRA cannot hold {name}: it is {kind}, and PEFT has SHiRA for the weight of Linear layers alone",
            "Leave it out of the adapter",
        )
    rows, columns = layer.weight.shape
    return rows, columns


def _require_room(name: str, shape: tuple[int, int], r: int) -> None:
    rows, columns = shape
    if r * (rows + columns) > rows * columns:
        raise DeltaError(
            f"SHiRA cannot hold {name}: at r = {r} it takes {r * (rows + columns)} values of every layer of this "
            f"shape, but {rows} × {columns} has {rows * columns}",
            "Lower the density, or leave this layer out of the adapter",
        )


def _padded(name: str, part: TensorDelta, shape: tuple[int, int], r: int) -> tuple[Tensor, Tensor]:
    """Return values (k,) and coordinates (2, k), k = r·(m + n), of which the first unused ones have value 0."""
    _require_room(name, shape, r)
    count = r * sum(shape)
    kept = part.values != 0
    indices, values = part.indices[kept], part.values[kept]
    unused = np.setdiff1d(np.arange(count), indices)[: count - len(indices)]
    flat = np.concatenate([indices, unused])
    order = np.argsort(flat)
    padded = np.concatenate([values, np.zeros(len(unused), np.float32)])[order]
    rows, columns = np.divmod(flat[order], shape[1])
    return torch.from_numpy(padded), torch.from_numpy(np.stack([rows, columns]).astype(np.int32))
