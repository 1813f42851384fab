"""Everything that a report states, taken from evidence once, before it is put into words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from google.protobuf.message import DecodeError

from fedsparse.audit.budget import Budget, budget_of
from fedsparse.audit.conservation import Conservation, Finding, Line, conserve
from fedsparse.audit.control import ControlCalls, control_calls
from fedsparse.audit.entry import EntryKind
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.notes import Checkpoint, open_note
from fedsparse.audit.opening import Opened, read_openings
from fedsparse.audit.report.contents import Contents, contents_of
from fedsparse.audit.report.people import Person, people_in
from fedsparse.audit.report.rules import Rules, rules_of
from fedsparse.audit.report.site_facts import SiteFacts
from fedsparse.audit.timestamp import Stamp
from fedsparse.audit.verify import Verdict, parse_entry, verify_evidence
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2

Entries = Sequence[ledger_pb2.LedgerEntry | None]


@dataclass(frozen=True)
class Sources:
    """What a report is made from, by the names that commands for checking it use.

    Attributes:
        ledger: folder or bundle.
        authority: the federation's CA certificate; empty where none was given.
        hub_receipts: the hub's own record; empty where none was given.
        hub_cut: whether the last line of that is cut short, and was left out.
        stamps: replies of time-stamps' authorities.
        stamp_roots: whom these are trusted by; empty where none was given.
        payload_key: what payloads are sealed with; empty where it was not given.
        site_facts: what the site states; empty where it states nothing.
    """

    ledger: str
    authority: str = ""
    hub_receipts: str = ""
    hub_cut: bool = False
    stamps: tuple[str, ...] = ()
    stamp_roots: str = ""
    payload_key: str = ""
    site_facts: str = ""


@dataclass(frozen=True)
class Erased:
    """A payload that was deleted: by entry, when, what, why."""

    sequence: int
    time_unix_ms: int
    digest: bytes
    bytes: int
    cause: str


@dataclass(frozen=True)
class Witnessing:
    """What receipts, filed or in the hub's record, say beside what they are for.

    Attributes:
        keys: public keys of the hub's cosignatures, with how many receipts each has.
        size: of the largest checkpoint cosigned.
        last_unix_ms: when the hub received what the last receipt is for; 0 without any.
        lag_ms: least and greatest difference between the hub's clock and the entry's time; None without receipts.
    """

    keys: Mapping[bytes, int]
    size: int
    last_unix_ms: int
    lag_ms: tuple[int, int] | None


@dataclass(frozen=True)
class Gathered:
    """All facts of a report.

    Attributes:
        sources: what it was made from.
        verdict: of verifying.
        budget: bits that left.
        conservation: the three counts.
        facts: what the site states itself.
        authority: whether certificates were checked up to the federation's CA.
        origin: of the ledger's checkpoint; empty where there is none.
        root: of the checkpoint, 32 bytes, or empty.
        entries: all of them.
        contents: what the messages held.
        rules: policies and refusals.
        openings: who wrote, from when on.
        plants: certificates that signed for the ledger's key.
        hubs: certificates that signed receipts.
        witnessing: what receipts say.
        backwards: entries dated before the one before them.
        erased: deleted payloads.
        control: calls that ended at the gateway; None where nobody counted them.
        stamps: time-stamps that were given.
    """

    sources: Sources
    verdict: Verdict
    budget: Budget
    conservation: Conservation
    facts: SiteFacts
    authority: bool
    origin: str
    root: bytes
    entries: Entries
    contents: Contents
    rules: Rules
    openings: tuple[Opened, ...]
    plants: tuple[Person, ...]
    hubs: tuple[Person, ...]
    witnessing: Witnessing
    backwards: tuple[int, ...]
    erased: tuple[Erased, ...]
    control: ControlCalls | None
    stamps: tuple[Stamp, ...]

    @property
    def plant(self) -> str:
        """Whose ledger it is, by its origin."""
        parts = self.origin.split("/")
        return parts[1] if len(parts) == 3 else ""

    @property
    def ledger_keys(self) -> tuple[bytes, ...]:
        """Public keys that openings name; a second one is an exception."""
        return tuple(dict.fromkeys(one.opening.ledger_key for one in self.openings))

    @property
    def times(self) -> tuple[int, int]:
        """Time of the first and of the last entry, in ms since 1970."""
        dated = [entry.time_unix_ms for entry in self.entries if entry is not None]
        return (dated[0], dated[-1]) if dated else (0, 0)

    @property
    def integrity(self) -> Line:
        """Whether the record is what it was when it was written, and by whom."""
        return self.conservation.ledger

    @property
    def reliance(self) -> Line:
        """Whether what the record says counts: of a contradicted one nothing does, but that refutes nothing."""
        found = self.integrity
        return Line(Finding.UNKNOWN, found.why) if found.finding is Finding.CONTRADICTED else found


def gather(
    evidence: Evidence,
    sources: Sources,
    authority: bytes | None,
    hub_receipts: Sequence[link_pb2.Receipt] | None = None,
    facts: SiteFacts | None = None,
    resolution_ms: int | None = None,
    stamps: tuple[Stamp, ...] = (),
) -> Gathered:
    """Verify evidence and collect what a report says of it.

    Args:
        authority: the federation's CA certificate, PEM; None leaves signatures by certificates unchecked.
        hub_receipts: the hub's own record of this plant.
        resolution_ms: see :class:`fedsparse.audit.budget.Budget`.
        stamps: judged by the same evidence.
    """
    verdict = verify_evidence(evidence, authority, hub_receipts)
    entries = tuple(parse_entry(row.entry) for row in evidence.rows)
    checkpoint = _checkpoint(evidence.checkpoint)
    openings = tuple(read_openings(entries, evidence.payload))
    receipts = _receipts(evidence, hub_receipts or ())
    return Gathered(
        sources=sources,
        verdict=verdict,
        budget=budget_of(entries, resolution_ms),
        conservation=conserve(evidence, verdict, hub_receipts, authority=authority is not None),
        facts=facts or SiteFacts(),
        authority=authority is not None,
        origin="" if checkpoint is None else checkpoint.origin,
        root=b"" if checkpoint is None else checkpoint.root,
        entries=entries,
        contents=contents_of(entries),
        rules=rules_of(entries, evidence.payload),
        openings=openings,
        plants=people_in((one.sequence, one.opening.certificate) for one in openings),
        hubs=people_in((number, one.hub_certificate) for number, one in receipts.items()),
        witnessing=_witnessing(receipts, entries, verdict),
        backwards=_backwards(entries),
        erased=tuple(_erased(entries, evidence)),
        control=control_calls(entries, evidence.payload),
        stamps=stamps,
    )


def _checkpoint(note: bytes) -> Checkpoint | None:
    try:
        return Checkpoint.parse(open_note(note).body)
    except LedgerError:
        return None


def _receipts(evidence: Evidence, kept: Iterable[link_pb2.Receipt]) -> dict[int, link_pb2.Receipt]:
    """Return the receipts by entry: those filed, and for entries that have none the hub's own."""
    numbers = {row.hash: row.sequence for row in evidence.rows}
    found = {numbers[receipt.body.ledger_hash]: receipt for receipt in kept if receipt.body.ledger_hash in numbers}
    for number, data in evidence.receipts.items():
        try:
            found[number] = link_pb2.Receipt.FromString(data)
        except DecodeError:
            continue  # among the verdict's problems
    return dict(sorted(found.items()))


