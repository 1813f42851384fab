"""A ledger beside the hub's own record of its plant: whatever both tell must be the same; signatures aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedsparse.audit.evidence import Evidence
from fedsparse.audit.keys import origin_of
from fedsparse.audit.verify import LEFT
from fedsparse.audit.views import View
from fedsparse.v1 import ledger_pb2, link_pb2

_SHOWN = 12  # characters of a task's name
_Entries = Mapping[bytes, ledger_pb2.LedgerEntry]


@dataclass(frozen=True)
class Comparison:
    """What comparing found.

    Attributes:
        left: entries of something that left in answer to a task.
        problems: every disagreement, as a sentence.
    """

    left: int
    problems: tuple[str, ...]


def compare_receipts(evidence: Evidence, receipts: Sequence[link_pb2.Receipt]) -> Comparison:
    """Compare a ledger with what the hub says that it received.

    Looked at are tasks, payloads and their bytes, the ledger's name and key, its own checkpoint, the roots and
    sizes that the hub has witnessed, the numbers of its receipts, and the receipts that the plant has filed.
    """
    view = View.of(evidence)
    pairs = zip(view.leaves, view.entries, strict=True)
    left = {leaf: entry for leaf, entry in pairs if entry is not None and entry.kind in LEFT}
    problems = [*view.check_checkpoint()]
    seen: dict[bytes, int] = {}
    for place, receipt in enumerate(receipts, start=1):
        told = (*_numbered(receipt, place, seen), *_signed(receipt), *_beside(receipt, left, view))
        problems += (f"the hub's receipt {place} ({receipt.body.task_id[:_SHOWN]}) {one}" for one in told)
    for leaf, entry in left.items():
        missing = () if leaf in seen else (_missing(entry, evidence),)
        told = (*missing, *view.check_payload(entry))
        problems += (f"entry {entry.sequence} ({entry.task_id[:_SHOWN]}): {one}" for one in told)
    return Comparison(len(left), tuple(problems))


def _missing(entry: ledger_pb2.LedgerEntry, evidence: Evidence) -> str:
    filed = ", but the plant has filed one" if entry.sequence in evidence.receipts else ""
    return f"the hub has no receipt for it{filed}"


def _numbered(receipt: link_pb2.Receipt, place: int, seen: dict[bytes, int]) -> Iterator[str]:
    """Compare a receipt with those above it, which are for the entries with the hashes ``seen``."""
    body = receipt.body
    if (same := seen.setdefault(body.ledger_hash, place)) != place:
        yield f"is for the same entry as the hub's receipt {same}"
    if body.sequence != place:
        yield f"has the number {body.sequence}: one is missing above it, or stands there twice"


def _signed(receipt: link_pb2.Receipt) -> Iterator[str]:
    if not receipt.signature:
        yield "has no signature"
    if not receipt.cosignature:
        yield "has no cosignature of the ledger's checkpoint"
    if not receipt.hub_certificate:
        yield "has no certificate of the hub"


def _beside(receipt: link_pb2.Receipt, left: _Entries, view: View) -> Iterator[str]:
    """Compare a receipt with its entry, and with the ledger."""
    body = receipt.body
    if body.origin != origin_of(body.plant, body.ledger_key):
        yield f"is for the plant {body.plant!r:.80}, which has no ledger {body.origin!r:.200} with this key"
    yield from view.check_witnessed(body)
    entry = left.get(body.ledger_hash)
    if entry is None:
        yield "is for an entry that the ledger does not have"
        return
    if body.payload_sha256 != entry.payload_sha256:
        yield f"is for another payload than that of entry {entry.sequence}"
    if body.task_id != entry.task_id:
        yield f"is for another task than that of entry {entry.sequence}"
    if body.checkpoint_size < entry.sequence:
        yield f"witnesses the first {body.checkpoint_size} entries, before entry {entry.sequence} was there"
    data = receipt.SerializeToString(deterministic=True)
    if view.evidence.receipts.get(entry.sequence, data) != data:
        yield f"is not, byte for byte, the one that the plant has filed for entry {entry.sequence}"
