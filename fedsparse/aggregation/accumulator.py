"""Merging as a commutative monoid: updates in any order and any tree give the same step, bit for bit."""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedsparse.aggregation.admission import Admitted
from fedsparse.aggregation.agreement import Agreement
from fedsparse.aggregation.bounds import bounded, factors
from fedsparse.aggregation.holders import Holders, Part
from fedsparse.aggregation.merging import merge_tensor
from fedsparse.aggregation.policy import Policy
from fedsparse.aggregation.review import Directions, Limits, Standing, in_medians, judge
from fedsparse.aggregation.rules import Rule, ShrunkByData
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta, decode_stream
from fedsparse.errors import DeltaError, SpaceMismatchError

MEMORY = 1 << 30
"""Bytes of updates, as they were sent, that an accumulator keeps in memory; more lie in a temporary file."""


@dataclass(frozen=True)
class _Kept:
    """An update that waits to be merged: what is known of it, and its bytes or where they are in the file."""

    digest: bytes
    samples: int
    norm: float
    factor: float
    data: bytes
    file: IO[bytes] | None = None
    start: int = 0
    size: int = 0

    def open(self) -> BinaryIO:
        if self.file is None:
            return BytesIO(self.data)
        return BufferedReader(_Stretch(self.file.fileno(), self.start, self.size), 1 << 20)


