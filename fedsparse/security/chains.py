"""Chains of certificates: a leaf, the CAs that issued it, and the roots that a site trusts (RFC 5280)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsparse.errors import CertificateError
from fedsparse.security.identity import Identity, Role, identity_of
from fedsparse.security.keys import UNREADABLE

Chain = Sequence[x509.Certificate]
"""The leaf first, then whoever issued each before it; a root may be left out."""

_USAGE = {Role.HUB: ExtendedKeyUsageOID.SERVER_AUTH, Role.PLANT: ExtendedKeyUsageOID.CLIENT_AUTH}
_MOST_CERTIFICATES = 8  # in one chain; ours have two or three


def read_pem_chain(pem: bytes, name: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM file.

    Raises:
        CertificateError: it holds none, something else, or too many.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise CertificateError(f"{name} is not a PEM certificate") from None
    return _bounded(found, name)


def to_der_chain(chain: Chain) -> bytes:
    """Return the certificates' DER, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in chain)


def read_der_chain(data: bytes, name: str) -> list[x509.Certificate]:
    """Return what :func:`to_der_chain` wrote; it may be a stranger's.

    Raises:
        CertificateError: it is something else.
    """
    found: list[x509.Certificate] = []
    try:
        while data and len(found) <= _MOST_CERTIFICATES:
            size = _der_size(data)
            found.append(x509.load_der_x509_certificate(data[:size]))
            data = data[size:]
    except (IndexError, *UNREADABLE):
        raise CertificateError(f"{name} is unreadable") from None
    if not found:
        raise CertificateError(f"{name} is unreadable")
    return _bounded(found, name)


def _bounded(found: list[x509.Certificate], name: str) -> list[x509.Certificate]:
    if len(found) > _MOST_CERTIFICATES:
        raise CertificateError(f"{name} has more than {_MOST_CERTIFICATES} certificates")
    return found


def _der_size(data: bytes) -> int:
    """Return how many bytes the value at the start of ``data`` has (X.690, 8.1)."""
    if (first := data[1]) < 0x80:
        return 2 + first
    digits = first & 0x7F
    return 2 + digits + int.from_bytes(data[2 : 2 + digits], "big")


def check_chain(
    chain: Chain, roots: Chain, role: Role, name: str, at: datetime | None = None, *, exact: bool = False
) -> Identity:
    """Return whom a chain's leaf speaks for, once dates, issuers, use and role are right.

    Args:
        roots: the CA certificates that are trusted.
        name: of the leaf, for the message.
        at: when all of them must be valid; now, if not given.
        exact: the chain must be the path to a root, the root left out: there is no other way to write it.

    Raises:
        CertificateError: names the check that failed.
    """
    now = at or datetime.now(UTC)
    leaf, *above = chain
    _check_dates(leaf, name, now)
    _check_form(leaf, name)
    for certificate in above:
        _check_dates(certificate, f"the issuing CA of {name}", now)
    path = _find_path(chain, roots, name, now)
    if exact and path[:-1] != [*chain]:
        raise CertificateError(f"{name} comes with certificates that are not on its way to the CA")
    identity = identity_of(leaf)
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    if identity.role is not role or _USAGE[role] not in usage:
        raise CertificateError(f"{name} is a {identity.role.value}'s certificate, a {role.value}'s is needed")
    return identity


def check_dates(chain: Chain, name: str) -> None:
    """Check that every certificate of a chain is valid now.

    Raises:
        CertificateError: one is not; says which.
    """
    for certificate in chain:
        _check_dates(certificate, name, datetime.now(UTC))


def _check_form(leaf: x509.Certificate, name: str) -> None:
    """Check what only a leaf must be: no CA, with a key of the one kind that we sign and speak with."""
    try:
        key = leaf.public_key()
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    except UNREADABLE:
        raise CertificateError(f"{name} has a key or constraints that cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise CertificateError(
            f"{name} is of another kind of key than P-256", "Enrol with `fedsparse client enroll`"
        )
    if authority:
        raise CertificateError(
            f"{name} is a CA's, not a plant's or hub's", "Use the certificate that the CA signed"
        )


def _check_dates(certificate: x509.Certificate, name: str, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        start = certificate.not_valid_before_utc
        raise CertificateError(f"{name} is valid only from {start:%Y-%m-%d %H:%M} UTC", "Check the clock")
    if now > certificate.not_valid_after_utc:
        end = certificate.not_valid_after_utc
        raise CertificateError(f"{name} expired on {end:%Y-%m-%d %H:%M} UTC", "Issue a new one")


def _find_path(chain: Chain, roots: Chain, name: str, now: datetime) -> list[x509.Certificate]:
    """Return leaf, issuers and root, once signatures and constraints are right by the library's own validation.

    Uses of the leaf are checked by our caller, whose roles the library does not know.
    """
    leaf, *above = chain
    policy = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(now.replace(tzinfo=None))
        .extension_policies(
            ca_policy=verification.ExtensionPolicy.webpki_defaults_ca().may_be_present(
                x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, None
            ),
            ee_policy=verification.ExtensionPolicy.permit_all(),
        )
    )
    refuse = partial(_refuse_issuers, chain, roots, name, now)
    try:
        return policy.build_client_verifier().verify(leaf, above).chain
    except (verification.VerificationError, InvalidSignature, *UNREADABLE):
        refuse()


def _refuse_issuers(chain: Chain, roots: Chain, name: str, now: datetime) -> NoReturn:
    """Say why no path to a root was found: an expired root, where one issued the last; a name is no proof."""
    for root in roots:
        with suppress(InvalidSignature, TypeError, *UNREADABLE):  # a stranger's certificate may hold anything
            chain[-1].verify_directly_issued_by(root)
            _check_dates(root, "the CA certificate", now)
    raise CertificateError(
        f"{name} was not issued by the given CA", "Use the certificate and ca.pem of the same federation"
    ) from None
