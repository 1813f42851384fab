"""The `delta` adapter: ΔW on a support of frozen weights; the values there are the only parameters.

After SHiRA (https://arxiv.org/abs/2406.13175) and LT-SFT (https://arxiv.org/abs/2110.07560). The values live in
the weights themselves: a step gathers their gradients and scatters the new values, so it costs O(k) on top of
backpropagation, and inference costs nothing.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.errors import ModelError, SpaceMismatchError

Support = tuple[NDArray[np.int64], ...]
"""Per tensor of the space its trained coordinates: strictly increasing flat indices, (k_t,)."""


class DeltaAdapter:
    """The weights of one adapter space within a model: base, plus a state, plus what is being trained.

    Args:
        model: holds a parameter under every tensor name of ``space``; it must not require gradients, and its
            weights must be the untouched base's. One model has one adapter.
        space: the adapter space.

    Attributes:
        values: per tensor the trained values, (k_t,), while a support is attached; else empty.
    """

    def __init__(self, model: nn.Module, space: AdapterSpace) -> None:
        self.model = model
        self.space = space
        self.values: tuple[nn.Parameter, ...] = ()
        self._weights = [model.get_parameter(tensor.name) for tensor in space.tensors]
        self._flat = [weight.detach().view(-1) for weight in self._weights]  # the same memory, seen as (size,)
        self._base = [flat.clone() for flat in self._flat]
        self._support: list[Tensor] = []
        self._origin: list[Tensor] = []

    @torch.no_grad()
    def load(self, state: SparseDelta) -> Self:
        """Make the effective weights base + ``state``, whatever they were; nothing may be attached.

        Args:
            state: operation SET against the untouched base; the empty one restores the base bit by bit.

        Raises:
            SpaceMismatchError: the state belongs to another space.
            ModelError: a support is attached.
        """
        if state.space != self.space.fingerprint:
            raise SpaceMismatchError(
                f"the state's adapter space is {state.space.hex()[:16]}, "
                f"the model's is {self.space.fingerprint.hex()[:16]}"
            )
        if self.values:
            raise ModelError("a state cannot be loaded while a support is attached", "Detach it first")
        for flat, base in zip(self._flat, self._base, strict=True):
            flat.copy_(base)
        for part in state.tensors:
            self._flat[part.tensor][torch.tensor(part.indices)] += torch.tensor(part.values)
        return self

    @torch.no_grad()
    def attach(self, support: Support) -> tuple[nn.Parameter, ...]:
        """Start training at the coordinates of ``support``, from the weights as they are; values start at 0."""
        if self.values:
            raise ModelError("a support is attached already", "Detach it first")
        self._support = [torch.tensor(indices) for indices in support]
        self._origin = [flat[where] for flat, where in zip(self._flat, self._support, strict=True)]
        self.values = tuple(nn.Parameter(torch.zeros_like(origin)) for origin in self._origin)
        self.require_gradients(True)
        return self.values

    @torch.no_grad()
    def pull_gradients(self) -> None:
        """Gather the weights' gradients at the support into ``values``, and drop them."""
        for weight, where, values in zip(self._weights, self._support, self.values, strict=True):
            if weight.grad is not None:
                values.grad = weight.grad.reshape(-1)[where]
                weight.grad = None

    @torch.no_grad()
    def push_values(self) -> None:
        """Make the weights at the support what they were when it was attached, plus ``values``."""
        parts = zip(self._flat, self._support, self._origin, self.values, strict=True)
        for flat, where, origin, values in parts:
            flat[where] = origin + values

    @torch.no_grad()
    def detach(self) -> SparseDelta:
        """Stop training: restore the weights bit by bit and return the trained values as an addition.

        Raises:
            DeltaError: training diverged, a value is NaN or infinite; the weights are restored all the same.
        """
        for flat, where, origin in zip(self._flat, self._support, self._origin, strict=True):
            flat[where] = origin
        self.require_gradients(False)
        trained = list(zip(self._support, self.values, strict=True))
        self.values, self._support, self._origin = (), [], []
        parts = tuple(
            TensorDelta(position, where.numpy().copy(), values.detach().numpy().copy())
            for position, (where, values) in enumerate(trained)
            if len(where)
        )
        return SparseDelta(self.space.fingerprint, Operation.ADD, parts)

    def require_gradients(self, required: bool) -> None:
        """Say whether backpropagation computes gradients of the adapted weights."""
        for weight in self._weights:
            weight.requires_grad_(required)
            weight.grad = None

    def gradients(self) -> list[Tensor]:
        """Return the adapted weights' gradients, each (size_t,), and drop them; zeros where there is none."""
        found = [torch.zeros(w.numel()) if w.grad is None else w.grad.reshape(-1) for w in self._weights]
        for weight in self._weights:
            weight.grad = None
        return found
