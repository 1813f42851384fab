"""Certificates and keys of record: who wrote the ledger, who signed for what arrived."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse.errors import CertificateError
from fedsparse.security import identity_of, read_der_chain


@dataclass(frozen=True)
class Person:
    """A certificate of record.

    Attributes:
        uri: whom it speaks for; empty where it names nobody of a federation.
        issuer: the name of the CA that signed it.
        start: valid from, UTC; None where the certificate is unreadable.
        end: valid until.
        fingerprint: SHA-256 of the certificate.
        places: entries where it stands, by number.
    """

    uri: str
    issuer: str
    start: datetime | None
    end: datetime | None
    fingerprint: bytes
    places: tuple[int, ...]


def people_in(chains: Iterable[tuple[int, bytes]]) -> tuple[Person, ...]:
    """Return the certificates' holders in order of appearance.

    Args:
        chains: by entry, DER, the leaf first.
    """
    places: dict[bytes, list[int]] = {}
    for number, chain in chains:
        places.setdefault(chain, []).append(number)
    merged: dict[bytes, Person] = {}
    for chain, numbers in places.items():
        one = _person(chain, tuple(numbers))
        before = merged[one.fingerprint].places if one.fingerprint in merged else ()
        merged[one.fingerprint] = Person(
            one.uri, one.issuer, one.start, one.end, one.fingerprint, tuple(sorted((*before, *one.places)))
        )
    return tuple(merged.values())


def _person(chain: bytes, places: tuple[int, ...]) -> Person:
    try:
        leaf = read_der_chain(chain, "the certificate")[0]
    except CertificateError:
        return Person("", "", None, None, sha256(chain).digest(), places)
    try:
        uri = identity_of(leaf).uri
    except (CertificateError, ValueError):
        uri = ""
    return Person(
        uri,
        _issuer(leaf),
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        sha256(leaf.public_bytes(Encoding.DER)).digest(),
        places,
    )


def _issuer(leaf: x509.Certificate) -> str:
    try:
        return leaf.issuer.rfc4514_string()
    except ValueError:
        return ""
