"""What is done to a ledger while faults strike, in a process of its own that waits until it is traced."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

from fedsparse.audit import EntryDraft, EntryKind, Ledger, Recorded
from fedsparse.errors import LedgerError
from tests.unit.samples import REASON_PAYLOAD, delta, draft_of, update

PLANT = "ise"
APPEND, JUDGED, EMPTYING, RECEIPT, ERASE = (
    "an update recorded",
    "an update written by a thread of its own while it is judged, and recorded",
    "an update recorded, after which SQLite empties its log",
    "a receipt filed",
    "a payload erased",
)
READY, REFUSED, FORWARDED, DONE = b"R", b"r", b"f", b"d"
_SIGNAL = {signal.SIGUSR1}


def prepare(name: str, ledger: Ledger, folder: Path) -> Callable[[], Recorded | None]:
    """Return the step of this name; what it returns may be forwarded."""
    if name == RECEIPT:
        return partial(ledger.file_receipt, *unfiled(folder))
    if name == ERASE:
        payload = update()
        return partial(ledger.erase, sha256(payload).digest(), len(payload), "test")
    if name == EMPTYING:
        ledger._table._database.execute("PRAGMA wal_autocheckpoint=1")
    payload = update(delta({0: {3: 2.5}}), round=6)
    if name == JUDGED:
        return partial(ledger.append_judged, payload, partial(_judge, ledger, payload))
    return partial(ledger.append, draft_of(payload, "task-e"), payload)


def _judge(ledger: Ledger, payload: bytes) -> EntryDraft:
    """Read what has left, as the gate does, and say what leaves now."""
    assert all(entry.sequence for entry in ledger.entries())
    return draft_of(payload, "task-e")


def go_on(ledger: Ledger) -> Recorded:
    """Record a reason: shows that the ledger goes on."""
    return ledger.append(draft_of(REASON_PAYLOAD, "task-f", EntryKind.REASON), REASON_PAYLOAD)


def unfiled(folder: Path) -> tuple[int, bytes]:
    """Return the number of the entry that has no receipt, and the receipt that lies ready for it."""
    data = folder.with_name("receipt").read_bytes()
    return int.from_bytes(data[:8], "big"), data[8:]


def perform(name: str, folder: Path, peer: bytes, channel: socket.socket) -> None:
    """Open the ledger, say so, wait for SIGUSR1, do the step; where it fails, try to record something else.

    It tries three times: a fault that strikes once may strike once in each of two threads.

    What is forwarded goes into ``channel`` by sendto(2), which no fault strikes; sched_yield(2) before it marks
    the end of the step in a trace.
    """
    ledger = Ledger(folder, peer, PLANT)
    step = prepare(name, ledger, folder)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNAL)
    channel.send(READY)
    signal.sigwait(_SIGNAL)
    for one in (step, *[partial(go_on, ledger)] * 3):
        try:
            recorded = one()
        except LedgerError:
            os.sched_yield()
            channel.send(REFUSED)
        else:
            os.sched_yield()
            channel.send(_forwarded(recorded) if recorded else DONE)
            break
    os._exit(0)  # closing would empty SQLite's log: what is on disk must do without


def _forwarded(recorded: Recorded) -> bytes:
    return FORWARDED + recorded.sequence.to_bytes(8, "big") + recorded.entry_hash
