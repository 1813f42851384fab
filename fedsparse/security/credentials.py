"""A certificate with its key and the CA, checked on this machine before anything is dialled or served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsparse.errors import CertificateError
from fedsparse.security.identity import Identity, Role, identity_of

UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm)  # what hostile bytes raise
_USAGE = {Role.HUB: ExtendedKeyUsageOID.SERVER_AUTH, Role.PLANT: ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Credentials:
    """What a hub or plant shows, and whom it trusts; PEM.

    Attributes:
        authority: the federation's CA certificate.
    """

    certificate: bytes
    key: bytes
    authority: bytes
    identity: Identity

    def __repr__(self) -> str:
        """Name the identity and never the key."""
        return f"Credentials({self.identity.uri})"


def load_credentials(certificate: Path, key: Path, authority: Path, role: Role) -> Credentials:
    """Read and check the three files.

    Raises:
        CertificateError: says which file is wrong, how, and what to do.
    """
    pem, key_pem, authority_pem = (
        _read(path, what)
        for path, what in ((certificate, "certificate"), (key, "private key"), (authority, "CA certificate"))
    )
    if key.stat().st_mode & 0o077:
        raise CertificateError(
            f"the private key {key} can be read by others (mode {key.stat().st_mode & 0o777:04o})",
            f"Run: chmod 600 {key}",
        )
    leaf = _parse(pem, certificate)
    _check_key(leaf, key_pem, certificate, key)
    identity = check_certificate(leaf, _parse(authority_pem, authority), role, str(certificate))
    return Credentials(pem, key_pem, authority_pem, identity)


def check_certificate(
    leaf: x509.Certificate, authority: x509.Certificate, role: Role, name: str, at: datetime | None = None
) -> Identity:
    """Return whom ``leaf`` speaks for, once dates, issuer, use and role are right.

    Args:
        at: when both certificates must be valid; now, if not given.

    Raises:
        CertificateError: names the check that failed.
    """
    now = at or datetime.now(UTC)
    for certificate, what in ((leaf, name), (authority, "the CA certificate")):
        if now < certificate.not_valid_before_utc:
            start = certificate.not_valid_before_utc
            raise CertificateError(f"{what} is valid only from {start:%Y-%m-%d %H:%M} UTC", "Check the clock")
        if now > certificate.not_valid_after_utc:
            end = certificate.not_valid_after_utc
            raise CertificateError(f"{what} expired on {end:%Y-%m-%d %H:%M} UTC", "Issue a new one")
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, *UNREADABLE):
        raise CertificateError(
            f"{name} was not issued by the given CA", "Use the certificate and ca.pem of the same federation"
        ) from None
    identity = identity_of(leaf)
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    if identity.role is not role or _USAGE[role] not in usage:
        raise CertificateError(f"{name} is a {identity.role.value}'s certificate, a {role.value}'s is needed")
    return identity


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"cannot read the {what} {path}: {error.strerror}", "Issue one with `fedsparse pki issue`"
        ) from None


def _parse(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE:
        raise CertificateError(f"{path} is not a PEM certificate") from None


def _check_key(leaf: x509.Certificate, pem: bytes, certificate: Path, path: Path) -> None:
    try:
        key = load_pem_private_key(pem, None)
    except UNREADABLE:
        raise CertificateError(f"{path} is not an unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path} is not an elliptic-curve key")
    if key.public_key() != leaf.public_key():
        raise CertificateError(f"the key {path} does not belong to the certificate {certificate}")
