"""One line of the ledger: what is said of something that left, or was refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from fedsparse.audit.norm import sum_of_squares
from fedsparse.delta import AdapterSpace, Reason, SparseDelta
from fedsparse.v1 import ledger_pb2, round_pb2

FORMAT = 2
GENESIS = bytes(32)  # the hash before the first entry
NEVER_MS = 253_402_300_800_000
"""From 1970 to the year 10000, which no calendar here writes, in ms; every entry is older."""


class EntryKind(IntEnum):
    """What an entry is about; see ledger.proto."""

    UPDATE = 1
    REASON = 2
    REFUSED = 3
    DESCRIBE = 4
    ATTEND = 5
    OPENED = 6
    POLICY = 7
    ROUTE = 8
    ERASED = 9


@dataclass(frozen=True)
class TensorFacts:
    """What an entry says of one tensor of a delta."""

    name: str
    nnz: int
    minimum: float
    maximum: float
    l2: float


@dataclass(frozen=True)
class EntryDraft:
    """Everything of an entry but its place in the chain and its payload; fields as in ledger.proto."""

    kind: EntryKind
    peer: str
    policy_sha256: bytes
    task_id: str = ""
    round: int = 0
    version: int = 0
    samples: int = 0
    reason: Reason = Reason.NONE
    rule: str = ""
    tensors: Sequence[TensorFacts] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


def describe_delta(delta: SparseDelta, space: AdapterSpace) -> tuple[TensorFacts, ...]:
    """Return what the ledger says of each tensor of ``delta``, to the same bit on every machine."""
    return tuple(
        TensorFacts(
            space.tensors[tensor.tensor].name,
            tensor.indices.size,
            float(tensor.values.min()),
            float(tensor.values.max()),
            math.sqrt(sum_of_squares(tensor.values)),
        )
        for tensor in delta.tensors
    )


def facts_to_proto(facts: Sequence[TensorFacts]) -> list[ledger_pb2.TensorFacts]:
    """Return the form that is stored."""
    return [
        ledger_pb2.TensorFacts(name=f.name, nnz=f.nnz, minimum=f.minimum, maximum=f.maximum, l2=f.l2)
        for f in facts
    ]


def metrics_to_proto(metrics: Mapping[str, float]) -> list[round_pb2.Metric]:
    """Return the form that is stored, by name."""
    return [round_pb2.Metric(name=name, value=value) for name, value in sorted(metrics.items())]
