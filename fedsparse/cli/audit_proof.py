"""`fedsparse audit prove` and `check-proof`: one entry is in a ledger, for somebody who may see no other."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from fedsparse.audit.conservation import Finding
from fedsparse.audit.proof import check_proof, make_proof
from fedsparse.cli.audit_evidence import entry_of, open_evidence, say
from fedsparse.cli.audit_show import facts_of
from fedsparse.cli.authority import read_authority
from fedsparse.errors import LedgerError
from fedsparse.files import read_at_most

_MOST_BYTES = 16 << 20
_ANYBODYS = (
    "CANNOT TELL: the proof holds, but whose ledger it is, and who signed the receipt, was not checked: name the "
    "federation's CA certificate with --ca"
)


def prove(ledger: Path, number: int, payload_key: Path | None, console: Console) -> None:
    """Print the proof of an entry, as JSON in ASCII: names in it may be a stranger's.

    Raises:
        LedgerError: there is no such entry, or nothing that proves it.
    """
    evidence = open_evidence(ledger, payload_key)
    entry_of(evidence, number)
    console.out(json.dumps(make_proof(evidence, number), indent=1), highlight=False)


def check(path: Path, authority: Path | None, console: Console) -> Finding:
    """Check a proof, and say what it shows.

    Raises:
        LedgerError: it is none, or cannot be read.
    """
    try:
        data = read_at_most(path, _MOST_BYTES)
    except OSError as error:
        raise LedgerError(f"the proof {path} cannot be read: {error.strerror}") from None
    proved = check_proof(data, None if authority is None else read_authority(authority))
    for name, value in facts_of(proved.entry):
        say(console, f"{name:16} {value}")
    say(console, f"{'receipt':16} {'in the proof' if proved.receipt else 'none'}")
    say(console, f"{'in':16} the first {proved.size} entries of {proved.origin}")
    for problem in proved.problems:
        say(console, f"  {problem}", "red")
    if proved.problems:
        say(console, "CONTRADICTED", "bold")
        return Finding.CONTRADICTED
    if authority is None:
        say(console, _ANYBODYS, "bold")
        return Finding.UNKNOWN
    say(console, "proved, but for the payload: its SHA-256 must be the one above", "bold")
    return Finding.VERIFIED
