"""One round as values: the task that goes down, the update that comes up; strict and canonical both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Self, TypeVar

from google.protobuf.message import DecodeError

from fedsparse.delta.settings import Allocation, Mask, Structure, TrainingSettings
from fedsparse.delta.value import ValueCoding
from fedsparse.delta.wire import field_head
from fedsparse.errors import DeltaError
from fedsparse.v1 import round_pb2

FORMAT = 2
_MAX_METRICS = 64
_MAX_METRIC_NAME = 64


class Reason(IntEnum):
    """Why there is no delta; the only thing a site ever says of a failure."""

    NONE = 0
    TRAINING_FAILED = 1
    TRAINER_UNREACHABLE = 2
    VERSION_NOT_HELD = 3
    SPACE_MISMATCH = 4
    VERSION_UNVERIFIED = 5
    REFUSED_BY_GATE = 6
    APP_FAILED = 7
    TASK_MALFORMED = 8
    DATA_UNAVAILABLE = 9
    APP_NOT_APPROVED = 10


@dataclass(frozen=True)
class RoundTask:
    """What the strategy asks of one plant; fields as in round.proto."""

    round: int
    space: bytes
    version: int
    held_version: int
    deltas: tuple[bytes, ...]
    manifest: bytes
    manifest_signature: bytes
    hub_certificate: bytes
    training: TrainingSettings
    support: bytes = b""

    def __post_init__(self) -> None:
        _require_counts(self.round, self.version, self.held_version)
        if len(self.space) != 32:
            raise DeltaError(f"a space fingerprint has 32 bytes, not {len(self.space)}")
        if bool(self.deltas) != (self.version != self.held_version) or not all(self.deltas):
            raise DeltaError("a delta is needed exactly where the plant's version is another than the task's")
        if (self.version > 0) != bool(self.manifest):
            raise DeltaError("every version but the untouched base has a manifest")
        if self.support and self.training.mask is not Mask.CONSENSUS:
            raise DeltaError("only a consensus comes with a support")


@dataclass(frozen=True)
class RoundUpdate:
    """What one plant answers: a delta with metrics, or a reason; fields as in round.proto."""

    round: int
    version: int
    samples: int
    delta: bytes
    reason: Reason
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.delta) != (self.reason is Reason.NONE):
            raise DeltaError("an update holds either a delta or a reason")
        _require_counts(self.round, self.version, self.samples)
        if self.reason is not Reason.NONE and (self.metrics or self.samples):
            raise DeltaError("a reason comes without metrics and samples")
        if len(self.metrics) > _MAX_METRICS:
            raise DeltaError(f"{len(self.metrics)} metrics, the limit is {_MAX_METRICS}")
        for name, value in self.metrics.items():
            if not 0 < len(name) <= _MAX_METRIC_NAME or not name.isprintable() or not math.isfinite(value):
                raise DeltaError(f"metric {name[:_MAX_METRIC_NAME]!r} = {value} has no valid name or value")
        object.__setattr__(self, "metrics", MappingProxyType(dict(sorted(self.metrics.items()))))

    @classmethod
    def refusal(cls, number: int, version: int, reason: Reason) -> Self:
        """Return the update that says only why there is none."""
        return cls(number, version, 0, b"", reason)


def _require_counts(number: int, *counts: int) -> None:
    if not 0 < number < 1 << 32 or not all(0 <= count < 1 << 64 for count in counts):
        raise DeltaError(f"round {number} must be 1 to 2^32 - 1, versions and samples {counts} 0 to 2^64 - 1")


def encode_task(task: RoundTask) -> bytes:
    """Return the bytes of ``task``."""
    message = round_pb2.RoundTask(
        format=FORMAT,
        round=task.round,
        space=task.space,
        version=task.version,
        held_version=task.held_version,
        deltas=task.deltas,
        manifest=task.manifest,
        manifest_signature=task.manifest_signature,
        hub_certificate=task.hub_certificate,
        training=round_pb2.TrainingSettings(**asdict(task.training)),
        support=task.support,
    )
    return message.SerializeToString(deterministic=True)


def decode_task(data: bytes, *, max_bytes: int) -> RoundTask:
    """Read a task.

    Raises:
        DeltaError: it is not exactly what :func:`encode_task` writes.
    """
    message = _parse(data, round_pb2.RoundTask, max_bytes)
    training = message.training
    task = RoundTask(
        message.round,
        message.space,
        message.version,
        message.held_version,
        tuple(message.deltas),
        message.manifest,
        message.manifest_signature,
        message.hub_certificate,
        TrainingSettings(
            training.density,
            training.epochs,
            training.batch_size,
            training.learning_rate,
            training.head_learning_rate,
            training.seed,
            _known("value coding", ValueCoding, training.value_coding),
            training.upload_density,
            _known("structure", Structure, training.structure),
            _known("allocation", Allocation, training.allocation),
            _known("mask", Mask, training.mask),
            training.revote,
        ),
        message.support,
    )
    return _canonical(task, encode_task(task) == data)


def encode_update(update: RoundUpdate) -> bytes:
    """Return the bytes of ``update``."""
    before, after = _around_delta(update)
    return b"".join((before, update.delta, after))


def _around_delta(update: RoundUpdate) -> tuple[bytes, bytes]:
    """Return what stands before and after the bytes of an update's delta, which may be hundreds of megabytes."""
    before = round_pb2.RoundUpdate(
        format=FORMAT, round=update.round, version=update.version, samples=update.samples
    )
    after = round_pb2.RoundUpdate(
        reason=round_pb2.Reason.ValueType(update.reason),
        metrics=[round_pb2.Metric(name=name, value=value) for name, value in update.metrics.items()],
    )
    head = field_head(round_pb2.RoundUpdate.DELTA_FIELD_NUMBER, len(update.delta)) if update.delta else b""
    return before.SerializeToString(deterministic=True) + head, after.SerializeToString(deterministic=True)


