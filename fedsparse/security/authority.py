"""The federation's own certificate authority (X.509, RFC 5280), small enough to read.

A root, whose key can lie offline in a safe, vouches for an issuing CA; that one signs plants and hubs, and the
list of those that are revoked. Everybody trusts the root, so that the issuing CA can be replaced in silence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fedsparse.errors import CertificateError
from fedsparse.files import write_atomic
from fedsparse.security.keys import UNREADABLE, new_key, read_key, write_key

ROOT, ISSUING, LIST, RECORD = "ca", "issuing", "crl.pem", "issued.jsonl"
ROOT_LIFE = timedelta(days=3650)
ISSUING_LIFE = timedelta(days=730)
_MOST_NAME = 50  # a certificate's common name has at most 64
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Authority:
    """An issuing CA with its private key, in its folder.

    Attributes:
        folder: ``ca.pem`` and, unless it lies elsewhere, ``ca.key`` are the root's; ``issuing.pem`` and
            ``issuing.key`` the issuing CA's; ``issued.jsonl`` says what it signed, ``crl.pem`` what is revoked.
        certificate: of the issuing CA.
        root: the certificate that everybody trusts.
    """

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    root: x509.Certificate


def read_record(folder: Path) -> list[dict[str, str]]:
    """Return what an authority has signed, oldest first: serial, role, name, expires, issuer (a serial, too).

    Raises:
        CertificateError: there is no authority, or the record is damaged.
    """
    _read_certificate(folder / f"{ROOT}.pem", folder)
    record = folder / RECORD
    try:
        whole = (record.read_text(encoding="utf-8") if record.exists() else "").split("\n")[:-1]
        found = [json.loads(line) for line in whole]  # a last line that a crash cut short was never handed out
        return [{key: str(one[key]) for key in ("serial", "role", "name", "expires", "issuer")} for one in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CertificateError(f"{record} is damaged: {error}", "Restore it from a backup") from None


def create_authority(folder: Path, name: str, passphrase: bytes | None = None) -> Authority:
    """Create root and issuing CA in ``folder``; keys have mode 0600.

    Args:
        passphrase: what both keys are encrypted under.

    Raises:
        CertificateError: the folder already holds an authority, or cannot be written.
    """
    names = (f"{ROOT}.pem", f"{ROOT}.key", f"{ISSUING}.pem", f"{ISSUING}.key", LIST, RECORD)
    if found := [file for file in names if (folder / file).exists()]:
        raise CertificateError(
            f"{folder} already holds a certificate authority ({', '.join(found)})",
            "Name another folder, or remove what an interrupted `pki init` left",
        )
    if not 0 < len(name) <= _MOST_NAME:
        raise CertificateError(f"the name {name[:60]!r} does not have 1 to {_MOST_NAME} characters")
    key = new_key()
    subject = _subject(f"fedsparse CA {name}")
    root = _authority(subject, subject, key.public_key(), ROOT_LIFE, depth=1, issuer=key.public_key()).sign(
        key, hashes.SHA256()
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_key(folder / f"{ROOT}.key", key, passphrase)
        write_atomic(folder / f"{ROOT}.pem", root.public_bytes(Encoding.PEM))
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    return _create_issuing(folder, root, key, passphrase)


def replace_issuing(
    folder: Path, root_key: Path, passphrase: bytes | None = None, *, compromised: bool = False
) -> Authority:
    """Have the root vouch for a new issuing CA; certificates of the old one stay valid, unless it is compromised.

    Args:
        root_key: the root's key, wherever it is kept.
        passphrase: what the root's key is encrypted under, and the new one will be.
        compromised: revoke the old one, and with it everything that it signed.

    Raises:
        CertificateError: there is no authority, or the key is not its root's.
    """
    root = _read_certificate(folder / f"{ROOT}.pem", folder)
    key = read_key(root_key, passphrase)
    if key.public_key() != root.public_key():
        raise CertificateError(f"the key {root_key} does not belong to {folder / f'{ROOT}.pem'}")
    if compromised:
        _revoke_issuing(folder, root, key)
    return _create_issuing(folder, root, key, passphrase)


def _revoke_issuing(folder: Path, root: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    old = _read_certificate(folder / f"{ISSUING}.pem", folder)
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(old.serial_number).revocation_date(now).build()
    signed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now)
        .next_update(now + ROOT_LIFE)
        .add_revoked_certificate(entry)
        .sign(key, hashes.SHA256())
    )
    path = folder / LIST
    write_atomic(path, (path.read_bytes() if path.exists() else b"") + signed.public_bytes(Encoding.PEM))


def _create_issuing(
    folder: Path, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, passphrase: bytes | None
) -> Authority:
    key = new_key()
    apart = x509.random_serial_number()  # from its predecessors: lists are found by the name of who signed them
    subject = _subject(f"{_common_name(root)[:40]} issuing {apart:x}"[:64])
    certificate = _authority(
        subject, root.subject, key.public_key(), ISSUING_LIFE, depth=0, issuer=root_key.public_key()
    ).sign(root_key, hashes.SHA256())
    try:
        write_key(folder / f"{ISSUING}.key", key, passphrase)
        write_atomic(folder / f"{ISSUING}.pem", certificate.public_bytes(Encoding.PEM))
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    return Authority(folder, certificate, key, root)


def load_authority(folder: Path, passphrase: bytes | None = None) -> Authority:
    """Read what :func:`create_authority` wrote; the root's key is not needed.

    Raises:
        CertificateError: it is absent or unreadable, or its key is another certificate's.
    """
    root, certificate = (_read_certificate(folder / f"{name}.pem", folder) for name in (ROOT, ISSUING))
    key = read_key(folder / f"{ISSUING}.key", passphrase)
    if key.public_key() != certificate.public_key():
        raise CertificateError(
            f"the key {folder / f'{ISSUING}.key'} does not belong to {folder / f'{ISSUING}.pem'}"
        )
    return Authority(folder, certificate, key, root)


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    """Return a certificate from now on, with a random serial number, that still lacks extensions and signature."""
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


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what a key may do: sign certificates and lists, or handshakes and receipts."""
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


def _authority(
    subject: x509.Name,
    issuer_name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    life: timedelta,
    *,
    depth: int,
    issuer: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    return (
        builder(subject, issuer_name, key, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _read_certificate(path: Path, folder: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, *UNREADABLE) as error:
        raise CertificateError(
            f"{folder} holds no certificate authority: {error}", "Create one with `fedsparse pki init`"
        ) from None
