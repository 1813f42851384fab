"""The newest version's signature is one that still counts, or is made so; an altered version is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedsparse_server.heads import sign_head_anew

from fedsparse.delta import Operation, SparseDelta
from fedsparse.registry import Registry
from fedsparse.security import Credentials, Identity, Role, issue, load_credentials, revoke, sign, verify
from tests.unit.federation_samples import SPACE, Pki, change, files


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def hub(pki: Pki, home: Path) -> Credentials:
    issue(pki.authority, Identity(Role.HUB, "hub"), home, ("127.0.0.1",))
    return load_credentials(files(home, "hub"), Role.HUB)


def registry(folder: Path, signer: Credentials) -> Registry:
    made = Registry(folder, SPACE)
    state = SparseDelta(SPACE.fingerprint, Operation.SET, change().tensors)
    made.commit(
        state, round=1, rule="r", contributions=(), metrics={}, sign=lambda data: sign(signer.key, data),
        certificate=signer.der,
    )  # fmt: skip
    return made


def test_a_signature_that_counts_is_left_alone(pki: Pki, tmp_path: Path) -> None:
    signer = hub(pki, tmp_path / "hub")
    made = registry(tmp_path / "registry", signer)
    before = made.signature(1)
    assert not sign_head_anew(made, hub(pki, tmp_path / "hub"), files(tmp_path / "hub", "hub"))
    assert made.signature(1) == before
    assert not sign_head_anew(Registry(tmp_path / "empty", SPACE), signer, files(tmp_path / "hub", "hub"))


def test_a_revoked_signer_is_replaced_and_the_content_stays(pki: Pki, tmp_path: Path) -> None:
    made = registry(tmp_path / "registry", hub(pki, tmp_path / "hub"))
    manifest = made.manifest(1)
    revoke(pki.authority, ["hub"])
    young = hub(pki, tmp_path / "hub")
    settings = files(tmp_path / "hub", "hub").model_copy(update={"revoked": pki.folder / "ca" / "crl.pem"})
    assert sign_head_anew(made, young, settings)
    assert made.manifest(1) == manifest
    verify(made.certificate(1), young.authority, Role.HUB, manifest, made.signature(1))
    assert made.certificate(1) == young.der
    assert not sign_head_anew(made, young, settings)


def test_an_altered_version_is_not_signed_anew(pki: Pki, tmp_path: Path) -> None:
    made = registry(tmp_path / "registry", hub(pki, tmp_path / "hub"))
    path = tmp_path / "registry" / "versions" / "000001" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"r"', b'"s"'))
    revoke(pki.authority, ["hub"])
    young = hub(pki, tmp_path / "hub")
    before = made.signature(1)
    settings = files(tmp_path / "hub", "hub").model_copy(update={"revoked": pki.folder / "ca" / "crl.pem"})
    assert not sign_head_anew(made, young, settings)
    assert made.signature(1) == before
