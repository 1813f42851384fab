"""What a round's updates say of a stretch of a tensor: who holds which coordinate, with which value and weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

BLOCK = 1 << 17
"""Coordinates that are merged at a time: their sums, 2 MiB, stay in the processor's cache."""

_DENSE = 1 / 16
"""From this many held values per coordinate on, sums are taken over every coordinate, and nothing is sorted."""

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
    """The updates that name any of some coordinates, one after another.

    Attributes:
        parts: what each update has of them, in an order of the updates that does not depend on when they arrived.
        start: where these coordinates begin in the tensor; those of ``parts`` count from the tensor's beginning.
        size: coordinates there are; every other index here counts from ``start`` and is below this.
        total: weight of all updates in the round, also of those that hold none of these coordinates.
    """

    parts: tuple[Part, ...]
    start: int
    size: int
    total: float

    @classmethod
    def of(cls, parts: Sequence[Part], size: int, total: float) -> Holders:
        """Return the holders of a whole tensor; at least one part."""
        return cls(tuple(parts), 0, size, total)

    @classmethod
    def blocks(cls, parts: Sequence[Part], size: int, total: float) -> Iterator[tuple[int, Holders]]:
        """Yield where a stretch of a tensor begins, and its holders, for each that anybody holds a coordinate of.

        A tensor of which little is held comes in one stretch.
        """
        held = sum(len(part.indices) for part in parts)
        length = BLOCK if held >= _DENSE * size else size
        edges = np.append(np.arange(0, size, length), size)
        cuts = np.stack([np.searchsorted(part.indices, edges) for part in parts], axis=1).tolist()
        for start, (first, last) in zip(edges[:-1].tolist(), pairwise(cuts), strict=True):
            spans = map(slice, first, last)
            inside = [
                Part(part.indices[span], part.values[span], part.weight)
                for part, span in zip(parts, spans, strict=True)
            ]
            if first != last:
                yield start, cls(tuple(inside), start, min(length, size - start), total)

    @cached_property
    def indices(self) -> Indices:
        """Coordinates of the first update, then of the second, and so on, (n,)."""
        return np.concatenate([part.indices for part in self.parts]) - self.start

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """What the updates have there, (n,)."""
        return np.concatenate([part.values for part in self.parts])

    @cached_property
    def owners(self) -> Indices:
        """Which update each is from, (n,)."""
        return np.repeat(np.arange(len(self.parts)), [len(part.indices) for part in self.parts])

    @cached_property
    def weights(self) -> Vector:
        """Those of the updates, (updates,)."""
        return np.array([part.weight for part in self.parts])

    @cached_property
    def union(self) -> Indices:
        """Coordinates that anybody holds, strictly increasing, (k,)."""
        return self._whole[0] if self._is_dense else self._sorted[0]

    def sums(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Vector, Vector]:
        """Return N and D at the union, (k,): the weighted sum of the values, and the sum of the holders' weights.

        Both are taken in float64, in the order of the updates, so that they are the same bit for bit on any path.

        Args:
            chosen: which values to sum, (n,), instead of all.
        """
        if chosen is None and self._is_dense:
            return self._whole[1:]
        weights = self._weights if chosen is None else np.where(chosen, self._weights, 0.0)
        return self._summed(weights * self.values), self._summed(weights)

    def count(self) -> Indices:
        """Return how many updates hold each coordinate of the union, (k,)."""
        return np.bincount(np.searchsorted(self.union, self.indices), minlength=len(self.union))

    def tables(self) -> Iterator[NDArray[np.float64]]:
        """Yield the values by coordinate, (b, updates), NaN where one has none, in blocks of the union."""
        places = np.searchsorted(self.union, self.indices)
        order = np.argsort(places, kind="stable")
        places, owners, values = places[order], self.owners[order], self.values[order]
        length = max(1, _CELLS // len(self.weights))
        for start in range(0, len(self.union), length):
            table = np.full((min(length, len(self.union) - start), len(self.weights)), np.nan)
            inside = slice(*np.searchsorted(places, (start, start + length)).tolist())
            table[places[inside] - start, owners[inside]] = values[inside]
            yield table

    @property
    def _is_dense(self) -> bool:
        return sum(len(part.indices) for part in self.parts) >= _DENSE * self.size

    @cached_property
    def _whole(self) -> tuple[Indices, Vector, Vector]:
        """The union and N and D there, by way of a sum for every coordinate."""
        sums = np.zeros((self.size, 2))
        for part in self.parts:
            kernels.add_weighted(part.indices, part.values, part.weight, self.start, sums)
        return kernels.where_held(sums)

    @cached_property
    def _sorted(self) -> tuple[Indices, Indices]:
        """The union, and each value's place in it."""
        union, places = np.unique(self.indices, return_inverse=True)
        return union, places

    @cached_property
    def _weights(self) -> Vector:
        return self.weights[self.owners]

    def _summed(self, terms: Vector) -> Vector:
        """Return the sums of what belongs to the same coordinate of the union."""
        places, length = (self.indices, self.size) if self._is_dense else (self._sorted[1], len(self._sorted[0]))
        found = np.bincount(places, terms, length).astype(np.float64, copy=False)  # integers where there are none
        return found[self.union] if self._is_dense else found
