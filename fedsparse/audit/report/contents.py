"""What the messages that left held, by name: metrics, tensors, versions, recipients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fedsparse.audit.entry import EntryKind
from fedsparse.delta import Reason
from fedsparse.v1 import ledger_pb2


@dataclass(frozen=True)
class MetricRange:
    """A metric that left: how often, and between which values."""

    name: str
    times: int
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Contents:
    """What left, by name.

    Attributes:
        metrics: by name.
        tensors: values that left of each, by name.
        versions: adapter versions that updates were trained from, with their number.
        reasons: reason codes, with their number.
        peers: addresses of the hub, with entries.
        authorities: fingerprints of the CA that the hub had to chain to, with entries.
        calls: DESCRIBE and ATTEND together.
    """

    metrics: tuple[MetricRange, ...]
    tensors: tuple[tuple[str, int], ...]
    versions: tuple[tuple[int, int], ...]
    reasons: tuple[tuple[str, int], ...]
    peers: tuple[tuple[str, int], ...]
    authorities: tuple[tuple[bytes, int], ...]
    calls: int


def contents_of(entries: Iterable[ledger_pb2.LedgerEntry | None]) -> Contents:
    """Return what left, by name."""
    readable = [entry for entry in entries if entry is not None]
    updates = [entry for entry in readable if int(entry.kind) == EntryKind.UPDATE]
    codes = [entry for entry in readable if int(entry.kind) == EntryKind.REASON]
    outward = [entry for entry in readable if entry.peer]
    values: dict[str, list[float]] = {}
    for entry in (*updates, *codes):
        for metric in entry.metrics:
            values.setdefault(metric.name, []).append(metric.value)
    tensors: Counter[str] = Counter()
    for entry in updates:
        for tensor in entry.tensors:
            tensors[tensor.name] += tensor.nnz
    calls = (EntryKind.DESCRIBE, EntryKind.ATTEND)
    return Contents(
        metrics=tuple(MetricRange(name, len(some), min(some), max(some)) for name, some in sorted(values.items())),
        tensors=tuple(tensors.most_common()),
        versions=tuple(sorted(Counter(entry.version for entry in updates).items())),
        reasons=tuple(sorted(Counter(_reason(entry.reason) for entry in codes).items())),
        peers=tuple(sorted(Counter(entry.peer for entry in outward).items())),
        authorities=tuple(sorted(Counter(entry.peer_fingerprint for entry in outward).items())),
        calls=sum(int(entry.kind) in calls for entry in readable),
    )


def _reason(number: int) -> str:
    try:
        return Reason(number).name
    except ValueError:
        return str(number)
