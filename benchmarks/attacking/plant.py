"""An honest plant, a process of its own: the gateway's own Link, present all the time, answering every task.

Reads lines on stdin, answers each with a line of JSON: "describe", "state".
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedsparse_client.gateway.link import Link

from benchmarks.attacking.messages import SPACE, update
from fedsparse.audit import EntryDraft, EntryKind, Ledger, Recorded
from fedsparse.config import IdentitySettings
from fedsparse.errors import FedsparseError
from fedsparse.processes import die_with_parent
from fedsparse.security import LiveCredentials, Revocations, Role

_MAX_BYTES = 1 << 20


class _Presence:
    """Counts how the connection comes and goes."""

    def __init__(self) -> None:
        self.accepted_times = 0
        self.lost_times = 0

    def dialling(self) -> None:
        """Nothing is recorded here."""

    def accepted(self) -> None:
        """Count."""
        self.accepted_times += 1

    def lost(self) -> list[str]:
        """Count."""
        self.lost_times += 1
        return []


class Plant:
    """Attends, answers tasks, and tells what it saw.

    Args:
        name: its own, for which NAME.pem lies in ``home``.
        home: certificate, key and CA.
        address: of the hub.
        ledger: where what leaves is recorded.
    """

    def __init__(self, name: str, home: Path, address: str, ledger: Ledger) -> None:
        settings = IdentitySettings(
            certificate=home / f"{name}.pem", key=home / f"{name}.key", authority=home / "ca.pem"
        )
        credentials = LiveCredentials(settings, Role.PLANT, print)
        self.link = Link(address, credentials, _MAX_BYTES, Revocations(None, tuple))
        self._ledger = ledger
        self._presence = _Presence()
        self._receipts: list[tuple[str, int]] = []
        self._trouble = ""

    def attend(self) -> None:
        """Answer every task with the same update, for as long as the process lasts."""
        try:
            for task in self.link.attend(SPACE.fingerprint, self._presence):
                receipt = self.link.push(self._record(task.task_id), self._ledger)
                self._receipts.append((task.task_id, receipt.body.sequence))
        except FedsparseError as error:
            self._trouble = str(error)

    def _record(self, task_id: str) -> Recorded:
        draft = EntryDraft(kind=EntryKind.UPDATE, peer="hub", task_id=task_id, policy_sha256=sha256(b"").digest())
        return self._ledger.append(draft, update())

    def describe(self) -> dict[str, Any]:
        """Ask the hub what it trains; say how long the answer took."""
        started = time.monotonic()
        try:
            name, trouble = self.link.describe().name, ""
        except FedsparseError as error:
            name, trouble = "", str(error)
        return {"name": name, "seconds": time.monotonic() - started, "trouble": trouble}

    def state(self) -> dict[str, Any]:
        """Say what has happened so far."""
        return {
            "accepted": self._presence.accepted_times,
            "lost": self._presence.lost_times,
            "receipts": self._receipts,
            "session": self.link._session.hex(),
            "trouble": self._trouble,
        }


def main() -> None:
    """Run until stdin ends."""
    die_with_parent()
    name, home, address = sys.argv[1:]
    with TemporaryDirectory() as folder, Ledger(Path(folder), bytes(32), name) as ledger:
        ledger.set_space(SPACE)
        plant = Plant(name, Path(home), address, ledger)
        threading.Thread(target=plant.attend, daemon=True).start()
        for line in sys.stdin:
            answer = plant.describe() if line.strip() == "describe" else plant.state()
            print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
