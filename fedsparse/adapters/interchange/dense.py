"""Tensors that an adapter carries whole: a head beside the backbone, or modules that PEFT saves whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.bases import BaseModel
from fedsparse.adapters.interchange.files import HEAD, TensorFile
from fedsparse.adapters.interchange.subject import Subject
from fedsparse.adapters.layers import split_name
from fedsparse.errors import DeltaError, ModelError


@dataclass(frozen=True)
class Dense:
    """What is written of an adapter's dense tensors.

    Attributes:
        modules: names within the model, for PEFT's modules_to_save.
        tensors: everything in these modules, by name within the network.
        head: what lies outside the model that PEFT wraps, by name within the network.
    """

    modules: tuple[str, ...]
    tensors: dict[str, Tensor]
    head: dict[str, Tensor]


def export_dense(adapter: Adapter, subject: Subject, adapted: Collection[str]) -> Dense:
    """Sort an adapter's dense tensors by where they go.

    Args:
        adapted: names within the network of the modules that PEFT is to adapt.

    Raises:
        DeltaError: PEFT could not save a module beside what it adapts.
    """
    names = [adapter.space.tensors[position].name for position in sorted(adapter.dense)]
    inside = [name for name in names if name.startswith(subject.prefix)]
    modules = dict.fromkeys(split_name(name)[0] for name in inside)
    for module in modules:
        _require_alone(module, subject, adapted)
    return Dense(
        tuple(subject.inner(module) for module in modules),
        {
            f"{module}.{name}": tensor
            for module in modules
            for name, tensor in adapter.network.get_submodule(module).state_dict().items()
        },
        {name: adapter.network.get_parameter(name) for name in names if name not in inside},
    )


def _require_alone(module: str, subject: Subject, adapted: Collection[str]) -> None:
    if module in adapted:
        raise DeltaError(
            f"PEFT either adapts {module} or saves it whole, not both", "Leave one of the two out of the adapter"
        )
    name = subject.inner(module)
    others = [other for other, _ in subject.model.named_modules() if other.endswith(name) and other != name]
    if others:
        raise DeltaError(f"PEFT would save {others[0]} as well, because its name ends with {name!r}")


def import_dense(
    folder: Path, file: TensorFile, whole: Mapping[str, str], base: BaseModel, subject: Subject
) -> dict[str, Tensor]:
    """Return the values of all dense tensors in a folder, by name within the network.

    Args:
        whole: keys of the tensors that PEFT saved whole, by name within the network.

    Raises:
        DeltaError: a tensor is not right.
        ModelError: head.safetensors holds something that is no head of this network.
    """
    parameters = dict(base.network.named_parameters(remove_duplicate=False))
    found = {name: file.read(key, tuple(parameters[name].shape)) for name, key in whole.items()}
    if not (folder / HEAD).exists():
        return found
    head = TensorFile(folder / HEAD, base.fingerprint)
    for name in head.names:
        if name not in parameters or not subject.prefix or name.startswith(subject.prefix):
            raise ModelError(f"{HEAD} holds {name[:200]!r}, which is no head of the base model")
        found[name] = head.read(name, tuple(parameters[name].shape))
    return found
