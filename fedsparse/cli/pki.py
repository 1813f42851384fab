"""`fedsparse pki`: the federation's certificate authority, on a machine of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedsparse.security import Authority, Identity, Role

pki = typer.Typer(
    no_args_is_help=True,
    help="Certificates for hub and plants. Run it on a machine that is neither: whoever has the CA's keys can let "
    "plants in.",
)

AuthorityOption = Annotated[Path, typer.Option("--ca", help="Folder of the CA.")]
OutOption = Annotated[Path, typer.Option(help="Folder for NAME.pem and ca.pem.")]
RoleArgument = Annotated[str, typer.Argument(help="hub or plant.")]
NameArgument = Annotated[str, typer.Argument(help="Name, e.g. kiso.")]
HostOption = Annotated[
    list[str] | None, typer.Option("--host", help="Host name or IP address of the hub; may be repeated.")
]
DaysOption = Annotated[int, typer.Option(min=1, max=825, help="Life of the certificate.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File (mode 0600) with the passphrase of the CA's keys."),
]


@pki.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for the CA.")],
    name: Annotated[str, typer.Option(help="Name of the federation.")] = "fedsparse",
    passphrase_file: PassphraseOption = None,
) -> None:
    """Create a certificate authority: a root, whose key goes offline, and an issuing CA for daily use."""
    from fedsparse.security import create_authority, read_passphrase, revoke

    revoke(create_authority(folder, name, read_passphrase(passphrase_file)))
    typer.echo(
        f"created {folder / 'ca.pem'}: give it to hub, plants and auditors\n"
        f"        {folder / 'ca.key'}: the root's key. Move it to a safe, offline; only `pki rotate` needs it\n"
        f"        {folder / 'issuing.pem'}, issuing.key: for `pki sign`, `pki issue` and `pki revoke`\n"
        f"        {folder / 'crl.pem'}: who is revoked, so far nobody. Give it to the hub"
    )


@pki.command("sign")
def sign(
    role: RoleArgument,
    name: NameArgument,
    request: Annotated[Path, typer.Argument(help="NAME.csr, from `fedsparse client enroll` or `server enroll`.")],
    authority: AuthorityOption,
    out: OutOption,
    host: HostOption = None,
    days: DaysOption = 90,
    passphrase_file: PassphraseOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; the fingerprint was compared before.")] = False,
) -> None:
    """Sign a request that was made where the key stays.

    Compare the fingerprint with the one that is read out to you from there: the request may have been swapped.
    """
    from fedsparse.security import fingerprint, read_request, sign_request
    from fedsparse.security.enrolment import requested_names

    identity, hosts = _identity(role, name), tuple(host or ())
    asked = read_request(request)
    told, named = fingerprint(asked.public_key()), requested_names(asked)  # type: ignore[arg-type] # checked
    typer.echo(f"the request is for {named[0] or 'nobody'}, of the key\n    {told}")
    if identity.role.value == "hub":
        typer.echo(f"at the hosts {', '.join(hosts or named[1])}")
    if not yes and not typer.confirm("Is that the fingerprint that was read out to you?"):
        raise typer.Exit(1)
    with _alone(authority):
        loaded = _load(authority, passphrase_file)
        sign_request(loaded, identity, request, out, hosts, life=timedelta(days=days))
    typer.echo(f"created {out / name}.pem and {out / 'ca.pem'}: send both back")


@pki.command("issue")
def issue(
    role: RoleArgument,
    name: NameArgument,
    authority: AuthorityOption,
    out: OutOption,
    host: HostOption = None,
    days: DaysOption = 90,
    passphrase_file: PassphraseOption = None,
    key_passphrase_file: Annotated[
        Path | None, typer.Option(help="File (mode 0600) with the passphrase that the new key is encrypted under.")
    ] = None,
) -> None:
    """Make key and certificate in one go. The key has to travel: `enroll` and `sign` spare you that."""
    from fedsparse.security import issue as issue_certificate
    from fedsparse.security import read_passphrase
    from fedsparse.security.issuing import require_hosts

    identity, hosts = _identity(role, name), tuple(host or ())
    require_hosts(identity, hosts)
    with _alone(authority):
        loaded, secret = _load(authority, passphrase_file), read_passphrase(key_passphrase_file)
        issue_certificate(loaded, identity, out, hosts, life=timedelta(days=days), passphrase=secret)
    typer.echo(f"created {out / name}.pem and {out / name}.key")


@pki.command("revoke")
def revoke(
    names: Annotated[list[str], typer.Argument(help="Names, or serial numbers; by name all certificates count.")],
    authority: AuthorityOption,
    role: Annotated[
        str | None, typer.Option(help="hub or plant; needed only where a hub and a plant have the same name.")
    ] = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Revoke certificates: write CA/crl.pem anew. A hub that reads it ends the plant's streams within seconds."""
    from fedsparse.security import revoke as revoke_certificates

    meant = None if role is None else _role(role)
    with _alone(authority):
        new = revoke_certificates(_load(authority, passphrase_file), names, role=meant)
    typer.echo(f"revoked {', '.join(new) if new else 'nothing that was not revoked before'}")
    typer.echo(f"now copy {authority / 'crl.pem'} over the file that hub.identity.revoked names")


