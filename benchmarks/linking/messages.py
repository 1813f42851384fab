"""An adapter space large enough for messages of any size asked for, and what travels in it."""

from __future__ import annotations

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
)
from fedsparse.v1 import link_pb2

_SIDE = 4096
_TENSORS = 3
_SCALE = 1e-3
SPACE = AdapterSpace(
    bytes(range(32)), tuple(TensorSpec(f"large.{number}", (_SIDE, _SIDE)) for number in range(_TENSORS))
)
ROUND = 1


def federation() -> link_pb2.Federation:
    """Return what the hub tells of this federation."""
    return link_pb2.Federation(protocol=3, name="bench", space=SPACE.to_proto(), classes=["good", "bad"])


def task(size: int = 0, seed: int = 0) -> bytes:
    """Return a task; with a ``size``, one that brings a change of so many bytes."""
    deltas = (np.random.default_rng(seed).bytes(size),) if size else ()
    brought = (b"m" * 100, b"s" * 70, b"c" * 600) if size else (b"", b"", b"")
    training = TrainingSettings(1.0, 1, 8, 1e-3, 1e-3, seed)
    return encode_task(RoundTask(ROUND, SPACE.fingerprint, int(size > 0), 0, deltas, *brought, training))


def update(tensors: int = 0) -> bytes:
    """Return an update of 32-bit values: of two coordinates, or of every one of so many tensors."""
    generator = np.random.default_rng(tensors)
    chosen = np.arange(_SIDE * _SIDE) if tensors else np.array([1, 5], np.int64)
    parts = tuple(
        TensorDelta(number, chosen, _SCALE * generator.standard_normal(chosen.size, dtype=np.float32))
        for number in range(max(1, tensors))
    )
    delta = encode(SparseDelta(SPACE.fingerprint, Operation.ADD, parts), SPACE, ValueCoding.FP32)
    return encode_update(RoundUpdate(ROUND, 0, 100, delta, Reason.NONE))


def refusal(version: int = 0) -> bytes:
    """Return the shortest answer there is: a reason code."""
    return encode_update(RoundUpdate.refusal(ROUND, version, Reason.DATA_UNAVAILABLE))
