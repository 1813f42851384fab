"""`fedsparse audit verify`: the ledger's verdict, and beside it those on its policies and time-stamps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fedsparse.audit import parse_entry
from fedsparse.audit.conservation import Finding
from fedsparse.audit.policies import unread_policies
from fedsparse.audit.report.stamps import stamp_sentence
from fedsparse.audit.timestamp import Doubt, Stamp
from fedsparse.cli.audit_evidence import open_evidence
from fedsparse.cli.audit_stamps import Tokens, read_stamps
from fedsparse.cli.figures import printable
from fedsparse.cli.inspect import verify

_STYLES = {Finding.VERIFIED: "bold", Finding.UNKNOWN: "yellow", Finding.CONTRADICTED: "red"}


@dataclass(frozen=True)
class Given:
    """What an auditor has.

    Attributes:
        ledger: folder or bundle.
        authority: the federation's CA certificate.
        hub_receipts: the hub's own record of this plant.
        payload_key: what payloads are sealed with.
        tokens: time-stamps.
    """

    ledger: Path
    authority: Path | None = None
    hub_receipts: Path | None = None
    payload_key: Path | None = None
    tokens: Tokens = field(default_factory=Tokens)


def verify_all(given: Given, console: Console) -> Finding:
    """Print every verdict; return the ledger's, or that a time-stamp contradicts it or could not be read."""
    found = verify(given.ledger, given.authority, given.hub_receipts, given.payload_key, console)
    evidence = open_evidence(given.ledger, given.payload_key)
    for one in unread_policies((parse_entry(row.entry) for row in evidence.rows), evidence.payload):
        _say(console, f"policy: cannot tell: {one}", "yellow")
    stamps = read_stamps(given.tokens, evidence)
    for stamp in stamps:
        _say(console, f"time-stamp {stamp_sentence(stamp).en}", _STYLES[stamp.finding])
    return Finding.CONTRADICTED if any(_refused(stamp) for stamp in stamps) else found


def _refused(stamp: Stamp) -> bool:
    """Tell whether a reply is none that could count, whatever else is given beside it."""
    return stamp.finding is Finding.CONTRADICTED or stamp.doubt is Doubt.UNREADABLE


def _say(console: Console, line: str, style: str) -> None:
    console.print(printable(line), style=style, markup=False, highlight=False, soft_wrap=True)
