from __future__ import annotations

import shutil
import time
from hashlib import sha256
from pathlib import Path

import pytest

from fedsparse.audit import (
    Checkpoint,
    EntryKind,
    Ledger,
    load_key,
    origin_of,
    public_bytes,
    read_record,
    receipt_line,
    verify_ledger,
)
from fedsparse.audit.merkle import completed, root
from fedsparse.audit.merkle import leaf_hash as entry_hash
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.audit.policy import canonical_bytes
from fedsparse.audit.report.translation import told
from fedsparse.config import EgressSettings
from fedsparse.delta import encode_update
from fedsparse.delta.rounds import Reason, RoundUpdate
from fedsparse.errors import LedgerError
from fedsparse.security import Role
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.federation_samples import MINUTE, Pki
from tests.unit.samples import (
    LEFT,
    OTHER_SPACE,
    OWNERLESS,
    REASON_PAYLOAD,
    REFUSED_PAYLOAD,
    SPACE,
    Hub,
    call_draft,
    cell,
    delta,
    draft_of,
    open_as,
    tamper,
    update,
)

POLICY = canonical_bytes(EgressSettings())
PAYLOADS = {2: update(), 3: REFUSED_PAYLOAD, 4: REASON_PAYLOAD}


def problems(folder: Path, hub: Hub) -> tuple[str, ...]:
    verdict = verify_ledger(folder, hub.authority)
    assert verdict.verified == (not verdict.problems)
    assert all(told(one).ja != one for one in verdict.problems)
    return verdict.problems


def by_itself(found: tuple[str, ...]) -> tuple[str, ...]:
    """Return the problems of single entries, without what follows from them for the whole tree."""
    return tuple(one for one in found if "under another root" not in one and "another history" not in one)


def named(found: tuple[str, ...]) -> set[int]:
    """Return the entries that have a problem of their own."""
    return {int(problem.split(":")[0].removeprefix("entry ")) for problem in by_itself(found)}


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def replace_entry(folder: Path, sequence: int, data: bytes) -> None:
    """Do it as a careful forger does, with the hash that fits."""
    tamper(folder, "UPDATE entries SET entry = ?, hash = ? WHERE sequence = ?", data, entry_hash(data), sequence)


def forge(folder: Path, at: int, /, **changes: object) -> None:
    """Change fields of an entry, and rewrite the chain from there on."""
    previous = None
    for number in range(at, verify_ledger(folder, None).entries + 1):
        entry = ledger_pb2.LedgerEntry.FromString(cell(folder, "entries", "entry", number))
        if number == at:
            for name, value in changes.items():
                setattr(entry, name, value)
        if previous is not None:
            entry.previous_hash = previous
        data = entry.SerializeToString(deterministic=True)
        previous = entry_hash(data)
        replace_entry(folder, number, data)


def test_an_honest_ledger_verifies_and_is_counted(ledger_folder: Path, hub: Hub) -> None:
    verdict = verify_ledger(ledger_folder, hub.authority)
    assert verdict.verified
    assert (verdict.entries, verdict.updates, verdict.refusals, verdict.receipts) == (6, 2, 1, 3)
    assert (verdict.witnessed, verdict.unfiled, verdict.erased) == (5, (), 0)
    assert verdict.missing_receipts == ()


def test_an_empty_ledger_proves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path, bytes(32), "ise"):
        pass
    verdict = verify_ledger(tmp_path, None)
    assert (verdict.entries, verdict.problems, verdict.verified) == (0, (), False)


def test_a_folder_without_a_ledger_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no ledger"):
        verify_ledger(tmp_path, None)


def test_a_copy_verifies_elsewhere(ledger_folder: Path, tmp_path: Path, hub: Hub) -> None:
    shutil.copytree(ledger_folder, tmp_path / "laptop", ignore=shutil.ignore_patterns("lock"))
    assert problems(tmp_path / "laptop", hub) == ()


