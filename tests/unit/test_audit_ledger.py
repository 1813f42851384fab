from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedsparse.audit import (
    Checkpoint,
    EntryDraft,
    EntryKind,
    Ledger,
    Recorded,
    check_checkpoint,
    check_note,
    load_key,
    origin_of,
    parse_entry,
    public_bytes,
    verify_ledger,
)
from fedsparse.audit.merkle import EMPTY_ROOT, continues, includes, roots_at
from fedsparse.audit.merkle import leaf_hash as entry_hash
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.audit.payloads import is_mark
from fedsparse.delta import AdapterSpace
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.federation_samples import eventually
from tests.unit.samples import (
    LEFT,
    OWNERLESS,
    REASON_PAYLOAD,
    SPACE,
    Hub,
    call_draft,
    cell,
    draft_of,
    open_as,
    tamper,
    update,
)

PEER = sha256(b"authority").digest()
WRITER = Path(__file__).with_name("ledger_writer.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    with Ledger(folder, PEER, "ise") as opened:
        opened.set_space(SPACE)
        yield opened


def record(ledger: Ledger, payload: bytes = REASON_PAYLOAD, task_id: str = "task") -> Recorded:
    return ledger.append(draft_of(payload, task_id, EntryKind.REASON), payload)


def entry_at(folder: Path, sequence: int) -> ledger_pb2.LedgerEntry:
    return ledger_pb2.LedgerEntry.FromString(cell(folder, "entries", "entry", sequence))


def payload_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "payloads").iterdir() if not is_mark(path.name))


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_entry_says_all_that_is_known_of_what_left(ledger: Ledger, folder: Path) -> None:
    payload = update()
    recorded = ledger.append(draft_of(payload, "task-a"), payload)
    entry = entry_at(folder, 1)
    assert (recorded.payload, recorded.sequence) == (payload, 1)
    assert (
        recorded.entry_hash
        == entry_hash(cell(folder, "entries", "entry", 1))
        == cell(folder, "entries", "hash", 1)
    )
    assert (entry.format, entry.sequence, entry.kind, entry.previous_hash) == (2, 1, EntryKind.UPDATE, bytes(32))
    assert (entry.peer, entry.peer_fingerprint, entry.task_id) == ("hub.example:9443", PEER, "task-a")
    assert (entry.round, entry.version, entry.samples, entry.reason) == (3, 2, 40, 0)
    assert (entry.payload_bytes, entry.payload_sha256) == (len(payload), sha256(payload).digest())
    assert [(facts.name, facts.nnz) for facts in entry.tensors] == [("conv.weight", 2), ("wide.weight", 1)]
    assert [(metric.name, metric.value) for metric in entry.metrics] == [("loss", 0.25)]
    assert (folder / "payloads" / sha256(payload).hexdigest()).read_bytes() == payload


def test_entries_form_a_chain_that_goes_on_after_a_restart(folder: Path) -> None:
    hashes = []
    for _ in range(2):
        with Ledger(folder, PEER, "ise") as ledger:
            hashes += [record(ledger).entry_hash for _ in range(2)]
    assert [entry_at(folder, n).previous_hash for n in range(1, 5)] == [bytes(32), *hashes[:3]]
    assert [entry_at(folder, n).sequence for n in range(1, 5)] == [1, 2, 3, 4]


def test_a_call_without_a_payload_keeps_no_file(ledger: Ledger, folder: Path) -> None:
    assert ledger.append(call_draft(EntryKind.ATTEND), b"").payload == b""
    assert list((folder / "payloads").iterdir()) == []
    assert entry_at(folder, 1).payload_bytes == 0


def test_the_same_payload_twice_is_two_entries_and_one_file(ledger: Ledger, folder: Path) -> None:
    assert [record(ledger).sequence, record(ledger).sequence] == [1, 2]
    assert len(payload_files(folder)) == 1


