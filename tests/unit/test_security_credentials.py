from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedsparse.errors import CertificateError
from fedsparse.security import Credentials, Identity, Role, load_credentials
from tests.unit.federation_samples import HOUR, Pki, dated, dated_root, files


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def load(home: Path, name: str, role: Role) -> Credentials:
    return load_credentials(files(home, name), role)


def redate(pki: Pki, path: Path, start: timedelta, end: timedelta) -> None:
    path.write_bytes(dated(pki.authority, path.read_bytes(), start, end))


@pytest.mark.parametrize("role", list(Role))
def test_issued_files_load(pki: Pki, role: Role) -> None:
    assert load(pki.issue(role, "kiso"), "kiso", role).identity == Identity(role, "kiso")


def test_the_key_is_never_printed(pki: Pki) -> None:
    credentials = load(pki.issue(Role.PLANT, "kiso"), "kiso", Role.PLANT)
    assert repr(credentials) == str(credentials) == "Credentials(urn:fedsparse:plant:kiso)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_chmod_that_helps(pki: Pki, mode: int) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "kiso.key").chmod(mode)
    with pytest.raises(CertificateError) as caught:
        load(home, "kiso", Role.PLANT)
    assert f"(mode {mode:04o})" in caught.value.what
    assert caught.value.remedy == f"Run: chmod 600 {home / 'kiso.key'}"


@pytest.mark.parametrize(
    ("file", "what"), [("kiso.pem", "certificate"), ("kiso.key", "private key"), ("ca.pem", "CA certificate")]
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(pki: Pki, file: str, what: str) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / file).unlink()
    with pytest.raises(CertificateError, match=f"cannot read the {what} .*{file}.*fedsparse pki issue"):
        load(home, "kiso", Role.PLANT)


@pytest.mark.parametrize("file", ["kiso.pem", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_a_garbage_certificate_is_named(pki: Pki, file: str, content: bytes) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / file).write_bytes(content)
    with pytest.raises(CertificateError, match=f"{file} is not a PEM certificate"):
        load(home, "kiso", Role.PLANT)


def test_a_garbage_key_is_named(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "kiso.key").write_bytes(b"garbage")
    with pytest.raises(CertificateError, match=r"kiso\.key is not a PEM private key"):
        load(home, "kiso", Role.PLANT)


def test_an_rsa_key_is_refused(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    key = rsa.generate_private_key(65537, 2048)
    (home / "kiso.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateError, match=r"kiso\.key is not an elliptic-curve key"):
        load(home, "kiso", Role.PLANT)


def test_a_key_of_another_certificate_is_refused(pki: Pki) -> None:
    home, other = pki.issue(Role.PLANT, "kiso"), pki.issue(Role.PLANT, "kiso")
    (home / "kiso.key").write_bytes((other / "kiso.key").read_bytes())
    with pytest.raises(CertificateError, match=r"the key .*kiso\.key does not belong to the certificate"):
        load(home, "kiso", Role.PLANT)


def test_a_certificate_of_another_federation_is_refused(pki: Pki, tmp_path: Path) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "ca.pem").write_bytes(Pki(tmp_path / "other", "other").ca.read_bytes())
    with pytest.raises(CertificateError, match=r"kiso\.pem was not issued by the given CA"):
        load(home, "kiso", Role.PLANT)


def test_a_ca_of_the_same_name_but_another_key_did_not_issue_it(pki: Pki, tmp_path: Path) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "ca.pem").write_bytes(Pki(tmp_path / "other", "test").ca.read_bytes())
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        load(home, "kiso", Role.PLANT)


def test_the_dates_of_a_ca_that_only_has_the_issuers_name_are_nobodys_fault(pki: Pki, tmp_path: Path) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "ca.pem").write_bytes(dated_root(Pki(tmp_path / "other", "test"), HOUR, 2 * HOUR))
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        load(home, "kiso", Role.PLANT)


def test_an_expired_certificate_says_when_it_expired(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    redate(pki, home / "kiso.pem", -2 * HOUR, -HOUR)
    with pytest.raises(CertificateError, match=r"kiso\.pem expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC"):
        load(home, "kiso", Role.PLANT)


def test_a_certificate_of_the_future_says_from_when_it_holds(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    redate(pki, home / "kiso.pem", HOUR, 2 * HOUR)
    with pytest.raises(CertificateError, match=r"kiso\.pem is valid only from .* UTC\. Check the clock"):
        load(home, "kiso", Role.PLANT)


def test_an_expired_ca_is_refused_although_the_certificate_holds(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    (home / "ca.pem").write_bytes(dated_root(pki, -2 * HOUR, -HOUR))
    with pytest.raises(CertificateError, match="the CA certificate expired"):
        load(home, "kiso", Role.PLANT)


def test_a_plants_certificate_cannot_serve_as_a_hub(pki: Pki) -> None:
    with pytest.raises(CertificateError, match=r"kiso\.pem is a plant's certificate, a hub's is needed"):
        load(pki.issue(Role.PLANT, "kiso"), "kiso", Role.HUB)


def test_a_hubs_certificate_cannot_serve_as_a_plant(pki: Pki) -> None:
    with pytest.raises(CertificateError, match="is a hub's certificate, a plant's is needed"):
        load(pki.issue(Role.HUB, "hub"), "hub", Role.PLANT)


def test_a_certificate_issued_by_a_plant_is_worth_nothing(pki: Pki) -> None:
    """A plant's key signs a certificate for another plant; only the CA's own signature counts."""
    plant, victim = pki.issue(Role.PLANT, "kiso"), pki.issue(Role.PLANT, "ise")
    signer = load(plant, "kiso", Role.PLANT)
    forger = Pki(pki.folder / "forger")
    forged = dated(forger.authority, (victim / "ise.pem").read_bytes(), -HOUR, HOUR)
    (victim / "ise.pem").write_bytes(forged)
    (victim / "ca.pem").write_bytes(signer.authority)
    with pytest.raises(CertificateError, match="was not issued by the given CA"):
        load(victim, "ise", Role.PLANT)


def test_a_certificate_without_extended_key_usage_is_refused(pki: Pki) -> None:
    home = pki.issue(Role.PLANT, "kiso")
    old = x509.load_pem_x509_certificate((home / "kiso.pem").read_bytes())
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 5, old.not_valid_before_utc.replace(tzinfo=None)
    ).not_valid_after(old.not_valid_after_utc)
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = builder.add_extension(names, critical=False)
    chain = builder.sign(pki.authority.key, hashes.SHA256()), pki.authority.certificate
    (home / "kiso.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    with pytest.raises(CertificateError, match="a plant's is needed"):
        load(home, "kiso", Role.PLANT)