@pytest.mark.parametrize("sequence", range(1, 6))
def test_a_changed_entry_is_found(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    data = flipped(cell(ledger_folder, "entries", "entry", sequence), 10)
    tamper(ledger_folder, "UPDATE entries SET entry = ? WHERE sequence = ?", data, sequence)
    assert sequence in named(problems(ledger_folder, hub))


@pytest.mark.parametrize("sequence", range(1, 6))
def test_a_changed_hash_is_found(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    data = flipped(cell(ledger_folder, "entries", "hash", sequence), 0)
    tamper(ledger_folder, "UPDATE entries SET hash = ? WHERE sequence = ?", data, sequence)
    assert named(problems(ledger_folder, hub)) == {sequence}


@pytest.mark.parametrize("sequence", range(1, 5))
def test_a_changed_entry_with_a_fitting_hash_breaks_the_chain(
    ledger_folder: Path, hub: Hub, sequence: int
) -> None:
    entry = ledger_pb2.LedgerEntry.FromString(cell(ledger_folder, "entries", "entry", sequence))
    entry.time_unix_ms += 1
    replace_entry(ledger_folder, sequence, entry.SerializeToString(deterministic=True))
    found = problems(ledger_folder, hub)
    assert f"entry {sequence}: breaks the chain" in "\n".join(found)
    assert named(found) == {sequence}


@pytest.mark.parametrize("sequence", [2, 4, 5])
def test_a_chain_rewritten_from_an_entry_on_contradicts_the_receipts(
    ledger_folder: Path, hub: Hub, sequence: int
) -> None:
    forge(ledger_folder, sequence, time_unix_ms=1)
    found = problems(ledger_folder, hub)
    assert named(found) == set(range(sequence, 7))
    contradicted = {one.split(":")[0] for one in found if "its receipt speaks of another payload, entry" in one}
    assert contradicted == {f"entry {number}" for number in LEFT if number >= sequence}
    whole = "\n".join(set(found) - set(by_itself(found)))
    assert "entry 6: the ledger signed for 6 entries under another root" in whole
    assert f"entry {sequence}: the hub witnessed another history" in whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round": 9}, "round, version or samples"),
        ({"version": 9}, "round, version or samples"),
        ({"samples": 9}, "round, version or samples"),
        ({"reason": 1}, "tensors or reason"),
        ({"kind": EntryKind.REASON}, "its kind is another"),
        ({"kind": 99}, "is of the unknown kind 99"),
        ({"kind": 0}, "is of the unknown kind 0"),
        ({"kind": EntryKind.REFUSED}, "its receipt is for nothing that left"),
        ({"payload_bytes": 1}, "bytes, not 1"),
        ({"payload_bytes": 0}, "has no payload, but the digest of one"),
        ({"payload_bytes": 0}, "has no payload, though something left"),
        ({"kind": EntryKind.DESCRIBE}, "has a payload, which no call has"),
        ({"kind": EntryKind.ATTEND}, "has a payload, which no call has"),
        ({"time_unix_ms": 253_402_300_800_000}, "is dated at no possible time"),
        ({"time_unix_ms": -1}, "is dated at no possible time"),
        ({"payload_sha256": bytes(32)}, "its payload is gone"),
        ({"payload_sha256": sha256(REFUSED_PAYLOAD).digest()}, "its payload has "),
        ({"sequence": 9}, "says that it is entry 9"),
        ({"format": 1}, "its bytes are no ledger entry"),
        ({"task_id": "other"}, "its receipt speaks of another payload, entry or task"),
    ],
)
def test_an_entry_that_says_another_thing_than_its_payload_is_found_even_with_a_rewritten_chain(
    ledger_folder: Path, hub: Hub, changes: dict[str, object], said: str
) -> None:
    forge(ledger_folder, 2, **changes)
    assert any(problem.startswith("entry 2: ") and said in problem for problem in problems(ledger_folder, hub))


@pytest.mark.parametrize("field", ["tensors", "metrics"])
def test_tensors_or_metrics_left_out_of_an_entry_are_found(ledger_folder: Path, hub: Hub, field: str) -> None:
    entry = ledger_pb2.LedgerEntry.FromString(cell(ledger_folder, "entries", "entry", 5))
    entry.ClearField(field)
    replace_entry(ledger_folder, 5, entry.SerializeToString(deterministic=True))
    assert f"entry 5: {field}" in "\n".join(problems(ledger_folder, hub))


def test_the_last_moment_of_the_last_year_is_a_possible_time(ledger_folder: Path, hub: Hub) -> None:
    forge(ledger_folder, 1, time_unix_ms=253_402_300_799_999)
    assert "is dated at no possible time" not in "\n".join(problems(ledger_folder, hub))


