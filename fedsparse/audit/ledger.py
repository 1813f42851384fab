"""The append-only ledger: on disk, synced, before anything leaves."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsparse.audit.entry import FORMAT, GENESIS, EntryDraft, entry_hash, facts_to_proto, metrics_to_proto
from fedsparse.delta import AdapterSpace
from fedsparse.errors import LedgerError
from fedsparse.files import write_atomic
from fedsparse.v1 import ledger_pb2, round_pb2

_DOOR = object()
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (sequence INTEGER PRIMARY KEY, receipt BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS entries_keep BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS receipts_keep BEFORE UPDATE ON receipts BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS receipts_stay BEFORE DELETE ON receipts BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


@dataclass(frozen=True)
class Recorded:
    """A payload that the ledger holds; only :meth:`Ledger.append` makes one, and only it can be sent.

    Attributes:
        payload: the exact bytes.
        sequence: the entry's place, from 1.
        entry_hash: the entry's hash, 32 bytes.
    """

    payload: bytes
    sequence: int
    entry_hash: bytes
    door: object

    def __post_init__(self) -> None:
        if self.door is not _DOOR:
            raise TypeError("only Ledger.append() records a payload")


class Ledger:
    """A plant's record of what left.

    Layout of its folder: ``ledger.db``, ``payloads/SHA256`` and ``spaces/FINGERPRINT.json``. One process
    writes; any number may read and verify meanwhile.

    Args:
        folder: created if absent.
        peer_fingerprint: SHA-256 of the CA certificate that the peer must chain to.

    Raises:
        LedgerError: another process writes to it, or it cannot be opened.
    """

    def __init__(self, folder: Path, peer_fingerprint: bytes) -> None:
        self._folder = folder
        self._peer_fingerprint = peer_fingerprint
        self._payloads = folder / "payloads"
        self._guard = threading.Lock()
        try:
            self._payloads.mkdir(parents=True, exist_ok=True)
            (folder / "spaces").mkdir(exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise LedgerError(f"the ledger {folder} cannot be opened: {error}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise LedgerError(f"another process writes to the ledger {folder}", "Stop it first") from None
        try:
            self._database = sqlite3.connect(folder / "ledger.db", check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
            row = self._database.execute(
                "SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
            self._lock_file.close()
            raise LedgerError(f"the ledger {folder} cannot be opened: {error}") from error
        self._sequence: int = row[0] if row else 0
        self._last_hash: bytes = row[1] if row else GENESIS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._lock_file.close()

    def set_space(self, space: AdapterSpace) -> None:
        """Keep an adapter space beside the entries, so that an auditor can decode them anywhere."""
        self._write(self._folder / "spaces" / f"{space.fingerprint.hex()}.json", space.to_json())

    def append(self, draft: EntryDraft, payload: bytes) -> Recorded:
        """Record ``payload``: its bytes first, then the entry, both synced to disk.

        Raises:
            LedgerError: it could not be recorded; then it must not leave.
        """
        with self._guard:
            digest = sha256(payload).digest()
            entry = ledger_pb2.LedgerEntry(
                format=FORMAT,
                sequence=self._sequence + 1,
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
            hashed = entry_hash(entry)
            if payload:
                self._write(self._payloads / digest.hex(), payload)
            self._insert("INSERT INTO entries VALUES (?, ?, ?)", (self._sequence + 1, entry, hashed))
            self._sequence += 1
            self._last_hash = hashed
            return Recorded(payload, self._sequence, hashed, _DOOR)

    def file_receipt(self, sequence: int, receipt: bytes) -> None:
        """Keep the hub's receipt for the entry ``sequence``.

        Raises:
            LedgerError: it could not be written.
        """
        with self._guard:
            self._insert("INSERT INTO receipts VALUES (?, ?)", (sequence, receipt))

    def _insert(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._database:
                self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {self._folder} cannot be written: {error}") from error

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data)
        except OSError as error:
            raise LedgerError(f"the ledger cannot keep {path.name[:16]}: {error}") from error
