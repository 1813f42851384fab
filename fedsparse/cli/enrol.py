"""`enroll` and `adopt`, for plants and hubs alike: keys are made, and stay, where they are used."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fedsparse.security import (
    Identity,
    Role,
    adopt_certificate,
    fingerprint,
    read_passphrase,
    read_request,
    request_certificate,
)


def run_enroll(
    role: Role,
    name: str,
    folder: Path,
    hosts: tuple[str, ...],
    passphrase_file: Path | None,
    *,
    again: bool,
    console: Console,
) -> None:
    """Make a key and a request for its certificate, and say what comes next."""
    path = request_certificate(Identity(role, name), folder, hosts, read_passphrase(passphrase_file), again=again)
    told = fingerprint(read_request(path).public_key())  # type: ignore[arg-type] # elliptic-curve, just made
    command = "server" if role is Role.HUB else "client"
    console.print(
        f"created {path}: send it to whoever runs the CA, who says\n"
        f"            fedsparse pki sign {role.value} {name} {path.name} --ca pki --out signed\n"
        f"        {folder / f'{name}.next.key'}: the key; it never leaves this machine\n"
        f"read out when they ask for the fingerprint: {told}\n"
        f"when {name}.pem and ca.pem are back:\n"
        f"            fedsparse {command} adopt {name} {name}.pem --ca ca.pem --identity {folder}",
        highlight=False,
        soft_wrap=True,
    )


def run_adopt(
    role: Role,
    name: str,
    certificate: Path,
    authority: Path,
    folder: Path,
    passphrase_file: Path | None,
    console: Console,
) -> None:
    """Put a signed certificate into use; a process that runs takes it up within seconds."""
    passphrase = read_passphrase(passphrase_file)
    adopt_certificate(certificate, authority, Identity(role, name), folder, passphrase)
    console.print(
        f"{folder / f'{name}.pem'} and {name}.key are in use from now on; what runs takes them up by itself",
        highlight=False,
        soft_wrap=True,
    )
