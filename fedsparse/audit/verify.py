"""Checking a ledger without trusting whoever kept it: tree, checkpoints, payloads, facts, receipts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from fedsparse.audit import merkle
from fedsparse.audit.control import check_control
from fedsparse.audit.entry import FORMAT, GENESIS, NEVER_MS, EntryKind
from fedsparse.audit.evidence import Evidence, Row, read_folder
from fedsparse.audit.notes import Checkpoint, check_note
from fedsparse.audit.opening import read_openings
from fedsparse.audit.policies import check_policy, unread_policies
from fedsparse.audit.receipt import Receipted, agrees, check_receipt, read_receipts
from fedsparse.audit.said import check_held, check_payload, erasures, left_over
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2

LEFT = frozenset(map(int, (EntryKind.UPDATE, EntryKind.REASON)))
"""Kinds of entries about something that left in answer to a task, for which the hub gives a receipt."""
_KINDS = frozenset(map(int, EntryKind))
_MOST_NAMED = 1 << 20  # a forged receipt may bear any number


@dataclass(frozen=True)
class Verdict:
    """What verifying found.

    Attributes:
        entries: entries in the ledger.
        updates: deltas that left.
        refusals: things the gate stopped.
        receipts: receipts filed.
        erased: payloads that were deleted, and recorded to be.
        missing_receipts: sequences of what left without a receipt; the last one may still be under way.
        witnessed: size of the largest checkpoint of this ledger that the hub has cosigned, by receipts, filed or
            in the hub's record, in which nothing is wrong; what comes later nobody else has seen. Without the CA
            certificate it is the receipts' own word.
        unconfirmed: sequences of what left for which the hub's record, where one is given, has no receipt: it does
            not reach so far, or is not whole.
        unfiled: numbers below the last receipt's that no filed one has: the hub gave them for something that this
            ledger does not have, or they were lost on their way.
        unread: policies that this release does not read as one, each naming its entry: what they let through
            cannot be told.
        left_over: files in the ledger's folder that hold payloads, or parts of some, and that no entry needs: what
            is being recorded at this moment, what a crash left, or of entries that are gone.
        problems: every contradiction, each naming its entry.
    """

    entries: int
    updates: int
    refusals: int
    receipts: int
    erased: int
    missing_receipts: tuple[int, ...]
    witnessed: int
    unconfirmed: tuple[int, ...]
    unfiled: tuple[int, ...]
    unread: tuple[str, ...]
    left_over: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether nothing contradicts the ledger; an empty one proves nothing."""
        return self.entries > 0 and not self.problems


@dataclass(frozen=True)
class Roots:
    """A ledger's name and key, and its roots; what receipts are compared with."""

    key: bytes
    origin: str
    by_size: Mapping[int, bytes]

    def root(self, size: int) -> bytes | None:
        """Return its root when it had ``size`` entries; None where it never had."""
        return self.by_size.get(size)


def verify_ledger(
    folder: Path, authority: bytes | None, hub_receipts: Path | None = None, payload_key: bytes | None = None
) -> Verdict:
    """Check every entry, checkpoint, payload and receipt in a ledger's folder.

    Args:
        folder: the ledger's folder, or a copy of it.
        authority: the federation's CA certificate, PEM; None leaves receipts' signatures unchecked.
        hub_receipts: what the hub kept of this plant; None leaves a shortened ledger unnoticed.
        payload_key: what payloads are sealed with.

    Raises:
        LedgerError: there is no readable ledger.
    """
    receipts = None if hub_receipts is None else read_receipts(hub_receipts)
    return verify_evidence(read_folder(folder, payload_key), authority, receipts)


