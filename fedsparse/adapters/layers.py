"""Which weights of a network can be adapted: by the type of the layer they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from torch import nn

from fedsparse.adapters.bases.lite0 import ConvNorm
from fedsparse.errors import ConfigError, ModelError

_HEAD = "head.*"  # the default of adapter.dense; not every network has one


class LayerType(Enum):
    """What a layer computes with its weight."""

    LINEAR = "Linear"  # weight (out, in)
    CONV1D = "Conv1D"  # GPT-2's linear layer in transformers: weight (in, out)
    CONVOLUTION = "Conv2d"  # weight (out, in / groups, h, w), depthwise included
    EMBEDDING = "Embedding"  # weight (vocabulary, width)


@dataclass(frozen=True)
class Layer:
    """One layer that can be adapted.

    Attributes:
        name: of the module within the network.
    """

    name: str
    module: nn.Module
    type: LayerType

    @property
    def outputs(self) -> int:
        """Number of output features or channels; of an embedding its width."""
        weight = self.weight
        return weight.shape[1 if self.type in (LayerType.CONV1D, LayerType.EMBEDDING) else 0]

    @property
    def inputs(self) -> int:
        """Number of weights behind one output; of an embedding its vocabulary."""
        return self.weight.numel() // self.outputs

    @property
    def computes_plainly(self) -> bool:
        """Whether calling the module surely is x·Wᵀ + b; a subclass of Linear may do something else."""
        plain = self.type is LayerType.CONV1D or type(self.module) is nn.Linear
        return plain and "forward" not in vars(self.module)

    @property
    def weight(self) -> nn.Parameter:
        """The layer's weight."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)  # noqa: S101 - all supported types have one
        return weight


def find_layers(network: nn.Module) -> dict[str, Layer]:
    """Return the adaptable layers by module name, in the network's order."""
    found = {}
    for name, module in network.named_modules():
        kind = _type_of(module)
        if kind is not None and "weight" in module._parameters:  # not under torch's weight_norm, for one
            found[name] = Layer(name, module, kind)
    return found


def _type_of(module: nn.Module) -> LayerType | None:
    if isinstance(module, nn.Linear):
        return LayerType.LINEAR
    if isinstance(module, (nn.Conv2d, ConvNorm)):
        return LayerType.CONVOLUTION
    if isinstance(module, nn.Embedding):
        return LayerType.EMBEDDING
    if type(module).__name__ == "Conv1D" and hasattr(
        module, "nf"
    ):  # of transformers, which is not imported for it
        return LayerType.CONV1D
    return None


def select_weights(network: nn.Module, include: Sequence[str], dense: Sequence[str]) -> list[str]:
    """Return the names of the parameters that may change, in the network's order.

    Args:
        include: globs; none: the weight of every linear and convolutional layer that shares it with no other.
        dense: globs, always included.

    Raises:
        ConfigError: a glob matches nothing.
        ModelError: a glob matches a weight of a layer that cannot be adapted, or one that several layers share.
    """
    layers = find_layers(network)
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    shared = _shared(network)
    _require_matches("include", include, names)
    _require_matches("dense", [glob for glob in dense if glob != _HEAD], names)
    chosen = []
    for name in names:
        if matches(name, include) or matches(name, dense):
            _require_unshared(name, shared)
            _require_supported(name, layers, network)
            chosen.append(name)
        elif not include and name not in shared and _by_default(name, layers):
            chosen.append(name)
    if not chosen:
        raise ConfigError("no weight of the base model can be adapted", "Name some in adapter.include")
    return chosen


def matches(name: str, globs: Sequence[str]) -> bool:
    """Return whether one of ``globs`` fits."""
    return any(fnmatchcase(name, glob) for glob in globs)


def split_name(name: str) -> tuple[str, str]:
    """Return module and parameter of a parameter's full name."""
    module, _, parameter = name.rpartition(".")
    return module, parameter


def _by_default(name: str, layers: dict[str, Layer]) -> bool:
    module, parameter = split_name(name)
    layer = layers.get(module)
    return layer is not None and parameter == "weight" and layer.type is not LayerType.EMBEDDING


def _shared(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, for each parameter that has several names, all of them."""
    by_identity: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(parameter), []).append(name)
    return {name: tuple(names) for names in by_identity.values() if len(names) > 1 for name in names}


def _require_matches(key: str, globs: Sequence[str], names: Sequence[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            shown = ", ".join(_spread(names))
            raise ConfigError(
                f"adapter.{key} = {glob!r} matches no weight of the base model", f"Its weights are {shown}"
            )


def _spread(names: Sequence[str], limit: int = 40) -> Iterator[str]:
    yield from names[:limit]
    if len(names) > limit:
        yield f"and {len(names) - limit} more"


def _require_supported(name: str, layers: dict[str, Layer], network: nn.Module) -> None:
    module, _ = split_name(name)
    if module not in layers:
        kind = type(network.get_submodule(module)).__name__
        raise ModelError(
            f"{name} cannot be adapted: {module or 'the network itself'} is a {kind}",
            "Name only weights of Linear, Conv1D, Conv2d and Embedding layers in adapter.include and "
            "adapter.dense, or leave adapter.include out to take all that can be",
        )


def _require_unshared(name: str, shared: dict[str, tuple[str, ...]]) -> None:
    if name in shared:
        raise ModelError(
            f"{name} cannot be adapted: {' and '.join(shared[name])} are one tied weight",
            "Leave it out of adapter.include",
        )
