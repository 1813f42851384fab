"""The parameters of one adapter space under a state, and how every bit of them comes back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsparse.delta import AdapterSpace, Operation, SparseDelta
from fedsparse.errors import DeltaError, SpaceMismatchError


@dataclass(frozen=True)
class Offsets:
    """What is added to some coordinates of one tensor.

    Attributes:
        where: flat indices, increasing, (k,).
        initial: what stood there, in the weight's precision, (k,).
        added: to it, float32, (k,).
    """

    where: Tensor
    initial: Tensor
    added: Tensor

    def shifted(self, further: Tensor | float = 0.0) -> Tensor:
        """Return initial + (added + further), rounded once to the weight's precision, (k,).

        The sum in brackets is what a state that holds both would add: training and loading agree bit by bit.
        Where it is 0 the initial value keeps every bit, a zero's sign included.
        """
        added = self.added + further
        return torch.where(added == 0, self.initial, (self.initial.float() + added).to(self.initial.dtype))


class StatefulWeights:
    """Parameters of a network, of which only what a state changes is remembered.

    Args:
        network: holds them.
        space: names them.
    """

    def __init__(self, network: nn.Module, space: AdapterSpace) -> None:
        self.parameters = [_contiguous(network.get_parameter(tensor.name)) for tensor in space.tensors]
        self.flat = [parameter.detach().view(-1) for parameter in self.parameters]  # the same memory, (size,)
        self._space = space
        self._loaded: dict[int, Offsets] = {}

    def require(self, state: SparseDelta) -> None:
        """Check that ``state`` can be loaded.

        Raises:
            SpaceMismatchError: it belongs to another space.
            DeltaError: it is no state, or has coordinates that the space has not.
        """
        if state.space != self._space.fingerprint:
            raise SpaceMismatchError(
                f"the state's adapter space is {state.space.hex()[:16]}, "
                f"the model's is {self._space.fingerprint.hex()[:16]}"
            )
        if state.operation is not Operation.SET:
            raise DeltaError("a state is a SET delta against the untouched base, not an ADD")
        for part in state.tensors:
            if part.tensor >= len(self.flat) or part.indices[-1] >= len(self.flat[part.tensor]):
                raise DeltaError(f"tensor {part.tensor}: a coordinate lies outside the adapter space")

    @torch.no_grad()
    def load(self, state: SparseDelta) -> None:
        """Make the parameters initial + ``state``, whatever they were."""
        for position, offsets in self._loaded.items():
            self.flat[position][offsets.where] = offsets.initial
        self._loaded = {}
        for part in state.tensors:
            flat = self.flat[part.tensor]
            where = torch.tensor(part.indices, device=flat.device)
            offsets = Offsets(where, flat[where], torch.tensor(part.values, device=flat.device))
            flat[where] = offsets.shifted()
            self._loaded[part.tensor] = offsets

    @torch.no_grad()
    def offsets(self, position: int, where: Tensor) -> Offsets:
        """Return what the state adds at some coordinates of one tensor, mostly nothing."""
        initial = self.flat[position][where]
        added = torch.zeros(len(where), device=where.device)
        if (loaded := self._loaded.get(position)) is not None:
            same, at = find(loaded.where, where)
            initial[same], added[same] = loaded.initial[at], loaded.added[at]
        return Offsets(where, initial, added)


def find(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of ``wanted`` are among ``known``, (k,), and for those where; both hold increasing indices."""
    at = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    same = known[at] == wanted
    return same, at[same]


def _contiguous(weight: nn.Parameter) -> nn.Parameter:
    weight.data = weight.data.contiguous()
    return weight
