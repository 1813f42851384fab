"""What somebody who holds the adapter and one update can compute: gradients at the update's own coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.func import functional_call

from fedsparse.adapters import Adapter
from fedsparse.delta import Operation, SparseDelta, TensorDelta, apply
from fedsparse.errors import DeltaError

_STEP = 3e-4  # of the finite difference, as a share of the weights' own length


class UpdateView:
    """The network in the middle of an update, seen at the coordinates that the update has.

    An update is the sum of many steps' gradients, each taken a little further on; halfway between its start and
    its end, one gradient stands for them best. It also stands where a head of zeros would pass none.

    Args:
        adapter: its state is left in the middle of the update.
        state: that the update starts from, operation SET.
        update: as it is sent, operation ADD.

    Attributes:
        direction: what descended, normalised: minus the update, (k,), of length 1.

    Raises:
        DeltaError: the update changes nothing, or is no addition.
        SpaceMismatchError: the three belong to different spaces.
    """

    def __init__(self, adapter: Adapter, state: SparseDelta, update: SparseDelta) -> None:
        if not update.nnz or update.operation is not Operation.ADD:
            raise DeltaError("the update changes nothing, or is no addition to a state")
        adapter.load(apply(state, _scaled(update, 0.5)))
        self._network = adapter.network
        self._where = [torch.from_numpy(np.array(part.indices)) for part in update.tensors]
        self._names = [adapter.space.tensors[part.tensor].name for part in update.tensors]
        self._weights = [self._network.get_parameter(name).detach().clone() for name in self._names]
        values = np.concatenate([part.values for part in update.tensors])
        self.direction = F.normalize(-torch.from_numpy(values), dim=0)

    @property
    def is_exact(self) -> bool:
        """Whether the weights are float32, so that small differences of gradients mean something."""
        return all(weight.dtype == torch.float32 for weight in self._weights)

    @property
    def network(self) -> nn.Module:
        """The network, which is not to be changed meanwhile."""
        return self._network

    def gradient(self, batch: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Return the loss's gradient at the update's coordinates, (k,)."""
        weights = {name: weight.requires_grad_() for name, weight in zip(self._names, self._weights, strict=True)}
        loss = self._loss(weights, batch, labels)
        found = torch.autograd.grad(loss, list(weights.values()))
        return torch.cat([one.reshape(-1)[at] for one, at in zip(found, self._where, strict=True)]).float()

    def pull(self, activations: Tensor, labels: Tensor, towards: Tensor) -> Tensor:
        """Return how the loss's gradient at the update's coordinates would move along ``towards``, by the input.

        That is the derivative by the activations of <gradient, towards>, taken as a central difference along the
        weights: it needs no second derivatives, which not every layer has.

        Args:
            activations: what the network reads, (n, ...).
            labels: (n,).
            towards: (k,).
        """
        length = float(towards.norm())
        if not length:
            return torch.zeros_like(activations)
        at = [weight.detach().reshape(-1)[where] for weight, where in zip(self._weights, self._where, strict=True)]
        step = _STEP * max(math.sqrt(sum(float(one.square().sum()) for one in at)), 1e-3) / length
        ahead, behind = (self._input_gradient(activations, labels, sign * step * towards) for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    def _input_gradient(self, activations: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
        given = activations.detach().requires_grad_()
        parts = torch.split(shift, [len(where) for where in self._where])
        weights = {}
        for name, weight, where, part in zip(self._names, self._weights, self._where, parts, strict=True):
            moved = weight.detach().clone()
            moved.view(-1)[where] += part
            weights[name] = moved
        (found,) = torch.autograd.grad(self._loss(weights, (given,), labels), given)
        return found

    def _loss(self, weights: Mapping[str, Tensor], batch: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, dict(weights), batch)
        return F.cross_entropy(logits.float(), labels)


def _scaled(update: SparseDelta, factor: float) -> SparseDelta:
    parts = (TensorDelta(part.tensor, part.indices, part.values * np.float32(factor)) for part in update.tensors)
    return SparseDelta(update.space, update.operation, tuple(parts))
