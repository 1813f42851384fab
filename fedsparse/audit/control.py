"""The calls that end at the gateway: counted, so that the ledger tells of them though nothing of them leaves.

A SuperNode calls the gateway hundreds of times an hour (heartbeats, questions for work). The counts stand in
entries of the kind ROUTE, as those of a second route: the one inside the site, on which nothing is sent out.
docs/ledger.md has the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.message import DecodeError

from fedsparse.audit.entry import EntryKind
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2

CALLS = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "register-node",
    "send-node-heartbeat",
    "unregister-node",
)
"""Names of Flower's Fleet calls, as in their paths."""
_PREFIX = "control calls: "
_REFUSED = "refused."
_MOST = 1 << 63


class Code(StrEnum):
    """Why a call was refused; all that is kept of it."""

    MALFORMED = "malformed"
    """Bytes that are not this call's message, unknown fields, or a longer spelling of the same."""
    NO_SUCH_CALL = "no-such-call"
    OVERSIZED = "oversized"
    UNEXPECTED = "unexpected"
    """Valid by itself, and not what is waited for now."""
    VALUE = "value"
    """A field that has another value than a SuperNode of this gateway's has there."""


_CODES = frozenset(map(str, Code))


@dataclass(frozen=True)
class ControlCount:
    """Calls since a gateway has begun.

    Attributes:
        since: names the gateway's process.
        accepted: calls that were answered, by name.
        refused: calls that were refused, by code.
        bytes: of the bodies of those that were answered.
    """

    since: str
    accepted: Mapping[str, int]
    refused: Mapping[str, int]
    bytes: int

    def to_proto(self) -> ledger_pb2.RouteCount:
        """Return the form that the ledger keeps."""
        told = [*_items("", self.accepted), *_items(_REFUSED, self.refused)]
        return ledger_pb2.RouteCount(
            route=_PREFIX + " ".join(told),
            since=self.since,
            received_bytes=self.bytes,
            received_packets=sum(self.accepted.values()),
        )

    @classmethod
    def from_proto(cls, counted: ledger_pb2.RouteCount) -> ControlCount:
        """Read what :meth:`to_proto` wrote.

        Raises:
            LedgerError: it is not exactly that; the message ends the sentence "its count of control calls ...".
        """
        accepted: dict[str, int] = {}
        refused: dict[str, int] = {}
        for item in counted.route.removeprefix(_PREFIX).split():
            name, _, number = item.partition("=")
            code = name.removeprefix(_REFUSED)
            known = code in _CODES if code != name else name in CALLS
            if not known or not number.isdecimal() or len(number) > len(str(_MOST)):
                raise LedgerError(f"has {item!r:.60}, which is no call or code with a number")
            (accepted if code == name else refused)[code] = int(number)
        if sum(accepted.values()) > _MOST:
            raise LedgerError("counts more calls than there can be")
        found = cls(counted.since, accepted, refused, counted.received_bytes)
        if found.to_proto() != counted:
            raise LedgerError("does not add up, says that something was sent, or is in another form")
        return found


@dataclass(frozen=True)
class ControlCalls:
    """All control calls that a ledger tells of; fields as of :class:`ControlCount`, ``gateways`` its processes."""

    accepted: Mapping[str, int]
    refused: Mapping[str, int]
    bytes: int
    gateways: int


def is_control(counted: ledger_pb2.RouteCount) -> bool:
    """Tell a count of control calls from one of the route to the hub."""
    return counted.route.startswith(_PREFIX)


def control_calls(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> ControlCalls | None:
    """Return the sum over all gateways that wrote a ledger; None where none counted."""
    last = {one.since: one for _, one in _counts(entries, payload) if isinstance(one, ControlCount)}
    if not last:
        return None
    accepted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for one in last.values():
        accepted.update(one.accepted)
        refused.update(one.refused)
    return ControlCalls(accepted, refused, sum(one.bytes for one in last.values()), len(last))


def check_control(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[str]:
    """Yield each count of control calls that cannot be: unreadable, or lower than that gateway's before it."""
    last: dict[str, ControlCount] = {}
    for sequence, one in _counts(entries, payload):
        if isinstance(one, LedgerError):
            yield f"entry {sequence}: its count of control calls {one}"
            continue
        before = last.setdefault(one.since, one)
        if one.bytes < before.bytes or _fell(before.accepted, one.accepted) or _fell(before.refused, one.refused):
            yield f"entry {sequence}: its count of control calls is lower than the same gateway's before it"
        last[one.since] = one


def route_counts(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[tuple[ledger_pb2.LedgerEntry, ledger_pb2.RouteCount]]:
    """Yield every entry of the kind ROUTE that can be read, with its count; payloads are checked elsewhere.

    Args:
        entries: parsed; None for what cannot be read.
        payload: returns the bytes of a digest, or raises LedgerError.
    """
    for entry in entries:
        if entry is None or int(entry.kind) != EntryKind.ROUTE:
            continue
        try:
            counted = ledger_pb2.RouteCount.FromString(payload(entry.payload_sha256))
        except (LedgerError, DecodeError):
            continue
        yield entry, counted


def _counts(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[tuple[int, ControlCount | LedgerError]]:
    for entry, counted in route_counts(entries, payload):
        if not is_control(counted):
            continue
        try:
            yield entry.sequence, ControlCount.from_proto(counted)
        except LedgerError as error:
            yield entry.sequence, error


def _fell(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    return any(now.get(name, 0) < number for name, number in before.items())


def _items(prefix: str, numbers: Mapping[str, int]) -> Iterator[str]:
    return (f"{prefix}{name}={number}" for name, number in sorted(numbers.items()) if number)
