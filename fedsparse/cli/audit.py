"""`fedsparse audit`: its commands and what they take; what they do is in the modules beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from fedsparse.cli.audit_policy import policy
from fedsparse.cli.audit_timestamp import timestamp

if TYPE_CHECKING:  # what it needs would be loaded for every command
    from fedsparse.audit.conservation import Finding

_CANNOT_TELL = 3
"""Exit status where a verdict is neither verified nor contradicted; 2 is a usage error's."""

audit = typer.Typer(no_args_is_help=True, help="What left a site, and whether its record still holds.")
audit.add_typer(policy, name="policy")
audit.add_typer(timestamp, name="timestamp")

EvidenceArgument = Annotated[Path, typer.Argument(help="A plant's ledger folder, or an evidence bundle.")]
PayloadKeyOption = Annotated[
    Path | None, typer.Option(help="The key of sealed payloads, site.payload_key; a bundle needs none.")
]
TimestampOption = Annotated[
    list[Path] | None,
    typer.Option("--timestamp", help="An authority's reply to `audit timestamp request`; may be given again."),
]
TsaRootsOption = Annotated[
    Path | None, typer.Option(help="Root certificates of time-stamps' authorities that you trust, PEM.")
]


@audit.command("export")
def _export(
    ledger: Annotated[Path, typer.Argument(help="A plant's ledger folder; its gateway may run meanwhile.")],
    out: Annotated[Path, typer.Argument(help="New file, e.g. kiso-2026-11.evidence.tar.")],
    payload_key: PayloadKeyOption = None,
) -> None:
    """Write a ledger into one file that verifies on any machine, offline."""
    from fedsparse.cli.audit_evidence import export

    export(ledger, out, payload_key, Console())


@audit.command("show")
def _show(
    ledger: EvidenceArgument,
    entry: Annotated[int, typer.Argument(min=1, help="Number of the entry.")],
    payload_key: PayloadKeyOption = None,
) -> None:
    """Show one entry, decoding the exact bytes that left: tensors, distributions, metrics."""
    from fedsparse.cli.audit_show import show

    show(ledger, entry, payload_key, Console())


@audit.command("prove")
def _prove(
    ledger: EvidenceArgument,
    entry: Annotated[int, typer.Argument(min=1, help="Number of the entry.")],
    payload_key: PayloadKeyOption = None,
) -> None:
    """Print the proof (RFC 6962) that one entry is in the ledger, as JSON: for somebody who may see no other.

    With the ledger's key, the plant's certificate, the hub's receipt, if there is one, and how to check it; `audit
    check-proof` does, anywhere. Where the entries do not lead to the checkpoint there is no proof.
    """
    from fedsparse.cli.audit_proof import prove

    prove(ledger, entry, payload_key, Console())


@audit.command("check-proof")
def _check_proof(
    proof: Annotated[Path, typer.Argument(help="What `audit prove` printed.")],
    authority: Annotated[
        Path | None, typer.Option("--ca", help="The federation's CA certificate, to check whose ledger it is.")
    ] = None,
) -> None:
    """Check the proof that an entry is in a plant's ledger, with nothing else of that ledger.

    Ends with 0 where it is proved, 1 where not, 3 without --ca: then it may be anybody's ledger.
    """
    from fedsparse.cli.audit_proof import check

    _end(check(proof, authority, Console()))


@audit.command("compare")
def _compare(
    ledger: EvidenceArgument,
    other: Annotated[
        Path,
        typer.Argument(
            help="The hub's record of this plant, state/receipts/NAME.jsonl; or another view of the ledger."
        ),
    ],
    payload_key: PayloadKeyOption = None,
) -> None:
    """Compare what a plant says it sent with what the hub says it received, or with what it told somebody else.

    Whatever both tell is compared: entries, payloads, tasks, receipts and their numbers, the ledger's name and
    key, roots and sizes of checkpoints. Who signed is not, nor whose ledger it is: for that there is `audit
    verify` with --ca and --hub-receipts.
    """
    from fedsparse.cli.audit_compare import compare

    if not compare(ledger, other, payload_key, Console()):
        raise typer.Exit(1)


@audit.command("verify")
def _verify(
    ledger: EvidenceArgument,
    authority: Annotated[
        Path | None,
        typer.Option("--ca", help="The federation's CA certificate, to check whose ledger it is and who signed."),
    ] = None,
    hub_receipts: Annotated[
        Path | None,
        typer.Option(help="The hub's own record of this plant, state/receipts/NAME.jsonl: shows missing entries."),
    ] = None,
    payload_key: PayloadKeyOption = None,
    timestamps: TimestampOption = None,
    tsa_roots: TsaRootsOption = None,
) -> None:
    """Check a ledger: tree, checkpoint, payloads, what entries say of them, policies, and the hub's receipts.

    Ends with 0 where it is verified, 1 where something contradicts it or could not be read, 3 where nobody can
    tell: without --ca it may be anybody's, and one without entries shows nothing.
    """
    from fedsparse.cli.audit_stamps import Tokens
    from fedsparse.cli.audit_verify import Given, verify_all

    given = Given(ledger, authority, hub_receipts, payload_key, Tokens(timestamps or (), tsa_roots))
    _end(verify_all(given, Console()))


def _end(found: Finding) -> None:
    from fedsparse.audit import conservation

    if found is not conservation.Finding.VERIFIED:
        raise typer.Exit(1 if found is conservation.Finding.CONTRADICTED else _CANNOT_TELL)


CaOption = Annotated[
    Path | None, typer.Option("--ca", help="The federation's CA certificate, to check who signed what.")
]
HubReceiptsOption = Annotated[
    Path | None, typer.Option(help="The hub's own record of this plant, state/receipts/NAME.jsonl.")
]
LangOption = Annotated[Literal["en", "ja"], typer.Option(help="English or Japanese.")]


@audit.command("report")
def _report(
    ledger: EvidenceArgument,
    authority: CaOption = None,
    hub_receipts: HubReceiptsOption = None,
    lang: LangOption = "en",
    out: Annotated[Path, typer.Option(help="The page; one that is there already is replaced.")] = Path(
        "report.html"
    ),
    site_facts: Annotated[
        Path | None, typer.Option(help="TOML file of what only the site can state: controller, purpose, ...")
    ] = None,
    timing_ms: Annotated[
        int | None,
        typer.Option(min=1, help="Bound what the times of sending can tell, to somebody who sees ms apart."),
    ] = None,
    payload_key: PayloadKeyOption = None,
    timestamps: TimestampOption = None,
    tsa_roots: TsaRootsOption = None,
) -> None:
    """Write one page about what left a site: verdict, bits per training image, three-way comparison, policies.

    Ends as `audit verify` does.
    """
    from fedsparse.cli.audit_report import Options, write_report
    from fedsparse.cli.audit_stamps import Tokens

    tokens = Tokens(timestamps or (), tsa_roots)
    options = Options(ledger, authority, hub_receipts, payload_key, site_facts, timing_ms, tokens)
    _end(write_report(options, lang, out, Console()))


@audit.command("explain")
def _explain(
    ledger: EvidenceArgument,
    authority: CaOption = None,
    hub_receipts: HubReceiptsOption = None,
    lang: LangOption = "en",
    payload_key: PayloadKeyOption = None,
) -> None:
    """Say in a dozen sentences what left a site, and what is known about it.

    Ends as `audit verify` does.
    """
    from fedsparse.cli.audit_report import Options, print_explanation

    _end(print_explanation(Options(ledger, authority, hub_receipts, payload_key), lang, Console()))