def test_an_entry_with_an_unknown_field_is_no_entry(ledger_folder: Path, hub: Hub) -> None:
    replace_entry(ledger_folder, 5, cell(ledger_folder, "entries", "entry", 5) + b"\xfa\x01\x06hidden")
    assert "entry 5: its bytes are no ledger entry" in problems(ledger_folder, hub)


@pytest.mark.parametrize("sequence", range(1, 5))
def test_a_deleted_entry_is_found_at_the_next(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    tamper(ledger_folder, "DELETE FROM entries WHERE sequence = ?", sequence)
    found = problems(ledger_folder, hub)
    assert f"entry {sequence + 1}: follows entry {sequence - 1}: what stood between is gone" in found


def test_a_deleted_entry_is_found_when_the_others_move_up(ledger_folder: Path, hub: Hub) -> None:
    tamper(ledger_folder, "DELETE FROM entries WHERE sequence = 3")
    tamper(ledger_folder, "UPDATE entries SET sequence = sequence - 1 WHERE sequence = 4")
    tamper(ledger_folder, "UPDATE entries SET sequence = sequence - 1 WHERE sequence = 5")
    found = problems(ledger_folder, hub)
    assert "entry 3: says that it is entry 4" in found
    assert any(problem.startswith("entry 2: breaks the chain") for problem in found)


def test_two_swapped_entries_are_found(ledger_folder: Path, hub: Hub) -> None:
    for old, new in ((2, 9), (3, 2), (9, 3)):
        tamper(ledger_folder, "UPDATE entries SET sequence = ? WHERE sequence = ?", new, old)
    assert {2, 3} <= named(problems(ledger_folder, hub))


def test_a_tail_cut_off_is_found_by_the_receipts_left_over(ledger_folder: Path, hub: Hub) -> None:
    tamper(ledger_folder, "DELETE FROM entries WHERE sequence >= 4")
    found = problems(ledger_folder, hub)
    assert found[0] == OWNERLESS
    assert found[-2:] == tuple(f"entry {sequence}: its receipt is for nothing that left" for sequence in (4, 5))


def test_an_inserted_entry_is_found(ledger_folder: Path, hub: Hub) -> None:
    data = cell(ledger_folder, "entries", "entry", 5)
    tamper(ledger_folder, "INSERT INTO entries VALUES (7, ?, ?)", data, entry_hash(data))
    assert named(problems(ledger_folder, hub)) == {6, 7}


def test_what_another_policy_judged_than_the_one_recorded_is_found(tmp_path: Path, hub: Hub) -> None:
    with Ledger(tmp_path, bytes(32), "ise") as ledger:
        open_as(ledger, hub)
        ledger.append(call_draft(), b"")  # by whatever policy there was: none is recorded yet
        ledger.append_note(EntryKind.POLICY, POLICY, sha256(POLICY).digest())
        ledger.append(call_draft(), b"")
    (problem,) = problems(tmp_path, hub)
    assert problem == "entry 4: was judged by another policy than the one recorded before it"


def test_a_policy_whose_text_is_another_than_the_one_it_names_is_found(tmp_path: Path, hub: Hub) -> None:
    with Ledger(tmp_path, bytes(32), "ise") as ledger:
        open_as(ledger, hub)
        ledger.append_note(EntryKind.POLICY, POLICY, bytes(range(32)))
    assert problems(tmp_path, hub) == ("entry 2: names another policy than the one whose text it has",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"max_density = 0.05\n", "the bytes are no egress policy"),
        (b"\xff\xfe", "the bytes are no egress policy"),
        (b"", "the bytes are no egress policy"),
        (POLICY.replace(b'"max_density"', b'"max_destiny"'), "no egress policy of this release: max_destiny"),
        (POLICY + b" ", "not in canonical form"),
    ],
)
def test_what_is_no_policy_is_told_and_contradicts_nothing(
    tmp_path: Path, hub: Hub, text: bytes, why: str
) -> None:
    with Ledger(tmp_path, bytes(32), "ise") as ledger:
        open_as(ledger, hub)
        ledger.append_note(EntryKind.POLICY, POLICY, sha256(POLICY).digest())
        ledger.append_note(EntryKind.POLICY, text, sha256(text).digest())
    verdict = verify_ledger(tmp_path, hub.authority)
    assert verdict.problems == ()
    (told,) = verdict.unread
    assert told.startswith("entry 3: ")
    assert why in told