def verify_evidence(
    evidence: Evidence, authority: bytes | None, hub_receipts: Iterable[link_pb2.Receipt] | None = None
) -> Verdict:
    """Check every entry, checkpoint, payload and receipt; arguments as for :func:`verify_ledger`."""
    problems: list[str] = list(evidence.problems)
    kinds: Counter[int] = Counter()
    sent: dict[int, Receipted] = {}
    entries = [parse_entry(row.entry) for row in evidence.rows]
    erased = erasures(entries, evidence.payload)
    openings = list(read_openings(entries, evidence.payload))
    leaves: list[bytes] = []
    used: set[bytes] = set()
    previous, policy = GENESIS, b""
    for expected, (row, entry) in enumerate(zip(evidence.rows, entries, strict=True), start=1):
        hashed = merkle.leaf_hash(row.entry)
        leaves.append(hashed)
        found = list(_check_place(expected, row, entry, hashed))
        if entry is not None and entry.previous_hash != previous:
            problems.append(
                f"entry {max(1, row.sequence - 1)}: breaks the chain: it is another than when the next was written"
            )
        if entry is not None:
            found += check_payload(entry, evidence, erased, used)
            found += check_policy(entry, policy)
            policy = entry.payload_sha256 if int(entry.kind) == EntryKind.POLICY else policy
            kinds[entry.kind] += 1
            if entry.kind in LEFT:
                sent[row.sequence] = Receipted(entry.task_id, entry.payload_sha256, hashed)
        problems += [f"entry {row.sequence}: {problem}" for problem in found]
        previous = hashed
    problems += check_held(evidence, entries, erased, used)
    problems += check_control(entries, evidence.payload)
    problems += [f"entry {one.sequence}: {problem}" for one in openings for problem in one.check(authority)]
    key, origin = (openings[0].opening.ledger_key, openings[0].opening.origin) if openings else (b"", "")
    sizes = {len(leaves), *map(_size_in, evidence.receipts.values())}
    kept = tuple(hub_receipts or ())
    sizes |= {receipt.body.checkpoint_size for receipt in kept}
    roots = Roots(key, origin, merkle.roots_at(leaves, sizes))
    problems += _check_checkpoint(evidence.checkpoint, roots, len(leaves))
    if evidence.nodes is not None:
        problems += _check_nodes(evidence.nodes, leaves)
    problems += _check_history([*map(_body_of, evidence.receipts.values()), *(r.body for r in kept)], roots)
    judge = _Judge(sent, roots, authority)
    problems += _check_filed(evidence.receipts, judge)
    if hub_receipts is not None:
        problems += _check_hub_receipts(kept, evidence.receipts, judge)
    return Verdict(
        entries=len(evidence.rows),
        updates=kinds[EntryKind.UPDATE],
        refusals=kinds[EntryKind.REFUSED],
        receipts=len(evidence.receipts),
        erased=len(erased),
        missing_receipts=tuple(sorted(set(sent) - set(evidence.receipts))),
        witnessed=judge.witnessed,
        unconfirmed=() if hub_receipts is None else _unconfirmed(kept, sent),
        unfiled=_unfiled(evidence.receipts),
        unread=tuple(unread_policies(entries, evidence.payload)),
        left_over=left_over(evidence, entries, erased),
        problems=tuple(problems),
    )


def parse_entry(data: bytes) -> ledger_pb2.LedgerEntry | None:
    """Return an entry from its bytes; None where they are not one in canonical form."""
    try:
        entry = ledger_pb2.LedgerEntry.FromString(data)
    except DecodeError:
        return None
    entry.DiscardUnknownFields()
    canonical = entry.SerializeToString(deterministic=True) == data
    return entry if canonical and entry.format == FORMAT else None


def _check_place(expected: int, row: Row, entry: ledger_pb2.LedgerEntry | None, hashed: bytes) -> Iterator[str]:
    if row.sequence != expected:
        yield f"follows entry {expected - 1}: what stood between is gone"
    if hashed != row.hash:
        yield "was altered: its bytes do not give its hash"
    if entry is None:
        yield "its bytes are no ledger entry"
        return
    if entry.sequence != row.sequence:
        yield f"says that it is entry {entry.sequence}"
    if entry.kind not in _KINDS:
        yield f"is of the unknown kind {entry.kind}"
    if not 0 <= entry.time_unix_ms < NEVER_MS:
        yield "is dated at no possible time"


def _check_checkpoint(note: bytes, roots: Roots, size: int) -> Iterator[str]:
    """Compare the ledger's own signature with the entries: whoever changed them and has its key not is found."""
    if size == 0:
        return
    if not roots.key:
        yield "entry 1: no entry says whose ledger this is, and which key signs for it"
        return
    try:
        checkpoint = check_note(note, roots.key)
    except LedgerError as error:
        yield f"entry {size}: the ledger's checkpoint does not count: {error}"
        return
    if checkpoint != Checkpoint(roots.origin, size, roots.by_size.get(size, merkle.EMPTY_ROOT)):
        yield (
            f"entry {size}: the ledger signed for {checkpoint.size} entries under another root: "
            "entries were altered, added or cut off by somebody without its key"
        )


def _check_nodes(nodes: Mapping[tuple[int, int], bytes], leaves: Sequence[bytes]) -> Iterator[str]:
    """Compare what is kept of the tree with the entries: the gateway proves from it."""
    level, row = 0, list(leaves)
    rest = dict(nodes)
    if row and not rest:
        yield "entry 1: the tree over it is gone"
        return
    while row:
        kept = [rest.pop((level, place), b"") for place in range(len(row))]
        for place, (node, expected) in enumerate(zip(kept, row, strict=True)):
            if node != expected:
                yield f"entry {(place + 1) << level}: the tree over it was altered, at level {level}"
        row = [merkle.node_hash(*kept[place : place + 2]) for place in range(0, len(kept) - 1, 2)]
        level += 1
    if rest:
        yield f"entry {len(leaves)}: the tree has {len(rest)} parts of entries that are gone"


