"""Private keys on disk: P-256, PEM (PKCS #8, RFC 5958), for their owner alone, under a passphrase where wanted."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsparse.errors import CertificateError

_MOST_PASSPHRASE = 1023  # OpenSSL's limit
UNREADABLE = (  # what hostile bytes raise
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key."""
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> None:
    """Write ``key`` with mode 0600, in place of what was there.

    Args:
        passphrase: what it is encrypted under; none: only its mode protects it.

    Raises:
        OSError: it cannot be written.
    """
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)


def read_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a key that nobody else can read.

    Raises:
        CertificateError: it is absent, readable by others, under another passphrase, or no elliptic-curve key.
    """
    pem = _read_private(path, "private key", "Make one with `fedsparse client enroll` or `fedsparse pki issue`")
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except UNREADABLE as error:
        if b"ENCRYPTED" in pem:
            wrong = "is not the one it is encrypted under" if passphrase else "is needed, and none is given"
            raise CertificateError(
                f"the private key {path} cannot be opened: its passphrase {wrong}",
                "Name the file that holds it: identity.passphrase_file in the settings, or --passphrase-file",
            ) from None
        if passphrase and isinstance(error, TypeError):
            raise CertificateError(
                f"the private key {path} is not encrypted, but a passphrase is given", "Leave the passphrase out"
            ) from None
        raise CertificateError(f"{path} is not a PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path} is not an elliptic-curve key")
    return key


def read_passphrase(path: Path | None) -> bytes | None:
    """Read the passphrase in a file that nobody else can read; the end of its last line does not belong to it.

    Raises:
        CertificateError: it is absent, readable by others, or empty.
    """
    if path is None:
        return None
    passphrase = _read_private(path, "passphrase file", "Create it, or leave it out").rstrip(b"\r\n")
    if not 0 < len(passphrase) <= _MOST_PASSPHRASE:
        raise CertificateError(
            f"the passphrase in {path} has {len(passphrase)} bytes",
            f"Write one of 1 to {_MOST_PASSPHRASE} into it",
        )
    return passphrase


def _read_private(path: Path, what: str, remedy: str) -> bytes:
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read the {what} {path}: {error.strerror}", remedy) from None
    if mode & 0o077:
        raise CertificateError(
            f"the {what} {path} can be read by others (mode {mode:04o})", f"Run: chmod 600 {path}"
        )
    return data
