"""A small adapter space, and what honest and hostile plants write about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    TrainingSettings,
    ValueCoding,
    encode,
    encode_task,
    encode_update,
    entropy,
    rice,
    wire,
)
from fedsparse.v1 import link_pb2

SPACE = AdapterSpace(bytes(range(32)), (TensorSpec("conv.weight", (10, 10)), TensorSpec("head.weight", (2, 10))))
OTHER_SPACE = AdapterSpace(bytes(32), SPACE.tensors)
MAX_UPDATE_BYTES = 4096
DENSITY = 0.05  # six of the 120 coordinates
HASH = b"h" * 32
ROUND, VERSION = 2, 0
_GAPS = 3


def federation() -> link_pb2.Federation:
    """Return what the hub tells of this federation."""
    return link_pb2.Federation(protocol=3, name="attacked", space=SPACE.to_proto(), classes=["good", "bad"])


def round_task() -> bytes:
    """Return the task of round 2 from the untouched base."""
    training = TrainingSettings(DENSITY, 1, 8, 1e-3, 1e-3, 7)
    return encode_task(RoundTask(ROUND, SPACE.fingerprint, VERSION, VERSION, (), b"", b"", b"", training))


def delta(
    *indices: int, operation: Operation = Operation.ADD, space: AdapterSpace = SPACE, scale: float = 1.0
) -> bytes:
    """Return an encoded delta of the first tensor."""
    chosen = np.array(indices or (1, 5), np.int64)
    values = (scale * np.linspace(-1, 1, chosen.size)).astype(np.float32)
    change = SparseDelta(space.fingerprint, operation, (TensorDelta(0, chosen, values),))
    return encode(change, space, ValueCoding.FP32)


def update(encoded: bytes | None = None, round: int = ROUND, version: int = VERSION, samples: int = 100) -> bytes:
    """Return the update of a plant."""
    told = delta() if encoded is None else encoded
    return encode_update(RoundUpdate(round, version, samples, told, Reason.NONE, {}))


def written(
    tensors: Sequence[tuple[int, tuple[int, ...]]], values: Sequence[float], more: bytes = b"", rice_more: int = 0
) -> bytes:
    """Return an update whose delta is written by hand, with none of the encoder's checks.

    Args:
        tensors: position and gaps between coordinates, each.
        values: FP32, of all tensors.
        more: bytes after the delta's last field.
        rice_more: added to the best parameter of the gaps' code.
    """
    parts = [_tensor(position, gaps, rice_more) for position, gaps in tensors]
    octets = np.array(values, "<f4").view(np.uint8).reshape(-1, 4)
    planes = b"".join(entropy.write(np.ascontiguousarray(octets[:, place]), 256) for place in range(4))
    body = b"".join(wire.field(1, part) for part in parts) + wire.field(2, planes)
    head = wire.field(1, 2) + wire.field(2, SPACE.fingerprint) + wire.field(3, 1) + wire.field(4, 1)
    return update(head + wire.field(6, body) + more)


def _tensor(position: int, gaps: tuple[int, ...], rice_more: int) -> bytes:
    numbers = np.array(gaps, np.int64)
    k = rice.best_parameter(numbers)[0] + rice_more
    places = bytes([k]) + rice.encode(numbers, k)
    return wire.field(1, position) + wire.field(2, len(gaps)) + wire.field(3, _GAPS) + wire.field(4, places)
