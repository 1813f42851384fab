"""Ed25519 keys of logs and witnesses, and the statement by which a certificate's holder makes one its own."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedsparse.errors import LedgerError
from fedsparse.files import write_atomic

_OTHERS = 0o077
_PRIVATE = 0o600


def load_key(path: Path, *, create: bool) -> Ed25519PrivateKey:
    """Read the key at ``path``, mode 0600; make it first where it is missing and ``create`` says so.

    Raises:
        LedgerError: it is missing, no such key, or others may read it.
    """
    try:
        if create and not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_atomic(path, pem, _PRIVATE)
        if path.stat().st_mode & _OTHERS:
            raise LedgerError(f"others may read the key {path}", f"Run chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LedgerError(
            f"the key {path} cannot be used: {error}", "Restore it from a backup; the log goes on with no other"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(f"the key {path} is not an Ed25519 key", "Restore it from a backup")
    return key


def origin_of(plant: str, public: bytes) -> str:
    """Return the name of a plant's ledger: another key is another ledger."""
    return f"fedsparse/{plant}/{sha256(public).hexdigest()[:16]}"


def statement(origin: str, public: bytes) -> bytes:
    """Return what the key of a plant's certificate signs to say that this ledger is its own."""
    return f"fedsparse ledger key 1\n{origin}\n{public.hex()}\n".encode()
