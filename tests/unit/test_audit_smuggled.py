"""What can be put into evidence although it says nothing false: a hiding place, or what should be gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.auditing import changes
from benchmarks.auditing.changes import Stage
from benchmarks.auditing.evidence import Parts
from benchmarks.auditing.mutations import make_stage, prepare
from fedsparse.audit import cosign, load_key, make_opening, public_bytes, read_bundle, verify_evidence
from fedsparse.audit.notes import Checkpoint
from fedsparse.audit.opening import Opened
from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import CertificateError
from fedsparse.security import is_lowest, sign, verify
from fedsparse.security.identity import Role
from fedsparse.v1 import link_pb2

Kept = list[link_pb2.Receipt]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stage, Kept]:
    folder = prepare(tmp_path_factory.mktemp("stage"))
    return folder, *make_stage(folder)


@pytest.fixture
def stage(staged: tuple[Path, Stage, Kept]) -> Stage:
    return staged[1]


def problems(parts: Parts, stage: Stage, folder: Path, kept: Kept | None = None) -> list[str]:
    path = folder / "altered.tar"
    path.write_bytes(parts.bundle())
    return list(verify_evidence(read_bundle(path), stage.federation.authority, kept).problems)


def test_a_payload_of_no_entry_is_found(stage: Stage, tmp_path: Path) -> None:
    parts = Parts.of(stage.bundle)
    digest = parts.put(b"smuggled")
    assert problems(parts, stage, tmp_path) == [f"the member 'payloads/{digest.hex()}' belongs to no entry"]


def test_an_adapter_space_of_no_payload_is_found(stage: Stage, tmp_path: Path) -> None:
    parts = Parts.of(stage.bundle)
    space = AdapterSpace(bytes(32), (TensorSpec("smuggled", (1,)),))
    parts.files[f"spaces/{space.fingerprint.hex()}.json"] = space.to_json()
    (found,) = problems(parts, stage, tmp_path)
    assert found == f"the member 'spaces/{space.fingerprint.hex()}.json' is of no payload's adapter space"


def test_a_payload_that_was_deleted_and_is_there_is_found(stage: Stage, tmp_path: Path) -> None:
    parts = Parts.of(stage.bundle)
    parts.files |= stage.erased
    (found,) = problems(parts, stage, tmp_path)
    assert found == f"entry {len(parts.entries)}: the payload that it says was deleted is there"


def test_a_receipt_whose_cosignature_names_somebody_else_is_found(
    staged: tuple[Path, Stage, Kept], tmp_path: Path
) -> None:
    folder, stage, _ = staged
    witness = load_key(folder / "one" / "receipts" / "witness.key", create=False)

    def rename(receipt: link_pb2.Receipt) -> None:
        body = receipt.body
        seen = Checkpoint(body.origin, body.checkpoint_size, body.checkpoint_root)
        receipt.cosignature = cosign(seen, "fedsparse/other", witness, 1)

    parts, number = with_receipt(stage, rename)
    assert problems(parts, stage, tmp_path) == [
        f"entry {number}: its receipt is cosigned under another name than that of hub"
    ]


def test_the_other_form_of_a_signature_is_found(stage: Stage, tmp_path: Path) -> None:
    def mirror(receipt: link_pb2.Receipt) -> None:
        receipt.signature = mirrored(receipt.signature)

    parts, number = with_receipt(stage, mirror)
    (found,) = problems(parts, stage, tmp_path)
    assert found == f"entry {number}: its receipt has its signature in another form than the hub writes"


def test_a_certificate_that_leads_nowhere_is_found(stage: Stage, tmp_path: Path) -> None:
    root = x509.load_pem_x509_certificates(stage.federation.authority)[0].public_bytes(Encoding.DER)
    for more in (root, stage.federation.plant.der):

        def add(receipt: link_pb2.Receipt, more: bytes = more) -> None:
            receipt.hub_certificate += more

        parts, number = with_receipt(stage, add)
        other, found = problems(parts, stage, tmp_path)
        assert other == f"entry {number}: its receipt names another certificate than it shows"
        assert found.startswith(f"entry {number}: its receipt is not the hub's: ")
        assert "not on its way to the CA" in found


@pytest.mark.parametrize("spell", [changes._other_certificate, changes._other_padding])
def test_a_certificate_in_other_bytes_that_verify_as_well_is_found(
    staged: tuple[Path, Stage, Kept], tmp_path: Path, spell: Callable[[link_pb2.Receipt, Stage], None]
) -> None:
    _, stage, kept = staged
    (tmp_path / "honest").mkdir()
    assert not problems(Parts.of(stage.bundle), stage, tmp_path / "honest", kept)
    parts, number = with_receipt(stage, lambda receipt: spell(receipt, stage))
    other = f"entry {number}: its receipt names another certificate than it shows"
    assert problems(parts, stage, tmp_path) == [other]
    assert problems(parts, stage, tmp_path, kept)[-1] == (
        f"entry {number}: its receipt is not, byte for byte, the hub's receipt 1"
    )


def test_an_origin_that_names_another_key_is_found(stage: Stage) -> None:
    key = public_bytes(stage.key)
    for origin, wrong in ((stage.origin, False), ("fedsparse/kiso/0123456789abcdef", True)):
        opening = make_opening(origin, key, stage.federation.plant, "1", "ab" * 32, 0)
        at = stage.federation.plant.chain[0].not_valid_before_utc.timestamp() * 1000
        found = list(Opened(1, int(at) + 1, opening, False).check(stage.federation.authority))
        assert bool(found) == wrong


def test_we_sign_in_the_lower_form_and_only_other_forms_are_told(stage: Stage) -> None:
    hub = stage.federation.hub
    for number in range(20):
        signature = sign(hub.key, bytes([number]))
        assert is_lowest(signature)
        assert not is_lowest(mirrored(signature))
        for one in (signature, mirrored(signature)):  # both are valid
            assert verify(hub.der, stage.federation.authority, Role.HUB, bytes([number]), one).name == "hub"
    assert not is_lowest(b"junk")


def test_credentials_hand_out_their_chain_without_the_root(stage: Stage) -> None:
    hub = stage.federation.hub
    whole = replace(hub, certificate=hub.certificate + hub.authority)
    assert len(whole.chain) == len(hub.chain) + 1
    assert whole.der == hub.der


def test_a_certificate_with_an_extension_twice_is_no_certificate(stage: Stage) -> None:
    hub, usage, constraints = stage.federation.hub, bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")
    assert usage in hub.der
    twice = hub.der.replace(usage, constraints, 1)
    with pytest.raises(CertificateError):
        verify(twice, stage.federation.authority, Role.HUB, b"said", sign(hub.key, b"said"))


def with_receipt(stage: Stage, change: Callable[[link_pb2.Receipt], None]) -> tuple[Parts, int]:
    """Return the evidence with its first receipt changed, and the entry that it is for."""
    parts = Parts.of(stage.bundle)
    number, data = parts.receipts[0]
    receipt = link_pb2.Receipt.FromString(data)
    change(receipt)
    parts.receipts[0] = (number, receipt.SerializeToString(deterministic=True))
    return parts, number


def mirrored(signature: bytes) -> bytes:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, order - s)
