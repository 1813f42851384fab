"""The hub's own record of what it received: one signed receipt per update, by plant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedsparse.audit import (
    Checkpoint,
    Seen,
    check_checkpoint,
    load_key,
    read_receipts,
    receipt_line,
    sign_receipt,
)
from fedsparse.errors import LedgerError
from fedsparse.files import append_line
from fedsparse.security import Credentials
from fedsparse.v1 import link_pb2


class ReceiptBook:
    """Numbers, signs and keeps the receipts of every plant; one JSON line each, synced before it is handed out.

    In each the hub witnesses the plant's ledger as well: it cosigns a checkpoint only if it continues the one in
    the receipt before, and only once the receipt that says so is on disk.

    Args:
        folder: one file per plant lies here, and the key of the hub's cosignatures.
        signer: returns the hub's credentials as they are now.
    """

    def __init__(self, folder: Path, signer: Callable[[], Credentials]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._signer = signer
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, link_pb2.Receipt]] = {}
        self._key = load_key(folder / "witness.key", create=True)

    def find(self, plant: str, task_id: str) -> link_pb2.Receipt | None:
        """Return the receipt already given to ``plant`` for ``task_id``, so that a retry changes nothing.

        Raises:
            LedgerError: what was kept for this plant is unreadable.
        """
        with self._lock:
            return self._of(plant).get(task_id)

    def check(self, plant: str, update: link_pb2.Update) -> Checkpoint:
        """Return the checkpoint that an update comes with, if the hub may cosign it.

        Raises:
            StaleCheckpointError: its proof begins elsewhere than at the last one cosigned.
            LedgerError: it is wrong, or the plant's history was rewritten.
        """
        with self._lock:
            seen = self._seen(plant, update.checkpoint.ledger_key)
        return check_checkpoint(update.checkpoint, plant, update.ledger_hash, seen)

    def ledgers(self, plant: str) -> list[bytes]:
        """Return the keys of the ledgers that a plant has shown so far, the first one first."""
        with self._lock:
            return list(dict.fromkeys(receipt.body.ledger_key for receipt in self._of(plant).values()))

    def issue(
        self, plant: str, update: link_pb2.Update, payload_sha256: bytes, checkpoint: Checkpoint
    ) -> link_pb2.Receipt:
        """Return a new receipt, kept on disk first; a task that has one already keeps that one.

        Args:
            update: what was pushed.
            payload_sha256: of the bytes that answer the task, wherever they came.
            checkpoint: as :meth:`check` returned it.

        Raises:
            LedgerError: it cannot be written; then nothing was received.
        """
        with self._lock:
            known = self._of(plant)
            if update.task_id in known:
                return known[update.task_id]
            now = time.time_ns()
            hub = self._signer()
            body = link_pb2.ReceiptBody(
                plant=plant,
                task_id=update.task_id,
                payload_sha256=payload_sha256,
                ledger_hash=update.ledger_hash,
                sequence=len(known) + 1,
                received_unix_ms=now // 1_000_000,
                origin=checkpoint.origin,
                ledger_key=update.checkpoint.ledger_key,
                checkpoint_size=checkpoint.size,
                checkpoint_root=checkpoint.root,
            )
            receipt = sign_receipt(body, hub, self._key)
            self._append(plant, receipt)
            known[update.task_id] = receipt
            return receipt

    def _seen(self, plant: str, key: bytes) -> Seen | None:
        """Return the last checkpoint of this ledger that was cosigned."""
        bodies = [receipt.body for receipt in self._of(plant).values() if receipt.body.ledger_key == key]
        if not bodies:
            return None
        last = bodies[-1]
        return Seen(Checkpoint(last.origin, last.checkpoint_size, last.checkpoint_root), key)

    def _path(self, plant: str) -> Path:
        return self._folder / f"{plant}.jsonl"

    def _of(self, plant: str) -> dict[str, link_pb2.Receipt]:
        if plant not in self._known:
            self._known[plant] = _read(self._path(plant))
        return self._known[plant]

    def _append(self, plant: str, receipt: link_pb2.Receipt) -> None:
        try:
            append_line(self._path(plant), receipt_line(receipt))
        except OSError as error:
            raise LedgerError(f"the hub cannot keep a receipt for {plant}: {error}") from error


def _read(path: Path) -> dict[str, link_pb2.Receipt]:
    """Return the receipts in ``path`` by task, and cut off a last line that a crash cut short.

    Raises:
        LedgerError: another line is no receipt, or the file cannot be read.
    """
    if not path.exists():
        return {}
    receipts = read_receipts(path)
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
    return {receipt.body.task_id: receipt for receipt in receipts}
