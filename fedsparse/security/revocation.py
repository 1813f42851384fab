"""Certificates that no longer count: a file of revocation lists (X.509 CRL, RFC 5280), read when it changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fedsparse.errors import CertificateError
from fedsparse.security.keys import UNREADABLE

_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
_log = logging.getLogger("security")


class Revocations:
    """Who was revoked, as the file says it now.

    A file that becomes unreadable while a process runs changes nothing: what it said before stands, and the log
    says so. One that has passed its date still counts, with a warning: refusing every plant for it would stop the
    factories' work, and accepting those it names would undo it. A list names serial numbers of any CA below the
    root: they are random, and an issuing CA must be able to revoke what its predecessor signed.

    Args:
        path: of the lists, PEM, one after the other, with the certificates of the CAs that signed them where those
            are not roots; none: nobody is revoked.
        roots: returns the CA certificates that are trusted now.

    Raises:
        CertificateError: the file is absent, unreadable, or a list is not signed by a CA that a root vouches for.
    """

    def __init__(self, path: Path | None, roots: Callable[[], Iterable[x509.Certificate]]) -> None:
        self._path = path
        self._roots = roots
        self._lock = threading.Lock()
        self._told = ""
        self._seen: tuple[object, ...] = ()
        self._revoked: frozenset[int] = frozenset()
        self._until: datetime | None = None
        if path is not None:
            self._seen = self._state(path)
            self._revoked, self._until = _read(path, tuple(roots()))

    @property
    def any_list(self) -> bool:
        """Whether there is a list at all."""
        return self._path is not None

    def check(self, chain: Iterable[x509.Certificate]) -> None:
        """Check that no certificate of a chain is revoked now.

        Raises:
            CertificateError: one is; says which.
        """
        revoked = self._now()
        for certificate in chain:
            if certificate.serial_number in revoked:
                name = certificate.subject.rfc4514_string()
                raise CertificateError(
                    f"the certificate {certificate.serial_number:x} of {name} is revoked", "Enrol anew"
                )

    def _now(self) -> frozenset[int]:
        if self._path is None:
            return self._revoked
        with self._lock:
            try:
                if (state := self._state(self._path)) != self._seen:
                    self._revoked, self._until = _read(self._path, tuple(self._roots()))
                    self._seen = state
                    _log.info("%s was read again: %d certificates are revoked", self._path, len(self._revoked))
                    self._told = ""
                if self._until is not None and datetime.now(UTC) > self._until:
                    self._tell(f"{self._path} should have been renewed by {self._until:%Y-%m-%d %H:%M} UTC")
            except CertificateError as error:
                self._tell(f"{error}; what it said before stands")
            return self._revoked

    def _tell(self, trouble: str) -> None:
        """Log a trouble once: it is looked for at every call."""
        if trouble != self._told:
            self._told = trouble
            _log.error("%s", trouble)

    def _state(self, path: Path) -> tuple[object, ...]:
        """Return what changes whenever the file does, or the CAs by which it is judged.

        Raises:
            CertificateError: there is no such file.
        """
        if (found := file_state(path)) is None:
            raise CertificateError(
                f"cannot read the revocation list {path}",
                "Copy crl.pem from the CA's folder, or leave identity.revoked out",
            )
        return found, tuple(root.serial_number for root in self._roots())


def file_state(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is written, replaced or given another mode; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def read_revoked(path: Path) -> frozenset[int]:
    """Return the serial numbers in a file of lists, whoever signed them; none where there is no file.

    Raises:
        CertificateError: it is unreadable.
    """
    return (
        frozenset(one.serial_number for given in _lists(path)[0] for one in given)
        if path.exists()
        else frozenset()
    )


def _read(path: Path, roots: tuple[x509.Certificate, ...]) -> tuple[frozenset[int], datetime | None]:
    """Return the serial numbers in a file of lists, and when the first of those should be renewed."""
    lists, certificates = _lists(path)
    issuers = (*roots, *(one for one in certificates if _is_issued_by(one, roots)))
    for given in lists:
        _require_signed(given, issuers, path)
    ends = [end for given in lists if (end := given.next_update_utc) is not None]
    return frozenset(revoked.serial_number for given in lists for revoked in given), min(ends, default=None)


def _lists(path: Path) -> tuple[list[x509.CertificateRevocationList], list[x509.Certificate]]:
    """Return the lists in a file, and the certificates beside them.

    Raises:
        CertificateError: it is unreadable, or holds no list.
    """
    try:
        data = path.read_bytes()
        found = [_BEGIN + part.partition(_END)[0] + _END for part in data.split(_BEGIN)[1:]]
        lists = [x509.load_pem_x509_crl(pem) for pem in found]
        certificates = _certificates(data)
    except (OSError, *UNREADABLE):
        lists = []
    if not lists:
        raise CertificateError(f"{path} is not a PEM revocation list", "Copy crl.pem from the CA's folder again")
    return lists, certificates


def _certificates(data: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(data) if b"-----BEGIN CERTIFICATE-----" in data else []


def _is_issued_by(certificate: x509.Certificate, roots: tuple[x509.Certificate, ...]) -> bool:
    for root in roots:
        try:
            certificate.verify_directly_issued_by(root)
        except (InvalidSignature, *UNREADABLE):
            continue
        return True
    return False


def _require_signed(
    given: x509.CertificateRevocationList, issuers: Iterable[x509.Certificate], path: Path
) -> None:
    for issuer in issuers:
        if issuer.subject == given.issuer:
            try:
                if given.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type] # others raise TypeError
                    return
            except (InvalidSignature, TypeError):
                continue
    raise CertificateError(
        f"a revocation list in {path} is not signed by a CA that is trusted here: {given.issuer.rfc4514_string()}",
        "Copy crl.pem from the CA's folder again",
    )
