"""Whose ledger it is, and by which key: what the entry OPENED proves, and what it does not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedsparse.audit import CLOCK_UNKNOWN, EntryKind, Ledger, make_opening, origin_of, verify_ledger
from fedsparse.bundle import bundle_sha256
from fedsparse.security import Credentials, Role
from fedsparse.v1 import ledger_pb2
from tests.unit.federation_samples import MINUTE, Pki
from tests.unit.samples import OWNERLESS, REASON_PAYLOAD, cell, draft_of


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def ise(pki: Pki) -> Credentials:
    return pki.credentials(Role.PLANT, "ise")


def opening(ledger: Ledger, plant: Credentials, key: bytes | None = None, name: str = "ise") -> ledger_pb2.Opening:
    public = ledger.key if key is None else key
    return make_opening(origin_of(name, public), public, plant, "1.2.3", bundle_sha256(), CLOCK_UNKNOWN)


def problems(folder: Path, authority: Pki | None, *notes: ledger_pb2.Opening | bytes) -> tuple[str, ...]:
    """Return what verifying says of a ledger that is opened so."""
    with Ledger(folder, bytes(32), "ise") as ledger:
        for note in notes:
            ledger.append_note(EntryKind.OPENED, note)
    return verify_ledger(folder, None if authority is None else authority.ca.read_bytes()).problems


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a ledger that is closed again; its name and key stay."""
    with Ledger(tmp_path / "ledger", bytes(32), "ise") as ledger:
        ledger.append(draft_of(REASON_PAYLOAD, "task", EntryKind.REASON), REASON_PAYLOAD)
    return ledger