class _Stretch(RawIOBase):
    """Part of a file, read without moving the file's own position."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._at, self._end = descriptor, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = os.pread(self._descriptor, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class Accumulator:
    """Collects the updates of one round.

    Floating-point sums depend on their order, so the updates are summed in the order of their digests, whatever
    order they came in. They are kept as they were sent, entropy-coded and quantised, which is a fraction of the
    sums they make, and are decoded tensor by tensor when they are merged: memory is that of the updates' bytes, up
    to a limit, and of one segment of each, which is up to a million values and 13 MiB where updates are large.

    Args:
        space: the federation's adapter space.
        memory: bytes of updates to keep in memory; further ones lie in one temporary file.
        folder: of that file; by default the system's.
    """

    def __init__(self, space: AdapterSpace, *, memory: int = MEMORY, folder: Path | None = None) -> None:
        self._space = space
        self._memory = memory
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._held = 0
        self._updates: list[_Kept] = []

    def add(self, update: Admitted, factor: float = 1.0) -> None:
        """Take one update.

        Args:
            update: what is merged.
            factor: its values are multiplied by, in (0, 1], after they were judged as they are; see
                :class:`Lateness`.

        Raises:
            SpaceMismatchError: it belongs to another space.
            DeltaError: the file cannot take it.
        """
        self._require(update.space)
        kept = _Kept(update.digest, update.samples, update.norm, factor, update.data)
        if self._held + len(update.data) > self._memory:
            kept = self._spilled(kept)
        self._held += len(kept.data)
        self._updates.append(kept)

    def _spilled(self, kept: _Kept) -> _Kept:
        """Move an update's bytes into the file, which has no name and goes with its last user."""
        try:
            if self._file is None:
                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as its updates
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(kept.data)
            self._file.flush()
        except OSError as error:
            raise DeltaError(
                f"an update of {len(kept.data)} bytes fits neither in memory nor in a file: {error.strerror}",
                "Free some space there",
            ) from error
        return replace(kept, data=b"", file=self._file, start=start, size=len(kept.data))

    def merge(self, other: Accumulator) -> None:
        """Take everything that ``other`` has taken.

        Raises:
            SpaceMismatchError: it collects for another space.
        """
        self._require(other._space)
        self._updates += tuple(other._updates)  # a copy: `other` may be this one

    def reviewed(self, limits: Limits) -> tuple[Accumulator, tuple[Standing, ...]]:
        """Return what is left without the updates that stand out, and how each stood, in the order of digests.

        Raises:
            DeltaError: nothing was added.
        """
        updates = self._ordered()
        norms = in_medians([kept.norm for kept in updates])
        scales = [1.0 if norm <= 1 else 1 / norm for norm in norms]
        directions = Directions([kept.norm * scale for kept, scale in zip(updates, scales, strict=True)])
        for position, parts, names in self._by_tensor(updates, [1.0] * len(updates), scales):
            for holders in Holders.blocks(parts, self._space.tensors[position].size, 1.0):
                directions.add(holders, names)
        found = zip(updates, norms, directions.cosines().tolist(), strict=True)
        standings = judge([Standing(kept.digest, norm, cosine) for kept, norm, cosine in found], limits)
        left = Accumulator(self._space, memory=self._memory, folder=self._folder)
        left._file, left._held = self._file, self._held
        left._updates = [kept for kept, one in zip(updates, standings, strict=True) if one.reason is None]
        return left, standings

    def _ordered(self) -> list[_Kept]:
        if not self._updates:
            raise DeltaError("there is no update to merge")
        return sorted(self._updates, key=lambda kept: kept.digest)

    def agreed(self, policy: Policy, most: int, dense: Collection[int]) -> SparseDelta:
        """Return the coordinates that updates of the largest weight hold, at most so many; ties go to the first.

        Args:
            dense: positions of tensors that are taken whole, whoever holds what of them.

        Returns:
            An ADD delta whose values are all 1.

        Raises:
            DeltaError: nothing was added.
        """
        updates = self._ordered()
        weights = [policy.weighing(kept.samples) for kept in updates]
        whole = {position: np.arange(self._space.tensors[position].size) for position in dense}
        room = max(0, most - sum(map(len, whole.values())))
        held, votes = list[tuple[int, NDArray[np.int64]]](), [np.empty(0)]
        for position, parts, _ in self._by_tensor(updates, weights, [1.0] * len(updates)):
            if position not in whole:
                holders = Holders.of(parts, self._space.tensors[position].size, sum(weights))
                held.append((position, holders.union))
                votes.append(holders.sums()[1])
        taken = np.zeros(sum(map(len, votes)), np.bool_)
        taken[np.argsort(-np.concatenate(votes), kind="stable")[:room]] = True
        cuts = np.cumsum([len(union) for _, union in held])[:-1]
        for (position, union), chosen in zip(held, np.split(taken, cuts) if held else (), strict=True):
            if chosen.any():
                whole[position] = union[chosen]
        tensors = (TensorDelta(at, whole[at], np.ones(len(whole[at]), np.float32)) for at in sorted(whole))
        return SparseDelta(self._space.fingerprint, Operation.ADD, tuple(tensors))

    def __contains__(self, digest: bytes) -> bool:
        """Return whether the update of this digest is here."""
        return any(kept.digest == digest for kept in self._updates)

    def __len__(self) -> int:
        """Return how many updates there are."""
        return len(self._updates)

    def result(self, policy: Policy) -> SparseDelta:
        """Return the step for every coordinate that enough updates hold.

        Raises:
            DeltaError: nothing was added.
        """
        return SparseDelta(self._space.fingerprint, Operation.ADD, tuple(self.steps(policy)))

    def steps(self, policy: Policy) -> Iterator[TensorDelta]:
        """Yield the step tensor by tensor, in the order of the space; see :meth:`result`."""
        updates = self._ordered()
        weights = [policy.weighing(kept.samples) for kept in updates]
        scales = factors([kept.norm for kept in updates], policy.norm_bound)
        total = sum(weights)

        def by_tensor() -> Iterator[tuple[int, list[Part]]]:
            for position, parts, names in self._by_tensor(updates, weights, scales):
                held = bounded(parts, len(updates), policy.norm_bound)
                late = (updates[name].factor for name in names)
                yield position, [part.times(factor) for part, factor in zip(held, late, strict=True)]

        rule = policy.rule
        if isinstance(rule, ShrunkByData):
            rule = self._fitted(rule, by_tensor(), weights)
        for position, parts in by_tensor():
            size = self._space.tensors[position].size
            moved, by = merge_tensor(rule, policy.min_holders, parts, size, total)
            if len(moved):
                yield TensorDelta(position, moved, by)

    def _fitted(
        self, rule: ShrunkByData, by_tensor: Iterator[tuple[int, list[Part]]], weights: list[float]
    ) -> Rule:
        agreement, total = Agreement(), sum(weights)
        for position, parts in by_tensor:
            for holders in Holders.blocks(parts, self._space.tensors[position].size, total):
                agreement.add(holders)
        return rule.of(agreement, total**2 / sum(weight**2 for weight in weights))

    def _by_tensor(
        self, updates: list[_Kept], weights: list[float], scales: list[float]
    ) -> Iterator[tuple[int, list[Part], list[int]]]:
        """Yield each tensor that is named, the parts of it, in the order of ``updates``, and whose each is."""
        streams = [self._read(kept, number) for number, kept in enumerate(updates)]
        position, parts, names = -1, list[Part](), list[int]()
        for number, tensor in heapq.merge(*streams, key=lambda item: (item[1].tensor, item[0])):
            if tensor.tensor != position:
                if parts:
                    yield position, parts, names
                position, parts, names = tensor.tensor, [], []
            parts.append(Part(tensor.indices, tensor.values, weights[number]).times(scales[number]))
            names.append(number)
        if parts:
            yield position, parts, names

    def _read(self, kept: _Kept, number: int) -> Iterator[tuple[int, TensorDelta]]:
        with kept.open() as source:
            for tensor in decode_stream(source, self._space, max_bytes=1 << 62, known_canonical=True)[1]:
                yield number, tensor

    def _require(self, space: AdapterSpace) -> None:
        if space.fingerprint != self._space.fingerprint:
            raise SpaceMismatchError(
                f"the update belongs to the adapter space {space.fingerprint.hex()[:16]}, "
                f"here the space is {self._space.fingerprint.hex()[:16]}"
            )
