from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fedsparse_server.receipts import ReceiptBook

from fedsparse.audit import (
    Checkpoint,
    Receipted,
    StaleCheckpointError,
    check_cosignature,
    check_receipt,
    public_bytes,
)
from fedsparse.errors import LedgerError
from fedsparse.security import Credentials, Role, verify
from fedsparse.v1 import link_pb2
from tests.unit.federation_samples import Pki, PlantLog

HASH = bytes(32)
CHECKPOINT = Checkpoint("fedsparse/kiso/0", 1, HASH)  # nothing here looks at it


def _signer() -> Credentials:
    with TemporaryDirectory() as folder:
        return Pki(Path(folder)).credentials(Role.HUB, "hub")


SIGNER = _signer()  # of books whose signatures nobody checks


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Pki(tmp_path_factory.mktemp("pki")).credentials(Role.HUB, "hub")


def book(folder: Path) -> ReceiptBook:
    return ReceiptBook(folder, lambda: SIGNER)


def give(receipts: ReceiptBook, plant: str, task_id: str, payload: bytes, ledger_hash: bytes) -> link_pb2.Receipt:
    update = link_pb2.Update(task_id=task_id, round_update=payload, ledger_hash=ledger_hash)
    return receipts.issue(plant, update, sha256(update.round_update).digest(), CHECKPOINT)


def sequences(folder: Path, plant: str = "kiso") -> list[int]:
    return [json.loads(line)["sequence"] for line in (folder / f"{plant}.jsonl").read_text().splitlines()]


def test_a_receipt_says_what_was_received_and_verifies(tmp_path: Path, hub: Credentials) -> None:
    receipts = ReceiptBook(tmp_path, lambda: hub)
    receipt = give(receipts, "kiso", "task", b"payload", b"h" * 32)
    body = receipt.body
    assert (body.plant, body.task_id, body.sequence) == ("kiso", "task", 1)
    assert (body.payload_sha256, body.ledger_hash) == (sha256(b"payload").digest(), b"h" * 32)
    signed = body.SerializeToString(deterministic=True)
    signer = verify(receipt.hub_certificate, hub.authority, Role.HUB, signed, receipt.signature)
    assert signer.name == "hub"


