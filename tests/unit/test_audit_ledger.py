from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from fedsparse.audit import EntryKind, Ledger, Recorded, verify_ledger
from fedsparse.audit.merkle import leaf_hash as entry_hash
from fedsparse.delta import AdapterSpace
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.samples import OWNERLESS, REASON_PAYLOAD, SPACE, call_draft, cell, draft_of, update

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
    assert len(list((folder / "payloads").iterdir())) == 1


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
        Recorded(b"secret", "task", 1, bytes(32), object())
    with pytest.raises(TypeError, match="only a Ledger"):
        replace(record(ledger), door=None)


def test_the_space_is_kept_beside_the_entries(ledger: Ledger, folder: Path) -> None:
    assert AdapterSpace.from_json((folder / "spaces" / f"{SPACE.fingerprint.hex()}.json").read_bytes()) == SPACE
