"""Who is calling: a plant, by its certificate, at every call and for as long as a stream lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from cryptography import x509

from fedsparse.errors import CertificateError, FedsparseError
from fedsparse.security import Revocations, Role, check_chain, check_dates, read_pem_chain

CALLS_A_MINUTE = 600
"""Of one plant; an honest one makes a handful a round."""


class RefusedError(FedsparseError):
    """A caller is turned away.

    Args:
        code: what the call ends with.
    """

    def __init__(self, code: grpc.StatusCode, what: str) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True)
class Peer:
    """A plant that was let in.

    Attributes:
        name: from its certificate.
        chain: its certificate and the CAs that issued it.
        roots: the CAs that were trusted when it was let in.
    """

    name: str
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]


class Door:
    """Lets plants in.

    Args:
        plants: the names that are on the list.
        roots: returns the CA certificates that are trusted now.
        revocations: who no longer counts.
        clock: seconds, never falling.
    """

    def __init__(
        self,
        plants: Collection[str],
        roots: Callable[[], Sequence[x509.Certificate]],
        revocations: Revocations,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plants = plants
        self._roots = roots
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()
        self._calls = {plant: (float(CALLS_A_MINUTE), clock()) for plant in plants}  # what is left, and since when

    def admit(self, connection: Mapping[str, Iterable[bytes]]) -> Peer:
        """Return who calls.

        Args:
            connection: what gRPC says of it (``ServicerContext.auth_context``).

        Raises:
            RefusedError: says which check failed.
        """
        version, leaf, above = (
            bytes(next(iter(connection.get(key, ())), b""))
            for key in ("ssl_tls_version", "x509_pem_cert", "x509_pem_cert_chain")
        )
        if version != b"TLSv1.3":
            spoken = version.decode(errors="replace") or "nothing"
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, f"{spoken} is spoken, TLSv1.3 is needed")
        try:
            chain = read_pem_chain(leaf + above, "the client's certificate")
        except CertificateError as error:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None
        roots = tuple(self._roots())
        peer = Peer(self._name(chain, roots), tuple(chain), roots)
        if peer.name not in self._plants:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"urn:fedsparse:plant:{peer.name} is not on this hub's list of plants",
            )
        self._count(peer.name)
        return peer

    def check(self, peer: Peer) -> None:
        """Check that the certificate of a plant that is in still counts.

        Raises:
            RefusedError: it has expired, was revoked, or its CA is no longer trusted.
        """
        if (roots := tuple(self._roots())) != peer.roots:
            self._name(peer.chain, roots)
            return
        try:  # signatures that held then hold now: of hundreds of plants they would take a good part of a core
            check_dates(peer.chain, "the client's certificate")
            self._revocations.check(peer.chain)
        except CertificateError as error:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None

    def _name(self, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> str:
        try:
            name = check_chain(chain, roots, Role.PLANT, "the client's certificate").name
            self._revocations.check(chain)
        except CertificateError as error:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None
        return name

    def _count(self, plant: str) -> None:
        """Count one call against what a plant may make (a token bucket)."""
        with self._lock:
            left, then = self._calls[plant]
            now = self._clock()
            left = min(float(CALLS_A_MINUTE), left + (now - then) * CALLS_A_MINUTE / 60)
            allowed = left >= 1
            self._calls[plant] = (left - 1 if allowed else left, now)
        if not allowed:
            raise RefusedError(
                grpc.StatusCode.UNAVAILABLE,  # the plant is to try again, later
                f"{plant} makes more than {CALLS_A_MINUTE} calls a minute",
            )
