"""Requests for time-stamps, and the replies that `verify` and `report` are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedsparse.audit import Evidence
from fedsparse.audit.timestamp import Stamp, check_timestamp, make_request
from fedsparse.cli.audit_evidence import open_evidence, require_new
from fedsparse.errors import LedgerError
from fedsparse.files import write_atomic


@dataclass(frozen=True)
class Tokens:
    """What time-stamps' authorities have replied.

    Attributes:
        replies: files, DER.
        roots: PEM certificates of authorities that are trusted.
    """

    replies: Sequence[Path] = ()
    roots: Path | None = None


def write_request(ledger: Path, out: Path, console: Console) -> None:
    """Write a request for a time-stamp of a ledger's checkpoint.

    Raises:
        LedgerError: there is no checkpoint of its entries, or the file cannot be written.
    """
    require_new(out, "Name a new file")
    data, size = make_request(open_evidence(ledger))
    try:
        write_atomic(out, data)
    except OSError as error:
        raise LedgerError(f"the request {out} cannot be written: {error.strerror}") from None
    console.print(f"{out}: for the first {size} entries", markup=False, highlight=False, soft_wrap=True)


def read_stamps(tokens: Tokens, evidence: Evidence) -> tuple[Stamp, ...]:
    """Judge every reply.

    Raises:
        LedgerError: a file cannot be read, or the roots are no certificates.
    """
    roots = None if tokens.roots is None else _read(tokens.roots)
    return tuple(check_timestamp(path.name, _read(path), roots, evidence) for path in tokens.replies)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from None
