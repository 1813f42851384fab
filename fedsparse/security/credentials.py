"""A certificate with its key and the CA, checked on this machine before anything is dialled or served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedsparse.config import IdentitySettings
from fedsparse.errors import CertificateError
from fedsparse.security.chains import check_chain, read_pem_chain, to_der_chain
from fedsparse.security.identity import Identity, Role
from fedsparse.security.keys import read_key, read_passphrase
from fedsparse.security.revocation import Revocations, file_state

_RENEW_BEFORE = timedelta(days=21)


@dataclass(frozen=True)
class Credentials:
    """What a hub or plant shows, and whom it trusts; PEM.

    Attributes:
        certificate: the leaf, and the CAs that issued it.
        key: of the leaf, not encrypted; it stays in memory.
        authority: the CA certificates that are trusted; several while one is replaced.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes
    identity: Identity

    def __repr__(self) -> str:
        """Name the identity and never the key."""
        return f"Credentials({self.identity.uri})"

    @cached_property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The leaf, and the CAs that issued it."""
        return tuple(read_pem_chain(self.certificate, "the certificate"))

    @property
    def der(self) -> bytes:
        """The chain below the root, as receipts and signed versions carry it."""
        return to_der_chain([one for one in self.chain if one not in self.roots])

    @cached_property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """The CA certificates that are trusted."""
        return tuple(read_pem_chain(self.authority, "the CA certificate"))

    def renewal_due(self) -> str:
        """Return a sentence where the certificate expires within three weeks, otherwise nothing."""
        end = min(certificate.not_valid_after_utc for certificate in self.chain)
        if end - datetime.now(UTC) > _RENEW_BEFORE:
            return ""
        return f"the certificate of {self.identity.uri} expires on {end:%Y-%m-%d %H:%M} UTC: enrol anew"


def load_credentials(settings: IdentitySettings, role: Role) -> Credentials:
    """Read and check what ``settings`` name.

    Raises:
        CertificateError: says which file is wrong, how, and what to do.
    """
    pem, authority = (
        _read(path, what)
        for path, what in ((settings.certificate, "certificate"), (settings.authority, "CA certificate"))
    )
    key = read_key(settings.key, read_passphrase(settings.passphrase_file))
    chain = read_pem_chain(pem, str(settings.certificate))
    if key.public_key() != chain[0].public_key():
        raise CertificateError(f"the key {settings.key} does not belong to the certificate {settings.certificate}")
    roots = read_pem_chain(authority, str(settings.authority))
    identity = check_chain(chain, roots, role, str(settings.certificate))
    Revocations(settings.revoked, lambda: roots).check(chain)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(pem, plain, authority, identity)


class LiveCredentials:
    """Credentials that are read again when their files change: keys and CAs are replaced without a restart.

    While new files are incomplete or wrong, the old ones stay in use.

    Args:
        settings: where the files lie.
        role: what the certificate must be.
        on_trouble: told once of each state of the files that cannot be used.

    Raises:
        CertificateError: they are not right to begin with.
    """

    def __init__(self, settings: IdentitySettings, role: Role, on_trouble: Callable[[str], None]) -> None:
        self._settings = settings
        self._role = role
        self._on_trouble = on_trouble
        self._told = ""
        self._lock = threading.Lock()
        self._seen = self._state()
        self.current = load_credentials(settings, role)

    def renew(self) -> bool:
        """Read the files again if they have changed; return whether there are new credentials."""
        with self._lock:
            if (state := self._state()) == self._seen:
                return False
            try:
                found = load_credentials(self._settings, self._role)
                if found.identity != self.current.identity:
                    raise CertificateError(f"they are {found.identity.uri}'s, not {self.current.identity.uri}'s")
            except CertificateError as error:
                self._tell(f"the changed certificate files are not used yet: {error}")
                return False  # and the next look reads them again: what is mended need not be another file
            self._seen, self._told = state, ""
            changed = found != self.current
            self.current = found
            return changed

    def _tell(self, trouble: str) -> None:
        if trouble != self._told:
            self._told = trouble
            self._on_trouble(trouble)

    def _state(self) -> tuple[tuple[int, ...] | None, ...]:
        settings = self._settings
        files = (settings.certificate, settings.key, settings.authority, settings.passphrase_file)
        return tuple(None if path is None else file_state(path) for path in files)


class Daily:
    """Says a thing that stays true once a day, not every time that somebody looks."""

    def __init__(self) -> None:
        self._said: date | None = None

    def once(self, look: Callable[[], str]) -> str:
        """Return what ``look`` returns, or nothing where it was asked today already."""
        today = datetime.now(UTC).date()
        if self._said == today:
            return ""
        self._said = today
        return look()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"cannot read the {what} {path}: {error.strerror}", "Issue one with `fedsparse pki issue`"
        ) from None