def test_a_tree_that_is_gone_is_found(ledger_folder: Path, hub: Hub) -> None:
    tamper(ledger_folder, "DELETE FROM nodes")
    assert problems(ledger_folder, hub) == ("entry 1: the tree over it is gone",)


@pytest.mark.parametrize("sequence", PAYLOADS)
def test_a_removed_payload_is_found(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    (ledger_folder / "payloads" / sha256(PAYLOADS[sequence]).hexdigest()).unlink()
    assert problems(ledger_folder, hub) == (f"entry {sequence}: its payload is gone",)


@pytest.mark.parametrize("sequence", PAYLOADS)
def test_an_altered_payload_is_found(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    file = ledger_folder / "payloads" / sha256(PAYLOADS[sequence]).hexdigest()
    for altered in (flipped(PAYLOADS[sequence], 3), PAYLOADS[sequence][:-1], PAYLOADS[sequence] + b"\0", b""):
        file.write_bytes(altered)
        assert problems(ledger_folder, hub) == (f"entry {sequence}: its payload was altered",)


def test_a_receipt_removed_is_missing(ledger_folder: Path, hub: Hub) -> None:
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence = 4")
    assert verify_ledger(ledger_folder, hub.authority).missing_receipts == (4,)


def test_a_receipt_moved_to_another_entry_is_found(ledger_folder: Path, hub: Hub) -> None:
    for old, new in ((2, 9), (5, 2), (9, 5)):
        tamper(ledger_folder, "UPDATE receipts SET sequence = ? WHERE sequence = ?", new, old)
    assert named(problems(ledger_folder, hub)) == {2, 5}


def test_a_receipt_of_another_federation_is_found(ledger_folder: Path, hub: Hub, tmp_path: Path) -> None:
    """Somebody signs the very same words with a hub certificate from a CA of their own."""
    other = Hub.create(tmp_path / "other")
    receipt = link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", 2))
    receipt.hub_certificate = other.certificate
    receipt.body.certificate_sha256 = sha256(other.certificate).digest()
    receipt.signature = other.sign(receipt.body.SerializeToString(deterministic=True))
    data = receipt.SerializeToString(deterministic=True)
    tamper(ledger_folder, "UPDATE receipts SET receipt = ? WHERE sequence = 2", data)
    [problem] = problems(ledger_folder, hub)
    assert problem.startswith("entry 2: its receipt is not the hub's: ")
    assert "was not issued by the given CA" in problem
    assert verify_ledger(ledger_folder, None).problems == ()  # without the CA nobody can know


def test_a_receipt_signed_by_a_plant_is_found(tmp_path: Path) -> None:
    plant = Hub.create(tmp_path / "plant", Role.PLANT)
    with Ledger(tmp_path / "ledger", bytes(32), "ise") as ledger:
        recorded = ledger.append(draft_of(REASON_PAYLOAD, "task", EntryKind.REASON), REASON_PAYLOAD)
        ledger.file_receipt(1, plant.receipt(ledger, recorded, 1))
        open_as(ledger, plant)
    [problem] = problems(tmp_path / "ledger", plant)
    assert "is a plant's certificate, a hub's is needed" in problem


def test_a_receipt_with_another_time_or_plant_is_found_by_its_signature(ledger_folder: Path, hub: Hub) -> None:
    original = cell(ledger_folder, "receipts", "receipt", 2)
    for name, value in (
        ("plant", "owari"),
        ("sequence", 7),
        ("received_unix_ms", time.time_ns() // 1_000_000 + 7),
    ):
        receipt = link_pb2.Receipt.FromString(original)
        setattr(receipt.body, name, value)
        data = receipt.SerializeToString(deterministic=True)
        tamper(ledger_folder, "UPDATE receipts SET receipt = ? WHERE sequence = 2", data)
        [problem] = problems(ledger_folder, hub)
        assert problem.startswith("entry 2: its receipt is not the hub's: the signature")


def test_a_receipt_with_something_added_is_found(ledger_folder: Path, hub: Hub) -> None:
    data = cell(ledger_folder, "receipts", "receipt", 2) + b"\xfa\x01\x06hidden"
    tamper(ledger_folder, "UPDATE receipts SET receipt = ? WHERE sequence = 2", data)
    assert problems(ledger_folder, hub) == ("entry 2: its receipt is not in canonical form",)


def test_a_receipt_that_is_none_is_found(ledger_folder: Path, hub: Hub) -> None:
    tamper(ledger_folder, "UPDATE receipts SET receipt = x'ff' WHERE sequence = 2")
    assert problems(ledger_folder, hub) == ("entry 2: its receipt is unreadable",)


@pytest.mark.parametrize("sequence", [1, 3])
def test_a_receipt_for_what_did_not_leave_is_found(ledger_folder: Path, hub: Hub, sequence: int) -> None:
    tamper(ledger_folder, "UPDATE receipts SET sequence = ? WHERE sequence = 2", sequence)
    assert problems(ledger_folder, hub) == (f"entry {sequence}: its receipt is for nothing that left",)


def test_an_update_that_cannot_be_decoded_is_named(ledger_folder: Path, hub: Hub) -> None:
    (ledger_folder / "spaces" / f"{SPACE.fingerprint.hex()}.json").unlink()
    assert problems(ledger_folder, hub) == tuple(
        f"entry {sequence}: cannot be decoded: the file of its adapter space is gone from spaces/"
        for sequence in (2, 5)
    )


def test_the_space_of_another_federation_is_found(ledger_folder: Path, hub: Hub) -> None:
    (ledger_folder / "spaces" / f"{SPACE.fingerprint.hex()}.json").write_bytes(OTHER_SPACE.to_json())
    with pytest.raises(LedgerError, match=r"json describes another adapter space"):
        problems(ledger_folder, hub)


@pytest.mark.parametrize("content", [b"", b"{}", SPACE.to_json() + b" ", b'{"tensors": [{"shape": [1e999]}]}'])
def test_a_space_file_that_is_none_is_told(ledger_folder: Path, content: bytes) -> None:
    (ledger_folder / "spaces" / f"{SPACE.fingerprint.hex()}.json").write_bytes(content)
    with pytest.raises(LedgerError, match=r"\.json does not describe an adapter space"):
        verify_ledger(ledger_folder, None)


@pytest.mark.parametrize("content", [b"", b"no database" * 500])
def test_a_database_that_is_none_is_told(ledger_folder: Path, content: bytes) -> None:
    (ledger_folder / "ledger.db").write_bytes(content)
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(ledger_folder, None)


def test_a_damaged_schema_is_told(ledger_folder: Path) -> None:
    file = ledger_folder / "ledger.db"
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE entries", b"CREATE TABLE \xc2ntries"))
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(ledger_folder, None)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(ledger_folder, bytes(32), "ise")


@pytest.mark.parametrize("value", [None, "text", 5])
def test_a_row_of_another_type_is_told(ledger_folder: Path, value: object) -> None:
    tamper(ledger_folder, "DROP TABLE receipts")
    tamper(ledger_folder, "CREATE TABLE receipts (sequence INTEGER PRIMARY KEY, receipt)")
    tamper(ledger_folder, "INSERT INTO receipts VALUES (2, ?)", value)
    with pytest.raises(LedgerError, match="a row that no fedsparse wrote, at 2"):
        verify_ledger(ledger_folder, None)


def test_what_leaves_in_the_wrong_form_is_found(tmp_path: Path) -> None:
    """A gateway that was changed records honestly what it should not have sent."""
    with Ledger(tmp_path, bytes(32), "ise") as ledger:
        ledger.set_space(SPACE)
        ledger.append(draft_of(REASON_PAYLOAD, "task", EntryKind.UPDATE), REASON_PAYLOAD)
        ledger.append(draft_of(REASON_PAYLOAD, "task", EntryKind.REASON), REASON_PAYLOAD + b"\xfa\x01\x01x")
        ledger.append(call_draft(EntryKind.UPDATE), encode_update(RoundUpdate(1, 0, 1, b"no delta", Reason.NONE)))
    found = verify_ledger(tmp_path, None).problems
    assert found[3:] == (OWNERLESS,)
    assert found[0] == "entry 1: its kind is another than its payload's"
    assert found[1].startswith("entry 2: its payload does not decode: ")
    assert found[2].startswith("entry 3: its payload does not decode: ")


def test_what_left_without_a_receipt_is_counted_but_no_contradiction(tmp_path: Path) -> None:
    with Ledger(tmp_path, bytes(32), "ise") as ledger:
        ledger.set_space(SPACE)
        payload = update(delta({0: {1: 1.0}}))
        ledger.append(draft_of(payload, "task"), payload)
    verdict = verify_ledger(tmp_path, None)
    assert (verdict.problems, verdict.missing_receipts) == ((OWNERLESS,), (1,))


def test_a_receipt_stays_valid_when_the_certificate_that_signed_it_has_expired(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    issued = pki.dated(pki.credentials(Role.HUB, "hub", "127.0.0.1"), -4 * MINUTE, -2 * MINUTE)
    der = issued.der
    hub = Hub(pki.ca.read_bytes(), der, issued.key, plant=pki.credentials(Role.PLANT, "ise"))
    with Ledger(tmp_path / "ledger", bytes(32), "ise") as ledger:
        ledger.set_space(SPACE)
        for sequence, age in ((1, 3 * MINUTE), (2, 1 * MINUTE)):  # the CA itself is 5 minutes old
            recorded = ledger.append(draft_of(update(), f"task-{sequence}"), update())
            ledger.file_receipt(sequence, hub.receipt(ledger, recorded, sequence, age=age))
        open_as(ledger, hub)
    (problem,) = verify_ledger(tmp_path / "ledger", hub.authority).problems
    assert problem.startswith("entry 2: its receipt is not the hub's: the signer's certificate expired")


@pytest.fixture
def hub_receipts(ledger_folder: Path, tmp_path: Path) -> Path:
    """Return what the hub kept of the updates in ``ledger_folder``, numbered from 1 as a hub does."""
    path = tmp_path / "ise.jsonl"
    path.write_bytes(b"".join(_lines(ledger_folder)))
    return path


def _lines(folder: Path) -> list[bytes]:
    receipts = [link_pb2.Receipt.FromString(cell(folder, "receipts", "receipt", sequence)) for sequence in LEFT]
    for number, receipt in enumerate(receipts, start=1):
        receipt.body.sequence = number
    return [receipt_line(receipt) for receipt in receipts]


def test_a_ledger_that_the_hubs_record_confirms_verifies(ledger_folder: Path, hub_receipts: Path) -> None:
    assert verify_ledger(ledger_folder, None, hub_receipts).problems == ()


def sign_anew(folder: Path, size: int) -> None:
    """Do what a dishonest plant can do with its own key: grow the tree from what is there now, and sign for it."""
    tamper(folder, "DELETE FROM nodes")
    nodes: dict[tuple[int, int], bytes] = {}
    for number in range(size):
        hashed = entry_hash(cell(folder, "entries", "entry", number + 1))
        for level, place, node in list(completed(lambda *at: nodes[at], number, hashed)):
            nodes[level, place] = node
            tamper(folder, "INSERT INTO nodes VALUES (?, ?, ?)", level, place, node)
    key = load_key(folder / "ledger.key", create=False)
    whole = Checkpoint(origin_of("ise", public_bytes(key)), size, root(lambda *at: nodes[at], size))
    tamper(folder, "UPDATE checkpoint SET note = ?", sign_checkpoint(whole, key))


def cut_off(folder: Path, size: int, hub: Hub) -> None:
    """Shorten the ledger, and sign for what is left."""
    for table in ("receipts", "entries"):
        tamper(folder, f"DELETE FROM {table} WHERE sequence > ?", size)  # noqa: S608
    sign_anew(folder, size)
    with Ledger(folder, bytes(32), "ise") as ledger:
        open_as(ledger, hub)


@pytest.mark.parametrize("sequence", [1, 3, 5])
def test_a_history_rewritten_with_the_plants_own_key_contradicts_the_receipts(
    ledger_folder: Path, hub: Hub, hub_receipts: Path, sequence: int
) -> None:
    """Entries, chain, tree and checkpoint agree; what the hub witnessed tells from where on they are others."""
    forge(ledger_folder, sequence, time_unix_ms=1)
    sign_anew(ledger_folder, 6)
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        assert ledger.size == 6  # nothing in it contradicts itself
    later = [number for number in LEFT if number >= sequence]
    before = max((number for number in LEFT if number < sequence), default=0)
    history = f"entry {later[0]}: the hub witnessed another history: from {before + 1} to {later[0]}, "
    found = problems(ledger_folder, hub)
    assert [one for one in found if one.startswith(history)] == [found[0]]
    assert found[1:] == tuple(
        f"entry {number}: its receipt speaks of another payload, entry or task" for number in later
    )
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence >= ?", sequence)
    assert problems(ledger_folder, hub) == ()  # by itself it proves nothing
    kept = verify_ledger(ledger_folder, hub.authority, hub_receipts).problems
    assert kept[0] == found[0]
    assert len(kept) > len(later)


def test_a_tail_cut_off_with_its_receipts_is_found_by_the_hubs_record(
    ledger_folder: Path, hub: Hub, hub_receipts: Path
) -> None:
    cut_off(ledger_folder, 4, hub)
    assert verify_ledger(ledger_folder, hub.authority).verified  # it is the plant's own key that signed
    history, problem = verify_ledger(ledger_folder, None, hub_receipts).problems
    assert history.startswith("entry 5: the hub witnessed another history: from 5 to 5")
    assert problem.startswith(
        "the hub's receipt 3 is for one of the first 5 entries of a ledger, which this one does"
    )


@pytest.mark.parametrize("kept", [0, 2])
def test_a_hubs_record_without_a_receipt_that_it_gave_is_not_whole(
    ledger_folder: Path, hub: Hub, hub_receipts: Path, kept: int
) -> None:
    hub_receipts.write_bytes(b"".join(hub_receipts.read_bytes().splitlines(keepends=True)[:kept]))
    verdict = verify_ledger(ledger_folder, hub.authority, hub_receipts)
    assert verdict.unconfirmed == tuple(LEFT)[kept:]
    assert verdict.problems == tuple(
        f"entry {sequence}: its receipt has the number {number}, and the hub's record has none for it: "
        "the record is older than this receipt, or not whole"
        for number, sequence in enumerate(LEFT, start=1)
        if number > kept
    )
    assert all(told(one).ja != one for one in verdict.problems)


def test_what_has_no_receipt_anywhere_contradicts_nothing_and_is_named(
    ledger_folder: Path, hub: Hub, hub_receipts: Path
) -> None:
    hub_receipts.write_bytes(b"".join(hub_receipts.read_bytes().splitlines(keepends=True)[:2]))
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence = 5")
    verdict = verify_ledger(ledger_folder, hub.authority, hub_receipts)
    assert verdict.verified
    assert verdict.unconfirmed == verdict.missing_receipts == (5,)
    assert verdict.witnessed == 4


def test_a_record_that_ends_in_the_middle_of_a_line_is_told(hub_receipts: Path) -> None:
    whole = read_record(hub_receipts)
    assert (len(whole.receipts), whole.cut) == (3, False)
    hub_receipts.write_bytes(hub_receipts.read_bytes()[:-1])
    cut = read_record(hub_receipts)
    assert (cut.receipts, cut.cut) == (whole.receipts[:2], True)


def test_the_hubs_own_record_witnesses_a_ledger_whose_receipts_are_gone(
    ledger_folder: Path, hub: Hub, hub_receipts: Path
) -> None:
    tamper(ledger_folder, "DELETE FROM receipts")
    assert verify_ledger(ledger_folder, hub.authority).witnessed == 0
    verdict = verify_ledger(ledger_folder, hub.authority, hub_receipts)
    assert (verdict.problems, verdict.receipts, verdict.witnessed) == ((), 0, 5)


def test_receipts_that_do_not_count_witness_nothing(ledger_folder: Path, hub: Hub, tmp_path: Path) -> None:
    for sequence in LEFT:
        receipt = link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", sequence))
        receipt.signature = Hub.create(tmp_path / f"other-{sequence}").sign(b"another body")
        data = receipt.SerializeToString(deterministic=True)
        tamper(ledger_folder, "UPDATE receipts SET receipt = ? WHERE sequence = ?", data, sequence)
    verdict = verify_ledger(ledger_folder, hub.authority)
    assert (len(verdict.problems), verdict.witnessed) == (3, 0)


def test_a_gap_in_the_hubs_record_is_found(ledger_folder: Path, hub_receipts: Path) -> None:
    first, _, third = hub_receipts.read_bytes().splitlines(keepends=True)
    hub_receipts.write_bytes(first + third)
    gap, lacking = verify_ledger(ledger_folder, None, hub_receipts).problems
    assert gap.startswith("the hub's receipt 2 has the number 3")
    assert lacking.startswith("entry 4: its receipt has the number 2, and the hub's record has none for it")


def test_verifying_changes_no_byte_of_the_evidence(ledger_folder: Path, hub: Hub) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in ledger_folder.rglob("*") if path.is_file()}

    before = content()
    verify_ledger(ledger_folder, hub.authority)
    assert content() == before
