"""The exact bytes that left, by their digest, outside the tree: they can be deleted and its proofs still hold."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsparse.errors import LedgerError
from fedsparse.files import sync_folder, write_atomic

KEY_BYTES = 32
_NONCE_BYTES = 12
_PRIVATE = 0o600


class Payloads:
    """A folder of files named by the SHA-256 of what they hold.

    Args:
        folder: exists already.
        key: 32 bytes; files are sealed with AES-256-GCM (NIST SP 800-38D), under a random nonce that comes first,
            and with the digest as associated data. None keeps them as they are.
    """

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        self._folder = folder
        self._cipher = None if key is None else AESGCM(key)

    def put(self, data: bytes) -> bytes:
        """Keep ``data``, synced to disk, and return its digest.

        Raises:
            LedgerError: it could not be written.
        """
        digest = sha256(data).digest()
        path = self._path(digest)
        stored = data
        if self._cipher is not None:
            nonce = os.urandom(_NONCE_BYTES)
            stored = nonce + self._cipher.encrypt(nonce, data, digest)
        try:
            write_atomic(path, stored, _PRIVATE)
        except OSError as error:
            raise LedgerError(f"the ledger cannot keep {path.name[:16]}: {error}") from error
        return digest

    def get(self, digest: bytes) -> bytes:
        """Return the bytes kept under ``digest``.

        Raises:
            LedgerError: there are none, or other ones; the message ends the sentence "its payload ...".
        """
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            raise LedgerError("is gone") from None
        if self._cipher is not None:
            try:
                data = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], digest)
            except (InvalidTag, ValueError):
                raise LedgerError("was altered, or sealed under another key") from None
        return check_digest(data, digest)

    def has(self, digest: bytes) -> bool:
        """Tell whether something is kept under ``digest``."""
        return self._path(digest).exists()

    def remove(self, digest: bytes) -> None:
        """Delete what is kept under ``digest``, if it is still there.

        Raises:
            LedgerError: it could not be deleted.
        """
        try:
            self._path(digest).unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise LedgerError(f"the payload {digest.hex()[:16]} cannot be deleted: {error}") from error

    def sweep(self) -> None:
        """Delete what a write that was cut off has left: no entry names it, and it may be part of a payload.

        Raises:
            LedgerError: something could not be deleted.
        """
        try:
            for path in self._folder.glob(".*"):
                path.unlink()
        except OSError as error:
            raise LedgerError(f"scratch files in {self._folder} cannot be deleted: {error}") from error

    def _path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()


def check_digest(data: bytes, digest: bytes) -> bytes:
    """Return ``data`` if this is its digest.

    Raises:
        LedgerError: it is another's.
    """
    if sha256(data).digest() != digest:
        raise LedgerError("was altered")
    return data


def read_payload_key(path: Path) -> bytes:
    """Read a key for payloads: 64 hex digits in a file of mode 0600.

    Raises:
        LedgerError: there is no such key, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise LedgerError(f"others may read the key {path}", f"Run chmod 600 {path}")
        key = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise LedgerError(f"the key {path} cannot be used: {error}") from None
    if len(key) != KEY_BYTES:
        raise LedgerError(f"the key {path} has {len(key)} bytes, {KEY_BYTES} are needed", "openssl rand -hex 32")
    return key
