"""Two views of one ledger, as two auditors were given them: they must be one history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from fedsparse.audit import merkle
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.notes import Checkpoint, open_note
from fedsparse.audit.opening import read_openings
from fedsparse.audit.said import erasures
from fedsparse.audit.verify import parse_entry
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2

_SHOWN = 16  # hex digits of a key


@dataclass(frozen=True)
class View:
    """A ledger as somebody has it; nothing in it is checked by itself, and no signature.

    Attributes:
        evidence: what it is read from.
        entries: in order; None for what cannot be read.
        leaves: their hashes.
        origin: its name, by its first opening, or else by its checkpoint; empty where neither tells.
        key: its public key, by its first opening; empty where there is none.
        checkpoint: its own; None where there is none that can be read.
        erased: digests of payloads that were recorded to be deleted, and by which entry last.
        nodes: of the tree over the leaves, by level and place.
    """

    evidence: Evidence
    entries: tuple[ledger_pb2.LedgerEntry | None, ...]
    leaves: tuple[bytes, ...]
    origin: str
    key: bytes
    checkpoint: Checkpoint | None
    erased: Mapping[bytes, int]
    nodes: Mapping[tuple[int, int], bytes]

    @classmethod
    def of(cls, evidence: Evidence) -> View:
        """Read what evidence says of itself."""
        entries = tuple(parse_entry(row.entry) for row in evidence.rows)
        opening = next((one.opening for one in read_openings(entries, evidence.payload)), ledger_pb2.Opening())
        try:
            checkpoint = Checkpoint.parse(open_note(evidence.checkpoint).body)
        except LedgerError:
            checkpoint = None
        leaves = tuple(merkle.leaf_hash(row.entry) for row in evidence.rows)
        return cls(
            evidence,
            entries,
            leaves,
            opening.origin or (checkpoint.origin if checkpoint else ""),
            opening.ledger_key,
            checkpoint,
            erasures(entries, evidence.payload),
            merkle.tree_over(leaves),
        )

    def root(self, size: int) -> bytes:
        """Return the root over the first so many entries."""
        return merkle.root(lambda level, place: self.nodes[level, place], size)

    def check_checkpoint(self) -> Iterator[str]:
        """Yield where the entries are not those that the ledger's own checkpoint is over."""
        if self.checkpoint is None:
            return
        size = self.checkpoint.size
        if size != len(self.leaves):
            yield f"the ledger's checkpoint is over {size} entries, {len(self.leaves)} are there"
        elif self.root(size) != self.checkpoint.root:
            yield f"the ledger's checkpoint is over {size} other entries than these"

    def check_payload(self, entry: ledger_pb2.LedgerEntry) -> Iterator[str]:
        """Yield where the payload that is held is not the one that an entry names."""
        if not entry.payload_bytes:
            return
        try:
            size = len(self.evidence.payload(entry.payload_sha256))
        except LedgerError as error:
            if self.erased.get(entry.payload_sha256, 0) <= entry.sequence:
                yield f"its payload {error}"
            return
        if size != entry.payload_bytes:
            yield f"its payload has {size} bytes, not {entry.payload_bytes}"

    def check_witnessed(self, body: link_pb2.ReceiptBody) -> Iterator[str]:
        """Yield where a receipt witnesses another ledger, or other entries than this one has."""
        size = body.checkpoint_size
        if (body.origin, body.ledger_key) != (self.origin, self.key) and self.key:
            yield f"witnesses another ledger, {body.origin!r}"
        elif size > len(self.leaves):
            yield f"witnesses {size} entries, of which {len(self.leaves)} are there"
        elif self.root(size) != body.checkpoint_root:
            yield f"witnesses another history of the first {size} entries"


def compare_views(one: Evidence, other: Evidence) -> Iterator[str]:
    """Yield where two views contradict each other; both may verify, each by itself.

    One may be older than the other: then it must be the other's beginning. Payloads are compared by their digests,
    which the entries name; signatures are not looked at.
    """
    views = (View.of(one), View.of(other))
    if len({view.origin for view in views} - {""}) > 1 or len({view.key for view in views} - {b""}) > 1:
        yield f"they are of different ledgers: {' and '.join(sorted(map(_name, views)))}"
        return
    for number, (leaf, same) in enumerate(zip(views[0].leaves, views[1].leaves, strict=False), start=1):
        if leaf != same:
            yield f"entry {number}: it is another in each view: somebody keeps two histories"
            return
    for view, which in zip(views, ("first", "second"), strict=True):
        yield from (f"{problem}, in the {which} view" for problem in view.check_checkpoint())
        yield from (f"{problem}, in the {which} view" for problem in _check_payloads(view))
    yield from _check_receipts(*views)


def _name(view: View) -> str:
    return f"{view.origin} with the key {view.key.hex()[:_SHOWN]}" if view.key else view.origin


def _check_payloads(view: View) -> Iterator[str]:
    for entry in view.entries:
        if entry is not None:
            yield from (f"entry {entry.sequence}: {problem}" for problem in view.check_payload(entry))


def _check_receipts(one: View, other: View) -> Iterator[str]:
    """Compare the receipts in both, and what they witness with the longer of the two."""
    longer = max(one, other, key=lambda view: len(view.leaves))
    for number in sorted({*one.evidence.receipts, *other.evidence.receipts}):
        found = {view.evidence.receipts[number] for view in (one, other) if number in view.evidence.receipts}
        if len(found) > 1:
            yield f"entry {number}: its receipt is another in each view"
        for data in sorted(found):
            try:
                body = link_pb2.Receipt.FromString(data).body
            except DecodeError:
                yield f"entry {number}: its receipt is unreadable"
                continue
            yield from (f"entry {number}: its receipt {problem}" for problem in longer.check_witnessed(body))
