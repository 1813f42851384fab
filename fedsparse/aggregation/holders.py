"""What a round's updates say of one tensor: who holds which coordinate, with which value and weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

_DENSE = 1 / 8
"""From this many held values per coordinate on, sums are taken over the whole tensor, where nothing is sorted."""

_CELLS = 1 << 22  # of a table of holders by coordinates that is in memory at a time: 32 MiB


@dataclass(frozen=True)
class Part:
    """One update's values in a tensor.

    Attributes:
        indices: strictly increasing, (n,).
        values: (n,).
        weight: of the update in the merge, above 0.
    """

    indices: Indices
    values: NDArray[np.float32]
    weight: float


@dataclass(frozen=True)
class Holders:
    """The updates that name any of a tensor's coordinates.

    Attributes:
        parts: in an order that does not depend on when they arrived; at least one.
        size: coordinates of the tensor.
        total: weight of all updates in the round.
    """

    parts: Sequence[Part]
    size: int
    total: float

    @cached_property
    def union(self) -> Indices:
        """Coordinates that anybody holds, strictly increasing, (k,)."""
        if self._is_dense:
            held = np.zeros(self.size, np.bool_)
            for part in self.parts:
                held[part.indices] = True
            return np.flatnonzero(held)
        first = self.parts[0].indices
        if all(np.array_equal(part.indices, first) for part in self.parts[1:]):
            return first
        return np.unique(np.concatenate([part.indices for part in self.parts]))

    def sums(self, parts: Sequence[Part] | None = None) -> tuple[Vector, Vector]:
        """Return N and D at the union: the weighted sum of the values, and the sum of the holders' weights.

        Both are taken in float64, in the order of the parts, so that they are the same bit for bit on any path.

        Args:
            parts: to sum instead of all.
        """
        # One complex number holds both sums of a coordinate: each is found in memory once, not twice.
        summed = np.zeros(self.size if self._is_dense else len(self.union), np.complex128)
        for part in self.parts if parts is None else parts:
            terms = np.empty(len(part.indices), np.complex128)
            np.multiply(part.values, part.weight, out=terms.real, dtype=np.float64)
            terms.imag = part.weight
            summed[self._places(part.indices)] += terms
        if self._is_dense:
            summed = summed[self.union]
        return np.ascontiguousarray(summed.real), np.ascontiguousarray(summed.imag)

    def count(self) -> Indices:
        """Return how many updates hold each coordinate of the union, (k,)."""
        counted = np.zeros(len(self.union), np.int64)
        for part in self.parts:
            counted[np.searchsorted(self.union, part.indices)] += 1
        return counted

    def _places(self, indices: Indices) -> Indices | slice:
        """Return where some coordinates are in the array of sums."""
        if self._is_dense:
            return indices
        return slice(None) if len(indices) == len(self.union) else np.searchsorted(self.union, indices)

    def tables(self) -> Iterator[NDArray[np.float64]]:
        """Yield the values by coordinate, (b, parts), NaN where a part has none, in blocks of the union."""
        block = max(1, _CELLS // len(self.parts))
        for start in range(0, len(self.union), block):
            where = self.union[start : start + block]
            table = np.full((len(where), len(self.parts)), np.nan)
            for column, part in enumerate(self.parts):
                first, last = np.searchsorted(part.indices, (where[0], where[-1] + 1))
                table[np.searchsorted(where, part.indices[first:last]), column] = part.values[first:last]
            yield table

    @property
    def _is_dense(self) -> bool:
        return sum(len(part.indices) for part in self.parts) >= _DENSE * self.size