@pytest.fixture
def folder(ledger: Ledger, tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_an_opening_says_who_writes_with_what(ledger: Ledger, folder: Path, pki: Pki, ise: Credentials) -> None:
    assert problems(folder, pki, opening(ledger, ise)) == ()
    entry = ledger_pb2.LedgerEntry.FromString(cell(folder, "entries", "entry", 2))
    note = ledger_pb2.Opening.FromString((folder / "payloads" / entry.payload_sha256.hex()).read_bytes())
    assert (note.origin, note.ledger_key, note.certificate) == (ledger.origin, ledger.key, ise.der)
    assert (note.software, note.bundle_sha256.hex()) == ("1.2.3", bundle_sha256())
    assert note.clock_error_us == CLOCK_UNKNOWN


def test_a_ledger_is_opened_again_and_again_with_one_certificate_after_another(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    renewed = pki.credentials(Role.PLANT, "ise")
    assert problems(folder, pki, opening(ledger, ise), opening(ledger, renewed)) == ()


def test_without_an_opening_nobody_knows_whose_ledger_it_is(folder: Path, pki: Pki) -> None:
    assert problems(folder, pki) == (OWNERLESS,)


def test_a_certificate_of_another_federation_opens_nothing(
    ledger: Ledger, folder: Path, pki: Pki, tmp_path: Path
) -> None:
    other = Pki(tmp_path / "other").credentials(Role.PLANT, "ise")
    (problem,) = problems(folder, pki, opening(ledger, other))
    assert problem.startswith("entry 2: is not the plant's: ")
    assert "was not issued by the given CA" in problem
    assert verify_ledger(folder, None).problems == ()  # without the CA nobody can know


def test_a_hub_opens_no_ledger(ledger: Ledger, folder: Path, pki: Pki) -> None:
    (problem,) = problems(folder, pki, opening(ledger, pki.credentials(Role.HUB, "ise")))
    assert problem.startswith("entry 2: is not the plant's: ")
    assert "is a hub's certificate, a plant's is needed" in problem


def test_another_plant_opens_no_ledger_of_this_one(ledger: Ledger, folder: Path, pki: Pki) -> None:
    (problem,) = problems(folder, pki, opening(ledger, pki.credentials(Role.PLANT, "owari")))
    assert problem == f"entry 2: is by owari, which has no ledger {ledger.origin!r} with this key"


@pytest.mark.parametrize("origin", ["fedsparse/ise/0123456789abcdef", "fedsparse/ise/", "ise", ""])
def test_a_plant_signs_for_no_ledger_that_is_not_named_by_its_key(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials, origin: str
) -> None:
    note = make_opening(origin, ledger.key, ise, "0", bundle_sha256(), CLOCK_UNKNOWN)
    named, signed = problems(folder, pki, note)
    assert named == f"entry 2: is by ise, which has no ledger {origin!r} with this key"
    assert signed.startswith("entry 2: the ledger signed for 2 entries")  # under its true name


@pytest.mark.parametrize("field", ["origin", "ledger_key", "certificate", "signature"])
def test_an_opening_whose_words_were_changed_opens_nothing(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials, field: str
) -> None:
    note, other = opening(ledger, ise), opening(ledger, pki.credentials(Role.PLANT, "ise"), bytes(32))
    setattr(note, field, getattr(other, field))
    found = problems(folder, pki, note)
    assert any(one.startswith("entry 2: is not the plant's: the signature") for one in found)
    assert "entry 2: its certificate did not sign for the ledger's key" in verify_ledger(folder, None).problems


@pytest.mark.parametrize("field", ["certificate", "signature"])
@pytest.mark.parametrize("junk", [b"", b"junk", b"0" * 1000])
def test_an_opening_with_junk_for_a_signature_opens_nothing(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials, field: str, junk: bytes
) -> None:
    note = opening(ledger, ise)
    setattr(note, field, junk)
    (problem,) = problems(folder, pki, note)
    assert problem.startswith("entry 2: is not the plant's: ")
    assert verify_ledger(folder, None).problems == ("entry 2: its certificate did not sign for the ledger's key",)


def test_the_key_of_another_ledger_does_not_sign_for_this_one(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    """The plant has two ledgers, and one's opening was put into the other."""
    (problem,) = problems(folder, pki, opening(ledger, ise, bytes(range(32))))
    assert problem == (
        "entry 2: the ledger's checkpoint does not count: the checkpoint is signed by another key than the log's"
    )


def test_a_second_opening_that_names_another_ledger_is_found_and_the_first_one_counts(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    other = opening(ledger, ise, bytes(range(32)))
    (problem,) = problems(folder, pki, opening(ledger, ise), other)
    assert problem == f"entry 3: names another ledger, {other.origin!r}, than the one that it is in"


def test_a_certificate_that_had_expired_when_the_ledger_was_opened_opens_nothing(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    (problem,) = problems(folder, pki, opening(ledger, pki.dated(ise, -4 * MINUTE, -2 * MINUTE)))
    assert problem.startswith("entry 2: is not the plant's: the signer's certificate expired")


def test_a_certificate_that_has_expired_since_still_opens_what_it_opened(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired, now = pki.dated(ise, -4 * MINUTE, -2 * MINUTE), time.time_ns()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: now - 3 * 60 * 10**9)
        with Ledger(folder, bytes(32), "ise") as again:
            again.append_note(EntryKind.OPENED, opening(ledger, expired))
    assert verify_ledger(folder, pki.ca.read_bytes()).problems == ()


@pytest.mark.parametrize("junk", [b"\xff", b"no opening"])
def test_an_opening_that_is_none_is_told_where_it_stands(folder: Path, pki: Pki, junk: bytes) -> None:
    assert problems(folder, pki, junk) == ("entry 2: its payload cannot be read", OWNERLESS)


def test_an_opening_with_something_added_is_told(ledger: Ledger, folder: Path, pki: Pki, ise: Credentials) -> None:
    found = problems(folder, pki, opening(ledger, ise).SerializeToString() + b"\xfa\x01\x06hidden")
    assert found == ("entry 2: its payload is not in canonical form",)


def test_an_opening_that_was_deleted_leaves_the_ledger_without_an_owner(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    problems(folder, pki, opening(ledger, ise))
    entry = ledger_pb2.LedgerEntry.FromString(cell(folder, "entries", "entry", 2))
    (folder / "payloads" / entry.payload_sha256.hex()).unlink()
    found = verify_ledger(folder, pki.ca.read_bytes()).problems
    assert found == ("entry 2: its payload is gone", OWNERLESS)


def test_an_opening_is_by_the_holder_of_the_certificates_key(
    ledger: Ledger, folder: Path, pki: Pki, ise: Credentials
) -> None:
    thief = pki.credentials(Role.PLANT, "owari")
    note = opening(ledger, replace(ise, key=thief.key))
    (problem,) = problems(folder, pki, note)
    assert problem.startswith("entry 2: is not the plant's: the signature")
