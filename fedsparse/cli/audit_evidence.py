"""`fedsparse audit export|show|prove|compare`: looking into a ledger or a bundle, on any machine."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsparse.audit import (
    LEFT,
    EntryKind,
    Evidence,
    compare_views,
    parse_entry,
    read_bundle,
    read_folder,
    read_payload_key,
    read_receipts,
    write_bundle,
)
from fedsparse.audit.control import ControlCount, is_control
from fedsparse.audit.merkle import completed, inclusion_proof, leaf_hash
from fedsparse.audit.report.control import control_sentence
from fedsparse.delta import AdapterSpace, Reason, SparseDelta, decode, decode_update, header_of
from fedsparse.errors import LedgerError
from fedsparse.security import identity_of, read_der_chain
from fedsparse.v1 import ledger_pb2

_UNLIMITED = 1 << 40
_BINS, _BARS = 24, " ▁▂▃▄▅▆▇█"
_SHOWN_TENSORS = 40


def open_evidence(path: Path, payload_key: Path | None = None) -> Evidence:
    """Read a ledger's folder, or a bundle.

    Raises:
        LedgerError: it is neither.
    """
    if path.is_dir():
        return read_folder(path, None if payload_key is None else read_payload_key(payload_key))
    return read_bundle(path)


def export(ledger: Path, out: Path, payload_key: Path | None, console: Console) -> None:
    """Write one file that verifies anywhere."""
    if out.exists():
        raise LedgerError(f"{out} is there already", "Name a new file: evidence is never overwritten")
    evidence = open_evidence(ledger, payload_key)
    write_bundle(out, evidence)
    console.print(
        f"{out}: {len(evidence.rows)} entries, {out.stat().st_size:,} bytes", highlight=False, markup=False
    )


def show(ledger: Path, number: int, payload_key: Path | None, console: Console) -> None:
    """Print everything about one entry, and what its payload decodes to."""
    evidence = open_evidence(ledger, payload_key)
    entry = _entry(evidence, number)
    for name, value in _facts(entry):
        console.print(f"{name:16} {value}", markup=False, highlight=False, soft_wrap=True)
    receipt = evidence.receipts.get(number)
    console.print(f"{'receipt':16} {'filed' if receipt else 'none'}", highlight=False)
    if not entry.payload_bytes:
        return
    try:
        payload = evidence.payload(entry.payload_sha256)
    except LedgerError as error:
        console.print(f"its payload {error}", style="red", markup=False)
        return
    if entry.kind in LEFT or int(entry.kind) == EntryKind.REFUSED:
        _show_update(payload, evidence, console)
    elif int(entry.kind) == EntryKind.POLICY:
        console.print(payload.decode(errors="replace"), markup=False, highlight=False)
    else:
        note = _NOTES[int(entry.kind)].FromString(payload)
        if isinstance(note, ledger_pb2.RouteCount) and is_control(note):
            console.print(_control(note), markup=False, highlight=False, soft_wrap=True)
        for field, value in note.ListFields():
            told = _told(field.name, value)
            console.print(f"{field.name:16} {told}", markup=False, highlight=False, soft_wrap=True)


def prove(ledger: Path, number: int, console: Console) -> None:
    """Print, as JSON, the proof that an entry is in a ledger: checkable by whoever has the ledger's public key."""
    evidence = open_evidence(ledger)
    entry = _entry(evidence, number)
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, place: int) -> bytes:
        return nodes[level, place]

    for size, row in enumerate(evidence.rows):
        nodes |= {(level, place): one for level, place, one in completed(node, size, leaf_hash(row.entry))}
    proof = inclusion_proof(node, number - 1, len(evidence.rows))
    receipt = evidence.receipts.get(number)
    console.print_json(
        data={
            "entry": _b64(evidence.rows[number - 1].entry),
            "payload_sha256": entry.payload_sha256.hex(),
            "leaf_index": number - 1,
            "tree_size": len(evidence.rows),
            "inclusion_proof": [_b64(one) for one in proof],
            "checkpoint": evidence.checkpoint.decode(errors="replace"),
            "receipt": None if receipt is None else _b64(receipt),
        }
    )


def compare(ledger: Path, other: Path, console: Console) -> bool:
    """Name every disagreement between a ledger and what the hub says that it received, or another view of it."""
    evidence = open_evidence(ledger)
    if other.suffix == ".jsonl":
        return _compare_receipts(evidence, other, console)
    problems = list(compare_views(evidence, open_evidence(other)))
    for problem in problems:
        console.print(f"  {problem}", style="red", markup=False, highlight=False)
    console.print("they are one history" if not problems else "CONTRADICTED", style="bold")
    return not problems


