"""The append-only ledger: on disk, synced, before anything leaves."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.message import DecodeError, Message

from fedsparse.audit import merkle
from fedsparse.audit.entry import FORMAT, GENESIS, EntryDraft, EntryKind, facts_to_proto, metrics_to_proto
from fedsparse.audit.keys import load_key, origin_of
from fedsparse.audit.notes import Checkpoint, check_note, public_bytes, require_name, sign_checkpoint
from fedsparse.audit.payloads import Payloads
from fedsparse.audit.table import Table
from fedsparse.delta import AdapterSpace
from fedsparse.errors import LedgerError
from fedsparse.files import write_atomic
from fedsparse.v1 import ledger_pb2, link_pb2, round_pb2

_DOOR = object()
_LEAVING = (EntryKind.UPDATE, EntryKind.REASON)
_ERASABLE = (*_LEAVING, EntryKind.REFUSED)


@dataclass(frozen=True)
class Recorded:
    """A payload that the ledger holds; only :class:`Ledger` makes one, and only one that leaves can be sent.

    Attributes:
        payload: the exact bytes.
        kind: the entry's.
        task_id: of the task that it answers; empty where it answers none.
        sequence: the entry's place, from 1.
        entry_hash: the entry's hash, 32 bytes.
    """

    payload: bytes
    kind: EntryKind
    task_id: str
    sequence: int
    entry_hash: bytes
    door: object

    def __post_init__(self) -> None:
        if self.door is not _DOOR:
            raise TypeError("only a Ledger records a payload")

    @property
    def leaves(self) -> bool:
        """Whether it was recorded to leave; not where it was refused, or is a note of the ledger's own."""
        return self.kind in _LEAVING


