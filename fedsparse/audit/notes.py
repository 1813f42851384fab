"""Signed checkpoints, in the formats that other transparency tools read.

C2SP signed-note (c2sp.org/signed-note), tlog-checkpoint (c2sp.org/tlog-checkpoint) and tlog-cosignature
(c2sp.org/tlog-cosignature), all with Ed25519 (RFC 8032).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsparse.audit.merkle import HASH_BYTES
from fedsparse.errors import LedgerError

MAX_NOTE_BYTES = 4096
KEY_BYTES = 32
_SIZES = range(1 << 63)  # what 64 signed bits hold: a receipt and a database can say it
_NAME = re.compile(r"[^\s+]{1,200}")
_ID_BYTES = 4
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64


class SignatureType(IntEnum):
    """The byte that a note's key identifier is derived with."""

    LOG = 0x01
    WITNESS = 0x04


@dataclass(frozen=True)
class Checkpoint:
    """A log at one moment.

    Attributes:
        origin: name of the log.
        size: leaves.
        root: Merkle tree hash over them, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The body of the note."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a note's body that has these three lines and no others.

        Raises:
            LedgerError: it is no checkpoint, or another spelling of one.
        """
        lines = text.split("\n")
        try:
            origin, size, root, end = lines
            found = cls(origin, int(size), base64.b64decode(root, validate=True))
        except (ValueError, binascii.Error):
            raise LedgerError("this is not a checkpoint of three lines") from None
        if end or found.text != text or len(found.root) != HASH_BYTES or found.size not in _SIZES:
            raise LedgerError("the checkpoint is not in canonical form")
        return found


@dataclass(frozen=True)
class Signed:
    """A note: its body, and its signature lines by the name in them."""

    body: str
    lines: tuple[tuple[str, bytes], ...]


def key_id(name: str, public: bytes, kind: SignatureType) -> bytes:
    """Return the four bytes by which a signature line names its key."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the public key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """Return the checkpoint as a note that the log itself has signed; the key's name is the origin."""
    name = checkpoint.origin
    blob = key_id(name, public_bytes(key), SignatureType.LOG) + key.sign(checkpoint.text.encode())
    return f"{checkpoint.text}\n{_line(name, blob)}".encode()


def cosign(checkpoint: Checkpoint, witness: str, key: Ed25519PrivateKey, at: int) -> bytes:
    """Return a witness's signature line: that at this time it knew of no other history of this log.

    Args:
        witness: the witness's name.
        at: seconds since 1970.
    """
    blob = key_id(witness, public_bytes(key), SignatureType.WITNESS) + at.to_bytes(_TIME_BYTES, "big")
    return _line(witness, blob + key.sign(_cosigned(checkpoint, at))).encode()


def open_note(note: bytes) -> Signed:
    """Split a note into body and signature lines, nothing of which is checked yet.

    Raises:
        LedgerError: it is none.
    """
    try:
        text = note.decode() if len(note) <= MAX_NOTE_BYTES else ""
    except UnicodeDecodeError:
        text = ""
    body, gap, signatures = text.rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise LedgerError("this is not a signed note")
    return Signed(body + "\n", tuple(map(_parse_line, signatures[:-1].split("\n"))))


def check_note(note: bytes, public: bytes) -> Checkpoint:
    """Return the checkpoint in ``note``, which must have exactly one signature: the log's.

    Raises:
        LedgerError: says what is wrong with it.
    """
    signed = open_note(note)
    checkpoint = Checkpoint.parse(signed.body)
    if len(signed.lines) != 1:
        raise LedgerError(f"the checkpoint has {len(signed.lines)} signatures, not one")
    name, blob = signed.lines[0]
    if name != checkpoint.origin or blob[:_ID_BYTES] != key_id(name, public, SignatureType.LOG):
        raise LedgerError("the checkpoint is signed by another key than the log's")
    _verify(public, blob[_ID_BYTES:], signed.body.encode(), "checkpoint")
    return checkpoint


def check_cosignature(line: bytes, checkpoint: Checkpoint, public: bytes) -> tuple[str, int]:
    """Return a witness's name, and when it signed, in seconds since 1970.

    Args:
        line: its signature line, with the newline.
        public: its key.

    Raises:
        LedgerError: it is not its signature of this checkpoint.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.endswith("\n") or len(line) > MAX_NOTE_BYTES:
        raise LedgerError("this is not a signature line")
    name, blob = _parse_line(text[:-1])
    at = int.from_bytes(blob[_ID_BYTES : _ID_BYTES + _TIME_BYTES], "big")
    if blob[:_ID_BYTES] != key_id(name, public, SignatureType.WITNESS):
        raise LedgerError("the cosignature is by another key than the witness's")
    _verify(public, blob[_ID_BYTES + _TIME_BYTES :], _cosigned(checkpoint, at), "cosignature")
    return name, at


def require_name(name: str) -> str:
    """Return ``name`` if a note's key may be called so.

    Raises:
        LedgerError: it has blanks or a plus sign, or is empty or too long.
    """
    if not _NAME.fullmatch(name):
        raise LedgerError(
            f"{name!r} cannot name a key: blanks and '+' are not allowed, nor more than 200 characters"
        )
    return name


def _verify(public: bytes, signature: bytes, data: bytes, what: str) -> None:
    try:
        if len(signature) != _SIGNATURE_BYTES:
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise LedgerError(f"the signature of the {what} does not match") from None


def _cosigned(checkpoint: Checkpoint, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{checkpoint.text}".encode()


def _line(name: str, blob: bytes) -> str:
    return f"— {name} {_b64(blob)}\n"


def _parse_line(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        blob = b""
    if dash != "—" or not _NAME.fullmatch(name) or len(blob) <= _ID_BYTES or _b64(blob) != encoded:
        raise LedgerError("the note has a line that is no signature")
    return name, blob


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
