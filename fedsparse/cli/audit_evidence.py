"""Opening a ledger or a bundle for `fedsparse audit`, on any machine, and `fedsparse audit export`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fedsparse.audit import Evidence, parse_entry, read_bundle, read_folder, read_payload_key, write_bundle
from fedsparse.cli.figures import printable
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2


def open_evidence(path: Path, payload_key: Path | None = None) -> Evidence:
    """Read a ledger's folder, or a bundle.

    Raises:
        LedgerError: it is neither.
    """
    try:
        folder = path.is_dir()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from None
    if folder:
        return read_folder(path, None if payload_key is None else read_payload_key(payload_key))
    return read_bundle(path)


def entry_of(evidence: Evidence, number: int) -> ledger_pb2.LedgerEntry:
    """Return an entry by its number.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    if not 1 <= number <= len(evidence.rows):
        raise LedgerError(f"there is no entry {number}: this ledger has {len(evidence.rows)}")
    entry = parse_entry(evidence.rows[number - 1].entry)
    if entry is None:
        raise LedgerError(f"entry {number} cannot be read", "fedsparse audit verify says more")
    return entry


def export(ledger: Path, out: Path, payload_key: Path | None, console: Console) -> None:
    """Write one file that verifies anywhere."""
    require_new(out, "Name a new file: evidence is never overwritten")
    evidence = open_evidence(ledger, payload_key)
    write_bundle(out, evidence)
    say(console, f"{out}: {len(evidence.rows)} entries, {out.stat().st_size:,} bytes")


def require_new(path: Path, remedy: str) -> None:
    """Check that nothing is at ``path`` yet.

    Raises:
        LedgerError: something is, or nobody can tell.
    """
    try:
        present = path.exists()
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}") from None
    if present:
        raise LedgerError(f"{path} is there already", remedy)


def say(console: Console, line: str, style: str = "") -> None:
    """Print a line that may hold a stranger's words, without what would steer the terminal."""
    console.print(printable(line), style=style, markup=False, highlight=False, soft_wrap=True)
