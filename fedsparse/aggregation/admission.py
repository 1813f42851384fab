"""The door of the aggregator: only an update that passed every check becomes something that can be merged."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from fedsparse.delta import AdapterSpace, Operation, Reason, SparseDelta, decode, decode_update
from fedsparse.errors import DeltaError

_DOOR = object()
_MAX_SAMPLES = 1 << 40
_MAX_MAGNITUDE = 2.0**20  # no step of a weight is so large; sums of such steps stay finite


@dataclass(frozen=True)
class Admitted:
    """An update that may be merged; only :func:`admit` makes one.

    Attributes:
        delta: the plant's ADD delta.
        weight: its weight in the merge, the number of samples behind it.
        digest: SHA-256 of the update's bytes.
    """

    delta: SparseDelta
    weight: float
    digest: bytes
    door: object

    def __post_init__(self) -> None:
        if self.door is not _DOOR:
            raise TypeError("only admit() admits an update")


def admit(
    payload: bytes, space: AdapterSpace, *, round: int, version: int, max_bytes: int, max_density: float
) -> Admitted:
    """Check a serialised RoundUpdate as a stranger's.

    Args:
        payload: the bytes as they arrived.
        space: the federation's adapter space.
        round: the round it must answer.
        version: the adapter version it must start from.
        max_bytes: of the whole update.
        max_density: share of the space's coordinates it may name.

    Raises:
        SpaceMismatchError: it belongs to another adapter space.
        DeltaError: anything else is not as it must be.
    """
    update = decode_update(payload, max_bytes=max_bytes)
    if update.reason is not Reason.NONE:
        raise DeltaError(f"the update holds the reason {update.reason.name}, not a delta")
    if (update.round, update.version) != (round, version):
        raise DeltaError(
            f"the update is for round {update.round} from version {update.version}, "
            f"this is round {round} from version {version}"
        )
    if not 0 < update.samples <= _MAX_SAMPLES:
        raise DeltaError(f"the update claims {update.samples} samples; 1 to {_MAX_SAMPLES} are possible")
    delta = decode(update.delta, space, max_bytes=max_bytes)
    if delta.operation is not Operation.ADD:
        raise DeltaError("a plant's update must be an ADD delta")
    if delta.nnz == 0:
        raise DeltaError("the update names no coordinate")
    largest = max((float(abs(tensor.values).max()) for tensor in delta.tensors), default=0.0)
    if largest > _MAX_MAGNITUDE:
        raise DeltaError(f"the update holds the value {largest:g}, the limit is {_MAX_MAGNITUDE:g}")
    if delta.nnz / space.size > max_density:
        raise DeltaError(
            f"the update names {delta.nnz} of {space.size} coordinates, the limit is {max_density:.2%}"
        )
    return Admitted(delta, float(update.samples), sha256(payload).digest(), _DOOR)
