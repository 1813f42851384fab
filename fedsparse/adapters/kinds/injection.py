"""The interface that the kinds share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fedsparse.adapters.layers import Layer
from fedsparse.errors import ModelError


class KindSpec(Protocol):
    """What of the settings decides the kind; `config.AdapterSettings` is one."""

    @property
    def kind(self) -> str:
        """`delta`, `lora` or `bottleneck`."""

    @property
    def include(self) -> tuple[str, ...]:
        """Globs over the names of the weights that are adapted."""

    @property
    def factors(self) -> Literal["both", "b"]:
        """Which of `lora`'s factors are trained."""

    @property
    def dense(self) -> tuple[str, ...]:
        """Globs over the names of the weights that every update carries whole."""

    @property
    def rank(self) -> int:
        """Of the low-rank factors."""

    @property
    def alpha(self) -> float:
        """The factors' product is scaled by alpha / rank."""

    @property
    def width(self) -> int:
        """Of the bottleneck."""


class Injection(Protocol):
    """What an adapter put into a network, and how it comes out again.

    Attributes:
        kind: `delta`, `lora` or `bottleneck`.
        names: of the parameters that make up the adapter space.
    """

    kind: str
    names: tuple[str, ...]

    def merge(self) -> None:
        """Fold what was injected into the base's weights.

        Raises:
            ModelError: impossible for this kind.
        """

    def unmerge(self) -> None:
        """Restore the base's weights bit by bit."""

    def remove(self) -> None:
        """Take out what was injected."""


def insert(modules: Mapping[Layer, nn.Module], name: str) -> None:
    """Make each module a child of its layer, called ``name``.

    Raises:
        ModelError: a layer has an attribute of this name; nothing is inserted then.
    """
    for layer in modules:
        if hasattr(layer.module, name):
            raise ModelError(f"{layer.name} has a {name!r} already", "Remove the adapter that is on it")
    for layer, module in modules.items():
        layer.module.register_module(name, module)


def initial(name: str, shape: tuple[int, ...], bound: float, like: Tensor) -> nn.Parameter:
    """Return values drawn uniformly from ±``bound``, the same on every site: the name is the seed."""
    seed = int.from_bytes(hashlib.sha256(b"fedsparse initial values 1\x00" + name.encode()).digest()[:8], "big")
    draw = torch.Generator().manual_seed(seed >> 1)
    values = (torch.rand(shape, generator=draw) * 2 - 1) * bound
    return nn.Parameter(values.to(like.device, like.dtype), requires_grad=False)


def zeros(shape: tuple[int, ...], like: Tensor) -> nn.Parameter:
    """Return zeros, so that the untrained adapter changes nothing."""
    return nn.Parameter(torch.zeros(shape, device=like.device, dtype=like.dtype), requires_grad=False)