def test_each_plant_counts_from_one_without_gaps(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    counted = [give(receipts, p, f"t{i}", b"", HASH).body.sequence for i in range(3) for p in ("kiso", "ise")]
    assert counted == [1, 1, 2, 2, 3, 3]


def test_a_task_that_has_a_receipt_keeps_it(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    first = give(receipts, "kiso", "task", b"one", HASH)
    assert give(receipts, "kiso", "task", b"two", HASH) == first
    assert receipts.find("kiso", "task") == first
    assert give(receipts, "kiso", "next", b"", HASH).body.sequence == 2
    assert sequences(tmp_path) == [1, 2]


def test_a_receipt_is_found_only_for_its_own_plant(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    give(receipts, "kiso", "task", b"", HASH)
    assert receipts.find("ise", "task") is None


def test_many_threads_get_one_receipt_per_task_and_no_gaps(tmp_path: Path) -> None:
    receipts, start = book(tmp_path), threading.Barrier(8)

    def issue_all(_: int) -> list[bytes]:
        start.wait()
        return [give(receipts, "kiso", f"t{i}", b"", HASH).signature for i in range(10)]

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(issue_all, range(8)))
    assert all(signatures == seen[0] for signatures in seen)
    assert sequences(tmp_path) == list(range(1, 11))


def test_a_restarted_hub_goes_on_counting_and_knows_what_it_gave(tmp_path: Path) -> None:
    given = [give(book(tmp_path), "kiso", f"t{i}", b"", HASH) for i in range(3)]
    again = book(tmp_path)
    assert [again.find("kiso", f"t{i}") for i in range(3)] == given
    assert give(again, "kiso", "t3", b"", HASH).body.sequence == 4
    assert sequences(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_last_line_cut_short_by_a_crash_was_never_given(tmp_path: Path, kept: int) -> None:
    receipts = book(tmp_path)
    give(receipts, "kiso", "t0", b"", HASH)
    path = tmp_path / "kiso.jsonl"
    whole = path.read_bytes()
    give(receipts, "kiso", "t1", b"", HASH)
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    again = book(tmp_path)
    assert again.find("kiso", "t1") is None
    assert give(again, "kiso", "t1", b"", HASH).body.sequence == 2
    assert sequences(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "line", ["{}", "no json", "[]", '{"receipt": "!"}', '{"receipt": 1}', '{"receipt": "/////w=="}']
)
def test_a_spoilt_line_is_an_error_with_the_files_name_and_not_a_new_count(tmp_path: Path, line: str) -> None:
    give(book(tmp_path), "kiso", "t0", b"", HASH)
    path = tmp_path / "kiso.jsonl"
    path.write_text(line + "\n" + path.read_text())
    again = book(tmp_path)
    with pytest.raises(LedgerError, match=r"line 1 of .*kiso\.jsonl is unreadable.*backup"):
        again.find("kiso", "t0")
    with pytest.raises(LedgerError):
        give(again, "kiso", "t1", b"", HASH)


def test_where_nothing_can_be_written_nothing_is_received(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    (tmp_path / "kiso.jsonl").symlink_to(tmp_path / "gone" / "kiso.jsonl")
    with pytest.raises(LedgerError, match="cannot keep a receipt for kiso"):
        give(receipts, "kiso", "t0", b"", HASH)
    assert receipts.find("kiso", "t0") is None


def test_a_line_that_a_full_disk_cut_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    """The size limit of the process cuts the second line in the middle, as a full disk does."""
    code = f"""
import resource, signal
from pathlib import Path
from fedsparse.errors import LedgerError
from fedsparse_server.receipts import ReceiptBook
from tests.unit.test_hub_receipts import SIGNER, give
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path({str(tmp_path)!r})
receipts = ReceiptBook(folder, lambda: SIGNER)
give(receipts, "kiso", "t0", b"", bytes(32))
size = (folder / "kiso.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
try:
    give(receipts, "kiso", "t1", b"", bytes(32))
    raise SystemExit("the limit had no effect")
except LedgerError:
    print((folder / "kiso.jsonl").stat().st_size - size, receipts.find("kiso", "t1"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(give(receipts, "kiso", "t1", b"", bytes(32)).body.sequence)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout.split(), result.stderr) == (["0", "None", "2"], "")
    assert sequences(tmp_path) == [1, 2]
    again = book(tmp_path)
    assert again.find("kiso", "t1") is not None


# The hub as a witness


class Kiso:
    """A plant that shows its ledger to the hub with every update; of its ledger the hub has no other copy."""

    def __init__(self) -> None:
        self.log = PlantLog("kiso")

    def update(self, task_id: str) -> link_pb2.Update:
        return self.log.update(b"payload", task_id, sha256(task_id.encode()).digest(), SIGNER.key)

    def push(self, receipts: ReceiptBook, task_id: str) -> link_pb2.Receipt:
        update = self.update(task_id)
        receipt = receipts.issue("kiso", update, sha256(b"payload").digest(), receipts.check("kiso", update))
        self.log.witnessed = receipt.body.checkpoint_size
        return receipt


class Log:
    """The ledger as the plant itself knows it."""

    def __init__(self, log: PlantLog, checkpoint: Checkpoint) -> None:
        self.key, self.origin, self._checkpoint = public_bytes(log.key), log.origin, checkpoint

    def root(self, size: int) -> bytes | None:
        return self._checkpoint.root if size == self._checkpoint.size else None


def test_a_receipt_witnesses_what_the_plant_has_shown(tmp_path: Path, hub: Credentials) -> None:
    kiso, receipts = Kiso(), ReceiptBook(tmp_path, lambda: hub)
    update = kiso.update("t0")
    checkpoint = receipts.check("kiso", update)
    receipt = receipts.issue("kiso", update, sha256(b"payload").digest(), checkpoint)
    body = receipt.body
    assert (body.origin, body.ledger_key) == (kiso.log.origin, public_bytes(kiso.log.key))
    assert (body.checkpoint_size, body.checkpoint_root) == (1, checkpoint.root)
    name, at = check_cosignature(receipt.cosignature, checkpoint, body.witness_key)
    assert (name, at) == ("fedsparse/hub", body.received_unix_ms // 1000)
    expected = Receipted("t0", sha256(b"payload").digest(), update.ledger_hash)
    data = receipt.SerializeToString(deterministic=True)
    assert list(check_receipt(data, expected, hub.authority, Log(kiso.log, checkpoint), fresh=True)) == []


def test_the_key_of_a_hubs_cosignatures_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    keys = {give(book(tmp_path), "kiso", f"t{number}", b"", HASH).body.witness_key for number in range(3)}
    assert len(keys) == 1
    key = tmp_path / "witness.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(LedgerError, match="others may read the key"):
        book(tmp_path)


def test_a_restarted_hub_knows_what_it_has_witnessed(tmp_path: Path) -> None:
    kiso = Kiso()
    for number in range(5):
        assert kiso.push(book(tmp_path), f"t{number}").body.checkpoint_size == number + 1
    kiso.log.witnessed = 2
    with pytest.raises(StaleCheckpointError) as caught:
        book(tmp_path).check("kiso", kiso.update("t5"))
    assert caught.value.size == 5
    kiso.log.witnessed = 5
    kiso.log.leaves[1] = HASH
    with pytest.raises(LedgerError, match="its history was rewritten"):
        book(tmp_path).check("kiso", kiso.update("t5"))


def test_what_a_crash_cut_off_was_not_witnessed(tmp_path: Path) -> None:
    """The receipt was not handed out, so the plant proves from the one before."""
    kiso = Kiso()
    kiso.push(book(tmp_path), "t0")
    path = tmp_path / "kiso.jsonl"
    whole = path.read_bytes()
    kiso.push(book(tmp_path), "t1")
    path.write_bytes(path.read_bytes()[: len(whole) + 30])
    kiso.log.witnessed = 1
    assert kiso.push(book(tmp_path), "t1").body.checkpoint_size == 2


def test_a_receipt_that_could_not_be_kept_witnesses_nothing(tmp_path: Path) -> None:
    kiso, receipts = Kiso(), book(tmp_path)
    (tmp_path / "kiso.jsonl").symlink_to(tmp_path / "gone" / "kiso.jsonl")
    with pytest.raises(LedgerError, match="cannot keep a receipt"):
        kiso.push(receipts, "t0")
    (tmp_path / "kiso.jsonl").unlink()
    kiso.log.leaves[0] = HASH  # nobody has put a name to what stood here
    assert kiso.push(receipts, "t0").body.checkpoint_size == 2


def test_checking_witnesses_nothing(tmp_path: Path) -> None:
    kiso, receipts = Kiso(), book(tmp_path)
    receipts.check("kiso", kiso.update("t0"))
    kiso.log.leaves[0] = HASH
    receipts.check("kiso", kiso.update("t0"))
    assert receipts.ledgers("kiso") == []


def test_every_ledger_of_a_plant_is_witnessed_by_itself(tmp_path: Path) -> None:
    kiso, receipts = Kiso(), book(tmp_path)
    first = kiso.log
    kiso.push(receipts, "t0")
    kiso.log = second = PlantLog("kiso")
    assert kiso.push(receipts, "t1").body.checkpoint_size == 1
    kiso.push(receipts, "t2")
    kiso.log = first  # an older copy of the plant's disk, put back
    assert kiso.push(receipts, "t3").body.checkpoint_size == 2
    keys = [public_bytes(log.key) for log in (first, second)]
    assert receipts.ledgers("kiso") == book(tmp_path).ledgers("kiso") == keys
    assert receipts.ledgers("ise") == []
    second.leaves[0] = HASH
    kiso.log = second
    with pytest.raises(LedgerError, match="its history was rewritten"):
        kiso.push(receipts, "t4")


def test_one_plants_ledger_is_not_witnessed_as_anothers(tmp_path: Path) -> None:
    kiso, receipts = Kiso(), book(tmp_path)
    with pytest.raises(LedgerError, match="not of a ledger of ise"):
        receipts.check("ise", kiso.update("t0"))


def test_a_task_that_has_a_receipt_is_witnessed_once(tmp_path: Path) -> None:
    kiso, receipts = Kiso(), book(tmp_path)
    first = kiso.push(receipts, "t0")
    kiso.update("t1")  # the ledger has grown since
    assert kiso.push(receipts, "t0") == first
    assert kiso.push(receipts, "t2").body.checkpoint_size == 3


def test_no_size_is_witnessed_that_a_receipt_cannot_say(tmp_path: Path) -> None:
    """Flower would have the update already, when its receipt could not be written."""
    kiso, receipts = Kiso(), book(tmp_path)
    update = kiso.update("t0")
    for huge in (2**63, 2**64, 10**40):
        update.checkpoint.note = update.checkpoint.note.replace(b"\n1\n", f"\n{huge}\n".encode())
        with pytest.raises(LedgerError, match="canonical"):
            receipts.check("kiso", update)
        update = kiso.update("t0")
