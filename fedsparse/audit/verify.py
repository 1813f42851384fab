"""Checking a ledger without trusting whoever kept it: chain, payloads, facts, receipts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError

from fedsparse.audit.entry import FORMAT, GENESIS, EntryKind, describe_delta, entry_hash, facts_to_proto
from fedsparse.audit.receipt import Receipted, check_receipt, read_receipts
from fedsparse.delta import AdapterSpace, Reason, decode, decode_update, header_of
from fedsparse.errors import FedsparseError, LedgerError
from fedsparse.v1 import ledger_pb2

_UNLIMITED = 1 << 40
_LEFT = (int(EntryKind.UPDATE), int(EntryKind.REASON))


@dataclass(frozen=True)
class Verdict:
    """What verifying found.

    Attributes:
        entries: entries in the ledger.
        updates: deltas that left.
        refusals: things the gate stopped.
        receipts: receipts filed.
        missing_receipts: sequences of what left without a receipt; the last one may still be under way.
        problems: every contradiction, each naming its entry.
    """

    entries: int
    updates: int
    refusals: int
    receipts: int
    missing_receipts: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether nothing contradicts the ledger; an empty one proves nothing."""
        return self.entries > 0 and not self.problems


def verify_ledger(folder: Path, authority: bytes | None, hub_receipts: Path | None = None) -> Verdict:
    """Check every entry, payload and receipt.

    Args:
        folder: the ledger's folder, or a copy of it.
        authority: the federation's CA certificate, PEM; None leaves receipts' signatures unchecked.
        hub_receipts: what the hub kept of this plant; None leaves a shortened ledger unnoticed.

    Raises:
        LedgerError: there is no readable ledger.
    """
    rows, receipts = _read(folder)
    spaces = _read_spaces(folder / "spaces")
    problems: list[str] = []
    kinds: list[EntryKind] = []
    sent: dict[int, Receipted] = {}
    previous = GENESIS
    for expected, (sequence, data, stored_hash) in enumerate(rows, start=1):
        found = list(_check_place(expected, sequence, data, stored_hash, previous))
        entry = _parse(data)
        if entry is None:
            found.append("its bytes are no ledger entry")
        else:
            found += _check_entry(entry, sequence, folder / "payloads", spaces)
            if int(entry.kind) in _LEFT:
                sent[sequence] = Receipted(entry.task_id, entry.payload_sha256, entry_hash(data))
            if int(entry.kind) in set(map(int, EntryKind)):
                kinds.append(EntryKind(entry.kind))
        problems += [f"entry {sequence}: {problem}" for problem in found]
        previous = entry_hash(data)
    for sequence, receipt in receipts.items():
        if sequence not in sent:
            problems.append(f"entry {sequence}: its receipt is for nothing that left")
            continue
        found = list(check_receipt(receipt, sent[sequence], authority))
        problems += [f"entry {sequence}: its receipt {problem}" for problem in found]
    if hub_receipts is not None:
        problems += _check_hub_receipts(hub_receipts, sent, authority)
    return Verdict(
        entries=len(rows),
        updates=kinds.count(EntryKind.UPDATE),
        refusals=kinds.count(EntryKind.REFUSED),
        receipts=len(receipts),
        missing_receipts=tuple(sorted(set(sent) - set(receipts))),
        problems=tuple(problems),
    )


def _read(folder: Path) -> tuple[list[tuple[int, bytes, bytes]], dict[int, bytes]]:
    path = folder / "ledger.db"
    if not path.exists():
        raise LedgerError(f"{folder} holds no ledger", "Name a folder with a ledger.db")
    try:
        # Evidence is only read. Where nobody writes, SQLite needs no files of its own beside it.
        mode = "mode=ro" if path.with_name("ledger.db-wal").exists() else "mode=ro&immutable=1"
        database = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
        try:
            rows = database.execute("SELECT sequence, entry, hash FROM entries ORDER BY sequence").fetchall()
            receipts = database.execute("SELECT sequence, receipt FROM receipts").fetchall()
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
        raise LedgerError(f"the ledger {folder} cannot be read: {error}", "Copy it to a writable disk") from None
    for row in (*rows, *receipts):
        if not isinstance(row[0], int) or not all(isinstance(cell, bytes) for cell in row[1:]):
            raise LedgerError(f"the ledger {folder} holds a row that no fedsparse wrote, at {row[0]!r}")
    return rows, dict(receipts)


