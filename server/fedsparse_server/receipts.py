"""The hub's own record of what it received: one signed receipt per update, by plant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from fedsparse.audit import read_receipts, receipt_line
from fedsparse.errors import LedgerError
from fedsparse.files import append_line
from fedsparse.security import Credentials, sign
from fedsparse.v1 import link_pb2


class ReceiptBook:
    """Numbers, signs and keeps the receipts of every plant; one JSON line each, synced before it is handed out.

    Args:
        folder: one file per plant lies here.
        signer: returns the hub's credentials as they are now.
    """

    def __init__(self, folder: Path, signer: Callable[[], Credentials]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._signer = signer
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, link_pb2.Receipt]] = {}

    def find(self, plant: str, task_id: str) -> link_pb2.Receipt | None:
        """Return the receipt already given to ``plant`` for ``task_id``, so that a retry changes nothing.

        Raises:
            LedgerError: what was kept for this plant is unreadable.
        """
        with self._lock:
            return self._of(plant).get(task_id)

    def issue(self, plant: str, task_id: str, payload: bytes, ledger_hash: bytes) -> link_pb2.Receipt:
        """Return a new receipt, kept on disk first; a task that has one already keeps that one.

        Raises:
            LedgerError: it cannot be written; then nothing was received.
        """
        with self._lock:
            known = self._of(plant)
            if task_id in known:
                return known[task_id]
            body = link_pb2.ReceiptBody(
                plant=plant,
                task_id=task_id,
                payload_sha256=sha256(payload).digest(),
                ledger_hash=ledger_hash,
                sequence=len(known) + 1,
                received_unix_ms=time.time_ns() // 1_000_000,
            )
            hub = self._signer()
            receipt = link_pb2.Receipt(
                body=body,
                signature=sign(hub.key, body.SerializeToString(deterministic=True)),
                hub_certificate=hub.der,
            )
            self._append(plant, receipt)
            known[task_id] = receipt
            return receipt

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
