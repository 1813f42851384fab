from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedsparse.errors import CertificateError
from fedsparse.security import Credentials, Identity, Role, read_der_chain, sign, verify
from tests.unit.federation_samples import HOUR, Pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def hub(pki: Pki) -> Credentials:
    return pki.credentials(Role.HUB, "hub")


def der(credentials: Credentials) -> bytes:
    return credentials.der


def check(hub: Credentials, data: bytes, signature: bytes, role: Role = Role.HUB) -> Identity:
    return verify(der(hub), hub.authority, role, data, signature)


def test_a_signature_tells_who_signed(hub: Credentials) -> None:
    assert check(hub, b"data", sign(hub.key, b"data")) == Identity(Role.HUB, "hub")


def test_a_signature_over_other_bytes_does_not_match(hub: Credentials) -> None:
    with pytest.raises(CertificateError, match="the signature of urn:fedsparse:hub:hub does not match"):
        check(hub, b"date", sign(hub.key, b"data"))


@pytest.mark.parametrize("signature", [b"", b"garbage", bytes(70)])
def test_a_garbage_signature_does_not_match(hub: Credentials, signature: bytes) -> None:
    with pytest.raises(CertificateError, match="does not match"):
        check(hub, b"data", signature)


def test_a_signature_with_another_key_does_not_match(pki: Pki, hub: Credentials) -> None:
    with pytest.raises(CertificateError, match="does not match"):
        check(hub, b"data", sign(pki.credentials(Role.HUB, "hub").key, b"data"))


def test_a_plants_signature_is_not_a_hubs(pki: Pki) -> None:
    plant = pki.credentials(Role.PLANT, "kiso")
    with pytest.raises(CertificateError, match="a hub's is needed"):
        check(plant, b"data", sign(plant.key, b"data"))


def test_a_signer_of_another_federation_is_refused(tmp_path: Path, hub: Credentials) -> None:
    other = Pki(tmp_path, "other").credentials(Role.HUB, "hub")
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        verify(der(other), hub.authority, Role.HUB, b"data", sign(other.key, b"data"))


def test_an_expired_signer_is_refused(pki: Pki, hub: Credentials) -> None:
    expired = pki.dated(hub, -2 * HOUR, -HOUR)
    with pytest.raises(CertificateError, match="the signer's certificate expired"):
        check(expired, b"data", sign(hub.key, b"data"))


@pytest.mark.parametrize(("certificate", "authority"), [(b"junk", None), (None, b"junk")])
def test_unreadable_certificates_are_refused(
    hub: Credentials, certificate: bytes | None, authority: bytes | None
) -> None:
    with pytest.raises(CertificateError, match=r"unreadable|not a PEM certificate"):
        verify(certificate or der(hub), authority or hub.authority, Role.HUB, b"data", b"")


def test_only_elliptic_curve_keys_sign() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CertificateError, match="not an elliptic-curve key"):
        sign(pem, b"data")


def test_an_altered_certificate_never_speaks_and_never_raises_anything_but_a_certificate_error(
    hub: Credentials,
) -> None:
    """The hub's certificate in a receipt is a stranger's bytes: an auditor gets an answer, not a traceback."""
    original, signature = der(hub), sign(hub.key, b"data")
    said = [one.tbs_certificate_bytes for one in read_der_chain(original, "it")]
    chance = random.Random(7)  # noqa: S311 - the same alterations in every run
    for _ in range(3000):
        altered = bytearray(original)
        altered[chance.randrange(len(altered))] ^= chance.randrange(1, 256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography warns of what RFC 5280 forbids
            try:
                verify(bytes(altered), hub.authority, Role.HUB, b"data", signature)
            except CertificateError:
                continue
            # What the CA signed is unaltered: only the form of its own signature may have another spelling.
            assert [one.tbs_certificate_bytes for one in read_der_chain(bytes(altered), "it")] == said
