"""The one command, `fedsparse`; only here do errors become exits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedsparse import __version__
from fedsparse.errors import FedsparseError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated, on-prem fine-tuning: plants train sparse adapters on data that never leaves them.",
)
server = typer.Typer(no_args_is_help=True, help="The operator's side: hub, strategy, registry.")
client = typer.Typer(no_args_is_help=True, help="The plant's side: gateway, trainer, Flower node.")
audit = typer.Typer(no_args_is_help=True, help="What left a site, and whether its record still holds.")
registry = typer.Typer(no_args_is_help=True, help="Adapter versions.")
pki = typer.Typer(no_args_is_help=True, help="Certificates for hub and plants.")
for name, group in (
    ("server", server),
    ("client", client),
    ("audit", audit),
    ("registry", registry),
    ("pki", pki),
):
    app.add_typer(group, name=name)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Settings file (TOML).")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"fedsparse {__version__}")
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything of the run is written.")] = Path("runs/demo"),
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of the federation.")] = 8,
    alone: Annotated[
        bool, typer.Option(help="Also train each plant alone with the same budget, to compare.")
    ] = True,
) -> None:
    """Run a whole federation on this machine: three plants, one hub, real images of solar cells.

    Writes FOLDER/summary.json and FOLDER/summary.html. Ctrl-C stops every process that was started.
    """
    from fedsparse.cli.demo import run_demo

    run_demo(folder, rounds, alone=alone, console=Console())


@server.command("up")
def server_up(config: ConfigOption = Path("federation.toml")) -> None:
    """Start the hub and run the federation's rounds, from the registry's last version on."""
    from fedsparse.cli.up import run_server

    run_server(config, Console())


@client.command("up")
def client_up(config: ConfigOption = Path("site.toml")) -> None:
    """Start this plant: dial the hub, load base model and data, train whenever asked. Ctrl-C stops it."""
    from fedsparse.cli.up import run_client

    run_client(config, Console())


@audit.command("verify")
def audit_verify(
    ledger: Annotated[Path, typer.Argument(help="A plant's ledger folder.")],
    authority: Annotated[
        Path | None, typer.Option("--ca", help="The federation's CA certificate, to check receipts.")
    ] = None,
    hub_receipts: Annotated[
        Path | None,
        typer.Option(help="The hub's own record of this plant, state/receipts/NAME.jsonl: shows missing entries."),
    ] = None,
) -> None:
    """Check a ledger: chain, payloads, what the entries say of them, and the hub's receipts."""
    from fedsparse.cli.inspect import verify

    if not verify(ledger, authority, hub_receipts, Console()):
        raise typer.Exit(1)


@registry.command("list")
def registry_list(
    folder: Annotated[Path, typer.Argument(help="A registry folder, e.g. state/registry.")],
) -> None:
    """List adapter versions with their round, rule and quality."""
    from fedsparse.cli.inspect import list_versions

    list_versions(folder, Console())


@registry.command("show")
def registry_show(
    folder: Annotated[Path, typer.Argument(help="A registry folder.")],
    version: Annotated[int, typer.Argument(min=1, help="Version number.")],
) -> None:
    """Show one adapter version: lineage, contributions, metrics, and its tensors."""
    from fedsparse.cli.inspect import show_version

    show_version(folder, version, Console())


@pki.command("init")
def pki_init(
    folder: Annotated[Path, typer.Argument(help="New folder for the CA; keep it off the hub.")],
    name: Annotated[str, typer.Option(help="Name of the federation.")] = "fedsparse",
) -> None:
    """Create a certificate authority for one federation."""
    from fedsparse.security import create_authority

    create_authority(folder, name)
    typer.echo(f"created {folder / 'ca.pem'} (share it) and {folder / 'ca.key'} (never share it)")


@pki.command("issue")
def pki_issue(
    role: Annotated[str, typer.Argument(help="hub or plant.")],
    name: Annotated[str, typer.Argument(help="Name, e.g. kiso.")],
    authority: Annotated[Path, typer.Option("--ca", help="Folder of the CA.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.pem, NAME.key and ca.pem.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Host name or IP address of the hub; may be repeated.")
    ] = None,
) -> None:
    """Issue a certificate and key for the hub or for one plant."""
    from fedsparse.errors import CertificateError
    from fedsparse.security import Identity, Role, issue, load_authority

    try:
        identity = Identity(Role(role), name)
    except ValueError:
        raise CertificateError(f"no such role: {role!r}", "Use hub or plant") from None
    if identity.role is Role.HUB and not host:
        raise CertificateError(
            "a hub's certificate needs the names at which plants dial it", "Add --host, e.g. --host hub.example"
        )
    issue(load_authority(authority), identity, out, hosts=tuple(host or ()))
    typer.echo(f"created {out / name}.pem and {out / name}.key")


def main() -> None:
    """Entry point of the `fedsparse` command."""
    try:
        app(prog_name="fedsparse")  # exits by itself: 0, 2 on wrong usage, 130 on Ctrl-C, or what a command says
    except FedsparseError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
