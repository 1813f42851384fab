"""`fedsparse audit compare`: a ledger beside the hub's record of the plant, or beside another view of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedsparse.audit import Evidence, compare_receipts, compare_views, read_record
from fedsparse.cli.audit_evidence import open_evidence, say
from fedsparse.errors import LedgerError

_LIMITS = (
    "not checked: who signed the receipts and the checkpoint, and whose ledger it is; `fedsparse audit verify` "
    "does, with --ca and --hub-receipts"
)


def compare(ledger: Path, other: Path, payload_key: Path | None, console: Console) -> bool:
    """Name every disagreement; return whether there is none.

    Raises:
        LedgerError: one of both is not what it must be.
    """
    evidence = open_evidence(ledger, payload_key)
    begins = _beginning(other)
    if other.suffix == ".jsonl" or begins == b"{":  # with which no bundle begins
        return _with_record(evidence, other, console)
    try:
        view = open_evidence(other, payload_key)
    except LedgerError as error:
        if begins is None:
            raise
        raise LedgerError(
            f"{other} is neither another view of the ledger nor a hub's record: {error}",
            "That is the hub's file state/receipts/NAME.jsonl, one JSON object a line",
        ) from None
    return _verdict(tuple(compare_views(evidence, view)), "they are one history", console)


def _beginning(path: Path) -> bytes | None:
    """Return a file's first byte; None of what is none: a pipe, for example, can be read only once."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(1)
    except OSError:
        return None  # told of by whoever reads it


def _with_record(evidence: Evidence, path: Path, console: Console) -> bool:
    record = read_record(path)
    found = compare_receipts(evidence, record.receipts)
    say(console, f"{found.left} entries that left, {len(record.receipts)} receipts at the hub")
    if record.cut:
        say(console, "the record ends in the middle of a line, which was left out: is it copied whole?", "yellow")
    return _verdict(found.problems, "they agree", console)


def _verdict(problems: Sequence[str], agreement: str, console: Console) -> bool:
    for problem in problems:
        say(console, f"  {problem}", "red")
    say(console, _LIMITS)
    number = f"{len(problems)} disagreement{'s' if len(problems) > 1 else ''}"
    say(console, number if problems else agreement, "bold")
    return not problems
