"""Who writes a ledger: the entry that a gateway begins with, and what it proves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from fedsparse.audit.entry import EntryKind
from fedsparse.audit.keys import origin_of, statement
from fedsparse.errors import CertificateError, LedgerError
from fedsparse.security import Credentials, Role, sign, signed_by, verify
from fedsparse.v1 import ledger_pb2

CLOCK_UNKNOWN = -1


@dataclass(frozen=True)
class Opened:
    """An entry of the kind OPENED.

    Attributes:
        sequence: its place.
        at: the entry's time, in ms since 1970.
        opening: its payload.
        others: whether an earlier opening names another ledger.
    """

    sequence: int
    at: int
    opening: ledger_pb2.Opening
    others: bool

    def check(self, authority: bytes | None) -> Iterator[str]:
        """Yield what is wrong with it, each as the end of the sentence "entry N: ...".

        Args:
            authority: CA certificates that the plant's must chain to, PEM; None checks the signature alone.
        """
        opening = self.opening
        said = statement(opening.origin, opening.ledger_key)
        if self.others:
            yield f"names another ledger, {opening.origin!r}, than the one that it is in"
        if authority is None:
            if not signed_by(opening.certificate, said, opening.signature):
                yield "its certificate did not sign for the ledger's key"
            return
        try:
            at = datetime.fromtimestamp(self.at / 1000, UTC)
            identity = verify(opening.certificate, authority, Role.PLANT, said, opening.signature, at)
        except (OverflowError, ValueError, OSError):
            yield "is dated at no possible time"
        except CertificateError as error:
            yield f"is not the plant's: {error}"
        else:
            if opening.origin != origin_of(identity.name, opening.ledger_key):
                yield f"is by {identity.name}, which has no ledger {opening.origin!r} with this key"


def make_opening(
    origin: str, ledger_key: bytes, plant: Credentials, software: str, bundle_sha256: str, clock_error_us: int
) -> ledger_pb2.Opening:
    """Return what a gateway records first.

    Args:
        origin: of the ledger's checkpoints.
        ledger_key: their key, 32 bytes.
        plant: signs for it.
        software: fedsparse's version.
        bundle_sha256: of the Flower app, 64 hex digits.
        clock_error_us: see ledger.proto.
    """
    return ledger_pb2.Opening(
        origin=origin,
        ledger_key=ledger_key,
        certificate=plant.der,
        signature=sign(plant.key, statement(origin, ledger_key)),
        software=software,
        bundle_sha256=bytes.fromhex(bundle_sha256),
        clock_error_us=clock_error_us,
    )


def read_openings(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[Opened]:
    """Yield the openings in a ledger, in order; one that cannot be read is told of where payloads are checked."""
    first: tuple[str, bytes] | None = None
    for entry in entries:
        if entry is None or int(entry.kind) != EntryKind.OPENED:
            continue
        try:
            opening = ledger_pb2.Opening.FromString(payload(entry.payload_sha256))
        except (LedgerError, DecodeError):
            continue
        first = first or (opening.origin, opening.ledger_key)
        others = first != (opening.origin, opening.ledger_key)
        yield Opened(entry.sequence, entry.time_unix_ms, opening, others)
