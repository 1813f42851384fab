"""What a round's updates say of a stretch of a tensor: who holds which coordinate, with which value and weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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

    def times(self, factor: float) -> Part:
        """Return the same with every value multiplied."""
        return self if factor == 1 else replace(self, values=self.values * np.float32(factor))


def _scatter(parts: Sequence[Part]) -> kernels.Scatter:
    return kernels.Scatter(
        [part.indices for part in parts], [part.values for part in parts], [part.weight for part in parts]
    )


@dataclass(frozen=True)
class Holders:
    """The updates that name any of some coordinates, one after another.

    Attributes:
        parts: what each update has of the tensor, in an order of the updates that does not depend on when they
            arrived.
        first: where in each part these coordinates begin, (parts,).
        last: where they have ended, (parts,).
        start: the first of these coordinates.
        size: how many there are.
        total: weight of all updates in the round, also of those that hold none of these coordinates.
        scatter: adds the parts to sums; blocks of a tensor share it. None where nothing is shared.
        scratch: room for a pair of sums per coordinate, (size or more, 2), which blocks share: fresh memory would
            cost as much as the sums do. What is in it is of no use to anybody else. None where none is shared.
    """

    parts: Sequence[Part]
    first: Indices
    last: Indices
    start: int
    size: int
    total: float
    scatter: kernels.Scatter | None = None
    scratch: Vector | None = None

    @classmethod
    def of(cls, parts: Sequence[Part], size: int, total: float) -> Holders:
        """Return the holders of a whole tensor; at least one part."""
        last = np.array([len(part.indices) for part in parts], np.int64)
        return cls(parts, np.zeros_like(last), last, 0, size, total)

    @classmethod
    def blocks(cls, parts: Sequence[Part], size: int, total: float) -> Iterator[Holders]:
        """Yield the holders of each stretch of a tensor that anybody holds a coordinate of.

        A tensor of which little is held comes in one stretch. One is to be done with before the next is asked for.
        """
        held = sum(len(part.indices) for part in parts)
        length = BLOCK if held >= _DENSE * size else size
        edges = np.append(np.arange(0, size, length), size)
        cuts = np.stack([np.searchsorted(part.indices, edges) for part in parts], axis=1)
        scratch = (
            np.empty((length, 2)) if length == BLOCK else None
        )  # a long tensor of which little is held has none
        scatter = _scatter(parts)
        for start, (first, last) in zip(edges[:-1].tolist(), pairwise(cuts), strict=True):
            if np.any(first != last):
                yield cls(parts, first, last, start, min(length, size - start), total, scatter, scratch)

    @cached_property
    def indices(self) -> Indices:
        """Coordinates of the first update, then of the second, and so on, (n,)."""
        return np.concatenate([part.indices[span] for part, span in self._spans()])

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """What the updates have there, (n,)."""
        return np.concatenate([part.values[span] for part, span in self._spans()])

    @cached_property
    def owners(self) -> Indices:
        """Which update each is from, (n,)."""
        return np.repeat(np.arange(len(self.parts)), self.counts)

    @cached_property
    def counts(self) -> Indices:
        """How many each update has, (updates,)."""
        return self.last - self.first

    @cached_property
    def weights(self) -> Vector:
        """Those of the updates, (updates,)."""
        return np.array([part.weight for part in self.parts])

    @cached_property
    def union(self) -> Indices:
        """Coordinates that anybody holds, strictly increasing, (k,)."""
        return self._whole[0] if self.is_dense else self._sorted[0]

    def sums(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Vector, Vector]:
        """Return N and D at the union, (k,): the weighted sum of the values, and the sum of the holders' weights.

        Both are taken in float64, in the order of the updates, so that they are the same bit for bit on any path.

        Args:
            chosen: which values to sum, (n,), instead of all.
        """
        if chosen is None and self.is_dense:
            return self._whole[1:]
        weights = self._weights if chosen is None else np.where(chosen, self._weights, 0.0)
        return self._summed(weights * self.values), self._summed(weights)

    def count(self) -> Indices:
        """Return how many updates hold each coordinate of the union, (k,)."""
        return np.bincount(self.places, minlength=len(self.union))

    def tables(self) -> Iterator[NDArray[np.float64]]:
        """Yield the values by coordinate, (b, updates), NaN where one has none, in blocks of the union."""
        places = self.places
        order = np.argsort(places, kind="stable")
        places, owners, values = places[order], self.owners[order], self.values[order]
        length = max(1, _CELLS // len(self.weights))
        for start in range(0, len(self.union), length):
            table = np.full((min(length, len(self.union) - start), len(self.weights)), np.nan)
            inside = slice(*np.searchsorted(places, (start, start + length)).tolist())
            table[places[inside] - start, owners[inside]] = values[inside]
            yield table

    @property
    def places(self) -> Indices:
        """Each value's place in the union, (n,)."""
        return self._sorted[1]

    @property
    def is_dense(self) -> bool:
        """Whether sums are taken over every coordinate, so that nothing need be sorted."""
        return bool(self.counts.sum() >= _DENSE * self.size)

    def write_means(self, strength: float, moved: Indices, by: NDArray[np.float32], used: int) -> int:
        """Write the steps of the rule ``Mean(strength)``; see :func:`fedsparse.kernels.plain.steps`."""
        return kernels.steps(self._every(), self.start, strength, self.total, moved, by, used)

    @cached_property
    def _whole(self) -> tuple[Indices, Vector, Vector]:
        """The union and N and D there."""
        return kernels.where_held(self._every(), self.start)

    def _every(self) -> Vector:
        """Return N and D of every coordinate, (size, 2)."""
        sums = np.empty((self.size, 2)) if self.scratch is None else self.scratch[: self.size]
        sums[:] = 0
        (self.scatter or _scatter(self.parts)).add(self.first, self.last, self.start, sums)
        return sums

    def _spans(self) -> Iterator[tuple[Part, slice]]:
        return zip(self.parts, map(slice, self.first, self.last), strict=True)

    @cached_property
    def _sorted(self) -> tuple[Indices, Indices]:
        """The union, and each value's place in it."""
        if self.is_dense:
            union, _, _ = self._whole
            where = np.zeros(self.size, np.int64)
            where[union - self.start] = np.arange(len(union))
            return union, where[self.indices - self.start]
        union, places = np.unique(self.indices, return_inverse=True)
        return union, places

    @cached_property
    def _weights(self) -> Vector:
        return self.weights[self.owners]

    def _summed(self, terms: Vector) -> Vector:
        """Return the sums of what belongs to the same coordinate of the union."""
        union, places = self._sorted
        return np.bincount(places, terms, len(union)).astype(
            np.float64, copy=False
        )  # integers where there are none