def test_threads_record_without_gaps(ledger: Ledger, folder: Path) -> None:
    threads = [threading.Thread(target=lambda: [record(ledger) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = verify_ledger(folder, None)
    assert (verdict.entries, verdict.problems) == (20, (OWNERLESS,))


def test_a_second_writer_is_refused_until_the_first_is_done(ledger: Ledger, folder: Path) -> None:
    with pytest.raises(LedgerError, match="another process writes to the ledger"):
        Ledger(folder, PEER, "ise")
    ledger.__exit__(None, None, None)
    with Ledger(folder, PEER, "ise") as next_one:
        assert record(next_one).sequence == 1


def test_a_ledger_that_is_read_meanwhile_can_be_written(ledger: Ledger, folder: Path) -> None:
    record(ledger)
    assert verify_ledger(folder, None).entries == 1
    record(ledger)
    assert verify_ledger(folder, None).entries == 2


def test_a_file_in_place_of_the_folder_is_told_as_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "ledger", PEER, "ise")


def test_a_database_that_is_none_is_refused_and_the_lock_is_given_back(folder: Path) -> None:
    folder.mkdir()
    (folder / "ledger.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerError, match="cannot be opened") as caught:
        Ledger(folder, PEER, "ise")
    (folder / "ledger.db").unlink()
    with Ledger(folder, PEER, "ise") as ledger:
        assert record(ledger).sequence == 1
    assert caught.value.__cause__ is not None  # holds the failed ledger alive, and with it anything it still locks


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET entry = x'00'",
        "DELETE FROM entries",
        "UPDATE receipts SET receipt = x'00'",
        "DELETE FROM receipts",
    ],
)
def test_the_database_refuses_to_change_or_delete(ledger_folder: Path, statement: str) -> None:
    with (
        closing(sqlite3.connect(ledger_folder / "ledger.db")) as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute(statement)


def test_a_second_receipt_for_an_entry_is_refused(ledger: Ledger) -> None:
    sequence = record(ledger).sequence
    ledger.file_receipt(sequence, b"")
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.file_receipt(sequence, link_pb2.Receipt(cosignature=b"x").SerializeToString())


def test_a_full_disk_records_nothing_and_the_chain_goes_on_when_there_is_space(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(ledger)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(LedgerError, match=r"the ledger cannot keep .*No space left"):
            record(ledger, update(), "lost")
        with pytest.raises(LedgerError, match="No space left"):
            ledger.set_space(SPACE)
    assert verify_ledger(folder, None).entries == 1
    assert record(ledger).sequence == 2
    assert verify_ledger(folder, None).problems == (OWNERLESS,)


def test_a_database_that_cannot_be_written_records_nothing(ledger: Ledger, folder: Path) -> None:
    record(ledger)
    with closing(sqlite3.connect(folder / "ledger.db")) as database, database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON entries BEGIN SELECT RAISE(FAIL, 'broken'); END")
    with pytest.raises(LedgerError, match="cannot be written: broken"):
        record(ledger)
    with closing(sqlite3.connect(folder / "ledger.db")) as database, database:
        database.execute("DROP TRIGGER broken")
    assert record(ledger).sequence == 2
    assert verify_ledger(folder, None).problems == (OWNERLESS,)


def test_a_disk_that_fills_up_refuses_and_keeps_exactly_what_it_recorded(folder: Path) -> None:
    command = [sys.executable, str(WRITER), str(folder), "120000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    *recorded, last = done.stdout.splitlines()
    assert (done.returncode, last.split()[0]) == (3, "refused"), done.stderr
    assert recorded == [str(number) for number in range(1, len(recorded) + 1)]
    verdict = verify_ledger(folder, None)
    assert (verdict.entries, verdict.problems) == (len(recorded), (OWNERLESS,))
    with Ledger(folder, PEER, "ise") as ledger:
        assert record(ledger).sequence == len(recorded) + 1


def test_a_killed_writer_leaves_a_ledger_that_verifies_and_goes_on(folder: Path) -> None:
    known = 0
    for lines in (1, 7, 20):
        writer = subprocess.Popen([sys.executable, str(WRITER), str(folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.communicate()[0].splitlines() if line.endswith(tuple("0123456789"))]
        assert said[0] == known + 1
        verdict = verify_ledger(folder, None)
        assert verdict.problems == (OWNERLESS,)
        assert verdict.entries in (said[-1], said[-1] + 1)  # the last one recorded may not have been said
        known = verdict.entries
    with Ledger(folder, PEER, "ise") as ledger:
        assert record(ledger).sequence == known + 1
    assert verify_ledger(folder, None).problems == (OWNERLESS,)


def test_what_a_crash_left_half_written_does_no_harm(ledger: Ledger, folder: Path) -> None:
    digest = sha256(REASON_PAYLOAD).hexdigest()
    (folder / "payloads" / f".{digest}.tmp").write_bytes(b"half")
    record(ledger)
    assert (folder / "payloads" / digest).read_bytes() == REASON_PAYLOAD
    assert verify_ledger(folder, None).problems == (OWNERLESS,)


def test_nobody_makes_a_recorded_payload_by_hand(ledger: Ledger) -> None:
    with pytest.raises(TypeError, match="only a Ledger"):
        Recorded(b"secret", EntryKind.UPDATE, "task", 1, bytes(32), object())
    with pytest.raises(TypeError, match="only a Ledger"):
        replace(record(ledger), door=None)


def test_the_space_is_kept_beside_the_entries(ledger: Ledger, folder: Path) -> None:
    assert AdapterSpace.from_json((folder / "spaces" / f"{SPACE.fingerprint.hex()}.json").read_bytes()) == SPACE


# Tree and checkpoint


def shown(folder: Path) -> Checkpoint:
    """Return the checkpoint as it lies on disk."""
    with closing(sqlite3.connect(folder / "ledger.db")) as database:
        [(note,)] = database.execute("SELECT note FROM checkpoint").fetchall()
    return check_note(note, public_bytes(load_key(folder / "ledger.key", create=False)))


def leaves_in(folder: Path, size: int) -> list[bytes]:
    return [entry_hash(cell(folder, "entries", "entry", number)) for number in range(1, size + 1)]


def test_every_entry_comes_with_a_signed_checkpoint_over_all(ledger: Ledger, folder: Path) -> None:
    assert (ledger.size, ledger.root(0), ledger.root(1), ledger.root(-1)) == (0, EMPTY_ROOT, None, None)
    for size in range(1, 20):
        record(ledger, update(samples=size))
        expected = roots_at(leaves_in(folder, size), {size})[size]
        assert shown(folder) == Checkpoint(ledger.origin, size, expected)
        assert (ledger.size, ledger.root(size)) == (size, expected)


def test_the_key_is_made_once_and_nobody_else_may_read_it(folder: Path) -> None:
    keys = set()
    for _ in range(2):
        with Ledger(folder, PEER, "ise") as ledger:
            record(ledger)
            keys.add((ledger.key, ledger.origin))
            assert ledger.origin == origin_of("ise", ledger.key)
    assert len(keys) == 1
    assert (folder / "ledger.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_made_before_a_crash_is_used(folder: Path) -> None:
    with Ledger(folder, PEER, "ise") as ledger:
        made = ledger.key
    with Ledger(folder, PEER, "ise") as ledger:
        record(ledger)
        assert ledger.key == made


def test_every_proof_of_a_ledger_convinces_a_stranger(ledger: Ledger) -> None:
    recorded = [record(ledger, update(samples=size)) for size in range(1, 13)]
    for size in range(12, 15):
        root = ledger.root(size)
        assert root is not None
        for one in recorded:
            for old in range(size + 1):
                proof, before = ledger.prove(one, old), ledger.root(old)
                assert before is not None
                assert (proof.entry, proof.old_size) == (one.sequence, old)
                assert includes(one.entry_hash, one.sequence - 1, size, proof.inclusion, root)
                assert continues(old, size, before, root, proof.consistency)
        record(ledger)


def test_a_ledger_proves_no_more_than_it_has(ledger: Ledger) -> None:
    recorded = record(ledger)
    with pytest.raises(LedgerError, match="has seen this ledger with 2 entries, it has 1 now") as caught:
        ledger.prove(recorded, 2)
    assert "Put the newest copy back" in caught.value.remedy


def test_proofs_still_hold_after_a_restart(folder: Path) -> None:
    with Ledger(folder, PEER, "ise") as ledger:
        first = [record(ledger, update(samples=size)) for size in range(1, 8)]
        root = ledger.root(5)
    with Ledger(folder, PEER, "ise") as ledger:
        assert ledger.root(5) == root
        record(ledger)
        proof = ledger.prove(first[2], 0)
        found = check_checkpoint(proof, "ise", first[2].entry_hash, None)
        assert (found.size, found.root) == (8, ledger.root(8))


def test_an_older_copy_put_back_goes_on_but_cannot_prove_what_was_witnessed(folder: Path, tmp_path: Path) -> None:
    with Ledger(folder, PEER, "ise") as ledger:
        record(ledger)
    shutil.copytree(folder, tmp_path / "backup")
    with Ledger(folder, PEER, "ise") as ledger:
        record(ledger, update())
        witnessed = ledger.root(2)
    with Ledger(tmp_path / "backup", PEER, "ise") as ledger:
        recorded = record(ledger, update(samples=9))
        assert ledger.root(2) != witnessed
        proof = ledger.prove(recorded, 2)
        assert not continues(2, 2, witnessed or b"", ledger.root(2) or b"", proof.consistency)


# A ledger that was altered is not written to


def refuses_to_open(folder: Path, why: str) -> None:
    before = (folder / "ledger.db").read_bytes()
    with pytest.raises(LedgerError, match=why):
        Ledger(folder, PEER, "ise")
    assert (folder / "ledger.db").read_bytes() == before


def test_a_checkpoint_that_was_altered_is_found_at_opening(ledger_folder: Path) -> None:
    key = load_key(ledger_folder / "ledger.key", create=False)
    whole = shown(ledger_folder)
    others = (
        Checkpoint(whole.origin, 5, whole.root),
        Checkpoint(whole.origin, 6, bytes(32)),
        Checkpoint("fedsparse/owari/0", 6, whole.root),
    )
    for other in others:
        tamper(ledger_folder, "UPDATE checkpoint SET note = ?", sign_checkpoint(other, key))
        refuses_to_open(ledger_folder, "was altered: its entries do not give its last checkpoint")


@pytest.mark.parametrize("note", [b"", b"\xff", b"fedsparse/ise/0\n6\nAA==\n\nno signature\n"])
def test_a_checkpoint_that_is_none_is_found_at_opening(ledger_folder: Path, note: bytes) -> None:
    tamper(ledger_folder, "UPDATE checkpoint SET note = ?", note)
    refuses_to_open(ledger_folder, "not a signed note|a line that is no signature|not a checkpoint|canonical")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM checkpoint", "lacks a part of its tree"),
        ("UPDATE checkpoint SET note = 'text'", "holds 'text' where bytes are expected"),
        ("DELETE FROM nodes WHERE level = 1", "lacks a part of its tree"),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 2", "was altered"),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND place = 5", "was altered"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE sequence = 6", "was altered"),
        ("DELETE FROM entries WHERE sequence = 6", "was altered"),
        ("INSERT INTO entries SELECT 7, entry, hash FROM entries WHERE sequence = 6", "lacks a part of its tree"),
        ("UPDATE receipts SET receipt = x'ff' WHERE sequence = 4", "holds a receipt that is none"),
    ],
)
def test_a_ledger_whose_end_was_altered_is_refused(ledger_folder: Path, statement: str, why: str) -> None:
    tamper(ledger_folder, statement)
    with closing(sqlite3.connect(ledger_folder / "ledger.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with pytest.raises(LedgerError, match=why):
        Ledger(ledger_folder, PEER, "ise")


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_key_that_is_none_or_gone_is_not_replaced(ledger_folder: Path, content: bytes | None) -> None:
    """Another key is another ledger: to go on under it would hide that the old one ended."""
    key = ledger_folder / "ledger.key"
    key.unlink()
    if content is not None:
        key.touch(0o600)
        key.write_bytes(content)
    with pytest.raises(LedgerError, match=r"the key .* cannot be used.*Restore it from a backup"):
        Ledger(ledger_folder, PEER, "ise")
    assert key.exists() == (content is not None)


def test_the_key_of_another_ledger_is_refused(ledger_folder: Path, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other", PEER, "ise"):
        pass
    shutil.copy(tmp_path / "other" / "ledger.key", ledger_folder / "ledger.key")
    with pytest.raises(LedgerError, match="the checkpoint is signed by another key than the log's"):
        Ledger(ledger_folder, PEER, "ise")


def test_a_key_of_another_kind_is_refused(ledger_folder: Path) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (ledger_folder / "ledger.key").write_bytes(pem)
    with pytest.raises(LedgerError, match="is not an Ed25519 key"):
        Ledger(ledger_folder, PEER, "ise")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(ledger_folder: Path, mode: int) -> None:
    (ledger_folder / "ledger.key").chmod(mode)
    with pytest.raises(LedgerError, match="others may read the key") as caught:
        Ledger(ledger_folder, PEER, "ise")
    assert caught.value.remedy.startswith("Run chmod 600 ")


@pytest.mark.parametrize("plant", ["two words", "a+b", "a\nb", "a" * 200])
def test_a_plant_that_cannot_name_a_checkpoint_has_no_ledger(folder: Path, plant: str) -> None:
    with pytest.raises(LedgerError, match="cannot name a key"):
        Ledger(folder, PEER, plant)
    with Ledger(folder, PEER, "ise") as ledger:  # nothing is held that would keep this one out
        assert record(ledger).sequence == 1


# What has no receipt, what was deleted, and writes that failed


def test_of_what_left_only_what_has_no_receipt_is_delivered_again(ledger: Ledger, hub: Hub) -> None:
    sent = [record(ledger, update(samples=size), f"task-{size}") for size in (1, 2, 3)]
    ledger.append(draft_of(update(), "task-4", EntryKind.REFUSED, "density"), update())
    ledger.append(call_draft(), b"")
    ledger.file_receipt(2, hub.receipt(ledger, sent[1], 1))
    assert ledger.witnessed == 5
    assert ledger.undelivered(9) == [sent[0], sent[2]]
    assert ledger.undelivered(1) == [sent[2]]
    ledger.erase(sha256(sent[0].payload).digest(), len(sent[0].payload), "request")
    assert ledger.undelivered(9) == [sent[2]]


def test_the_largest_checkpoint_that_was_witnessed_is_known_after_a_restart(folder: Path, hub: Hub) -> None:
    with Ledger(folder, PEER, "ise") as ledger:
        sent = [record(ledger, update(samples=size), f"task-{size}") for size in (1, 2, 3)]
        ledger.file_receipt(2, hub.receipt(ledger, sent[1], 1))
        record(ledger)
        earlier = link_pb2.Receipt.FromString(hub.receipt(ledger, sent[0], 2))
        earlier.body.checkpoint_size = 1  # of a retry that was answered with what was given before
        ledger.file_receipt(1, earlier.SerializeToString())
        stranger = link_pb2.Receipt.FromString(hub.receipt(ledger, sent[2], 3))
        stranger.body.ledger_key = bytes(32)
        ledger.file_receipt(3, stranger.SerializeToString())
        assert ledger.witnessed == 3
    with Ledger(folder, PEER, "ise") as ledger:
        assert ledger.witnessed == 3


def test_proofs_hold_after_a_payload_was_deleted(ledger_folder: Path, hub: Hub) -> None:
    payload = update()
    digest = sha256(payload).digest()
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        witnessed = ledger.root(ledger.witnessed)
        entry = parse_entry(cell(ledger_folder, "entries", "entry", 2))
        assert entry is not None
        ledger.erase(digest, len(payload), "request")
        last = parse_entry(cell(ledger_folder, "entries", "entry", 7))
        assert last is not None
        note = (ledger_folder / "payloads" / last.payload_sha256.hex()).read_bytes()
        assert int(last.kind) == EntryKind.ERASED
        assert ledger_pb2.Erasure.FromString(note) == ledger_pb2.Erasure(
            payload_sha256=digest, payload_bytes=len(payload), cause="request"
        )
        assert ledger.root(ledger.witnessed) == witnessed
        recorded = record(ledger)
        found = check_checkpoint(ledger.prove(recorded, 0), "ise", recorded.entry_hash, None)
        assert (found.size, found.root) == (8, ledger.root(8))
    assert verify_ledger(ledger_folder, hub.authority).problems == ()


def test_a_payload_that_is_gone_without_a_word_is_a_contradiction_until_its_deletion_is_recorded(
    ledger_folder: Path, hub: Hub
) -> None:
    payload = update()
    (ledger_folder / "payloads" / sha256(payload).hexdigest()).unlink()
    assert verify_ledger(ledger_folder, hub.authority).problems == ("entry 2: its payload is gone",)
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        ledger.erase(sha256(payload).digest(), len(payload), "request")
    verdict = verify_ledger(ledger_folder, hub.authority)
    assert (verdict.problems, verdict.erased) == ((), 1)


def test_what_a_deletion_that_was_itself_deleted_spoke_of_is_missing(ledger_folder: Path, hub: Hub) -> None:
    payload = update()
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        ledger.erase(sha256(payload).digest(), len(payload), "request")
    entry = parse_entry(cell(ledger_folder, "entries", "entry", 7))
    assert entry is not None
    (ledger_folder / "payloads" / entry.payload_sha256.hex()).unlink()
    assert verify_ledger(ledger_folder, hub.authority).problems == (
        "entry 2: its payload is gone",
        "entry 7: its payload is gone",
    )


def test_where_a_deletion_cannot_be_recorded_nothing_is_deleted(
    ledger_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = update()
    with Ledger(ledger_folder, PEER, "ise") as ledger, monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.erase(sha256(payload).digest(), len(payload), "request")
    assert (ledger_folder / "payloads" / sha256(payload).hexdigest()).read_bytes() == payload


def test_payloads_are_old_once_no_newer_entry_has_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    times = iter(range(1, 100))
    monkeypatch.setattr("time.time_ns", lambda: next(times) * 1_000_000)
    old, again, young = (update(samples=size) for size in (1, 2, 3))
    with Ledger(folder, PEER, "ise") as ledger:
        open_as(ledger, hub)
        for payload in (old, again, young, again):
            record(ledger, payload)
        ledger.append(draft_of(update(), "task", EntryKind.REFUSED, "density"), update())
        sizes = {sha256(one).digest(): len(one) for one in (old, again, young, update())}
        assert ledger.older_than(1) == ledger.older_than(2) == []
        assert ledger.older_than(4) == [(sha256(old).digest(), len(old))]
        assert ledger.older_than(5) == [(sha256(one).digest(), len(one)) for one in (old, young)]
        assert dict(ledger.older_than(99)) == sizes  # neither what the ledger says of itself
        ledger.erase(*ledger.older_than(4)[0], "retention")
        assert sha256(old).digest() not in dict(ledger.older_than(99))


@pytest.mark.parametrize("written", [False, True])
def test_after_a_write_that_failed_the_next_entry_continues_what_is_on_disk(
    ledger_folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, written: bool
) -> None:
    """Whether the failed one is there, the system does not say."""
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        insert = ledger._table.insert

        def fails(*row: object) -> None:
            if written:
                insert(*row)  # type: ignore[arg-type]
            raise LedgerError("no more")

        for _ in range(2):  # twice, so that it must be looked for twice
            with monkeypatch.context() as patched:
                patched.setattr(ledger._table, "insert", fails)
                with pytest.raises(LedgerError, match="no more"):
                    ledger.append(call_draft(), b"")
        before = 8 if written else 6
        recorded = record(ledger)
        assert recorded.sequence == before + 1
        proof = ledger.prove(recorded, ledger.witnessed)
        found = check_checkpoint(ledger.prove(recorded, 0), "ise", recorded.entry_hash, None)
        assert (found.size, proof.old_size) == (before + 1, max(LEFT))
    assert verify_ledger(ledger_folder, hub.authority).problems == ()


def test_while_it_cannot_be_read_what_is_on_disk_nothing_is_recorded(
    ledger_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise LedgerError("no more")

    with Ledger(ledger_folder, PEER, "ise") as ledger:
        with monkeypatch.context() as patched:
            patched.setattr(ledger._table, "insert", fails)
            patched.setattr(ledger._table, "last", fails)
            for _ in range(3):
                with pytest.raises(LedgerError, match="no more"):
                    record(ledger)
        assert record(ledger).sequence == 7


def test_what_a_crash_cut_off_is_finished_when_the_ledger_is_opened_again(
    ledger_folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after a deletion was recorded leaves the payload; one in the middle of a write leaves part of one."""
    payload = update()
    digest = sha256(payload).digest()
    file = ledger_folder / "payloads" / digest.hex()
    with Ledger(ledger_folder, PEER, "ise") as ledger, monkeypatch.context() as patched:
        patched.setattr(ledger._payloads, "remove", lambda digest: None)
        ledger.erase(digest, len(payload), "request")
    scratch = ledger_folder / "payloads" / f".{digest.hex()[:40]}.xyz"
    scratch.write_bytes(payload[:9])
    assert file.exists()
    with Ledger(ledger_folder, PEER, "ise"):
        assert not file.exists()
        assert not scratch.exists()
    assert verify_ledger(ledger_folder, hub.authority).problems == ()


def test_a_payload_recorded_again_after_its_deletion_stays(ledger_folder: Path) -> None:
    payload = update()
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        ledger.erase(sha256(payload).digest(), len(payload), "request")
        ledger.append(draft_of(payload, "again"), payload)
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        assert ledger.payload(sha256(payload).digest()) == payload


def unrecorded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *broken: str) -> str:
    """Fail to record an update, by parts of the table that do not answer; return the name of its payload."""

    def fails(*_: object) -> None:
        raise LedgerError("no more")

    payload = update(samples=77)
    with monkeypatch.context() as patched:
        for name in broken:
            patched.setattr(ledger._table, name, fails)
        with pytest.raises(LedgerError, match="no more"):
            ledger.append(draft_of(payload, "lost"), payload)
    return sha256(payload).hexdigest()


def test_the_payload_of_an_entry_that_could_not_be_written_is_deleted_at_once(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(ledger)
    before = payload_files(folder)
    unrecorded(ledger, monkeypatch, "insert")
    assert payload_files(folder) == before
    assert record(ledger, update()).sequence == 2


def test_while_the_disk_does_not_answer_the_payload_stays_and_goes_before_the_next_entry(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an entry names it, nobody knows until then; and a failed commit may be there after all."""
    for broken in ("last", "settle", "entries"):
        name = unrecorded(ledger, monkeypatch, "insert", broken)
        assert verify_ledger(folder, None).left_over == (name,)
        record(ledger)
        assert verify_ledger(folder, None).left_over == ()


def test_the_payload_of_an_entry_that_is_there_although_writing_it_failed_stays(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = ledger._table.insert

    def fails(*row: object) -> None:
        insert(*row)  # type: ignore[arg-type]
        raise LedgerError("no more")

    with monkeypatch.context() as patched:
        patched.setattr(ledger._table, "insert", fails)
        with pytest.raises(LedgerError, match="no more"):
            record(ledger)
    verdict = verify_ledger(folder, None)
    assert (verdict.entries, verdict.problems, verdict.left_over) == (1, (OWNERLESS,), ())


def test_a_payload_that_was_put_in_place_and_not_synced_is_deleted(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("fedsparse.files.sync_folder", fails)
        with pytest.raises(LedgerError, match="cannot keep"):
            record(ledger)
    assert payload_files(folder) == []


def ending(program: str, folder: Path) -> int:
    """Run a program on the ledger in ``folder``, in a process of its own, and return how it exited."""
    return subprocess.run([sys.executable, "-c", program, str(folder)], check=False, timeout=60).returncode


def test_what_a_kill_between_payload_and_entry_left_goes_when_the_ledger_is_opened(folder: Path) -> None:
    """The database refuses the entry as the process is killed, in truth and at the very call."""
    program = (
        "import os, signal, sys\n"
        "from tests.unit.test_audit_ledger import Ledger, Path, PEER, record\n"
        "ledger = Ledger(Path(sys.argv[1]), PEER, 'ise')\n"
        "ledger._table.insert = lambda *row: os.kill(os.getpid(), signal.SIGKILL)\n"
        "record(ledger)\n"
    )
    assert ending(program, folder) == -signal.SIGKILL
    digest = sha256(REASON_PAYLOAD).hexdigest()
    with Ledger(folder, PEER, "ise") as ledger:
        assert payload_files(folder) == []
        record(ledger)
    assert [path.name for path in payload_files(folder)] == [digest]


def judged(ledger: Ledger, judge: Callable[[], EntryDraft], payload: bytes = REASON_PAYLOAD) -> Recorded:
    return ledger.append_judged(payload, judge)


def test_a_payload_comes_to_disk_while_it_is_judged(ledger: Ledger, folder: Path) -> None:
    name = sha256(REASON_PAYLOAD).hexdigest()

    def judge() -> EntryDraft:
        eventually((folder / "payloads" / name).exists, "the payload is there")
        assert verify_ledger(folder, None).left_over == (name,)
        return draft_of(REASON_PAYLOAD, "task", EntryKind.REASON)

    recorded = judged(ledger, judge)
    assert (recorded.sequence, recorded.kind, recorded.payload) == (1, EntryKind.REASON, REASON_PAYLOAD)
    assert record(ledger).sequence == 2
    verdict = verify_ledger(folder, None)
    assert (verdict.problems, verdict.left_over) == ((OWNERLESS,), ())


def test_what_was_judged_empty_keeps_no_file(ledger: Ledger, folder: Path) -> None:
    assert judged(ledger, lambda: replace(call_draft(EntryKind.REFUSED), rule="malformed"), b"").sequence == 1
    assert payload_files(folder) == []
    assert verify_ledger(folder, None).problems == (OWNERLESS,)


@pytest.mark.parametrize("error", [LedgerError("no more"), RuntimeError("no more")])
def test_a_payload_that_could_not_be_judged_leaves_nothing(ledger: Ledger, folder: Path, error: Exception) -> None:
    def judge() -> EntryDraft:
        raise error

    with pytest.raises(type(error), match="no more"):
        judged(ledger, judge, update())
    assert record(ledger).sequence == 1
    assert [path.name for path in payload_files(folder)] == [sha256(REASON_PAYLOAD).hexdigest()]


def test_a_payload_that_was_judged_and_not_kept_is_not_recorded(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(LedgerError, match="No space left"):
            judged(ledger, lambda: draft_of(REASON_PAYLOAD, "task", EntryKind.REASON))
    assert (ledger.size, payload_files(folder)) == (0, [])
    assert record(ledger).sequence == 1


def test_who_judges_records_nothing(ledger: Ledger, folder: Path) -> None:
    def judge() -> EntryDraft:
        record(ledger)
        raise AssertionError("it was recorded")

    with pytest.raises(LedgerError, match="while a payload is judged"):
        judged(ledger, judge, update())
    assert (ledger.size, payload_files(folder)) == (0, [])
    assert record(ledger).sequence == 1


def test_where_no_thread_can_be_had_nothing_is_recorded(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(LedgerError, match="cannot write while judging: can't start new thread"):
            judged(ledger, lambda: draft_of(REASON_PAYLOAD, "task", EntryKind.REASON))
    assert (ledger.size, payload_files(folder)) == (0, [])
    assert record(ledger).sequence == 1


def test_what_a_kill_while_judging_left_goes_when_the_ledger_is_opened(folder: Path) -> None:
    program = (
        "import os, signal, sys, time\n"
        "from tests.unit.test_audit_ledger import Ledger, Path, PEER, REASON_PAYLOAD, eventually, sha256\n"
        "folder = Path(sys.argv[1])\n"
        "def judge():\n"
        "    eventually((folder / 'payloads' / sha256(REASON_PAYLOAD).hexdigest()).exists, 'the payload')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Ledger(folder, PEER, 'ise').append_judged(REASON_PAYLOAD, judge)\n"
    )
    assert ending(program, folder) == -signal.SIGKILL
    assert len(payload_files(folder)) == 1
    with Ledger(folder, PEER, "ise") as ledger:
        assert payload_files(folder) == []
        assert record(ledger).sequence == 1


def test_a_second_writer_that_is_refused_deletes_nothing(ledger: Ledger, folder: Path) -> None:
    """It is what a gateway that runs is about to record."""
    ledger._payloads.put(REASON_PAYLOAD)
    with pytest.raises(LedgerError, match="another process writes"):
        Ledger(folder, PEER, "ise")
    assert verify_ledger(folder, None).left_over == (sha256(REASON_PAYLOAD).hexdigest(),)


def test_payloads_of_entries_that_are_gone_stay(ledger_folder: Path, tmp_path: Path, hub: Hub) -> None:
    """An older ledger.db may have been put back by mistake, and the newest one comes back."""
    older, newest = tmp_path / "older.db", tmp_path / "newest.db"
    shutil.copy(ledger_folder / "ledger.db", older)
    payload = update(samples=77)
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        ledger.append(draft_of(payload, "newer"), payload)
    shutil.copy(ledger_folder / "ledger.db", newest)
    shutil.copy(older, ledger_folder / "ledger.db")
    with Ledger(ledger_folder, PEER, "ise") as ledger:
        record(ledger)
    assert verify_ledger(ledger_folder, hub.authority).left_over == (sha256(payload).hexdigest(),)
    shutil.copy(newest, ledger_folder / "ledger.db")
    assert "is gone" not in "".join(verify_ledger(ledger_folder, hub.authority).problems)


def test_settling_writes_even_where_nothing_changes(ledger: Ledger, folder: Path) -> None:
    """Or it would neither sync nor overwrite what a failed commit has left in SQLite's log."""
    record(ledger)
    before = (folder / "ledger.db-wal").stat().st_size
    ledger._table.settle()
    assert (folder / "ledger.db-wal").stat().st_size > before
