"""What the policy judges: one thing that wants to leave, as facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedsparse.audit.entry import EntryKind, TensorFacts, describe_delta
from fedsparse.delta import AdapterSpace, Operation, RoundUpdate, SparseDelta, ValueCoding, header_of


@dataclass(frozen=True)
class DeltaFacts:
    """What the policy looks at in a delta.

    Attributes:
        operation: ADD or SET.
        coding: of its values, as its header says; the decoder has held the values to it.
        space: that it was decoded against.
        tensors: as the ledger describes them.
    """

    operation: Operation
    coding: ValueCoding
    space: AdapterSpace
    tensors: tuple[TensorFacts, ...]

    @property
    def nnz(self) -> int:
        """Values in all tensors."""
        return sum(tensor.nnz for tensor in self.tensors)


@dataclass(frozen=True)
class Outgoing:
    """One message that wants to leave.

    Attributes:
        kind: UPDATE, REASON, DESCRIBE or ATTEND.
        time_unix_ms: now, as this machine's clock has it.
        bytes: of its content; 0 for a call.
        round: that it answers; 0 for a call.
        version: that it starts from.
        bundle_sha256: of the Flower app bundle of the task, 64 hex digits.
        samples: that it names.
        metrics: by name.
        delta: of an update, and of nothing else.
    """

    kind: EntryKind
    time_unix_ms: int
    bytes: int = 0
    round: int = 0
    version: int = 0
    bundle_sha256: str = ""
    samples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    delta: DeltaFacts | None = None

    def __post_init__(self) -> None:
        if (self.kind is EntryKind.UPDATE) != (self.delta is not None):
            raise ValueError(f"{self.kind.name}: an update, and nothing else, has a delta")


def outgoing_update(
    update: RoundUpdate,
    payload: bytes,
    delta: SparseDelta | None,
    space: AdapterSpace,
    *,
    bundle_sha256: str,
    time_unix_ms: int,
) -> Outgoing:
    """Return what is judged of an answer to a task.

    Args:
        update: decoded from ``payload``.
        payload: the exact bytes.
        delta: decoded from the update, or None where it holds a reason.
        space: that ``delta`` was decoded against.
        bundle_sha256: of the task's app bundle, 64 hex digits.
        time_unix_ms: now.
    """
    facts = None
    if delta is not None:
        tensors = describe_delta(delta, space)
        facts = DeltaFacts(delta.operation, header_of(update.delta).coding, space, tensors)
    return Outgoing(
        kind=EntryKind.REASON if delta is None else EntryKind.UPDATE,
        time_unix_ms=time_unix_ms,
        bytes=len(payload),
        round=update.round,
        version=update.version,
        bundle_sha256=bundle_sha256,
        samples=update.samples,
        metrics=update.metrics,
        delta=facts,
    )
