"""`fedsparse audit` and `fedsparse registry`: reading, never writing; without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsparse.audit import HubRecord, Verdict, read_record, verify_evidence
from fedsparse.audit.conservation import Finding
from fedsparse.audit.report.words import plural, when
from fedsparse.cli.audit_evidence import open_evidence, say
from fedsparse.cli.authority import read_authority
from fedsparse.registry import Registry

_NAMED_AT_MOST = 10
_NAME_SHOWN = 16
_EMPTY = "the ledger has no entries"
_UNCHECKED = (
    "the ledger fits together and is signed by its own key, but whose it is, and who signed its receipts, was not "
    "checked: name the federation's CA certificate with --ca"
)


def verify(
    ledger: Path, authority: Path | None, hub_receipts: Path | None, payload_key: Path | None, console: Console
) -> Finding:
    """Print a ledger's verdict, and return it; without the CA's certificate nobody can tell whose ledger it is."""
    pem = None if authority is None else read_authority(authority)
    record = None if hub_receipts is None else read_record(hub_receipts)
    verdict = verify_evidence(open_evidence(ledger, payload_key), pem, None if record is None else record.receipts)
    say(
        console,
        f"{plural(verdict.entries, 'entry')}: {plural(verdict.updates, 'update')} left, "
        f"{verdict.refusals:,} refused, {plural(verdict.receipts, 'receipt')} filed",
    )
    say(console, _witnessed(verdict, checked=pem is not None))
    for line in _compared(verdict, record):
        say(console, line)
    if verdict.left_over:
        names = [name[:_NAME_SHOWN] for name in verdict.left_over]
        say(
            console,
            f"{_some(names)} in payloads/ belong to no entry: one may be of an entry being written; what a "
            "crash left, the gateway deletes when it starts; what stays then is of entries that are gone (was an "
            "older ledger.db put back?), or is yours to delete",
            "yellow",
        )
    for problem in verdict.problems:
        say(console, f"  {problem}", "red")
    return _verdict(verdict, console, checked=pem is not None)


def _witnessed(verdict: Verdict, *, checked: bool) -> str:
    first = plural(verdict.witnessed, "entry")
    told = f"the hub has witnessed the first {first}"
    if not verdict.witnessed:
        told = "no receipt shows that the hub has witnessed any of it"
    elif not checked:
        told = f"receipts name the first {first} as witnessed by the hub, which was not checked"
    if verdict.erased:
        told += f"; {plural(verdict.erased, 'payload')} deleted, as recorded"
    return told


def _compared(verdict: Verdict, record: HubRecord | None) -> Iterator[str]:
    """Yield how far receipts reach, filed ones and those of the hub's record: either may have been cut short."""
    if verdict.unfiled:
        yield (
            f"the hub's receipts {_some(verdict.unfiled)} are not filed here: lost on their way, or for another "
            "ledger of this plant"
        )
    missing = verdict.missing_receipts
    if record is None:
        if missing:
            yield (
                f"no receipt for {_some(missing)}: under way, never delivered, or the hub's word was lost; the "
                "hub's own record tells"
            )
        yield "not compared with the hub's record, which alone shows missing entries: --hub-receipts"
        return
    yield f"compared with the hub's record, which has {_reach(record)}"
    if record.cut:
        yield "the last line of the hub's record is cut short, and was left out"
    if kept := sorted(set(missing) - set(verdict.unconfirmed)):
        yield f"no receipt is filed for {_some(kept)}, but the hub's record has them"
    if nowhere := sorted(set(missing) & set(verdict.unconfirmed)):
        yield f"no receipt for {_some(nowhere)}, filed or in the hub's record: under way, or never delivered"


def _reach(record: HubRecord) -> str:
    if not record.receipts:
        return "no receipts"
    number, last = plural(len(record.receipts), "receipt"), record.receipts[-1].body
    size = plural(last.checkpoint_size, "entry")
    return f"{number}, the last of {when(last.received_unix_ms)}, when the ledger had {size}"


def _verdict(verdict: Verdict, console: Console, *, checked: bool) -> Finding:
    if verdict.problems:
        say(console, "CONTRADICTED", "bold")
        return Finding.CONTRADICTED
    if not checked or not verdict.entries:
        say(console, f"CANNOT TELL: {_UNCHECKED if verdict.entries else _EMPTY}", "bold")
        return Finding.UNKNOWN
    say(console, "verified", "bold")
    return Finding.VERIFIED


def _some(numbers: Sequence[int | str]) -> str:
    more = ", …" if len(numbers) > _NAMED_AT_MOST else ""
    return ", ".join(map(str, numbers[:_NAMED_AT_MOST])) + more


def list_versions(folder: Path, console: Console) -> None:
    """Print one line per adapter version."""
    table = Table("version", "round", "committed (UTC)", "rule", "updates", "balanced accuracy", box=None)
    for version in Registry.open(folder).versions():
        quality = version.metrics.get("balanced_accuracy")
        table.add_row(
            str(version.number),
            str(version.round),
            _when(version.created_unix_ms),
            escape(version.rule),
            str(len(version.contributions)),
            "-" if quality is None else f"{quality:.3f}",
        )
    console.print(table)


def show_version(folder: Path, number: int, console: Console) -> None:
    """Print everything the manifest says, and the tensors behind it."""
    registry = Registry.open(folder)
    version, state = registry.load(number)
    console.print(f"version {version.number}, round {version.round}, {_when(version.created_unix_ms)} UTC")
    console.print(f"parents {', '.join(map(str, version.parents)) or 'none: the untouched base'}")
    console.print(f"base {version.base_fingerprint}")
    console.print(f"space {version.space_fingerprint}")
    console.print(f"state {version.state_sha256} (matches its manifest)")
    for name, value in version.metrics.items():
        console.print(f"{name} {value:.4f}", markup=False)
    for update in version.contributions:
        console.print(f"from {update.samples} samples, {update.nnz} values, update {update.update_sha256}")
    table = Table("tensor", "values", "density", box=None)
    for tensor in state.tensors:
        spec = registry.space.tensors[tensor.tensor]
        table.add_row(escape(spec.name), str(len(tensor.indices)), f"{len(tensor.indices) / spec.size:.2%}")
    console.print(table)


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
