"""Time-stamps of a checkpoint by an authority that knows nothing of the federation (RFC 3161).

Stamped are the checkpoint's three lines (origin, size, root), which anybody can make again from the first so many
entries of any later state of the ledger: a token goes on saying, by itself, that these were there at its time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509

from fedsparse.audit import merkle
from fedsparse.audit.conservation import Finding
from fedsparse.audit.der import with_sorted_certificates
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.notes import Checkpoint, open_note
from fedsparse.audit.verify import parse_entry
from fedsparse.errors import LedgerError

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

_SHA256 = "2.16.840.1.101.3.4.2.1"
_MOST_BYTES = 1 << 20
_COARSE_MS = 2000
_INSTALL = "Install it: pip install rfc3161-client"


class Doubt(Enum):
    """Why a time-stamp is not verified."""

    NO_LIBRARY = "the library that reads time-stamps is not installed: pip install rfc3161-client"
    NO_ROOTS = (
        "the root certificates of the time-stamp's authority were not given, so its signature was not checked"
    )
    UNREADABLE = (
        "it cannot be read: it was altered, or is no reply with a time-stamp, as where the request was refused"
    )
    ALGORITHM = "it is not over a SHA-256, which no request of fedsparse's asks for"
    SIGNATURE = "its signature does not lead to the roots given: it was altered, or is another authority's"
    OTHER = (
        "it is over no checkpoint of these entries: of another ledger or later entries, or history was rewritten"
    )


@dataclass(frozen=True)
class Stamp:
    """What a time-stamp shows.

    Attributes:
        name: of its file.
        finding: VERIFIED where an authority that chains to the roots has stamped the first ``size`` entries.
        doubt: why it is no better; None where it is verified.
        size: entries that it covers; 0 where it covers none of this ledger.
        at: its time by its own word; None where it cannot be read.
        late_ms: by how much the last of these entries is dated after that time, by the plant's clock; 0 if not.
    """

    name: str
    finding: Finding
    doubt: Doubt | None = None
    size: int = 0
    at: datetime | None = None
    late_ms: int = 0


def make_request(evidence: Evidence) -> tuple[bytes, int]:
    """Return a request for a time-stamp of evidence's checkpoint, DER, and the number of entries under it.

    It has no nonce: whoever carries it to the authority does so by hand, and an older reply to it is as true.

    Raises:
        LedgerError: the checkpoint is not of these entries, or the library is missing.
    """
    try:
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder
    except ImportError:
        raise LedgerError("time-stamps need a library that is not installed", _INSTALL) from None
    checkpoint = Checkpoint.parse(open_note(evidence.checkpoint).body)
    size = len(evidence.rows)
    if not size or checkpoint != dict(_checkpoints(evidence, checkpoint.origin, {size})).get(size):
        raise LedgerError("the checkpoint is not of these entries", "fedsparse audit verify says more")
    builder = TimestampRequestBuilder().data(checkpoint.text.encode()).hash_algorithm(HashAlgorithm.SHA256)
    return builder.nonce(nonce=False).cert_request(cert_request=True).build().as_bytes(), size


def check_timestamp(name: str, token: bytes, roots: bytes | None, evidence: Evidence) -> Stamp:
    """Judge a time-stamp by its imprint, its signature and its chain of certificates.

    Args:
        name: of its file.
        token: the authority's reply, DER.
        roots: PEM certificates of authorities that are trusted; None leaves the signature unchecked.
        evidence: of any later state of the ledger.

    Raises:
        LedgerError: the roots are no certificates.
    """
    trusted = None if roots is None else _read_roots(roots)
    try:
        from rfc3161_client import decode_timestamp_response
    except ImportError:
        return Stamp(name, Finding.UNKNOWN, Doubt.NO_LIBRARY)
    try:
        reply = decode_timestamp_response(with_sorted_certificates(token if len(token) <= _MOST_BYTES else b""))
        at = reply.tst_info.gen_time.astimezone(UTC)
        imprint = reply.tst_info.message_imprint
        algorithm, digest = imprint.hash_algorithm.dotted_string, bytes(imprint.message)
    except ValueError:
        return Stamp(name, Finding.UNKNOWN, Doubt.UNREADABLE)
    if algorithm != _SHA256:
        return Stamp(name, Finding.CONTRADICTED, Doubt.ALGORITHM, at=at)
    if trusted is not None and not _signed(reply, digest, trusted):
        return Stamp(name, Finding.CONTRADICTED, Doubt.SIGNATURE, at=at)
    size = _covered(evidence, digest)
    if not size:
        return Stamp(name, Finding.CONTRADICTED, Doubt.OTHER, at=at)
    late = _late_ms(evidence, size, at)
    if trusted is None:
        return Stamp(name, Finding.UNKNOWN, Doubt.NO_ROOTS, size, at, late)
    return Stamp(name, Finding.VERIFIED, None, size, at, late)


def _read_roots(roots: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(roots)
    except ValueError:
        raise LedgerError(
            "the roots of the time-stamp's authority are no certificates",
            "Name a PEM file with its root certificates",
        ) from None


def _signed(reply: TimeStampResponse, digest: bytes, trusted: Sequence[x509.Certificate]) -> bool:
    """Tell whether one of the roots vouches for who signed, at the time of signing, and for stamping time."""
    from rfc3161_client import VerificationError, VerifierBuilder

    try:
        return VerifierBuilder(roots=list(trusted)).build().verify(reply, digest)
    except (VerificationError, ValueError):
        return False


def _covered(evidence: Evidence, digest: bytes) -> int:
    """Return how many entries a checkpoint is over whose lines have this SHA-256; 0 where there is none."""
    try:
        origin = Checkpoint.parse(open_note(evidence.checkpoint).body).origin
    except LedgerError:
        return 0
    every = range(1, len(evidence.rows) + 1)
    found = (
        size for size, one in _checkpoints(evidence, origin, every) if sha256(one.text.encode()).digest() == digest
    )
    return next(found, 0)


def _checkpoints(evidence: Evidence, origin: str, sizes: Container[int]) -> Iterator[tuple[int, Checkpoint]]:
    leaves = (merkle.leaf_hash(row.entry) for row in evidence.rows)
    for size, root in merkle.roots_at(leaves, sizes).items():
        yield size, Checkpoint(origin, size, root)


def _late_ms(evidence: Evidence, size: int, at: datetime) -> int:
    """Return by how much the entry is dated after a time by which it was there.

    An authority tells whole seconds, and may be wrong by another: so much says nothing of the plant's clock.
    """
    entry = parse_entry(evidence.rows[size - 1].entry)
    late = 0 if entry is None else entry.time_unix_ms - int(at.timestamp() * 1000)
    return late if late > _COARSE_MS else 0
