"""What a policy would have said of the past: every message that a ledger records, judged again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from fedsparse.audit.entry import EntryKind
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.policy.outgoing import Outgoing, outgoing_update
from fedsparse.audit.policy.policy import EgressPolicy
from fedsparse.audit.policy.rules import Refusal
from fedsparse.audit.policy.usage import Usage
from fedsparse.config import EgressSettings
from fedsparse.delta import AdapterSpace, decode, decode_update, header_of
from fedsparse.errors import FedsparseError, LedgerError
from fedsparse.v1 import ledger_pb2

_LEFT = (EntryKind.UPDATE, EntryKind.REASON, EntryKind.DESCRIBE, EntryKind.ATTEND)
_UNLIMITED = 1 << 40


@dataclass(frozen=True)
class Rehearsed:
    """A message that left and that the policy would have refused, by these rules."""

    sequence: int
    kind: EntryKind
    round: int
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Rehearsal:
    """What judging a whole ledger gave.

    Attributes:
        judged: messages that were judged.
        refused: those that the policy would have refused, in order.
        unknown: entries that cannot be judged, each with the reason, as the end of "entry N: ...".
    """

    judged: int
    refused: tuple[Rehearsed, ...]
    unknown: tuple[tuple[int, str], ...]


def rehearse(settings: EgressSettings, evidence: Evidence) -> Rehearsal:
    """Judge everything in a ledger that left, as if ``settings`` had been in force from its first entry on.

    What would have been refused counts for no budget. The app bundle is taken from the ledger's openings, which
    say what was installed: no other runs. The evidence itself is believed; ``fedsparse audit verify`` checks it.
    """
    policy, usage = EgressPolicy(settings), Usage()
    bundle, judged = "", 0
    refused: list[Rehearsed] = []
    unknown: list[tuple[int, str]] = []
    for row in evidence.rows:
        try:
            entry = ledger_pb2.LedgerEntry.FromString(row.entry)
            if int(entry.kind) == EntryKind.OPENED:
                opening = ledger_pb2.Opening.FromString(evidence.payload(entry.payload_sha256))
                bundle = opening.bundle_sha256.hex()
            if int(entry.kind) not in _LEFT:
                continue
            message = _message(entry, evidence, bundle)
            refusals = tuple(policy.refusals(message, usage))
        except (
            DecodeError,
            FedsparseError,
            ValueError,
            OverflowError,
            OSError,
        ) as error:  # also an impossible time
            unknown.append((row.sequence, str(error)))
            continue
        judged += 1
        if refusals:
            refused.append(Rehearsed(row.sequence, message.kind, message.round, refusals))
        else:
            usage.add(entry)
    return Rehearsal(judged, tuple(refused), tuple(unknown))


def _message(entry: ledger_pb2.LedgerEntry, evidence: Evidence, bundle: str) -> Outgoing:
    if int(entry.kind) in (EntryKind.DESCRIBE, EntryKind.ATTEND):
        return Outgoing(EntryKind(entry.kind), entry.time_unix_ms)
    try:
        payload = evidence.payload(entry.payload_sha256)
    except LedgerError as error:
        raise LedgerError(f"its payload {error}") from None
    update = decode_update(payload, max_bytes=_UNLIMITED)
    if not update.delta:
        return Outgoing(EntryKind.REASON, entry.time_unix_ms, len(payload), update.round, update.version)
    space = _space(evidence.spaces, header_of(update.delta).space)
    delta = decode(update.delta, space, max_bytes=_UNLIMITED)
    return outgoing_update(update, payload, delta, space, bundle_sha256=bundle, time_unix_ms=entry.time_unix_ms)


def _space(spaces: Mapping[bytes, AdapterSpace], fingerprint: bytes) -> AdapterSpace:
    if fingerprint not in spaces:
        raise LedgerError("the file of its adapter space is gone from spaces/")
    return spaces[fingerprint]
