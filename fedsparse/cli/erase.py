"""`fedsparse client erase`: a payload in the ledger is deleted on request; its entry, and that it was, stay."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from fedsparse import config
from fedsparse.audit import EntryKind
from fedsparse.errors import LedgerError
from fedsparse.security import Role, load_credentials


def run_erase(path: Path, number: int, *, yes: bool, console: Console) -> None:
    """Delete the payload of one entry, and of every other that has the same.

    Raises:
        LedgerError: there is no such entry or payload, or the plant is running.
    """
    from fedsparse_client.gateway.books import open_ledger

    settings = config.load(path, config.SiteConfig)
    with open_ledger(settings, load_credentials(settings.site.identity, Role.PLANT)) as ledger:
        entries = {entry.sequence: entry for entry in ledger.entries()}
        entry = entries.get(number)
        if entry is None:
            raise LedgerError(f"there is no entry {number}: this ledger has {len(entries)}")
        if not entry.payload_bytes:
            raise LedgerError(f"entry {number} has no payload", "fedsparse audit show tells what an entry has")
        if int(entry.kind) not in (EntryKind.UPDATE, EntryKind.REASON, EntryKind.REFUSED):
            raise LedgerError(
                f"entry {number} is about the ledger itself: without its payload nothing could be verified"
            )
        if not ledger.has_payload(entry.payload_sha256):
            raise LedgerError(f"the payload of entry {number} is gone already: there is nothing to delete")
        shared = [one.sequence for one in entries.values() if one.payload_sha256 == entry.payload_sha256]
        told = ", ".join(map(str, shared))
        question = f"Delete the {entry.payload_bytes} bytes of entry {told} for good?"
        if not yes and not typer.confirm(question):
            raise typer.Exit(1)
        ledger.erase(entry.payload_sha256, entry.payload_bytes, "request")
        console.print(f"deleted, and recorded as entry {ledger.size}", highlight=False)
