"""The door of the aggregator: only an update that passed every check becomes something that can be merged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO

import numpy as np

from fedsparse.delta import AdapterSpace, Operation, Reason, RoundUpdate, TensorDelta, decode_stream, decode_update
from fedsparse.errors import DeltaError

_DOOR = object()
_MAX_SAMPLES = 1 << 40
_MAX_MAGNITUDE = 2.0**20  # no step of a weight is so large; sums of such steps stay finite


@dataclass(frozen=True)
class Admitted:
    """An update that may be merged; only :func:`admit_update` makes one.

    Attributes:
        space: what it belongs to.
        data: the plant's ADD delta, in the bytes that were checked.
        samples: how many it claims behind it.
        digest: SHA-256 of the update's bytes.
        nnz: coordinates it names.
        norm: Euclidean norm of its values.
    """

    space: AdapterSpace
    data: bytes = field(repr=False)
    samples: int
    digest: bytes
    nnz: int
    norm: float
    door: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.door is not _DOOR:
            raise TypeError("only admit_update() admits an update")

    def tensors(self) -> Iterator[TensorDelta]:
        """Decode again, a segment at a time."""
        return decode_stream(BytesIO(self.data), self.space, max_bytes=len(self.data), known_canonical=True)[1]


def admit(
    payload: bytes, space: AdapterSpace, *, round: int, version: int, max_bytes: int, max_density: float
) -> Admitted:
    """Check a serialised RoundUpdate as a stranger's.

    Args:
        payload: the bytes as they arrived.
        max_bytes: of all of them.

    The other arguments and the errors are those of :func:`admit_update`.
    """
    return admit_update(
        decode_update(payload, max_bytes=max_bytes),
        sha256(payload).digest(),
        space,
        round=round,
        version=version,
        max_density=max_density,
    )


def admit_update(
    update: RoundUpdate, digest: bytes, space: AdapterSpace, *, round: int, version: int, max_density: float
) -> Admitted:
    """Check an update that was decoded already.

    Args:
        update: what it says.
        digest: SHA-256 of its bytes.
        space: the federation's adapter space.
        round: the round it must answer.
        version: the adapter version it must start from.
        max_density: share of the space's coordinates it may name.

    Raises:
        SpaceMismatchError: it belongs to another adapter space.
        DeltaError: anything else is not as it must be.
    """
    if update.reason is not Reason.NONE:
        raise DeltaError(f"the update holds the reason {update.reason.name}, not a delta")
    if (update.round, update.version) != (round, version):
        raise DeltaError(
            f"the update is for round {update.round} from version {update.version}, "
            f"this is round {round} from version {version}"
        )
    if not 0 < update.samples <= _MAX_SAMPLES:
        raise DeltaError(f"the update claims {update.samples} samples; 1 to {_MAX_SAMPLES} are possible")
    nnz, norm = _check(update.delta, space, max_density)
    return Admitted(space, update.delta, update.samples, digest, nnz, norm, _DOOR)


def _check(data: bytes, space: AdapterSpace, max_density: float) -> tuple[int, float]:
    """Return how many coordinates a delta names, and the norm of its values."""
    header, tensors = decode_stream(BytesIO(data), space, max_bytes=len(data))
    if header.operation is not Operation.ADD:
        raise DeltaError("a plant's update must be an ADD delta")
    nnz, squares, largest = 0, 0.0, 0.0
    for tensor in tensors:
        nnz += len(tensor.indices)
        if nnz / space.size > max_density:
            raise DeltaError(
                f"the update names {nnz} of {space.size} coordinates, or more; the limit is {max_density:.2%}"
            )
        largest = max(largest, float(np.abs(tensor.values).max()))
        squares += float(np.square(tensor.values, dtype=np.float64).sum())
    if nnz == 0:
        raise DeltaError("the update names no coordinate")
    if largest > _MAX_MAGNITUDE:
        raise DeltaError(f"the update holds the value {largest:g}, the limit is {_MAX_MAGNITUDE:g}")
    return nnz, math.sqrt(squares)
