"""A policy, and messages for it to judge, as tests need them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedsparse.audit import EgressPolicy, EntryKind
from fedsparse.audit.policy import Outgoing, Usage, outgoing_update
from fedsparse.config import EgressSettings, MetricLimits
from fedsparse.delta import AdapterSpace, RoundUpdate, SparseDelta, decode_update
from fedsparse.v1 import ledger_pb2
from tests.unit.samples import LIMIT, SPACE, delta, update

LIMITS = EgressSettings(
    max_update_bytes=2048,
    max_density=10 / 2026,
    min_samples=16,
    metrics={"loss": MetricLimits(minimum=0.0, maximum=1.0)},
)
SMALL = delta({2: {9: 1.0}})
NOON = 1_795_694_400_000  # Thursday, 26 November 2026, 12:00 UTC
HOUR = 3_600_000
BUNDLE = "b" * 64


def limits(**changed: Any) -> EgressSettings:
    """Return :data:`LIMITS` with some keys changed, validated."""
    return EgressSettings.model_validate({**LIMITS.model_dump(), **changed})


def read(payload: bytes) -> RoundUpdate:
    return decode_update(payload, max_bytes=LIMIT)


def outgoing(
    payload: bytes, change: SparseDelta | None, space: AdapterSpace = SPACE, *, at: int = NOON
) -> Outgoing:
    """Return the update or reason in ``payload`` as what the policy judges."""
    return outgoing_update(read(payload), payload, change, space, bundle_sha256=BUNDLE, time_unix_ms=at)


def rules(
    settings: EgressSettings, message: Outgoing | None = None, past: Iterable[ledger_pb2.LedgerEntry] = ()
) -> list[str]:
    """Return which rules refuse ``message``, by default a small update."""
    usage = Usage()
    for entry in past:
        usage.add(entry)
    judged = message or outgoing(update(SMALL, samples=16), SMALL)
    return [refusal.rule for refusal in EgressPolicy(settings).refusals(judged, usage)]


def call(kind: EntryKind = EntryKind.ATTEND, at: int = NOON) -> Outgoing:
    return Outgoing(kind, at)


def entry(
    kind: EntryKind, at: int = NOON, size: int = 0, number: int = 3, version: int = 2
) -> ledger_pb2.LedgerEntry:
    """Return an entry of the ledger; its round and version are those of the samples' updates."""
    return ledger_pb2.LedgerEntry(
        sequence=1,
        kind=ledger_pb2.EntryKind.ValueType(kind),
        time_unix_ms=at,
        payload_bytes=size,
        round=number,
        version=version,
    )
