"""What has left so far, told by the ledger's own entries: a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from fedsparse.audit.entry import EntryKind
from fedsparse.v1 import ledger_pb2

DAY_MS = 24 * 3600 * 1000
_CALLS = (EntryKind.DESCRIBE, EntryKind.ATTEND)
_MESSAGES = (EntryKind.UPDATE, EntryKind.REASON)


class Entries(Protocol):
    """A ledger, as far as it is asked what has left."""

    def entries(self, start: int = 1) -> Iterator[ledger_pb2.LedgerEntry]:
        """Yield entries from ``start`` on, in order."""
        ...


@dataclass(frozen=True)
class Spent:
    """What has left: updates and reason codes, bytes of their content, and calls."""

    messages: int = 0
    bytes: int = 0
    calls: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.messages + other.messages, self.bytes + other.bytes, self.calls + other.calls)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.messages - other.messages, self.bytes - other.bytes, self.calls - other.calls)


class Usage:
    """Running totals by round and over the last 24 hours.

    An entry dated in the future, because the clock was set back since, counts until the clock has passed it by a
    day: setting the clock back frees nothing. Setting it forward does; time is only as good as the site's clock.
    """

    def __init__(self) -> None:
        self._next = 1
        self._rounds: dict[tuple[int, int], Spent] = {}
        self._recent: list[
            tuple[int, int, Spent]
        ] = []  # a heap by time: clocks jump, so entries are not in its order
        self._day = Spent()

    def catch_up(self, ledger: Entries) -> None:
        """Take in the entries that came since the last call.

        Raises:
            LedgerError: they cannot be read.
        """
        for entry in ledger.entries(self._next):
            self.add(entry)

    def add(self, entry: ledger_pb2.LedgerEntry) -> None:
        """Take in the next entry; one that left nothing counts as nothing."""
        self._next = entry.sequence + 1
        kind = int(entry.kind)
        if kind in _MESSAGES:
            spent = Spent(messages=1, bytes=entry.payload_bytes)
            key = (entry.round, entry.version)
            self._rounds[key] = self._rounds.get(key, Spent()) + spent
        elif kind in _CALLS:
            spent = Spent(calls=1)
        else:
            return
        heappush(self._recent, (entry.time_unix_ms, entry.sequence, spent))
        self._day += spent

    def in_round(self, number: int, version: int) -> Spent:
        """Return what has left under this number of round and version, ever."""
        return self._rounds.get((number, version), Spent())

    def in_day(self, now_ms: int) -> Spent:
        """Return what has left in the 24 hours before ``now_ms``."""
        while self._recent and self._recent[0][0] <= now_ms - DAY_MS:
            self._day -= heappop(self._recent)[2]
        return self._day
