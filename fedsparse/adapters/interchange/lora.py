"""`lora` as a PEFT LoRA folder; Hu et al. 2021 (https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.interchange import factors
from fedsparse.adapters.interchange.content import Exported, Imported
from fedsparse.adapters.interchange.fields import require_plain_lora
from fedsparse.adapters.interchange.files import TensorFile
from fedsparse.adapters.interchange.keys import Keys
from fedsparse.adapters.interchange.subject import Subject, require_inside
from fedsparse.adapters.kinds.lora import LoraInjection
from fedsparse.adapters.layers import find_layers
from fedsparse.errors import DeltaError


def export_lora(adapter: Adapter, injection: LoraInjection, subject: Subject) -> Exported:
    """Return the factors as they are.

    Raises:
        DeltaError: a layer is none that PEFT adapts in the same way; names it and the reason.
    """
    require_inside(injection.factors, subject)
    modules = {name: adapter.network.get_submodule(name) for name in injection.factors}
    tensors: dict[str, Tensor] = {}
    for name, low_rank in injection.factors.items():
        _require_common(name, modules[name])
        for suffix, tensor in factors.to_peft(modules[name], low_rank.A, low_rank.B).items():
            tensors[f"{name}.{suffix}"] = tensor
    fields = {
        "peft_type": "LORA",
        "r": injection.rank,
        "lora_alpha": int(injection.alpha) if injection.alpha == int(injection.alpha) else injection.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(type(module).__name__ == "Conv1D" for module in modules.values()),
    }
    return Exported(fields, tuple(modules), tensors)


def import_lora(config: Mapping[str, Any], file: TensorFile, keys: Keys, network: nn.Module) -> Imported:
    """Read the factors; every tensor is checked against the base before it is read.

    Raises:
        DeltaError: the folder holds more than plain factors of one rank, or the tensors are not right.
    """
    rank, alpha = require_plain_lora(config)
    layers = find_layers(network)
    values: dict[str, Tensor] = {}
    for name, found in keys.adapted.items():
        layer = layers[name]
        _require_common(name, layer.module)
        wanted = factors.shapes(layer, rank)
        if found.keys() != wanted.keys():
            raise DeltaError(
                f"{name} needs {' and '.join(sorted(wanted))}, "
                f"but the PEFT folder has {', '.join(sorted(found))} of it"
            )
        read = {suffix: file.read(key, wanted[suffix]) for suffix, key in found.items()}
        values[f"{name}.lora.A"], values[f"{name}.lora.B"] = factors.from_peft(read)
    include = tuple(f"{name}.weight" for name in keys.adapted)
    return Imported({"kind": "lora", "rank": rank, "alpha": alpha}, include, values, {})


def _require_common(name: str, module: nn.Module) -> None:
    if (reason := factors.obstacle(module)) is not None:
        raise DeltaError(f"PEFT cannot adapt {name} as fedsparse does: {reason}", "Leave it out of the adapter")