def decode_update(data: bytes, *, max_bytes: int) -> RoundUpdate:
    """Read an update; its delta is decoded apart, against a space.

    Raises:
        DeltaError: it is not exactly what :func:`encode_update` writes.
    """
    message = _parse(data, round_pb2.RoundUpdate, max_bytes)
    update = RoundUpdate(
        message.round,
        message.version,
        message.samples,
        message.delta,
        _known("reason", Reason, message.reason),
        {metric.name: metric.value for metric in message.metrics},
    )
    before, after = _around_delta(update)
    rest = len(before) + len(update.delta)
    same = data.startswith(before) and data.startswith(update.delta, len(before)) and data[rest:] == after
    return _canonical(update, same)


_Enum = TypeVar("_Enum", bound=IntEnum)


def _known(what: str, kind: type[_Enum], number: int) -> _Enum:
    if number not in set(map(int, kind)):
        raise DeltaError(f"{what} {number} is unknown")
    return kind(number)


_Parsed = TypeVar("_Parsed", round_pb2.RoundTask, round_pb2.RoundUpdate)
_Value = TypeVar("_Value", bound=RoundTask | RoundUpdate)


def _parse(data: bytes, kind: type[_Parsed], max_bytes: int) -> _Parsed:
    if len(data) > max_bytes:
        raise DeltaError(f"the message has {len(data)} bytes, the limit is {max_bytes}")
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise DeltaError(f"the bytes are no {kind.__name__}") from None
    if message.format != FORMAT:
        raise DeltaError(
            f"the {kind.__name__} has format {message.format}, this release reads format {FORMAT}",
            "Install the same release of fedsparse on both sides",
        )
    return message


def _canonical(value: _Value, same: bool) -> _Value:
    if not same:
        raise DeltaError("the message is not in canonical form: other bytes say the same")
    return value