class Ledger:
    """A plant's record of what left: an RFC 6962 log under a signed checkpoint.

    Layout of its folder: ``ledger.db``, ``ledger.key``, ``payloads/SHA256`` and ``spaces/FINGERPRINT.json``. One
    process writes; any number may read and verify meanwhile.

    Args:
        folder: created if absent.
        peer_fingerprint: SHA-256 of the CA certificate that the peer must chain to.
        plant: whose ledger it is.
        payload_key: 32 bytes to seal payloads with; None keeps them readable.

    Attributes:
        key: the public key of its checkpoints, 32 bytes.
        origin: their first line.
        witnessed: size of the largest checkpoint that a filed receipt witnesses.

    Raises:
        LedgerError: another process writes to it, it cannot be opened, or its end was altered.
    """

    def __init__(
        self, folder: Path, peer_fingerprint: bytes, plant: str, payload_key: bytes | None = None
    ) -> None:
        self._folder = folder
        self._peer_fingerprint = peer_fingerprint
        self._guard = threading.RLock()
        self._uncertain = False
        self._judging = False
        try:
            (folder / "payloads").mkdir(parents=True, exist_ok=True)
            (folder / "spaces").mkdir(exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise LedgerError(f"the ledger {folder} cannot be opened: {error}") from error
        self._payloads = Payloads(folder / "payloads", payload_key)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise LedgerError(f"another process writes to the ledger {folder}", "Stop it first") from None
        try:
            self._table = Table(folder / "ledger.db")
            self._key = load_key(folder / "ledger.key", create=self._table.last() is None)
            self.key = public_bytes(self._key)
            self.origin = require_name(origin_of(plant, self.key))
            self._recover()
            self.witnessed = max(map(self._size_in, self._table.receipts()), default=0)
        except (LedgerError, DecodeError) as error:
            self._lock_file.close()
            if isinstance(error, DecodeError):
                raise LedgerError(f"the ledger {folder} holds a receipt that is none") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._uncertain:
            self._payloads.release()
        self._table.close()
        self._lock_file.close()

    @property
    def size(self) -> int:
        """Entries."""
        return self._size

    def set_space(self, space: AdapterSpace) -> None:
        """Keep an adapter space beside the entries, so that an auditor can decode them anywhere."""
        path = self._folder / "spaces" / f"{space.fingerprint.hex()}.json"
        try:
            write_atomic(path, space.to_json())
        except OSError as error:
            raise LedgerError(f"the ledger cannot keep {path.name[:16]}: {error}") from error

    def append(self, draft: EntryDraft, payload: bytes) -> Recorded:
        """Record ``payload``: its bytes first, then the entry with its checkpoint, all synced to disk.

        Raises:
            LedgerError: it could not be recorded; then it must not leave.
        """
        return self._append(payload, lambda: (draft, self._keep(payload)))

    def append_judged(self, payload: bytes, judge: Callable[[], EntryDraft]) -> Recorded:
        """Record ``payload`` as ``judge`` says, and write it to disk meanwhile: judging takes about as long.

        Args:
            judge: decides, in this thread, what the entry says. It must not append.

        Raises:
            LedgerError: it could not be recorded, or judged; then it must not leave.
        """
        with self._guard, ThreadPoolExecutor(1, "payload") as pool:

            def judge_meanwhile() -> tuple[EntryDraft, bytes]:
                try:
                    kept = pool.submit(self._keep, payload)
                except RuntimeError as error:
                    raise LedgerError(f"the ledger cannot write while judging: {error}") from error
                self._judging = True
                try:
                    draft = judge()
                finally:
                    self._judging = False
                    wait([kept])  # nobody tidies up under a write
                return draft, kept.result()

            return self._append(payload, judge_meanwhile)

    def _append(self, payload: bytes, prepare: Callable[[], tuple[EntryDraft, bytes]]) -> Recorded:
        """Record a payload of which ``prepare`` gives what the entry says and, once it is kept, the digest."""
        with self._guard:
            if self._judging:
                raise LedgerError("nothing can be recorded while a payload is judged")
            if self._uncertain:
                self._recover()
            self._uncertain = True  # from here on there may be a payload that no entry names
            try:
                return self._record(*prepare(), payload)
            except LedgerError:
                with suppress(LedgerError, DecodeError):  # what cannot be mended now is before the next entry
                    self._recover()
                raise

    def _keep(self, payload: bytes) -> bytes:
        return self._payloads.put(payload) if payload else merkle.EMPTY_ROOT  # SHA-256 of nothing

    def _record(self, draft: EntryDraft, digest: bytes, payload: bytes) -> Recorded:
        entry = self._entry(draft, payload, digest)
        hashed = merkle.leaf_hash(entry)
        nodes = list(merkle.completed(self._node, self._size, hashed))
        fresh = {(level, index): node for level, index, node in nodes}

        def node(level: int, index: int) -> bytes:
            return fresh.get((level, index)) or self._node(level, index)

        root = merkle.root(node, self._size + 1)
        note = sign_checkpoint(Checkpoint(self.origin, self._size + 1, root), self._key)
        self._table.insert(self._size + 1, entry, hashed, nodes, note)
        self._advance(hashed, fresh)
        return Recorded(payload, draft.kind, draft.task_id, self._size, hashed, _DOOR)

    def append_note(self, kind: EntryKind, content: Message | bytes, policy_sha256: bytes = b"") -> int:
        """Record something about the ledger itself, which does not leave; return the entry's place.

        Raises:
            LedgerError: it could not be recorded.
        """
        payload = content if isinstance(content, bytes) else content.SerializeToString(deterministic=True)
        return self.append(EntryDraft(kind=kind, peer="", policy_sha256=policy_sha256), payload).sequence

    def entries(self, start: int = 1) -> Iterator[ledger_pb2.LedgerEntry]:
        """Yield entries from ``start`` on, in order, as they are at the moment of the call."""
        with self._guard:
            rows = self._table.entries(start)
        yield from map(ledger_pb2.LedgerEntry.FromString, rows)

    def payload(self, digest: bytes) -> bytes:
        """Return the payload kept under ``digest``.

        Raises:
            LedgerError: there is none.
        """
        return self._payloads.get(digest)

    def has_payload(self, digest: bytes) -> bool:
        """Tell whether a payload is kept under ``digest``."""
        return self._payloads.has(digest)

    def undelivered(self, most: int) -> list[Recorded]:
        """Return what was recorded to leave and has no receipt, oldest first: it may or may not have arrived.

        Args:
            most: so many of the newest; what has lost its payload is left out.
        """
        with self._guard:
            have = self._table.receipted()
        waiting = [entry for entry in self.entries() if int(entry.kind) in _LEAVING and entry.sequence not in have]
        found = []
        for entry in waiting[-most:]:
            with suppress(LedgerError):
                found.append(self._recorded(entry))
        return found

    def older_than(self, unix_ms: int) -> list[tuple[bytes, int]]:
        """Return digests and sizes of the payloads kept that no entry since then has, oldest first."""
        old: dict[bytes, int] = {}
        for entry in self.entries():
            if entry.time_unix_ms >= unix_ms:
                old.pop(entry.payload_sha256, None)
            elif entry.payload_bytes and int(entry.kind) in _ERASABLE:
                old[entry.payload_sha256] = entry.payload_bytes
        return [(digest, size) for digest, size in old.items() if self._payloads.has(digest)]

    def prove(self, recorded: Recorded, old_size: int) -> link_pb2.Checkpoint:
        """Return the present checkpoint, and proofs that it includes an entry and continues an older one.

        Args:
            old_size: of the checkpoint that the hub has seen last.

        Raises:
            LedgerError: the older one is larger than this ledger.
        """
        with self._guard:
            if old_size > self._size:
                raise LedgerError(
                    f"the hub has seen this ledger with {old_size} entries, it has {self._size} now: entries are "
                    "gone, or an older copy was put in its place",
                    "Put the newest copy back; or move the folder away, and a new ledger begins, which every "
                    "auditor sees",
                )
            return link_pb2.Checkpoint(
                note=self._table.checkpoint(),
                ledger_key=self.key,
                entry=recorded.sequence,
                inclusion=merkle.inclusion_proof(self._node, recorded.sequence - 1, self._size),
                old_size=old_size,
                consistency=merkle.consistency_proof(self._node, old_size, self._size),
            )

    def root(self, size: int) -> bytes | None:
        """Return the root when there were ``size`` entries; None where there have not been so many."""
        with self._guard:
            return merkle.root(self._node, size) if 0 <= size <= self._size else None

    def file_receipt(self, sequence: int, receipt: bytes) -> None:
        """Keep the hub's receipt for the entry ``sequence``.

        Raises:
            LedgerError: it could not be written.
        """
        with self._guard:
            self._table.file_receipt(sequence, receipt)
            self._tidy()
            self.witnessed = max(self.witnessed, self._size_in(receipt))

    def _size_in(self, receipt: bytes) -> int:
        body = link_pb2.Receipt.FromString(receipt).body
        return body.checkpoint_size if body.ledger_key == self.key else 0

    def erase(self, digest: bytes, size: int, cause: str) -> None:
        """Delete a payload, once it is recorded that it will be: its entries and their proofs stay.

        Raises:
            LedgerError: that could not be recorded, or the file not be deleted.
        """
        with self._guard:
            erasure = ledger_pb2.Erasure(payload_sha256=digest, payload_bytes=size, cause=cause)
            self.append_note(EntryKind.ERASED, erasure)
            self._payloads.remove(digest)

    def _recover(self) -> None:
        """Read where the ledger ends, and finish what was cut off, at opening or after a write that failed."""
        self._load()
        self._table.settle()
        self._tidy()
        self._uncertain = False

    def _tidy(self) -> None:
        """Delete payloads half written, never recorded, or recorded as deleted but still there.

        Only after a commit of our own: until then a power cut, or the next recovery of SQLite's log, may still
        take away an entry that is read, or bring one that is not. Nobody else writes while this process does.
        """
        named: set[bytes] = set()
        erased: set[bytes] = set()
        for entry in self.entries():
            named.add(entry.payload_sha256)
            erased.discard(entry.payload_sha256)  # recorded anew since
            if int(entry.kind) == EntryKind.ERASED:
                with suppress(LedgerError, DecodeError):  # an auditor will ask what became of it
                    note = self._payloads.get(entry.payload_sha256)
                    erased.add(ledger_pb2.Erasure.FromString(note).payload_sha256)
        self._payloads.recover(named)
        for digest in erased:
            self._payloads.remove(digest)

    def _entry(self, draft: EntryDraft, payload: bytes, digest: bytes) -> bytes:
        return ledger_pb2.LedgerEntry(
            format=FORMAT,
            sequence=self._size + 1,
            time_unix_ms=time.time_ns() // 1_000_000,
            previous_hash=self._last_hash,
            kind=ledger_pb2.EntryKind.ValueType(draft.kind),
            peer=draft.peer,
            peer_fingerprint=self._peer_fingerprint,
            task_id=draft.task_id,
            round=draft.round,
            version=draft.version,
            samples=draft.samples,
            reason=round_pb2.Reason.ValueType(draft.reason),
            rule=draft.rule,
            payload_bytes=len(payload),
            payload_sha256=digest,
            tensors=facts_to_proto(draft.tensors),
            metrics=metrics_to_proto(draft.metrics),
            policy_sha256=draft.policy_sha256,
        ).SerializeToString(deterministic=True)

    def _recorded(self, entry: ledger_pb2.LedgerEntry) -> Recorded:
        payload = self._payloads.get(entry.payload_sha256)
        hashed = merkle.leaf_hash(entry.SerializeToString(deterministic=True))
        return Recorded(payload, EntryKind(entry.kind), entry.task_id, entry.sequence, hashed, _DOOR)

    def _load(self) -> None:
        """Read where the ledger ends, and check that its last checkpoint is of just that.

        Also after a write that failed: whether it is on disk, only the disk knows.
        """
        self._cache: dict[tuple[int, int], bytes] = {}
        self._size, self._last_hash = self._table.last() or (0, GENESIS)
        if self._size:
            checkpoint = check_note(self._table.checkpoint(), self.key)
            found = Checkpoint(self.origin, self._size, merkle.root(self._node, self._size))
            if checkpoint != found or self._node(0, self._size - 1) != self._last_hash:
                raise LedgerError(
                    f"the ledger {self._folder} was altered: its entries do not give its last checkpoint",
                    "Find out how: fedsparse audit verify",
                )

    def _advance(self, hashed: bytes, fresh: dict[tuple[int, int], bytes]) -> None:
        self._uncertain = False
        self._size += 1
        self._last_hash = hashed
        self._cache.update(fresh)
        for key in [key for key in self._cache if (key[1] + 2) << key[0] < self._size]:
            del self._cache[key]  # left of the tree's right edge, which alone the next entry needs

    def _node(self, level: int, index: int) -> bytes:
        found = self._cache.get((level, index))
        if found is None:
            found = self._cache[level, index] = self._table.node(level, index)
        return found
