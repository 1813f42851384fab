from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError

from fedsparse.audit import Checkpoint, Seen, StaleCheckpointError, check_checkpoint, public_bytes
from fedsparse.audit.merkle import leaf_hash, node_hash
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.errors import LedgerError
from fedsparse.security import Credentials, Role
from fedsparse.v1 import link_pb2
from tests.unit.federation_samples import Pki, PlantLog

ENTRIES = [leaf_hash(bytes([number])) for number in range(9)]


@pytest.fixture(scope="module")
def kiso(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Pki(tmp_path_factory.mktemp("pki")).credentials(Role.PLANT, "kiso")


def shown(log: PlantLog, entry: int, kiso: Credentials, since: int = 0) -> link_pb2.Checkpoint:
    log.witnessed = since
    return log.checkpoint(ENTRIES[entry], kiso.key)


def seen_of(log: PlantLog, entry: int, kiso: Credentials) -> Seen:
    checkpoint = check_checkpoint(shown(log, entry, kiso), "kiso", ENTRIES[entry], None)
    return Seen(checkpoint, public_bytes(log.key))


def test_a_ledger_that_grows_is_witnessed_again_and_again(kiso: Credentials) -> None:
    log, seen = PlantLog("kiso"), None
    for entry in range(9):
        since = 0 if seen is None else seen.checkpoint.size
        found = check_checkpoint(shown(log, entry, kiso, since), "kiso", ENTRIES[entry], seen)
        assert found.size == entry + 1
        seen = Seen(found, public_bytes(log.key))


def test_the_same_checkpoint_is_witnessed_twice(kiso: Credentials) -> None:
    """A plant that did not get its receipt asks again."""
    log = PlantLog("kiso")
    seen = seen_of(log, 0, kiso)
    assert check_checkpoint(shown(log, 0, kiso, 1), "kiso", ENTRIES[0], seen) == seen.checkpoint


@pytest.mark.parametrize("since", [0, 1, 3])
def test_a_proof_from_elsewhere_is_stale_and_told_from_where_it_must_begin(kiso: Credentials, since: int) -> None:
    log = PlantLog("kiso")
    shown(log, 0, kiso)
    seen = seen_of(log, 1, kiso)
    shown(log, 2, kiso)
    with pytest.raises(StaleCheckpointError, match="the last checkpoint witnessed has 2") as caught:
        check_checkpoint(shown(log, 3, kiso, since), "kiso", ENTRIES[3], seen)
    assert caught.value.size == 2


def test_a_history_rewritten_with_the_plants_own_key_is_found(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    for entry in range(3):
        seen = seen_of(log, entry, kiso)
    log.leaves[1] = leaf_hash(b"another")
    with pytest.raises(LedgerError, match="its history was rewritten"):
        check_checkpoint(shown(log, 4, kiso, 3), "kiso", ENTRIES[4], seen)


def test_a_history_cut_off_and_continued_is_found(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    for entry in range(3):
        seen = seen_of(log, entry, kiso)
    del log.leaves[2:]
    shown(log, 5, kiso)
    with pytest.raises(LedgerError, match="its history was rewritten"):
        check_checkpoint(shown(log, 4, kiso, 3), "kiso", ENTRIES[4], seen)


def test_a_ledger_that_is_shorter_than_it_was_is_found(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    for entry in range(3):
        seen = seen_of(log, entry, kiso)
    del log.leaves[1:]
    told = shown(log, 0, kiso)
    told.old_size = 3
    with pytest.raises(LedgerError, match="its history was rewritten"):
        check_checkpoint(told, "kiso", ENTRIES[0], seen)


def test_an_update_that_is_not_in_the_ledger_is_refused(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    shown(log, 0, kiso)
    told = shown(log, 1, kiso)
    for entry_hash, number in ((ENTRIES[2], 2), (ENTRIES[1], 1), (ENTRIES[1], 3), (ENTRIES[1], 0), (b"", 2)):
        told.entry = number
        with pytest.raises(LedgerError, match=f"does not include the entry {number}"):
            check_checkpoint(told, "kiso", entry_hash, None)


def test_the_ledger_of_another_plant_is_refused(kiso: Credentials) -> None:
    with pytest.raises(LedgerError, match="is of 'fedsparse/kiso/"):
        check_checkpoint(shown(PlantLog("kiso"), 0, kiso), "ise", ENTRIES[0], None)


def test_a_checkpoint_signed_by_another_key_is_refused(kiso: Credentials) -> None:
    told = shown(PlantLog("kiso"), 0, kiso)
    told.ledger_key = public_bytes(PlantLog("kiso").key)
    with pytest.raises(LedgerError, match="another key than the log's"):
        check_checkpoint(told, "kiso", ENTRIES[0], None)


@pytest.mark.parametrize("note", [b"", b"\xff" * 100, b"x" * 100_000, b"a\n1\nAA==\n\n"])
def test_a_checkpoint_that_is_none_is_refused(kiso: Credentials, note: bytes) -> None:
    told = shown(PlantLog("kiso"), 0, kiso)
    told.note = note
    with pytest.raises(LedgerError):
        check_checkpoint(told, "kiso", ENTRIES[0], None)


def test_an_earlier_entry_is_shown_under_a_later_checkpoint(kiso: Credentials) -> None:
    """While an update waited for the hub, the ledger recorded other things."""
    log = PlantLog("kiso")
    seen = seen_of(log, 0, kiso)
    for entry in range(1, 7):
        shown(log, entry, kiso)
    found = check_checkpoint(shown(log, 2, kiso, 1), "kiso", ENTRIES[2], seen)
    assert (found.size, found.root) == (7, check_checkpoint(shown(log, 6, kiso), "kiso", ENTRIES[6], None).root)


@pytest.mark.parametrize("since", [1, 2])
def test_the_first_checkpoint_of_a_ledger_begins_at_nothing(kiso: Credentials, since: int) -> None:
    log = PlantLog("kiso")
    shown(log, 0, kiso)
    with pytest.raises(StaleCheckpointError, match=f"begins at {since} entries.* has 0") as caught:
        check_checkpoint(shown(log, 1, kiso, since), "kiso", ENTRIES[1], None)
    assert caught.value.size == 0


def test_a_proof_with_something_added_is_refused(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    seen = seen_of(log, 0, kiso)
    for field, why in (("inclusion", "does not include"), ("consistency", "history was rewritten")):
        told = shown(log, 1, kiso, 1)
        getattr(told, field).append(bytes(32))
        with pytest.raises(LedgerError, match=why):
            check_checkpoint(told, "kiso", ENTRIES[1], seen)
    told = shown(PlantLog("kiso"), 0, kiso)
    told.consistency.append(bytes(32))  # nothing is to be proved of a ledger's first checkpoint
    with pytest.raises(LedgerError, match="history was rewritten"):
        check_checkpoint(told, "kiso", ENTRIES[0], None)


@pytest.mark.parametrize("levels", [63, 64, 200])
def test_a_size_that_no_receipt_could_say_is_refused(kiso: Credentials, levels: int) -> None:
    """A plant can make up a tree of any height above one entry of its own, and sign for it."""
    log = PlantLog("kiso")
    told = shown(log, 0, kiso)
    root, path = ENTRIES[0], []
    for _ in range(levels):
        path.append(bytes(32))
        root = node_hash(root, bytes(32))
    told.note = sign_checkpoint(Checkpoint(log.origin, 1 << levels, root), log.key)
    told.inclusion.extend(path)
    with pytest.raises(LedgerError, match="not in canonical form"):
        check_checkpoint(told, "kiso", ENTRIES[0], None)


def test_a_made_up_tree_cannot_take_the_place_of_one_that_was_witnessed(kiso: Credentials) -> None:
    log = PlantLog("kiso")
    seen = seen_of(log, 0, kiso)
    told = shown(log, 1, kiso, 1)
    root = node_hash(node_hash(leaf_hash(b"other"), ENTRIES[1]), bytes(32))
    told.note = sign_checkpoint(Checkpoint(log.origin, 3, root), log.key)
    told.inclusion[:] = [leaf_hash(b"other"), bytes(32)]
    told.consistency[:] = [ENTRIES[1], bytes(32)]
    with pytest.raises(LedgerError, match="history was rewritten"):
        check_checkpoint(told, "kiso", ENTRIES[1], seen)
    told.consistency[:] = [leaf_hash(b"other"), bytes(32)]
    with pytest.raises(LedgerError, match="history was rewritten"):
        check_checkpoint(told, "kiso", ENTRIES[1], seen)


def test_whatever_bit_of_a_shown_checkpoint_is_changed_it_is_refused_or_says_the_same(kiso: Credentials) -> None:
    log, draw = PlantLog("kiso"), random.Random(7)  # noqa: S311
    seen = seen_of(log, 0, kiso)
    for entry in range(1, 6):
        told = shown(log, entry, kiso, 1)
    whole = check_checkpoint(told, "kiso", ENTRIES[5], seen)
    told.ClearField("key_signature")  # the hub compares it with the caller's certificate
    honest, refused = told.SerializeToString(), 0
    for _ in range(500):
        data = bytearray(honest)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            assert check_checkpoint(told.FromString(bytes(data)), "kiso", ENTRIES[5], seen) == whole
        except (LedgerError, DecodeError):
            refused += 1
    assert refused > 450
