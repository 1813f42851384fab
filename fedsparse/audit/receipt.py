"""The hub's receipts: what one must say, for the plant that files it and for the auditor who reads it later."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from fedsparse.audit.notes import Checkpoint, check_cosignature, cosign, public_bytes
from fedsparse.errors import CertificateError, LedgerError
from fedsparse.files import read_at_most
from fedsparse.security import Credentials, Revocations, Role, is_lowest, sign, verify
from fedsparse.v1 import link_pb2

_MOST_BYTES = 1 << 30  # of a hub's record: half a million receipts
_MOST_BYTES_OF_A_LINE = 1 << 20


@dataclass(frozen=True)
class Receipted:
    """What left, as its receipt must name it.

    Attributes:
        task_id: of the task that it answers.
        payload_sha256: of the serialised RoundUpdate, 32 bytes.
        ledger_hash: hash of the plant's ledger entry, 32 bytes.
    """

    task_id: str
    payload_sha256: bytes
    ledger_hash: bytes


class Log(Protocol):
    """The ledger that a receipt's witnessing is compared with."""

    @property
    def key(self) -> bytes:
        """The public key of its checkpoints, 32 bytes."""

    @property
    def origin(self) -> str:
        """The first line of its checkpoints."""

    def root(self, size: int) -> bytes | None:
        """Return its root when it had ``size`` entries; None where it never had."""


def sign_receipt(body: link_pb2.ReceiptBody, hub: Credentials, witness: Ed25519PrivateKey) -> link_pb2.Receipt:
    """Return the receipt with this body, naming and signed by the hub's certificate, and cosigned as a witness.

    Args:
        body: all but the keys.
        witness: key of the cosignature (C2SP tlog-cosignature).
    """
    body.witness_key, body.certificate_sha256 = public_bytes(witness), sha256(hub.der).digest()
    checkpoint = Checkpoint(body.origin, body.checkpoint_size, body.checkpoint_root)
    seconds = body.received_unix_ms // 1000
    return link_pb2.Receipt(
        body=body,
        signature=sign(hub.key, body.SerializeToString(deterministic=True)),
        hub_certificate=hub.der,
        cosignature=cosign(checkpoint, f"fedsparse/{hub.identity.name}", witness, seconds),
    )


def check_receipt(
    data: bytes,
    expected: Receipted,
    authority: bytes | None,
    log: Log,
    revocations: Revocations | None = None,
    *,
    fresh: bool = False,
) -> Iterator[str]:
    """Yield what is wrong with a serialised Receipt, each as the end of the sentence "the receipt ...".

    Args:
        log: the ledger that the receipt must have witnessed.
        authority: the federation's CA certificates, PEM; None leaves the signature unchecked.
        revocations: who no longer counts: of a fresh receipt, not of one filed before.
        fresh: the hub has just given it, so its certificate must be valid now, whatever date the receipt bears.
    """
    try:
        receipt = link_pb2.Receipt.FromString(data)
    except DecodeError:
        yield "is unreadable"
        return
    receipt.DiscardUnknownFields()
    if receipt.SerializeToString(deterministic=True) != data:
        yield "is not in canonical form"
    body = receipt.body
    if Receipted(body.task_id, body.payload_sha256, body.ledger_hash) != expected:
        yield "speaks of another payload, entry or task"
    if body.certificate_sha256 != sha256(receipt.hub_certificate).digest():
        yield "names another certificate than it shows"  # or the same in other bytes, which verify as well
    yield from _check_witnessing(receipt, log)
    if authority is not None:
        yield from _check_signature(receipt, authority, revocations, fresh)


def _check_witnessing(receipt: link_pb2.Receipt, log: Log) -> Iterator[str]:
    body = receipt.body
    if (body.origin, body.ledger_key) != (log.origin, log.key):
        yield f"witnesses another ledger, {body.origin!r}"
        return
    try:
        checkpoint = Checkpoint(body.origin, body.checkpoint_size, body.checkpoint_root)
        check_cosignature(receipt.cosignature, checkpoint, body.witness_key)
    except LedgerError as error:
        yield f"has a cosignature that does not count: {error}"


def agrees(body: link_pb2.ReceiptBody, log: Log) -> bool:
    """Tell whether the ledger had, at the size that a receipt witnesses, the entries that the hub saw."""
    return log.root(body.checkpoint_size) == body.checkpoint_root


def _check_signature(
    receipt: link_pb2.Receipt, authority: bytes, revocations: Revocations | None, fresh: bool
) -> Iterator[str]:
    """Check the hub's certificate as it was at the time of the receipt: it may have expired since."""
    try:
        signed = receipt.body.SerializeToString(deterministic=True)
        at = None if fresh else datetime.fromtimestamp(receipt.body.received_unix_ms / 1000, UTC)
        hub = verify(receipt.hub_certificate, authority, Role.HUB, signed, receipt.signature, at, revocations)
    except (OverflowError, ValueError, OSError):
        yield "is dated at no possible time"
    except CertificateError as error:
        yield f"is not the hub's: {error}"
    else:  # neither signature covers these two
        if not receipt.cosignature.startswith(f"— fedsparse/{hub.name} ".encode()):
            yield f"is cosigned under another name than that of {hub.name}"
        if not is_lowest(receipt.signature):
            yield "has its signature in another form than the hub writes"


def receipt_line(receipt: link_pb2.Receipt) -> bytes:
    """Return the line by which the hub keeps a receipt."""
    fields = {
        "sequence": receipt.body.sequence,
        "task_id": receipt.body.task_id,
        "receipt": base64.b64encode(receipt.SerializeToString(deterministic=True)).decode(),
    }
    return json.dumps(fields).encode() + b"\n"


@dataclass(frozen=True)
class HubRecord:
    """What a hub kept of one plant.

    Attributes:
        receipts: in their order.
        cut: whether something stands after the last whole line: a crash, or a copy, cut it short.
    """

    receipts: tuple[link_pb2.Receipt, ...]
    cut: bool


def read_record(path: Path) -> HubRecord:
    """Read what a hub kept of one plant; a last line cut short by a crash was never handed out, and is left out.

    Raises:
        LedgerError: another line is no receipt, or the file cannot be read.
    """
    try:
        data = read_at_most(path, _MOST_BYTES)
    except OSError as error:
        raise LedgerError(f"the receipts in {path} cannot be read: {error.strerror}") from None
    *lines, rest = data.split(b"\n")
    receipts = tuple(_parse_line(line, f"line {number} of {path}") for number, line in enumerate(lines, start=1))
    return HubRecord(receipts, cut=rest != b"")


def _parse_line(line: bytes, where: str) -> link_pb2.Receipt:
    try:
        if len(line) > _MOST_BYTES_OF_A_LINE:
            raise ValueError
        return link_pb2.Receipt.FromString(base64.b64decode(json.loads(line)["receipt"], validate=True))
    except (ValueError, KeyError, TypeError, RecursionError, DecodeError):
        raise LedgerError(
            f"{where} is unreadable: it is no receipt as a hub keeps it",
            "Copy the hub's state/receipts/NAME.jsonl again, or restore it from a backup",
        ) from None


def read_receipts(path: Path) -> list[link_pb2.Receipt]:
    """Return the receipts in a hub's record, as :func:`read_record` reads it."""
    return [*read_record(path).receipts]
