"""The policies in force, and what they stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedsparse.audit.entry import EntryKind
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2

_JUDGED = (EntryKind.UPDATE, EntryKind.REASON, EntryKind.REFUSED)


@dataclass(frozen=True)
class Policy:
    """A policy that came into force.

    Attributes:
        sequence: entry that says so; 0 where none does, and entries name its digest all the same.
        time_unix_ms: of that entry.
        sha256: of its canonical text.
        text: that text; None where it is not in the evidence.
        judged: messages that were let through or stopped under it.
    """

    sequence: int
    time_unix_ms: int
    sha256: bytes
    text: str | None
    judged: int


@dataclass(frozen=True)
class Refusal:
    """How often a rule stopped something, and how many bytes it was."""

    rule: str
    times: int
    bytes: int


@dataclass(frozen=True)
class Rules:
    """Policies in the order in which they came into force, and refusals, the most frequent rule first."""

    policies: tuple[Policy, ...]
    refusals: tuple[Refusal, ...]

    @property
    def unrecorded(self) -> tuple[Policy, ...]:
        """Policies that messages were judged by and whose text is not in the ledger."""
        return tuple(one for one in self.policies if one.judged and one.text is None)


def rules_of(entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]) -> Rules:
    """Return policies and refusals of a ledger."""
    readable = [entry for entry in entries if entry is not None]
    judged = Counter(entry.policy_sha256 for entry in readable if int(entry.kind) in _JUDGED)
    found = []
    announced = set()
    for entry in readable:
        if int(entry.kind) == EntryKind.POLICY:
            digest = entry.payload_sha256
            text = _text(payload, digest)
            times = 0 if digest in announced else judged[digest]
            announced.add(digest)
            found.append(Policy(entry.sequence, entry.time_unix_ms, digest, text, times))
    found += [Policy(0, 0, digest, None, times) for digest, times in judged.items() if digest not in announced]
    times_of: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    for entry in readable:
        if int(entry.kind) == EntryKind.REFUSED:
            times_of[entry.rule] += 1
            bytes_of[entry.rule] += entry.payload_bytes
    ordered = sorted(times_of.items(), key=lambda item: (-item[1], item[0]))
    return Rules(tuple(found), tuple(Refusal(rule, times, bytes_of[rule]) for rule, times in ordered))


def _text(payload: Callable[[bytes], bytes], digest: bytes) -> str | None:
    try:
        return payload(digest).decode(errors="replace")
    except LedgerError:
        return None