@pki.command("refresh")
def refresh(authority: AuthorityOption, passphrase_file: PassphraseOption = None) -> None:
    """Write CA/crl.pem anew with the same content: it is good for 30 days."""
    from fedsparse.security import revoke as revoke_certificates

    with _alone(authority):
        revoke_certificates(_load(authority, passphrase_file))
    typer.echo(f"renewed {authority / 'crl.pem'}")


@pki.command("list")
def list_issued(authority: AuthorityOption) -> None:
    """List every certificate that was issued, oldest first."""
    from rich.console import Console
    from rich.table import Column, Table

    from fedsparse.security.authority import read_record
    from fedsparse.security.revocation import read_revoked

    revoked = read_revoked(authority / "crl.pem")
    table = Table("name", "role", "expires", Column("serial", no_wrap=True), "")
    for one in read_record(authority):
        state = "revoked" if revoked & {int(one["serial"], 16), int(one["issuer"], 16)} else ""
        table.add_row(one["name"], one["role"], one["expires"], one["serial"], state)
    Console(width=max(120, Console().width), soft_wrap=True).print(table)


@pki.command("rotate")
def rotate(
    authority: AuthorityOption,
    root_key: Annotated[Path, typer.Option(help="The root's key, from where it is kept.")],
    passphrase_file: PassphraseOption = None,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Revoke the old issuing CA, with all that it signed.")
    ] = False,
) -> None:
    """Replace the issuing CA. Nobody else needs to be told: everybody trusts the root."""
    from fedsparse.security import read_passphrase, replace_issuing
    from fedsparse.security import revoke as revoke_certificates
    from fedsparse.security.authority import ROOT_LIFE

    passphrase = read_passphrase(passphrase_file)
    with _alone(authority):
        if (authority / "issuing.key").exists():
            # The old CA's list is its last: its key goes, and what it revoked stays revoked while the root lives.
            revoke_certificates(_load(authority, passphrase_file), life=ROOT_LIFE)
        revoke_certificates(replace_issuing(authority, root_key, passphrase, compromised=compromised))
    typer.echo(f"{authority / 'issuing.pem'} is new; certificates of the old one are {_fate(compromised)}")


def _fate(compromised: bool) -> str:
    return "revoked: copy crl.pem to the hub, and enrol everybody anew" if compromised else "still valid"


@contextmanager
def _alone(authority: Path) -> Iterator[None]:
    """Let no other command change the CA meanwhile: a revocation could be lost."""
    from fedsparse.errors import CertificateError
    from fedsparse.files import hold

    if not authority.is_dir():
        raise CertificateError(
            f"{authority} holds no certificate authority", "Create one with `fedsparse pki init`"
        )
    with hold(authority / "lock", "`fedsparse pki` command"):
        yield


def _load(folder: Path, passphrase_file: Path | None) -> Authority:
    from fedsparse.security import load_authority, read_passphrase

    return load_authority(folder, read_passphrase(passphrase_file))


def _identity(role: str, name: str) -> Identity:
    from fedsparse.security import Identity

    return Identity(_role(role), name)


def _role(role: str) -> Role:
    from fedsparse.errors import CertificateError
    from fedsparse.security import Role

    try:
        return Role(role)
    except ValueError:
        raise CertificateError(f"no such role: {role!r}", "Use hub or plant") from None
