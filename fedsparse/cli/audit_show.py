"""`fedsparse audit show`: one entry, and what its payload decodes to. All of it may be a stranger's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsparse.audit import LEFT, EntryKind, Evidence
from fedsparse.audit.control import ControlCount, is_control
from fedsparse.audit.entry import NEVER_MS
from fedsparse.audit.policy import parse_policy
from fedsparse.audit.report.control import control_sentence
from fedsparse.cli.audit_evidence import entry_of, open_evidence, say
from fedsparse.cli.figures import printable
from fedsparse.delta import AdapterSpace, Reason, SparseDelta, decode, decode_update, header_of
from fedsparse.errors import CertificateError, ConfigError, FedsparseError, LedgerError
from fedsparse.security import identity_of, read_der_chain
from fedsparse.v1 import ledger_pb2

_UNLIMITED = 1 << 40
_BINS, _BARS = 24, " ▁▂▃▄▅▆▇█"
_SHOWN_TENSORS = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTES: dict[int, Any] = {
    EntryKind.OPENED: ledger_pb2.Opening,
    EntryKind.ROUTE: ledger_pb2.RouteCount,
    EntryKind.ERASED: ledger_pb2.Erasure,
}


def show(ledger: Path, number: int, payload_key: Path | None, console: Console) -> None:
    """Print everything about one entry, and what its payload decodes to.

    Raises:
        LedgerError: there is no such entry.
    """
    evidence = open_evidence(ledger, payload_key)
    entry = entry_of(evidence, number)
    for name, value in facts_of(entry):
        say(console, f"{name:16} {value}")
    say(console, f"{'receipt':16} {'filed' if number in evidence.receipts else 'none'}")
    if not entry.payload_bytes:
        return
    try:
        _show_payload(entry, evidence.payload(entry.payload_sha256), evidence, console)
    except LedgerError as error:
        say(console, f"its payload {error}", "red")
    except (FedsparseError, DecodeError) as error:
        say(console, f"its payload does not decode: {error}", "red")


def _show_payload(entry: ledger_pb2.LedgerEntry, payload: bytes, evidence: Evidence, console: Console) -> None:
    if entry.kind in LEFT or int(entry.kind) == EntryKind.REFUSED:
        _show_update(payload, evidence, console)
    elif int(entry.kind) == EntryKind.POLICY:
        _show_policy(payload, console)
    elif (kind := _NOTES.get(int(entry.kind))) is None:
        say(console, f"it has a payload of {len(payload)} bytes, which no entry of its kind has", "red")
    else:
        _show_note(kind.FromString(payload), console)


def _show_policy(payload: bytes, console: Console) -> None:
    """Show a policy's text; one that is none might feign lines of ours, and stays in one."""
    text = payload.decode(errors="replace")
    try:
        parse_policy(payload)
    except ConfigError as error:
        say(console, f"no policy that this release reads: {error}", "red")
        say(console, text)
    else:
        for line in text.splitlines():
            say(console, line)


def _show_note(note: Any, console: Console) -> None:
    if isinstance(note, ledger_pb2.RouteCount) and is_control(note):
        say(console, _control(note))
    for field, value in note.ListFields():
        say(console, f"{field.name:16} {_told(field.name, value)}")


def facts_of(entry: ledger_pb2.LedgerEntry) -> Iterable[tuple[str, str]]:
    """Yield what an entry says, by the name of it; none of it is checked, and texts are a stranger's."""
    yield "entry", str(entry.sequence)
    yield "kind", _named(EntryKind, entry.kind)
    yield "time (UTC)", _when(entry.time_unix_ms)
    if entry.peer:
        yield "to", entry.peer
    if entry.task_id:
        yield "task", entry.task_id
        yield "round, version", f"{entry.round}, {entry.version}"
    if entry.samples:
        yield "samples", str(entry.samples)
    if entry.reason:
        yield "reason", _named(Reason, entry.reason)
    if entry.rule:
        yield "refused by", entry.rule
    yield "payload", f"{entry.payload_bytes} bytes, SHA-256 {entry.payload_sha256.hex()}"
    if entry.policy_sha256:
        yield "policy", entry.policy_sha256.hex()


def _named(kinds: type[IntEnum], number: int) -> str:
    try:
        return kinds(number).name
    except ValueError:
        return f"{number}, which is unknown here"


def _when(unix_ms: int) -> str:
    if not 0 <= unix_ms < NEVER_MS:
        return f"{unix_ms} ms after 1970 began, which is no possible time"
    return (_EPOCH + timedelta(milliseconds=unix_ms)).isoformat(timespec="milliseconds")


def _control(counted: ledger_pb2.RouteCount) -> str:
    try:
        return control_sentence(ControlCount.from_proto(counted)).en
    except LedgerError as error:
        return f"its count of control calls {error}"


def _told(name: str, value: object) -> str:
    """Return a field of a note as people read it."""
    if name == "certificate" and isinstance(value, bytes):
        try:
            leaf = read_der_chain(value, "the plant's certificate")[0]
            return f"{identity_of(leaf).uri}, until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        except CertificateError as error:
            return f"none: {error}"
    return value.hex() if isinstance(value, bytes) else str(value)


def _show_update(payload: bytes, evidence: Evidence, console: Console) -> None:
    update = decode_update(payload, max_bytes=_UNLIMITED)
    for name, value in update.metrics.items():
        say(console, f"{'metric':16} {name} = {value!r}")
    if not update.delta:
        return
    space = evidence.spaces.get(header_of(update.delta).space)
    if space is None:
        say(console, "the adapter space of its delta is not in the evidence", "red")
        return
    delta = decode(update.delta, space, max_bytes=_UNLIMITED)
    say(console, f"{'delta':16} {len(update.delta)} bytes, {delta.nnz} of {space.size} values")
    table = _tensors(delta, space)
    if not console.is_terminal:  # nobody's width: nothing need be cut or broken
        table.width = console.measure(table, options=console.options.update(max_width=sys.maxsize)).maximum
    console.print(table, crop=console.is_terminal)


def _tensors(delta: SparseDelta, space: AdapterSpace) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    for title in ("values", "of", "smallest", "largest", "L2", "distribution"):
        table.add_column(title, no_wrap=True)
    for tensor in delta.tensors[:_SHOWN_TENSORS]:
        spec, values = space.tensors[tensor.tensor], tensor.values
        norm = float(np.linalg.norm(values.astype(np.float64)))
        table.add_row(
            escape(printable(spec.name)),
            str(values.size),
            str(spec.size),
            f"{values.min():.4g}",
            f"{values.max():.4g}",
            f"{norm:.4g}",
            histogram(values),
        )
    if (rest := len(delta.tensors) - _SHOWN_TENSORS) > 0:
        table.add_row(f"… and {rest} more", *[""] * 6)
    return table


def histogram(values: NDArray[np.float32]) -> str:
    """Return bars for the counts of ``values`` in equal bins from the smallest to the largest."""
    counts, _ = np.histogram(values.astype(np.float64), bins=_BINS)
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)
