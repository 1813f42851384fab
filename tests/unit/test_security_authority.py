from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedsparse.errors import CertificateError
from fedsparse.security import Identity, Role, create_authority, identity_of, issue, load_authority

KISO = Identity(Role.PLANT, "kiso")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_keys_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    issue(create_authority(tmp_path / "ca", "test"), KISO, tmp_path / "kiso")
    assert mode(tmp_path / "ca" / "ca.key") == 0o600
    assert mode(tmp_path / "kiso" / "kiso.key") == 0o600


def test_a_second_authority_never_overwrites_the_first(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    key = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(CertificateError, match=r"already holds.*Name another folder"):
        create_authority(tmp_path, "test")
    assert (tmp_path / "ca.key").read_bytes() == key


def test_a_loaded_authority_is_the_one_that_was_created(tmp_path: Path) -> None:
    created = create_authority(tmp_path, "test")
    assert load_authority(tmp_path).certificate == created.certificate


def test_a_missing_authority_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="fedsparse pki init"):
        load_authority(tmp_path)


def test_an_authority_with_a_garbage_key_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    (tmp_path / "issuing.key").write_text("no key")
    with pytest.raises(CertificateError, match="is not a PEM private key"):
        load_authority(tmp_path)


def test_an_authority_with_an_encrypted_key_is_refused_without_a_traceback(tmp_path: Path) -> None:
    authority = create_authority(tmp_path, "test")
    pem = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "issuing.key").write_bytes(pem)
    with pytest.raises(CertificateError, match="passphrase is needed, and none is given"):
        load_authority(tmp_path)
    with pytest.raises(CertificateError, match="passphrase is not the one"):
        load_authority(tmp_path, b"guess")
    assert load_authority(tmp_path, b"secret").certificate == authority.certificate


def test_an_authority_with_an_rsa_key_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path, "test")
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "issuing.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateError, match="not an elliptic-curve key"):
        load_authority(tmp_path)


def test_an_authority_with_the_key_of_another_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path / "one", "one")
    create_authority(tmp_path / "two", "two")
    (tmp_path / "one" / "issuing.key").write_bytes((tmp_path / "two" / "issuing.key").read_bytes())
    with pytest.raises(CertificateError, match="does not belong"):
        load_authority(tmp_path / "one")


def test_an_issued_certificate_names_its_holder_and_is_no_authority(tmp_path: Path) -> None:
    issue(create_authority(tmp_path / "ca", "test"), KISO, tmp_path / "kiso")
    leaf = x509.load_pem_x509_certificate((tmp_path / "kiso" / "kiso.pem").read_bytes())
    assert identity_of(leaf) == KISO
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False


def test_an_issued_certificate_names_hosts_and_addresses(tmp_path: Path) -> None:
    hosts = ("hub.example", "10.0.0.7", "::1")
    issue(create_authority(tmp_path / "ca", "test"), Identity(Role.HUB, "hub"), tmp_path / "hub", hosts)
    leaf = x509.load_pem_x509_certificate((tmp_path / "hub" / "hub.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]


@pytest.mark.parametrize("host", ["hub.example:8443", "https://hub.example", "", "工場.example", "a b"])
def test_what_is_no_host_name_is_not_written_into_a_certificate(tmp_path: Path, host: str) -> None:
    authority = create_authority(tmp_path / "ca", "test")
    with pytest.raises(CertificateError, match="without scheme and port"):
        issue(authority, Identity(Role.HUB, "hub"), tmp_path / "hub", (host,))
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("name", ["ca", "issuing", "crl"])
def test_nobody_may_be_called_as_the_authoritys_own_files_are(tmp_path: Path, name: str) -> None:
    authority = create_authority(tmp_path, "test")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CertificateError, match="Use another name"):
        issue(authority, Identity(Role.PLANT, name), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_issuing_again_replaces_key_and_certificate_together(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "ca", "test")
    issue(authority, KISO, tmp_path / "kiso")
    (tmp_path / "kiso" / "kiso.key").chmod(0o644)
    issue(authority, KISO, tmp_path / "kiso")
    leaf = x509.load_pem_x509_certificate((tmp_path / "kiso" / "kiso.pem").read_bytes())
    key = load_pem_private_key((tmp_path / "kiso" / "kiso.key").read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    assert mode(tmp_path / "kiso" / "kiso.key") == 0o600


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CertificateError, match=r"cannot write to .*file"):
        create_authority(tmp_path / "file" / "ca", "test")