def _read_spaces(folder: Path) -> dict[bytes, AdapterSpace]:
    """Return the spaces that payloads decode against, by fingerprint."""
    spaces = {}
    for path in sorted(folder.glob("*.json")):
        try:
            space = AdapterSpace.from_json(path.read_bytes())
        except (OSError, FedsparseError) as error:
            raise LedgerError(f"{path} does not describe an adapter space: {error}") from None
        spaces[space.fingerprint] = space
    return spaces


def _parse(data: bytes) -> ledger_pb2.LedgerEntry | None:
    try:
        entry = ledger_pb2.LedgerEntry.FromString(data)
    except DecodeError:
        return None
    entry.DiscardUnknownFields()
    canonical = entry.SerializeToString(deterministic=True) == data
    return entry if canonical and entry.format == FORMAT else None


def _check_place(expected: int, sequence: int, data: bytes, stored_hash: bytes, previous: bytes) -> Iterator[str]:
    if sequence != expected:
        yield f"follows entry {expected - 1}: what stood between is gone"
    if entry_hash(data) != stored_hash:
        yield "was altered: its bytes do not give its hash"
    entry = _parse(data)
    if entry is not None and entry.previous_hash != previous:
        yield "does not continue the chain: the entry before it is another than when it was written"


def _check_entry(
    entry: ledger_pb2.LedgerEntry, sequence: int, payloads: Path, spaces: Mapping[bytes, AdapterSpace]
) -> Iterator[str]:
    if entry.sequence != sequence:
        yield f"says that it is entry {entry.sequence}"
    if int(entry.kind) not in set(map(int, EntryKind)):
        yield f"is of the unknown kind {entry.kind}"
    payload = b""
    if entry.payload_bytes:
        try:
            payload = (payloads / entry.payload_sha256.hex()).read_bytes()
        except OSError:
            yield "its payload is gone"
            return
    if sha256(payload).digest() != entry.payload_sha256 or len(payload) != entry.payload_bytes:
        yield "its payload was altered"
    elif int(entry.kind) in _LEFT:
        yield from _check_facts(entry, payload, spaces)


def _check_facts(
    entry: ledger_pb2.LedgerEntry, payload: bytes, spaces: Mapping[bytes, AdapterSpace]
) -> Iterator[str]:
    """Decode what left again, and compare it with what the entry says."""
    try:
        update = decode_update(payload, max_bytes=_UNLIMITED)
        facts = []
        if update.delta:
            space = spaces.get(header_of(update.delta).space)
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


def _check_hub_receipts(path: Path, sent: Mapping[int, Receipted], authority: bytes | None) -> Iterator[str]:
    """Compare with the hub's own record: a log by itself cannot show that nothing is missing from its end."""
    by_entry = {expected.ledger_hash: expected for expected in sent.values()}
    for number, receipt in enumerate(read_receipts(path), start=1):
        where = f"the hub's receipt {number}"
        if receipt.body.sequence != number:
            yield f"{where} has the number {receipt.body.sequence}: what stood between is gone"
        expected = by_entry.get(receipt.body.ledger_hash)
        if expected is None:
            yield f"{where} is for an update that this ledger does not have: entries are gone, or never were"
            continue
        data = receipt.SerializeToString(deterministic=True)
        yield from (f"{where} {problem}" for problem in check_receipt(data, expected, authority))
