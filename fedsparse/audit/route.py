"""What the only route has carried between two counts, and how much of it the ledger explains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fedsparse.audit.control import is_control, route_counts
from fedsparse.audit.entry import EntryKind
from fedsparse.v1 import ledger_pb2, link_pb2

# What may be sent beside the ledger's bytes: upper bounds for gRPC over TLS 1.3 over TCP on Ethernet. Measured on
# a cable, 5 messages with 23,703 bytes of payloads over two connections: 5,228 bytes of headers of Ethernet, IP
# and TCP, 3,784 of TLS handshakes, 2,381 of our envelopes, 1,376 of gRPC and HTTP/2. The room that is left is for
# paths that lose packets and for larger ledgers. Payloads sent again exceed it, and somebody should ask why.
PER_BYTE = 1.10
"""Headers of Ethernet, IP and TCP (66 of 1,514 bytes of a full frame, more of a short one), TLS records, HTTP/2
frames: 6 %; and 4 % for packets lost on their way."""
PER_MESSAGE_BYTES = 3000
"""Envelope with two proofs (476 bytes measured, 1,800 in a ledger of 2^17 entries), HTTP/2 headers and flow
control (275 measured), and packets that are not full."""
PER_CONNECTION_BYTES = 6000
"""TLS 1.3 with X25519MLKEM768 (1.2 kB) and the plant's certificate (1,892 bytes measured), its issuer's besides,
HTTP/2 settings, TCP; and an attempt that failed before."""
PER_SECOND_BYTES = 60.0
"""An HTTP/2 ping and the answer to the hub's every 10 s, 105 bytes each with their acknowledgements, and ARP."""
PER_RECEIVED_BYTE = 0.05
"""A TCP acknowledgement, 66 bytes, for each full packet received."""


@dataclass(frozen=True)
class Crossing:
    """One message's way: when at the earliest and latest it was sent, in numbers of entries.

    Attributes:
        sequence: of its entry; it was sent after that was written.
        bytes: of its payload.
        witnessed: entries that there were when it was sent, as its receipt says; None without one.
    """

    sequence: int
    bytes: int
    witnessed: int | None


@dataclass(frozen=True)
class Segment:
    """Two counts of one counter, and what the ledger says happened between them.

    Attributes:
        route: the counter's name.
        first: entry of the first count.
        last: entry of the last.
        sent: bytes by which the counter of what was sent rose; below 0 if it ever fell.
        received: likewise of what was received; 0 where nobody counts it.
        seconds: between the two, by the plant's clock.
        least: payload bytes certainly sent in between.
        payloads: payload bytes that may have been.
        messages: of these.
        connections: that may have been opened.
    """

    route: str
    first: int
    last: int
    sent: int
    received: int
    seconds: float
    least: int = 0
    payloads: int = 0
    messages: int = 0
    connections: int = 0

    @property
    def most(self) -> int:
        """Bytes that the ledger explains at most."""
        return int(
            PER_BYTE * self.payloads
            + PER_MESSAGE_BYTES * self.messages
            + PER_CONNECTION_BYTES * self.connections
            + PER_SECOND_BYTES * max(self.seconds, 0.0)
            + PER_RECEIVED_BYTE * max(self.received, 0)
        )

    @property
    def beside(self) -> int:
        """Bytes sent that are not certainly payloads: headers, handshakes, or what nobody recorded."""
        return self.sent - self.least

    def may_hold(self, one: Crossing) -> bool:
        """Tell whether a message may have been sent between the two counts."""
        return one.sequence < self.last and (one.witnessed is None or one.witnessed >= self.first)

    def holds(self, one: Crossing) -> bool:
        """Tell whether a message was certainly sent between the two counts."""
        return one.sequence > self.first and one.witnessed is not None and one.witnessed < self.last


@dataclass(frozen=True)
class _Count:
    sequence: int
    time_unix_ms: int
    counted: ledger_pb2.RouteCount

    @property
    def counter(self) -> tuple[str, str]:
        return self.counted.route, self.counted.since


def crossings(
    left: Iterable[ledger_pb2.LedgerEntry], receipts: Mapping[int, link_pb2.ReceiptBody | None]
) -> tuple[Crossing, ...]:
    """Return the way of every message that left."""
    return tuple(
        Crossing(
            entry.sequence,
            entry.payload_bytes,
            None if (body := receipts.get(entry.sequence)) is None else body.checkpoint_size,
        )
        for entry in left
    )


def segments(
    entries: Sequence[ledger_pb2.LedgerEntry | None],
    payload: Callable[[bytes], bytes],
    moved: Sequence[Crossing],
) -> Iterator[Segment]:
    """Yield the longest spans of counts that one counter kept without beginning anew."""
    span: list[_Count] = []
    for count in _counts(entries, payload):
        if span and span[-1].counter != count.counter:
            yield from _segment(span, entries, moved)
            span = []
        span.append(count)
    yield from _segment(span, entries, moved)


def is_counted(entries: Sequence[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]) -> bool:
    """Tell whether any count of the route can be read."""
    return any(True for _ in _counts(entries, payload))


def _segment(
    span: Sequence[_Count], entries: Sequence[ledger_pb2.LedgerEntry | None], moved: Sequence[Crossing]
) -> Iterator[Segment]:
    if len(span) < 2:
        return
    first, last = span[0], span[-1]
    falls = [late.counted.sent_bytes - soon.counted.sent_bytes for soon, late in pairwise(span)]
    bare = Segment(
        route=first.counted.route,
        first=first.sequence,
        last=last.sequence,
        sent=last.counted.sent_bytes - first.counted.sent_bytes if min(falls) >= 0 else min(falls),
        received=last.counted.received_bytes - first.counted.received_bytes,
        seconds=(last.time_unix_ms - first.time_unix_ms) / 1000,
    )
    may = [one for one in moved if bare.may_hold(one)]
    yield replace(
        bare,
        least=sum(one.bytes for one in moved if bare.holds(one)),
        payloads=sum(one.bytes for one in may),
        messages=len(may),
        connections=_calls(entries[bare.first : bare.last]) + len(may) + 1,
    )


def _calls(entries: Iterable[ledger_pb2.LedgerEntry | None]) -> int:
    """Count the entries that come with a connection of their own.

    A message may too: a site with a list of revocations asks who answers before it sends.
    """
    calls = (EntryKind.DESCRIBE, EntryKind.ATTEND, EntryKind.OPENED)
    return sum(entry is not None and int(entry.kind) in calls for entry in entries)


def _counts(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[_Count]:
    for entry, counted in route_counts(entries, payload):
        if not is_control(counted):
            yield _Count(entry.sequence, entry.time_unix_ms, counted)