def _check_history(bodies: Iterable[link_pb2.ReceiptBody | None], roots: Roots) -> Iterator[str]:
    """Compare what the hub has witnessed with the entries: the first root that differs tells where to look."""
    seen = 0
    ours = [body for body in bodies if body and (body.origin, body.ledger_key) == (roots.origin, roots.key)]
    for body in sorted(ours, key=lambda body: body.checkpoint_size):
        if not agrees(body, roots):
            yield (
                f"entry {body.checkpoint_size}: the hub witnessed another history: "
                f"from {seen + 1} to {body.checkpoint_size}, an entry is not what the hub saw"
            )
            return
        seen = body.checkpoint_size


class _Judge:
    """Checks receipts one by one, and remembers how far those in which nothing is wrong have witnessed the ledger.

    Attributes:
        sent: what left, by entry.
        witnessed: size of the largest checkpoint that they cosign.
    """

    def __init__(self, sent: Mapping[int, Receipted], roots: Roots, authority: bytes | None) -> None:
        self.sent, self._roots, self._authority = sent, roots, authority
        self.witnessed = 0

    def check(self, data: bytes, sequence: int) -> list[str]:
        """Return what is wrong with the receipt for an entry that left, as :func:`check_receipt` says it."""
        found = list(check_receipt(data, self.sent[sequence], self._authority, self._roots))
        body = _body_of(data)
        if not found and body is not None and agrees(body, self._roots):
            self.witnessed = max(self.witnessed, body.checkpoint_size)
        return found


def _check_filed(receipts: Mapping[int, bytes], judge: _Judge) -> Iterator[str]:
    """Check the receipts that the plant has filed; the hub numbers them without gaps."""
    numbers: dict[int, int] = {}
    for sequence, receipt in sorted(receipts.items()):
        if sequence not in judge.sent:
            yield f"entry {sequence}: its receipt is for nothing that left"
            continue
        yield from (f"entry {sequence}: its receipt {problem}" for problem in judge.check(receipt, sequence))
        number = _number_in(receipt)
        if number in numbers:
            yield f"entry {sequence}: its receipt has the number {number}, as that of entry {numbers[number]}"
        numbers[number] = sequence


def _check_hub_receipts(
    receipts: Sequence[link_pb2.Receipt], filed: Mapping[int, bytes], judge: _Judge
) -> Iterator[str]:
    """Compare with the hub's own record: a log by itself cannot show that nothing is missing from its end."""
    by_entry = {expected.ledger_hash: sequence for sequence, expected in judge.sent.items()}
    for number, receipt in enumerate(receipts, start=1):
        where = f"the hub's receipt {number}"
        if receipt.body.sequence != number:
            yield f"{where} has the number {receipt.body.sequence}: what stood between is gone"
        sequence = by_entry.get(receipt.body.ledger_hash)
        if sequence is None:
            yield (
                f"{where} is for one of the first {receipt.body.checkpoint_size} entries of a ledger, which "
                "this one does not have: entries are gone, or never were"
            )
            continue
        data = receipt.SerializeToString(deterministic=True)
        if filed.get(sequence, data) != data:
            yield f"entry {sequence}: its receipt is not, byte for byte, {where}"
        yield from (f"{where} {problem}" for problem in judge.check(data, sequence))
    for sequence in _unconfirmed(receipts, judge.sent):
        if sequence in filed and not judge.check(filed[sequence], sequence):
            number = _number_in(filed[sequence])
            yield (
                f"entry {sequence}: its receipt has the number {number}, and the hub's record has none for it: "
                "the record is older than this receipt, or not whole"
            )


def _unconfirmed(receipts: Iterable[link_pb2.Receipt], sent: Mapping[int, Receipted]) -> tuple[int, ...]:
    confirmed = {receipt.body.ledger_hash for receipt in receipts}
    return tuple(sequence for sequence, one in sent.items() if one.ledger_hash not in confirmed)


def _unfiled(receipts: Mapping[int, bytes]) -> tuple[int, ...]:
    numbers = set(map(_number_in, receipts.values()))
    return tuple(number for number in range(1, min(max(numbers, default=0), _MOST_NAMED)) if number not in numbers)


def _size_in(receipt: bytes) -> int:
    body = _body_of(receipt)
    return body.checkpoint_size if body else 0


def _number_in(receipt: bytes) -> int:
    body = _body_of(receipt)
    return body.sequence if body else 0


def _body_of(receipt: bytes) -> link_pb2.ReceiptBody | None:
    try:
        return link_pb2.Receipt.FromString(receipt).body
    except DecodeError:
        return None
