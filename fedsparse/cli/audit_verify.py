"""`fedsparse audit verify`: the ledger's verdict, and beside it what cannot be told of its policies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedsparse.audit import parse_entry
from fedsparse.audit.policies import unread_policies
from fedsparse.cli.audit_evidence import open_evidence
from fedsparse.cli.inspect import verify


@dataclass(frozen=True)
class Given:
    """What an auditor has.

    Attributes:
        ledger: folder or bundle.
        authority: the federation's CA certificate.
        hub_receipts: the hub's own record of this plant.
        payload_key: what payloads are sealed with.
    """

    ledger: Path
    authority: Path | None = None
    hub_receipts: Path | None = None
    payload_key: Path | None = None


def verify_all(given: Given, console: Console) -> bool:
    """Print every verdict; return whether nothing is contradicted."""
    good = verify(given.ledger, given.authority, given.hub_receipts, given.payload_key, console)
    evidence = open_evidence(given.ledger, given.payload_key)
    for one in unread_policies((parse_entry(row.entry) for row in evidence.rows), evidence.payload):
        _say(console, f"policy: cannot tell: {one}", "yellow")
    return good


def _say(console: Console, line: str, style: str) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