def _witnessing(receipts: Mapping[int, link_pb2.Receipt], entries: Entries, verdict: Verdict) -> Witnessing:
    keys: dict[bytes, int] = {}
    for receipt in receipts.values():
        keys[receipt.body.witness_key] = keys.get(receipt.body.witness_key, 0) + 1
    lags = [
        receipt.body.received_unix_ms - entry.time_unix_ms
        for number, receipt in receipts.items()
        if 1 <= number <= len(entries) and (entry := entries[number - 1]) is not None
    ]
    return Witnessing(
        keys=keys,
        size=verdict.witnessed,
        last_unix_ms=max((one.body.received_unix_ms for one in receipts.values()), default=0),
        lag_ms=(min(lags), max(lags)) if lags else None,
    )


def _backwards(entries: Entries) -> tuple[int, ...]:
    readable = [entry for entry in entries if entry is not None]
    return tuple(late.sequence for soon, late in pairwise(readable) if late.time_unix_ms < soon.time_unix_ms)


def _erased(entries: Entries, evidence: Evidence) -> Iterable[Erased]:
    for entry in entries:
        if entry is None or int(entry.kind) != EntryKind.ERASED:
            continue
        try:
            said = ledger_pb2.Erasure.FromString(evidence.payload(entry.payload_sha256))
        except (LedgerError, DecodeError):
            continue  # among the verdict's problems
        yield Erased(entry.sequence, entry.time_unix_ms, said.payload_sha256, said.payload_bytes, said.cause)
