"""The federation's own certificate authority (X.509, RFC 5280), small enough to read."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsparse.errors import CertificateError
from fedsparse.security.credentials import UNREADABLE
from fedsparse.security.identity import Identity, Role

_AUTHORITY_LIFE = timedelta(days=365)
_LEAF_LIFE = timedelta(days=90)
_CLOCK_SKEW = timedelta(minutes=5)
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Authority:
    """A CA certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create_authority(folder: Path, name: str) -> Authority:
    """Create ``ca.pem`` and ``ca.key`` (mode 0600) in ``folder``.

    Raises:
        CertificateError: the folder already holds an authority, or cannot be written.
    """
    if (folder / "ca.key").exists():
        raise CertificateError(f"{folder} already holds a certificate authority", "Name another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedsparse CA {name}")])
    certificate = (
        _builder(subject, subject, key.public_key(), _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder, "ca", key, {"ca.pem": certificate})
    return Authority(certificate, key)


def load_authority(folder: Path) -> Authority:
    """Read what :func:`create_authority` wrote.

    Raises:
        CertificateError: it is absent or unreadable, or its key is another certificate's.
    """
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, *UNREADABLE) as error:
        raise CertificateError(
            f"{folder} holds no certificate authority: {error}", "Create one with `fedsparse pki init`"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / 'ca.key'} is not an elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"the key {folder / 'ca.key'} does not belong to {folder / 'ca.pem'}")
    return Authority(certificate, key)


def issue(authority: Authority, identity: Identity, folder: Path, hosts: Iterable[str] = ()) -> None:
    """Create ``NAME.pem``, ``NAME.key`` (mode 0600) and ``ca.pem`` in ``folder``.

    Args:
        hosts: host names and IP addresses at which a hub is dialled.

    Raises:
        CertificateError: a host is no host name, the name is the CA's own, or the folder cannot be written.
    """
    if identity.name == "ca":
        raise CertificateError("the name 'ca' is the CA's own: its files would be overwritten", "Use another name")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)])
    usage = {Role.HUB: ExtendedKeyUsageOID.SERVER_AUTH, Role.PLANT: ExtendedKeyUsageOID.CLIENT_AUTH}
    names = [x509.UniformResourceIdentifier(identity.uri), *map(_host, hosts)]
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage[identity.role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    _write(folder, identity.name, key, {f"{identity.name}.pem": certificate, "ca.pem": authority.certificate})


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise CertificateError(
                f"{host!r} is no host name or IP address", "Name it without scheme and port, e.g. hub.example"
            ) from None
        return x509.DNSName(host)


def _write(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificates: Mapping[str, x509.Certificate]
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_key(folder / f"{name}.key", key)
        for file, certificate in certificates.items():
            (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
