"""Merging as a commutative monoid: updates in any order and any tree give the same step, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedsparse.aggregation.admission import Admitted
from fedsparse.aggregation.rules import Rule
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.errors import DeltaError, SpaceMismatchError


class Accumulator:
    """Collects the updates of one round.

    Floating-point sums depend on their order, so the updates are summed in the order of their digests, whatever
    order they came in. Memory is that of the updates themselves.

    Args:
        space: the federation's adapter space.
    """

    def __init__(self, space: AdapterSpace) -> None:
        self._space = space
        self._updates: list[Admitted] = []

    def add(self, update: Admitted) -> None:
        """Take one update.

        Raises:
            SpaceMismatchError: it belongs to another space.
        """
        if update.delta.space != self._space.fingerprint:
            raise SpaceMismatchError(
                f"the update belongs to the adapter space {update.delta.space.hex()[:16]}, "
                f"here the space is {self._space.fingerprint.hex()[:16]}"
            )
        self._updates.append(update)

    def merge(self, other: Accumulator) -> None:
        """Take everything that ``other`` has taken."""
        for update in tuple(other._updates):  # a copy: `other` may be this one
            self.add(update)

    def result(self, rule: Rule) -> SparseDelta:
        """Return the step for every coordinate that anybody holds.

        Raises:
            DeltaError: nothing was added.
        """
        if not self._updates:
            raise DeltaError("there is no update to merge")
        ordered = sorted(self._updates, key=lambda update: update.digest)
        total = sum(update.weight for update in ordered)
        parts: dict[int, list[tuple[TensorDelta, float]]] = {}
        for update in ordered:
            for tensor in update.delta.tensors:
                parts.setdefault(tensor.tensor, []).append((tensor, update.weight))
        tensors = (_merge_tensor(position, parts[position], total, rule) for position in sorted(parts))
        return SparseDelta(self._space.fingerprint, Operation.ADD, tuple(tensors))


def _merge_tensor(
    position: int, parts: Iterable[tuple[TensorDelta, float]], total: float, rule: Rule
) -> TensorDelta:
    """Sum the pairs (N, D) over the union of the supports, in float64, and apply ``rule``."""
    parts = list(parts)
    union = np.unique(np.concatenate([tensor.indices for tensor, _ in parts]))
    weighted, held = np.zeros((2, union.size))
    for tensor, weight in parts:
        at = np.searchsorted(union, tensor.indices)
        weighted[at] += weight * tensor.values.astype(np.float64)
        held[at] += weight
    return TensorDelta(position, union, rule(weighted, held, total).astype(np.float32))
