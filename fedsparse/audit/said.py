"""Whether an entry says of its payload what the payload says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError, Message

from fedsparse.audit.entry import EntryKind, describe_delta, facts_to_proto
from fedsparse.audit.evidence import Evidence
from fedsparse.delta import AdapterSpace, Reason, decode, decode_update, header_of
from fedsparse.errors import FedsparseError, LedgerError
from fedsparse.v1 import ledger_pb2

_UNLIMITED = 1 << 40
_DIGEST_BYTES = 32
_NOTHING = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")  # SHA-256 of no bytes
_UPDATES = frozenset((EntryKind.UPDATE, EntryKind.REASON))
_WITHOUT_PAYLOAD = frozenset((EntryKind.DESCRIBE, EntryKind.ATTEND))
_NOTES: Mapping[int, type[Message]] = {
    EntryKind.OPENED: ledger_pb2.Opening,
    EntryKind.ROUTE: ledger_pb2.RouteCount,
    EntryKind.ERASED: ledger_pb2.Erasure,
}


def erasures(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> dict[bytes, int]:
    """Return the digests of payloads that were recorded to be deleted, and by which entry last."""
    found = {}
    for entry in entries:
        if entry is not None and int(entry.kind) == EntryKind.ERASED:
            try:
                erasure = ledger_pb2.Erasure.FromString(payload(entry.payload_sha256))
            except (LedgerError, DecodeError):
                continue  # told of where its own payload is checked
            found[erasure.payload_sha256] = entry.sequence
    return found


def needed(entries: Iterable[ledger_pb2.LedgerEntry | None], erased: Mapping[bytes, int]) -> set[bytes]:
    """Return the digests of the payloads that must be there."""
    return {
        entry.payload_sha256
        for entry in entries
        if entry is not None and entry.payload_bytes and erased.get(entry.payload_sha256, 0) <= entry.sequence
    }


def left_over(
    evidence: Evidence, entries: Iterable[ledger_pb2.LedgerEntry | None], erased: Mapping[bytes, int]
) -> tuple[str, ...]:
    """Return the names of files in a ledger's folder that hold payloads, or parts of them, for no entry."""
    if not evidence.files:
        return ()
    wanted = {digest.hex() for digest in needed(entries, erased)}
    return tuple(name for name in evidence.files if name not in wanted)


def space_in(payload: bytes) -> bytes:
    """Return the fingerprint of the adapter space of the delta in an update; nothing where there is none."""
    try:
        delta = decode_update(payload, max_bytes=_UNLIMITED).delta
        return header_of(delta).space if delta else b""
    except FedsparseError:
        return b""


def check_payload(
    entry: ledger_pb2.LedgerEntry, evidence: Evidence, erased: Mapping[bytes, int], used: set[bytes]
) -> Iterator[str]:
    """Yield what is wrong with an entry's payload, each as the end of the sentence "entry N: ...".

    Args:
        erased: as :func:`erasures` returns it.
        used: takes the fingerprint of the adapter space that its payload is of.
    """
    if not entry.payload_bytes:
        if entry.payload_sha256 != _NOTHING:
            yield "has no payload, but the digest of one"
        if int(entry.kind) in _UPDATES:
            yield "has no payload, though something left"
        return
    if int(entry.kind) in _WITHOUT_PAYLOAD:
        yield "has a payload, which no call has"
    try:
        payload = evidence.payload(entry.payload_sha256)
    except LedgerError as error:
        if erased.get(entry.payload_sha256, 0) <= entry.sequence:
            yield f"its payload {error}"
        return
    if len(payload) != entry.payload_bytes:
        yield f"its payload has {len(payload)} bytes, not {entry.payload_bytes}"
    elif int(entry.kind) in _UPDATES:
        yield from _check_update(entry, payload, evidence.spaces, used)
    elif int(entry.kind) == EntryKind.REFUSED:
        used.add(space_in(payload))
    elif entry.kind in _NOTES:
        yield from _check_note(payload, _NOTES[entry.kind])


def _check_note(payload: bytes, kind: type[Message]) -> Iterator[str]:
    try:
        note = kind.FromString(payload)
    except DecodeError:
        yield "its payload cannot be read"
        return
    note.DiscardUnknownFields()
    if note.SerializeToString(deterministic=True) != payload:
        yield "its payload is not in canonical form"


def check_held(
    evidence: Evidence,
    entries: Iterable[ledger_pb2.LedgerEntry | None],
    erased: Mapping[bytes, int],
    used: set[bytes],
) -> Iterator[str]:
    """Yield what evidence holds beside what its entries need: something may be smuggled, or was not deleted."""
    if evidence.held is None:
        return
    for digest in sorted(evidence.held - needed(entries, erased)):
        if digest in erased:
            yield f"entry {erased[digest]}: the payload that it says was deleted is there"
        else:
            yield f"the member 'payloads/{digest.hex()}' belongs to no entry"
    for fingerprint in sorted(set(evidence.spaces) - used):
        yield f"the member 'spaces/{fingerprint.hex()}.json' is of no payload's adapter space"


def _check_update(
    entry: ledger_pb2.LedgerEntry, payload: bytes, spaces: Mapping[bytes, AdapterSpace], used: set[bytes]
) -> Iterator[str]:
    """Decode what left again, and compare it with what the entry says."""
    try:
        update = decode_update(payload, max_bytes=_UNLIMITED)
        facts = []
        if update.delta:
            fingerprint = header_of(update.delta).space
            used.add(fingerprint)
            space = spaces.get(fingerprint)
            if space is None:
                yield "cannot be decoded: the file of its adapter space is gone from spaces/"
                return
            facts = facts_to_proto(describe_delta(decode(update.delta, space, max_bytes=_UNLIMITED), space))
    except FedsparseError as error:
        yield f"its payload does not decode: {error}"
        return
    said = {metric.name: metric.value for metric in entry.metrics}
    if (entry.round, entry.version, entry.samples) != (update.round, update.version, update.samples):
        yield "round, version or samples are others than in its payload"
    if said != dict(update.metrics):
        yield "metrics are others than in its payload"
    if list(entry.tensors) != facts or int(entry.reason) != update.reason:
        yield "tensors or reason are others than in its payload"
    if (int(entry.kind) == EntryKind.UPDATE) != (update.reason is Reason.NONE):
        yield "its kind is another than its payload's"
