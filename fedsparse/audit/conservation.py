"""Three-way conservation: what the ledger says left, what the hub says arrived, what the only route has carried.

A Merkle log shows that nothing recorded was altered, not that nothing bypassed the recorder. Three parties
count: the gateway, the hub, and the plant's operating system. Their counts can only agree if nothing did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from fedsparse.audit.evidence import Evidence
from fedsparse.audit.route import Segment, crossings, is_counted, segments
from fedsparse.audit.verify import LEFT, Verdict, parse_entry
from fedsparse.v1 import ledger_pb2, link_pb2


class Finding(Enum):
    """What can be said of one line of a report."""

    VERIFIED = "verified"
    CONTRADICTED = "contradicted"
    UNKNOWN = "cannot tell"


class Why(Enum):
    """Why a line is not verified."""

    EMPTY = "the ledger has no entries"
    LEDGER = "the ledger itself is contradicted"
    NO_AUTHORITY = "without a CA certificate, signatures were not checked"
    NO_HUB_RECORD = "the hub's own record was not given"
    UNRECEIPTED = "there is no receipt for some of what left"
    STRANGERS = "there are receipts for something else than what left"
    NO_COUNTS = "no counts of the route are recorded"
    ONE_COUNT = "there are no two counts of the same counter to compare"
    FELL = "a counter fell without having begun anew"
    CLOCK = "the clock went back between two counts"
    TOO_FEW = "the route has carried less than the ledger says was sent"
    TOO_MANY = "the route has carried more than the ledger explains"
    ONE_WAY = "more was sent than the ledger explains, but what was received was not counted"
    RESTARTED = "a counter began anew: what was sent in between was not counted"
    OUTSIDE = "something left before the first count or after the last"
    STAMP = "a time-stamp that was given does not fit it"


@dataclass(frozen=True)
class Line:
    """A finding, and why it is no better."""

    finding: Finding
    why: Why | None = None


@dataclass(frozen=True)
class Received:
    """What receipts say arrived, beside what left.

    Attributes:
        messages: of what left, as many have a receipt.
        bytes: of their payloads.
        missing: entries that left and have none.
        strangers: receipts that fit no entry.
        line: the finding.
    """

    messages: int
    bytes: int
    missing: tuple[int, ...]
    strangers: int
    line: Line


@dataclass(frozen=True)
class Weighed:
    """One span between two counts of the route, and the finding for it."""

    segment: Segment
    line: Line


@dataclass(frozen=True)
class Conservation:
    """The three counts.

    Attributes:
        messages: that the ledger says left: updates and reason codes.
        bytes: of their payloads.
        ledger: whether that word counts.
        filed: by the receipts that the plant has filed.
        hub: by the hub's own record; a line with a reason where it was not given.
        spans: what the route has carried, by span.
        outside: entries that left and lie in no span.
        route: the finding for all spans together.
    """

    messages: int
    bytes: int
    ledger: Line
    filed: Received
    hub: Received
    spans: tuple[Weighed, ...]
    outside: tuple[int, ...]
    route: Line

    @property
    def lines(self) -> tuple[Line, ...]:
        """The four findings."""
        return self.ledger, self.filed.line, self.hub.line, self.route


def conserve(
    evidence: Evidence, verdict: Verdict, hub_receipts: Iterable[link_pb2.Receipt] | None, *, authority: bool
) -> Conservation:
    """Set the three counts side by side.

    Args:
        verdict: of the same evidence and receipts.
        hub_receipts: the hub's own record of this plant.
        authority: whether ``verdict`` rests on the federation's CA certificate.
    """
    entries = [parse_entry(row.entry) for row in evidence.rows]
    left = {
        row.sequence: (row.hash, entry)
        for row, entry in zip(evidence.rows, entries, strict=True)
        if entry is not None and entry.kind in LEFT
    }
    bodies = {number: _body_of(data) for number, data in evidence.receipts.items()}
    doubt = _doubt(verdict, authority=authority)
    moved = crossings([entry for _, entry in left.values()], bodies)
    spans = [Weighed(one, _weigh(one, doubt)) for one in segments(entries, evidence.payload, moved)]
    outside = tuple(one.sequence for one in moved if not any(span.segment.may_hold(one) for span in spans))
    counted = is_counted(entries, evidence.payload)
    return Conservation(
        messages=len(left),
        bytes=sum(entry.payload_bytes for _, entry in left.values()),
        ledger=_of_ledger(doubt),
        filed=_received(left, bodies.values(), doubt),
        hub=_of_hub(left, hub_receipts, doubt),
        spans=tuple(spans),
        outside=outside,
        route=_of_route(spans, outside, counted=counted),
    )


def worst(lines: Iterable[Line]) -> Line:
    """Return the first contradiction, else the first that cannot be told, else that all is verified."""
    order = (Finding.CONTRADICTED, Finding.UNKNOWN, Finding.VERIFIED)
    return min(lines, key=lambda line: order.index(line.finding), default=Line(Finding.UNKNOWN, Why.EMPTY))


def _of_ledger(doubt: Why | None) -> Line:
    if doubt is Why.LEDGER:
        return Line(Finding.CONTRADICTED, doubt)
    return _unless(doubt)


def _unless(doubt: Why | None) -> Line:
    return Line(Finding.VERIFIED) if doubt is None else Line(Finding.UNKNOWN, doubt)


def _doubt(verdict: Verdict, *, authority: bool) -> Why | None:
    """Return why counts that fit verify nothing all the same."""
    if verdict.problems:
        return Why.LEDGER
    if not verdict.entries:
        return Why.EMPTY
    return None if authority else Why.NO_AUTHORITY


def _of_hub(
    left: Mapping[int, tuple[bytes, ledger_pb2.LedgerEntry]],
    receipts: Iterable[link_pb2.Receipt] | None,
    doubt: Why | None,
) -> Received:
    if receipts is None:
        return Received(0, 0, (), 0, Line(Finding.UNKNOWN, Why.NO_HUB_RECORD))
    return _received(left, [receipt.body for receipt in receipts], doubt)


def _received(
    left: Mapping[int, tuple[bytes, ledger_pb2.LedgerEntry]],
    bodies: Iterable[link_pb2.ReceiptBody | None],
    doubt: Why | None,
) -> Received:
    wanted = {(hashed, entry.payload_sha256, entry.task_id): number for number, (hashed, entry) in left.items()}
    have: set[int] = set()
    strangers = 0
    for body in bodies:
        number = None if body is None else wanted.get((body.ledger_hash, body.payload_sha256, body.task_id))
        strangers += number is None or number in have
        have |= {number} if number is not None else set()
    missing = tuple(sorted(set(left) - have))
    size = sum(left[number][1].payload_bytes for number in have)
    return Received(len(have), size, missing, strangers, _compare(missing, strangers, doubt))


def _compare(missing: Sequence[int], strangers: int, doubt: Why | None) -> Line:
    if strangers:
        return Line(Finding.CONTRADICTED, Why.STRANGERS)
    if doubt is not None:
        return Line(Finding.UNKNOWN, doubt)
    return Line(Finding.UNKNOWN, Why.UNRECEIPTED) if missing else Line(Finding.VERIFIED)


def _weigh(span: Segment, doubt: Why | None) -> Line:
    if span.sent < 0 or span.received < 0:
        return Line(Finding.CONTRADICTED, Why.FELL)
    if span.sent < span.least:
        return Line(Finding.CONTRADICTED, Why.TOO_FEW)
    if span.sent <= span.most:
        return _unless(doubt)  # the counts are the ledger's entries, and worth what it is worth
    if span.seconds < 0:
        return Line(Finding.UNKNOWN, Why.CLOCK)
    # A counter of what was sent alone tells nothing of the acknowledgements among it.
    return Line(Finding.CONTRADICTED, Why.TOO_MANY) if span.received else Line(Finding.UNKNOWN, Why.ONE_WAY)


def _of_route(spans: Sequence[Weighed], outside: Sequence[int], *, counted: bool) -> Line:
    if not counted:
        return Line(Finding.UNKNOWN, Why.NO_COUNTS)
    found = worst(span.line for span in spans)
    if found.finding is Finding.CONTRADICTED:
        return found
    if not spans:
        return Line(Finding.UNKNOWN, Why.ONE_COUNT)
    if found.finding is Finding.UNKNOWN:
        return found
    if len(spans) > 1:
        return Line(Finding.UNKNOWN, Why.RESTARTED)
    return Line(Finding.UNKNOWN, Why.OUTSIDE) if outside else found


def _body_of(data: bytes) -> link_pb2.ReceiptBody | None:
    try:
        return link_pb2.Receipt.FromString(data).body
    except DecodeError:
        return None
