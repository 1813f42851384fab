"""A ledger on a disk of one megabyte: filled, refused, given room, gone on.

Run by itself it does so in the mount namespace that it finds itself in, and prints what it saw.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.auditing.part import Part
from benchmarks.report import Claim
from fedsparse.audit import EntryDraft, EntryKind, Ledger, Recorded, read_folder, verify_ledger
from fedsparse.errors import LedgerError
from tests.unit.samples import Hub, open_as

BYTES = 1 << 20
_MORE = 4 << 20
_SIZES = (60_000, 3_000, 200)
_TRIES, _AFTER = 20, 5
_LONGEST_SECONDS = 120


def try_out(folder: Path) -> Part:
    """Run it in a mount namespace of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return _skipped("mounting one needs root")
    words = ["unshare", "--mount", sys.executable, "-m", "benchmarks.auditing.full_disk", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS)
    if done.returncode:
        return _skipped((done.stderr.strip().splitlines() or ["no reason was given"])[-1])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Part(
        "disk", {}, rows, list(_claims(rows)), [f"full disk: {one}" for row in rows for one in row["problems"]]
    )


def _skipped(why: str) -> Part:
    return Part("disk", {}, [], [], [f"A full disk was not tried: {why}."])


def _claims(rows: list[dict[str, Any]]) -> Iterator[Claim]:
    full, roomy = rows
    kept = full["recorded"]
    yield Claim(
        "a disk of 1 MB, full: recorded until then; after that refused, nothing forwarded, evidence verified",
        full["refused"],
        f"all {_TRIES}",
        "attempts refused",
        kept > 0 and full["refused"] == _TRIES and not full["problems"],
    )
    yield Claim(
        "and with room again: entries lost",
        kept - roomy["kept"],
        "0, and it goes on in the same process and in a new one",
        "entries",
        roomy["kept"] == kept and roomy["recorded"] == 2 * _AFTER and not roomy["problems"],
    )


@dataclass
class _Disk:
    """The ledger on it.

    Attributes:
        forwarded: what was recorded and so could leave.
    """

    folder: Path
    hub: Hub
    forwarded: list[Recorded]

    def record(self, ledger: Ledger, size: int) -> bool:
        """Record a payload of random bytes; tell whether it could be, and so was forwarded."""
        draft = EntryDraft(
            EntryKind.REFUSED, "hub.example:9443", bytes(32), f"task-{len(self.forwarded)}", rule="x"
        )
        try:
            self.forwarded.append(ledger.append(draft, os.urandom(size)))
        except LedgerError:
            return False
        return True

    def problems(self) -> list[str]:
        """Return what verifying finds, and what was forwarded without an entry."""
        try:
            found = list(verify_ledger(self.folder, self.hub.authority).problems)
            entries = {row.hash for row in read_folder(self.folder).rows}
        except LedgerError as error:
            return [str(error)]
        lost = [one.sequence for one in self.forwarded if one.entry_hash not in entries]
        return found + [f"entry {sequence} was forwarded and is not there" for sequence in lost]

    def kept(self) -> int:
        """Return how many of what was forwarded before are there, payloads and all."""
        evidence = read_folder(self.folder)
        rows = {row.hash for row in evidence.rows}
        return sum(one.entry_hash in rows for one in self.forwarded)


def main() -> None:
    """Mount, fill, make room; print one line of JSON for each."""
    root = Path(sys.argv[1])
    hub = Hub.create(root / "pki")
    small = root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(small)], check=True)
    disk = _Disk(small / "ledger", hub, [])
    with Ledger(disk.folder, bytes(32), "ise") as ledger:
        open_as(ledger, hub)
        for size in _SIZES:  # smaller ones find room where a large one no longer does
            while disk.record(ledger, size):
                pass
        recorded = len(disk.forwarded)
        refused = sum(not disk.record(ledger, _SIZES[0]) for _ in range(_TRIES))
        print(json.dumps({"recorded": recorded, "refused": refused, "problems": disk.problems()}))
        subprocess.run(["mount", "-o", f"remount,size={_MORE}", str(small)], check=True)
        went_on = sum(disk.record(ledger, 1000) for _ in range(_AFTER))
        problems = disk.problems()
    with Ledger(disk.folder, bytes(32), "ise") as ledger:
        went_on += sum(disk.record(ledger, 1000) for _ in range(_AFTER))
    kept = disk.kept() - went_on
    print(json.dumps({"kept": kept, "recorded": went_on, "problems": problems + disk.problems()}))


if __name__ == "__main__":
    main()