def _compare_receipts(evidence: Evidence, hub_receipts: Path, console: Console) -> bool:
    said = {row.hash: entry for row in evidence.rows if (entry := parse_entry(row.entry)) and entry.kind in LEFT}
    kept = read_receipts(hub_receipts)
    problems = []
    received = set()
    for receipt in kept:
        body = receipt.body
        received.add(body.ledger_hash)
        where = f"hub's receipt {body.sequence} ({body.task_id[:12]})"
        entry = said.get(body.ledger_hash)
        if entry is None:
            problems.append(f"{where}: the ledger has no such entry")
        elif entry.payload_sha256 != body.payload_sha256 or entry.task_id != body.task_id:
            problems.append(f"{where}: entry {entry.sequence} is of another payload or task")
    for hashed, entry in said.items():
        if hashed not in received:
            problems.append(f"entry {entry.sequence} ({entry.task_id[:12]}): the hub has no receipt for it")
    console.print(f"{len(said)} entries that left, {len(kept)} receipts at the hub", highlight=False)
    for problem in problems:
        console.print(f"  {problem}", style="red", markup=False, highlight=False)
    console.print("they agree" if not problems else f"{len(problems)} disagreements", style="bold")
    return not problems


_NOTES: dict[int, Any] = {
    EntryKind.OPENED: ledger_pb2.Opening,
    EntryKind.ROUTE: ledger_pb2.RouteCount,
    EntryKind.ERASED: ledger_pb2.Erasure,
}


def _entry(evidence: Evidence, number: int) -> ledger_pb2.LedgerEntry:
    if not 1 <= number <= len(evidence.rows):
        raise LedgerError(f"there is no entry {number}: this ledger has {len(evidence.rows)}")
    entry = parse_entry(evidence.rows[number - 1].entry)
    if entry is None:
        raise LedgerError(f"entry {number} cannot be read", "fedsparse audit verify says more")
    return entry


def _facts(entry: ledger_pb2.LedgerEntry) -> Iterable[tuple[str, str]]:
    yield "entry", str(entry.sequence)
    yield "kind", EntryKind(entry.kind).name
    yield "time (UTC)", datetime.fromtimestamp(entry.time_unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    if entry.peer:
        yield "to", entry.peer
    if entry.task_id:
        yield "task", entry.task_id
        yield "round, version", f"{entry.round}, {entry.version}"
    if entry.samples:
        yield "samples", str(entry.samples)
    if entry.reason:
        yield "reason", Reason(entry.reason).name
    if entry.rule:
        yield "refused by", entry.rule
    yield "payload", f"{entry.payload_bytes} bytes, SHA-256 {entry.payload_sha256.hex()}"
    if entry.policy_sha256:
        yield "policy", entry.policy_sha256.hex()


def _control(counted: ledger_pb2.RouteCount) -> str:
    try:
        return control_sentence(ControlCount.from_proto(counted)).en
    except LedgerError as error:
        return f"its count of control calls {error}"


def _told(name: str, value: object) -> str:
    """Return a field of a note as people read it."""
    if name == "certificate" and isinstance(value, bytes):
        leaf = read_der_chain(value, "the plant's certificate")[0]
        return f"{identity_of(leaf).uri}, until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return value.hex() if isinstance(value, bytes) else str(value)


def _show_update(payload: bytes, evidence: Evidence, console: Console) -> None:
    update = decode_update(payload, max_bytes=_UNLIMITED)
    for name, value in update.metrics.items():
        console.print(f"{'metric':16} {name} = {value!r}", markup=False, highlight=False)
    if not update.delta:
        return
    space = evidence.spaces.get(header_of(update.delta).space)
    if space is None:
        raise LedgerError("the adapter space of this delta is not in the evidence")
    delta = decode(update.delta, space, max_bytes=_UNLIMITED)
    console.print(f"{'delta':16} {len(update.delta)} bytes, {delta.nnz} of {space.size} values", highlight=False)
    console.print(_tensors(delta, space))


def _tensors(delta: SparseDelta, space: AdapterSpace) -> Table:
    table = Table("tensor", "values", "of", "smallest", "largest", "L2", "distribution", box=None)
    for tensor in delta.tensors[:_SHOWN_TENSORS]:
        spec, values = space.tensors[tensor.tensor], tensor.values
        norm = float(np.linalg.norm(values.astype(np.float64)))
        table.add_row(
            escape(spec.name),
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


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
