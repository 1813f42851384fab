"""The server's side of a round: from the merged updates to the step that every plant takes.

An optimiser turns what is merged into a step; the step is cut to what the adapter may grow by, and rounded to what
is sent down. What cutting and rounding take is added to later steps (error feedback on the server's side, as in
DoubleSqueeze, Tang et al. 2019, https://arxiv.org/abs/1905.05957): a download takes as few bits as an upload.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np

from fedsparse.aggregation.optimisers import Moments, optimise
from fedsparse.config import ServerSettings
from fedsparse.delta import (
    AdapterSpace,
    Mask,
    Operation,
    SparseDelta,
    TensorDelta,
    TrainingSettings,
    ValueCoding,
    compensate,
    decode,
    encode,
)
from fedsparse.delta.state import overlay
from fedsparse.errors import DeltaError

_PARTS = 4
_LENGTH = 8  # bytes of the length before each part


@dataclass(frozen=True)
class Memory:
    """What the server carries from round to round; all are ADD deltas.

    Attributes:
        residual: what cutting and rounding took and no step has made up for yet.
        moments: of the optimiser.
        agreed: the coordinates that plants voted for, every value 1; none before a vote.
    """

    residual: SparseDelta
    moments: Moments
    agreed: SparseDelta

    @classmethod
    def empty(cls, space: AdapterSpace) -> Self:
        """Return that of a server before its first round."""
        nothing = SparseDelta.empty(space.fingerprint, Operation.ADD)
        return cls(nothing, Moments(nothing, nothing), nothing)

    def to_bytes(self, space: AdapterSpace) -> bytes:
        """Return the parts one after another, each behind its length; for one's own disk."""
        parts = (
            encode(part, space, ValueCoding.FP32)
            for part in (self.residual, self.moments.first, self.moments.second, self.agreed)
        )
        return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, space: AdapterSpace) -> Self:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            DeltaError: it is something else.
        """
        parts, at = [], 0
        while at < len(data):
            start = at + _LENGTH
            at = start + int.from_bytes(data[at:start], "big")
            parts.append(decode(data[start:at], space, max_bytes=len(data)))
        if len(parts) != _PARTS or at != len(data):
            raise DeltaError("the server's memory is cut short, or something else")
        return cls(parts[0], Moments(parts[1], parts[2]), parts[3])


@dataclass(frozen=True)
class Step:
    """What a round leads to.

    Attributes:
        delta: what is added to the adapter; every value is one that the coding can write.
        data: its bytes.
        memory: for the next round.
    """

    delta: SparseDelta
    data: bytes
    memory: Memory


class Server:
    """Turns merged updates into steps; the same arguments give the same step, bit for bit.

    Args:
        space: the federation's adapter space.
        settings: of the optimiser, the rounding and the growth.
        dense: positions of the tensors that every update carries whole; they always fit.
        rows: rows grow whole, as where plants choose whole rows.
    """

    def __init__(
        self, space: AdapterSpace, settings: ServerSettings, *, dense: Collection[int], rows: bool
    ) -> None:
        self._space = space
        self._settings = settings
        self._dense = frozenset(dense)
        self._rows = space if rows else None
        self._coding = ValueCoding[settings.value_coding.upper()]

    def step(self, state: SparseDelta, merged: SparseDelta, memory: Memory) -> Step:
        """Return the step from ``state``.

        Args:
            state: the adapter so far, SET against the untouched base.
            merged: the merged updates, ADD.
            memory: after the round before.
        """
        wanted, moments = optimise(self._settings, merged, memory.moments)
        wanted, residual = self._cut(state, wanted, memory.residual)
        sent, residual = compensate(wanted, residual, self._coding)
        return Step(sent, encode(sent, self._space, self._coding), Memory(residual, moments, memory.agreed))

    def _cut(
        self, state: SparseDelta, wanted: SparseDelta, residual: SparseDelta
    ) -> tuple[SparseDelta, SparseDelta]:
        """Return the part of a step that the adapter may take, and the residual with the rest."""
        room = int(self._settings.max_density * self._space.size) - state.nnz
        old, new = _split(state, wanted, self._dense)
        if new.nnz <= room:
            return wanted, residual
        taken, residual = compensate(new, residual, ValueCoding.FP32, most=max(0, room), rows=self._rows)
        return overlay(old, taken.tensors), residual


def _split(state: SparseDelta, step: SparseDelta, dense: Collection[int]) -> tuple[SparseDelta, SparseDelta]:
    """Return the part of ``step`` in the dense tensors and at the coordinates of ``state``, and the rest."""
    held = {tensor.tensor: tensor.indices for tensor in state.tensors}
    parts: tuple[list[TensorDelta], list[TensorDelta]] = ([], [])
    for tensor in step.tensors:
        known = np.isin(tensor.indices, held.get(tensor.tensor, ()), assume_unique=True)
        known |= tensor.tensor in dense
        for part, which in zip(parts, (known, ~known), strict=True):
            if which.any():
                part.append(TensorDelta(tensor.tensor, tensor.indices[which], tensor.values[which]))
    old, new = (SparseDelta(step.space, step.operation, tuple(part)) for part in parts)
    return old, new


def voted(settings: TrainingSettings, round: int, memory: Memory, space: AdapterSpace) -> SparseDelta | None:
    """Return the coordinates that all train in a round; None where each plant chooses, which is a vote.

    Args:
        round: from 1; those of a new vote are 1, 1 + revote, and so on.
    """
    if settings.mask is not Mask.CONSENSUS or (round - 1) % settings.revote == 0:
        return None
    fits = 0 < memory.agreed.nnz <= settings.density * space.size  # not where the density was lowered meanwhile
    return memory.agreed if fits else None
