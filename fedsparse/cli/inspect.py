"""`fedsparse audit` and `fedsparse registry`: reading, never writing; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedsparse.audit import read_receipts, verify_evidence
from fedsparse.cli.audit_evidence import open_evidence
from fedsparse.cli.figures import printable
from fedsparse.errors import CertificateError
from fedsparse.registry import Registry

_NAMED_AT_MOST = 10
_NAME_SHOWN = 16


def verify(
    ledger: Path, authority: Path | None, hub_receipts: Path | None, payload_key: Path | None, console: Console
) -> bool:
    """Print a ledger's verdict; return whether it verifies."""
    pem = None
    if authority is not None:
        try:
            pem = authority.read_bytes()
        except OSError as error:
            raise CertificateError(f"cannot read the CA certificate {authority}: {error.strerror}") from None
    kept = None if hub_receipts is None else read_receipts(hub_receipts)
    verdict = verify_evidence(open_evidence(ledger, payload_key), pem, kept)
    console.print(
        f"{verdict.entries} entries: {verdict.updates} updates left, {verdict.refusals} were refused, "
        f"{verdict.receipts} receipts filed",
        highlight=False,
    )
    console.print(
        f"the hub has witnessed the first {verdict.witnessed} entries"
        + (f"; {verdict.erased} payloads were deleted, as recorded" if verdict.erased else ""),
        highlight=False,
    )
    if verdict.unfiled:
        console.print(
            f"the hub's receipts {_some(verdict.unfiled)} are not filed here: lost on their way, or for another "
            "ledger of this plant",
            highlight=False,
        )
    if verdict.missing_receipts:
        console.print(
            f"no receipt for {_some(verdict.missing_receipts)}: under way, never delivered, or the hub's word was "
            "lost; the hub's own record tells",
            highlight=False,
        )
    if verdict.left_over:
        names = [printable(name[:_NAME_SHOWN]) for name in verdict.left_over]
        console.print(
            f"{_some(names)} in payloads/ belong to no entry: one may be of an entry being written; what a "
            "crash left, the gateway deletes when it starts; what stays then is of entries that are gone (was an "
            "older ledger.db put back?), or is yours to delete",
            style="yellow",
            markup=False,
            highlight=False,
        )
    if pem is None:
        console.print("signatures of receipts not checked: name the federation's CA certificate with --ca")
    if hub_receipts is None:
        console.print("not compared with the hub's record, which alone shows missing entries: --hub-receipts")
    for problem in verdict.problems:
        console.print(f"  {printable(problem)}", style="red", markup=False, highlight=False)
    console.print("verified" if verdict.verified else "CONTRADICTED", style="bold")
    return verdict.verified


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
