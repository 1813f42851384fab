"""From PEFT's tensor keys to the network's own names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from fedsparse.adapters.interchange.subject import KEY_PREFIX, Subject
from fedsparse.adapters.layers import find_layers
from fedsparse.errors import DeltaError, ModelError


@dataclass(frozen=True)
class Keys:
    """The keys of a PEFT folder by what they belong to.

    Attributes:
        adapted: by module within the network and PEFT's suffix.
        whole: by parameter within the network.
    """

    adapted: dict[str, dict[str, str]]
    whole: dict[str, str]


def sort_keys(
    keys: Iterable[str], suffixes: Sequence[str], saved: Sequence[str], network: nn.Module, subject: Subject
) -> Keys:
    """Say what each key belongs to.

    Args:
        suffixes: of the tensors that adapt a module.
        saved: names of modules, or how they end, that PEFT saved whole.

    Raises:
        DeltaError: a key is none that PEFT writes for such an adapter, or nothing is adapted.
        ModelError: it names a module or parameter that the base model does not have.
    """
    layers, parameters = find_layers(network), dict(network.named_parameters(remove_duplicate=False))
    found = Keys({}, {})
    for key in keys:
        inner = key.removeprefix(KEY_PREFIX)
        module, suffix = _split(inner, suffixes)
        name = subject.outer(module)
        if suffix and inner != key:
            _require_present(name, name in layers, key)
            found.adapted.setdefault(name, {})[suffix] = key
        elif inner != key and any(f".{module}." in f".{inner}" for module in saved):
            _require_present(name, name in parameters, key)
            found.whole[name] = key
        else:
            raise DeltaError(f"{key[:200]!r} in the PEFT folder cannot be represented")
    if not found.adapted:
        raise DeltaError(f"no tensor of the PEFT folder ends with {' or '.join(suffixes)}")
    return found


def _split(inner: str, suffixes: Sequence[str]) -> tuple[str, str]:
    for suffix in suffixes:
        if inner.endswith(f".{suffix}"):
            return inner.removesuffix(f".{suffix}"), suffix
    return inner, ""


def _require_present(name: str, present: bool, key: str) -> None:
    if not present:
        raise ModelError(
            f"the PEFT folder's {key[:200]!r} belongs to {name[:200]!r}, "
            "which the base model has not, or which cannot be adapted",
            "Import it for the model and task that it was made for",
        )
