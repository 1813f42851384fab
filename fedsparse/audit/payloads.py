"""The exact bytes that left, by their digest, outside the tree: they can be deleted and its proofs still hold."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsparse.errors import LedgerError
from fedsparse.files import read_at_most, sync_folder, write_atomic

KEY_BYTES = 32
_NONCE_BYTES = 12
_PRIVATE = 0o600
_MOST_BYTES = 1 << 32
_MARK = re.compile(r"\.pending-([0-9a-f]{64})")


class Payloads:
    """A folder of files named by the SHA-256 of what they hold.

    A payload is there before the entry that names it. So that no crash leaves one that nobody knows of, an empty
    file ``.pending-SHA256`` is there before the payload, and goes with the next one.

    Args:
        folder: exists already.
        key: 32 bytes; files are sealed with AES-256-GCM (NIST SP 800-38D), under a random nonce that comes first,
            and with the digest as associated data. None keeps them as they are.
    """

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        self._folder = folder
        self._cipher = None if key is None else AESGCM(key)
        self._marks: set[Path] = set()

    def put(self, data: bytes) -> bytes:
        """Keep ``data``, synced to disk, and return its digest.

        By now an entry names the last one that was put, or :meth:`recover` has been called since.

        Raises:
            LedgerError: it could not be written; part of it may be there until :meth:`recover`.
        """
        digest = sha256(data).digest()
        path = self._path(digest)
        stored = data
        if self._cipher is not None:
            nonce = os.urandom(_NONCE_BYTES)
            stored = nonce + self._cipher.encrypt(nonce, data, digest)
        try:
            self._mark(path)
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
            data = read_at_most(self._path(digest), _MOST_BYTES)
        except OSError as error:
            if error.errno == errno.EFBIG:  # larger than any that was ever recorded
                raise LedgerError("was altered") from None
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

    def recover(self, named: Container[bytes]) -> None:
        """Delete what a write that was cut off has left: a payload that was never recorded, or part of one.

        What no write of ours has left stays, though no entry names it: it may be of entries that somebody lost,
        and puts back.

        Args:
            named: digests that entries name.

        Raises:
            LedgerError: something could not be deleted.
        """
        try:
            hidden = [path for path in self._folder.iterdir() if path.name.startswith(".")]
            self._marks = {path for path in hidden if _MARK.fullmatch(path.name)}
            orphaned = {path for path in self._marks if _marked(path) not in named}
            for mark in orphaned:
                self._path(_marked(mark)).unlink(missing_ok=True)
            if orphaned:
                sync_folder(self._folder)  # first: a payload must not outlive its mark
            self._marks -= orphaned
            for path in set(hidden) - self._marks:
                path.unlink()
        except OSError as error:
            raise LedgerError(
                f"what a write that was cut off has left in {self._folder} cannot be deleted: {error}",
                "Let this user delete files there",
            ) from error

    def release(self) -> None:
        """Take the last mark away, as an entry names its payload: an older ``ledger.db`` put back would not."""
        with suppress(OSError):  # one that stays does no harm
            for mark in self._marks:
                mark.unlink(missing_ok=True)

    def _mark(self, path: Path) -> None:
        """Say that a payload is about to be recorded; synced with the payload's own name.

        The last one's mark goes only now: when its entry was written, that would have cost a sync of its own.
        """
        mark = path.with_name(f".pending-{path.name}")
        mark.touch(_PRIVATE)
        for old in self._marks - {mark}:
            old.unlink(missing_ok=True)
        self._marks = {mark}

    def _path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()


def is_mark(name: str) -> bool:
    """Tell the mark of a payload that is being recorded, which holds nothing, from what holds payloads."""
    return _MARK.fullmatch(name) is not None


def _marked(mark: Path) -> bytes:
    return bytes.fromhex(mark.name.rpartition("-")[2])


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
