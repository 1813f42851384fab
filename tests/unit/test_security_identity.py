from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse.errors import CertificateError
from fedsparse.security import Identity, Role, create_authority, identity_of


def certificate(folder: Path, *uris: str) -> x509.Certificate:
    """Return a certificate with ``uris`` as its subject alternative names."""
    authority = create_authority(folder, "test")
    old = authority.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.subject)
        .public_key(old.public_key())
        .serial_number(1)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    if uris:
        names = x509.SubjectAlternativeName(map(x509.UniformResourceIdentifier, uris))
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


@pytest.mark.parametrize("name", ["a", "kiso", "plant-7", "9lives", "a" * 63])
def test_plain_lower_case_names_are_names(name: str) -> None:
    assert Identity(Role.PLANT, name).uri == f"urn:fedsparse:plant:{name}"


@pytest.mark.parametrize("name", ["", "Kiso", "-kiso", "a b", "木曽", "a" * 64, "kiso\n", "a/b", "../a", "a:b"])
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(CertificateError, match="lower-case letters, digits and hyphens"):
        Identity(Role.PLANT, name)


def test_a_certificate_speaks_for_the_role_and_name_in_it(tmp_path: Path) -> None:
    found = identity_of(certificate(tmp_path, "https://example", "urn:fedsparse:hub:main"))
    assert found == Identity(Role.HUB, "main")


@pytest.mark.parametrize("uris", [(), ("urn:other:hub:x",), ("urn:fedsparse:hub:a", "urn:fedsparse:plant:b")])
def test_a_certificate_that_names_nobody_or_two_speaks_for_nobody(tmp_path: Path, uris: tuple[str, ...]) -> None:
    with pytest.raises(CertificateError, match="does not name one hub or plant"):
        identity_of(certificate(tmp_path, *uris))


def test_an_unknown_role_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="unknown role 'king'"):
        identity_of(certificate(tmp_path, "urn:fedsparse:king:x"))


def test_a_certificate_with_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="no name for a plant"):
        identity_of(certificate(tmp_path, "urn:fedsparse:plant:../../etc"))


def test_a_certificate_whose_names_cannot_be_read_names_nobody(tmp_path: Path) -> None:
    """Of a stranger's certificate the extensions are parsed only when they are asked for."""
    data = bytearray(certificate(tmp_path, "urn:fedsparse:plant:kiso").public_bytes(Encoding.DER))
    data[data.index(b"urn:fedsparse:plant") - 2] = 0xDD  # the tag of the name
    with pytest.raises(CertificateError, match="cannot be read"):
        identity_of(x509.load_der_x509_certificate(bytes(data)))
