"""The information budget: how many bits, at most, what left a site can have told anybody.

A message of n bytes, in a coding where every value has exactly one string, is one of 2^(8n) strings of its length,
and of fewer than 2^(8n + 1) strings of n bytes or fewer. So it tells whoever reads it at most 8n + 1 bits,
whatever its writer meant by it. The budget is the sum over all messages. Per training image it is divided by the
smallest number of samples that any update names: an upper bound of the mean over the images, not of what may have
been told of one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from fedsparse.audit.entry import EntryKind
from fedsparse.v1 import ledger_pb2

DESCRIBE_BYTES = 6
"""Longest DescribeRequest (link.proto): a tag and a varint of 32 bits."""
ATTEND_BYTES = 6 + 34 + 18 + 16 * 66 + 66 + 11
"""Longest AttendRequest (link.proto): protocol, 32 bytes of space, 16 of session, 16 task ids of 64 hex digits;
one more, of a task that is there in part, and a varint of 64 bits."""
_CALLS: Mapping[int, int] = {EntryKind.DESCRIBE: DESCRIBE_BYTES, EntryKind.ATTEND: ATTEND_BYTES}
_CARRIERS = (EntryKind.UPDATE, EntryKind.REASON)

# Update and Checkpoint (link.proto) around a payload: tags and lengths 16, task id 66, ledger hash 34, note 350
# (with the origin, of at most 90 characters, twice), key 34, signature in DER 74, two numbers 22. A payload that
# goes up in parts has its hash here, 34, and a head: tag and length 2, task id 66, hash 34, number 11.
_ENVELOPE_BYTES = 16 + 66 + 34 + 350 + 34 + 74 + 22 + 34 + 2 + 66 + 34 + 11
_PROOF_HASH_BYTES = 34


@dataclass(frozen=True)
class Message:
    """One message that left.

    Attributes:
        sequence: of its entry.
        kind: UPDATE, REASON, DESCRIBE or ATTEND.
        round: 0 for a call that belongs to none.
        bytes: of its content: a payload's exact size; a call's largest, unless a ledger gives it a payload.
        samples: training images behind it, as it says itself.
        time_unix_ms: when it was recorded.
    """

    sequence: int
    kind: EntryKind
    round: int
    bytes: int
    samples: int
    time_unix_ms: int

    @property
    def bits(self) -> int:
        """What it can tell at most: log2 of the number of strings that are no longer."""
        return bits_of(self.bytes)


@dataclass(frozen=True)
class RoundBudget:
    """What left in one round.

    Attributes:
        round: its number; 0 for calls outside any.
        run: 1 at first, one more whenever the rounds begin again at a smaller number.
        updates: deltas that left.
        reasons: reason codes that left.
        bytes: of their payloads.
        bits: their bound.
        cumulative: bound of everything up to and including this round, calls included, in bits.
        samples: smallest number of samples that an update names; 0 where none left.
    """

    round: int
    run: int
    updates: int
    reasons: int
    bytes: int
    bits: int
    cumulative: int
    samples: int


@dataclass(frozen=True)
class KindBudget:
    """What left of one kind: messages, bytes of content, and their bound in bits."""

    kind: EntryKind
    messages: int
    bytes: int
    bits: int


@dataclass(frozen=True)
class Budget:
    """An upper bound of what a plant has told.

    Attributes:
        bits: of all content.
        samples: smallest number of training images that any update names; 0 where no update left.
        rounds: in order.
        kinds: all four, also where none left.
        envelope_bits: bound of what the gateway wraps around payloads: identifiers, hashes, signatures, proofs.
        timing_bits: bound of when and how often something was sent; None without a resolution.
        resolution_ms: the smallest difference in time that an observer is taken to see.
        unreadable: entries that cannot be read, and are not counted.
    """

    bits: int
    samples: int
    rounds: tuple[RoundBudget, ...]
    kinds: tuple[KindBudget, ...]
    envelope_bits: int
    timing_bits: int | None
    resolution_ms: int | None
    unreadable: int

    @property
    def per_image(self) -> int | None:
        """Bits per training image, rounded up; None where no update names any."""
        return -(-self.bits // self.samples) if self.samples else None


def bits_of(size: int) -> int:
    """Return the bound, in bits, of what a message of ``size`` bytes can tell."""
    return 8 * size + 1


def messages_in(entries: Iterable[ledger_pb2.LedgerEntry | None]) -> tuple[Message, ...]:
    """Return what left, in order."""
    return tuple(
        Message(
            entry.sequence,
            EntryKind(entry.kind),
            entry.round if int(entry.kind) in _CARRIERS else 0,
            max(_CALLS.get(entry.kind, 0), entry.payload_bytes),
            entry.samples,
            entry.time_unix_ms,
        )
        for entry in entries
        if entry is not None and (int(entry.kind) in _CARRIERS or int(entry.kind) in _CALLS)
    )


def budget_of(entries: Iterable[ledger_pb2.LedgerEntry | None], resolution_ms: int | None = None) -> Budget:
    """Return the budget of a whole ledger.

    Args:
        entries: parsed; None for what cannot be read.
        resolution_ms: see :class:`Budget`.
    """
    entries = tuple(entries)
    messages = messages_in(entries)
    named = [one.samples for one in messages if one.kind is EntryKind.UPDATE and one.samples]
    carried = sum(one.kind in _CARRIERS for one in messages)
    return Budget(
        bits=sum(one.bits for one in messages),
        samples=min(named, default=0),
        rounds=_by_round(messages),
        kinds=_by_kind(messages),
        envelope_bits=carried * bits_of(envelope_bytes(len(entries))),
        timing_bits=None if resolution_ms is None else timing_bits(messages, resolution_ms),
        resolution_ms=resolution_ms,
        unreadable=sum(entry is None for entry in entries),
    )


def envelope_bytes(entries: int) -> int:
    """Return the most bytes that stand around a payload, in a ledger of so many entries (RFC 6962, 2.1)."""
    depth = max(entries - 1, 0).bit_length()
    return _ENVELOPE_BYTES + _PROOF_HASH_BYTES * (2 * depth + 1)


def timing_bits(messages: Iterable[Message], resolution_ms: int) -> int:
    """Return the bound, in bits, of what the moments and the number of m messages can tell.

    Of S moments that an observer can tell apart between the first message and the last, at most m are chosen, in
    order and with repetition: C(S + m, m) ways.
    """
    times = [one.time_unix_ms for one in messages]
    if not times:
        return 0
    slots = (max(times) - min(times)) // max(resolution_ms, 1) + 1
    ways = math.lgamma(slots + len(times) + 1) - math.lgamma(slots + 1) - math.lgamma(len(times) + 1)
    return math.ceil(ways / math.log(2) * (1 + 1e-9))  # never less for rounding


def _by_round(messages: Iterable[Message]) -> tuple[RoundBudget, ...]:
    groups: dict[tuple[int, int], list[Message]] = {}
    run, last = 1, 0
    calls_before: Counter[tuple[int, int]] = Counter()
    calls = 0
    for one in messages:
        if one.kind not in _CARRIERS:
            calls += one.bits
            continue
        run += one.round < last
        last = one.round
        groups.setdefault((run, one.round), []).append(one)
        calls_before[run, one.round] = calls
    own = {key: sum(one.bits for one in group) for key, group in groups.items()}
    cumulative = dict(zip(groups, accumulate(own.values()), strict=True))
    return tuple(
        RoundBudget(
            round=number,
            run=turn,
            updates=sum(one.kind is EntryKind.UPDATE for one in group),
            reasons=sum(one.kind is EntryKind.REASON for one in group),
            bytes=sum(one.bytes for one in group),
            bits=own[turn, number],
            cumulative=cumulative[turn, number] + calls_before[turn, number],
            samples=min((one.samples for one in group if one.samples), default=0),
        )
        for (turn, number), group in groups.items()
    )


def _by_kind(messages: Iterable[Message]) -> tuple[KindBudget, ...]:
    counts: Counter[EntryKind] = Counter()
    sizes: Counter[EntryKind] = Counter()
    bits: Counter[EntryKind] = Counter()
    for one in messages:
        counts[one.kind] += 1
        sizes[one.kind] += one.bytes
        bits[one.kind] += one.bits
    return tuple(
        KindBudget(kind, counts[kind], sizes[kind], bits[kind])
        for kind in (*_CARRIERS, EntryKind.DESCRIBE, EntryKind.ATTEND)
    )
