from __future__ import annotations

import shutil
import tracemalloc
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from fedsparse.audit import (
    EntryKind,
    Ledger,
    read_bundle,
    read_folder,
    verify_evidence,
    verify_ledger,
    write_bundle,
)
from fedsparse.audit import bundle as bundles
from fedsparse.audit.bundle import parse_bundle
from fedsparse.audit.evidence import read_spaces
from fedsparse.audit.payloads import Payloads, read_payload_key
from fedsparse.errors import LedgerError
from fedsparse.files import read_at_most
from tests.unit.samples import LEFT, REASON_PAYLOAD, SPACE, Hub, call_draft, draft_of, open_as, tamper, update

KEY = bytes(range(32))


@pytest.fixture
def bundle(ledger_folder: Path, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "kiso.tar", read_folder(ledger_folder))
    return tmp_path / "kiso.tar"


def test_a_bundle_says_what_the_folder_says(bundle: Path, ledger_folder: Path, hub: Hub) -> None:
    assert verify_evidence(read_bundle(bundle), hub.authority) == verify_ledger(ledger_folder, hub.authority)
    assert verify_evidence(read_bundle(bundle), hub.authority).verified


def test_a_bundle_is_the_same_bytes_every_time(bundle: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "again.tar", read_bundle(bundle))
    assert (tmp_path / "again.tar").read_bytes() == bundle.read_bytes()


def test_any_changed_byte_of_a_bundle_is_found(bundle: Path, hub: Hub) -> None:
    honest = bundle.read_bytes()
    for at in [*range(0, 2000, 7), *range(2000, len(honest), 97)]:
        changed = bytearray(honest)
        changed[at] ^= 1 << at % 8
        bundle.write_bytes(changed)
        try:
            verdict = verify_evidence(read_bundle(bundle), hub.authority)
        except LedgerError:
            continue
        assert not verdict.verified, at


@pytest.mark.parametrize("size", [0, 1, 511, 512, 5000, -1, -512])
def test_a_bundle_cut_short_is_found(bundle: Path, hub: Hub, size: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:size])
    with suppress(LedgerError):
        assert not verify_evidence(read_bundle(bundle), hub.authority).verified


def test_what_is_hidden_behind_a_bundle_is_found(bundle: Path, hub: Hub) -> None:
    bundle.write_bytes(bundle.read_bytes() + b"hidden")
    (problem,) = verify_evidence(read_bundle(bundle), hub.authority).problems
    assert problem.startswith("the bundle is not in canonical form from byte ")


def test_a_file_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        read_bundle(tmp_path / "gone")
    (tmp_path / "text").write_text("no archive at all" * 100)
    with pytest.raises(LedgerError, match="no evidence bundle"):
        read_bundle(tmp_path / "text")


def member(kind: bytes, size: bytes, name: bytes = b"entries") -> bytes:
    """Return the header of a tar member."""
    fields = (name.ljust(100, b"\0"), b"0000600\0", b"0000000\0" * 2, size, b"00000000000\0", b" " * 8, kind)
    block = b"".join(fields).ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def base_256(size: int) -> bytes:
    return (b"\x80" if size >= 0 else b"\xff") + size.to_bytes(11, "big", signed=True)


def sparse(size: int) -> bytes:
    """Return a member in GNU's old form that claims ``size`` zeros and has none."""
    block = bytearray(member(b"S", b"00000000000\0"))
    block[257:265], block[386:398], block[398:410] = b"ustar  \0", base_256(size), b"00000000000\0"
    block[483:495], block[148:156] = base_256(size), b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(*records: str) -> bytes:
    """Return a plain member with an extended header (pax) that says otherwise of it."""
    lines = "".join(f"{len(one) + 4} {one}\n" for one in records).encode()  # of 10 to 95 characters each
    return member(b"x", b"%011o\0" % len(lines)) + lines.ljust(512, b"\0") + member(b"0", b"00000000000\0")


NO_PLAIN_FILE = [
    sparse(1 << 36),
    sparse(1 << 62),
    sparse(1),
    member(b"0", base_256(-512)),
    member(b"0", base_256(-1)),
    member(b"0", base_256(1 << 60)),
    member(b"0", b"00000100000\0"),  # more than the bundle has
    member(b"1", b"00000000000\0"),
    member(b"2", b"00000000000\0"),
    member(b"5", b"00000000000\0"),
    member(b"6", b"00000000000\0"),
    member(b"7", b"00000000000\0"),
]


@pytest.mark.parametrize("data", NO_PLAIN_FILE)
def test_a_member_that_is_no_plain_file_of_its_size_is_refused_before_it_is_read(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(LedgerError, match=r"is no plain file, or twice|no evidence bundle"):
            parse_bundle(data + bytes(1024))
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_sparse_file_in_a_plain_ones_clothes_is_refused() -> None:
    claim = extended("GNU.sparse.size=600", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,0")
    with pytest.raises(LedgerError, match="is no plain file"):
        parse_bundle(claim + bytes(1024))


def test_headers_upon_headers_are_refused() -> None:
    long = member(b"L", b"00000000004\0") + b"name".ljust(512, b"\0")
    with pytest.raises(LedgerError, match="this is no evidence bundle"):
        parse_bundle(long * 2000 + bytes(1024))


def test_a_bundle_is_not_read_where_it_is_larger_than_any(tmp_path: Path) -> None:
    with (tmp_path / "kiso.tar").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(LedgerError, match="cannot be read: it has more than 4,294,967,296 bytes"):
        read_bundle(tmp_path / "kiso.tar")


def test_no_bundle_is_written_that_is_not_read_again(
    ledger_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "_MOST_BYTES", 5000)
    with pytest.raises(LedgerError, match="would have 20,480 bytes, at most 5,000 are read again"):
        write_bundle(tmp_path / "kiso.tar", read_folder(ledger_folder))
    assert not (tmp_path / "kiso.tar").exists()


def test_a_description_of_an_adapter_space_that_is_too_large_is_not_parsed(ledger_folder: Path) -> None:
    with pytest.raises(LedgerError, match="16,777,217 bytes, more than 16,777,216: it is no adapter space"):
        read_spaces({"spaces/x.json": bytes((16 << 20) + 1)})
    with (ledger_folder / "spaces" / "x.json").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(LedgerError, match="it has more than 16,777,216 bytes"):
        read_folder(ledger_folder)


def test_a_payload_that_is_larger_than_any_is_not_read(ledger_folder: Path) -> None:
    path = ledger_folder / "payloads" / sha256(REASON_PAYLOAD).hexdigest()
    with path.open("r+b") as file:
        file.truncate(5 << 30)
    with pytest.raises(LedgerError, match="was altered"):
        read_folder(ledger_folder).payload(sha256(REASON_PAYLOAD).digest())


def test_a_file_is_read_up_to_a_limit_also_where_it_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_at_most(tmp_path / "file", 5) == b"12345"
    for path in (tmp_path / "file", Path("/dev/zero")):
        with pytest.raises(OSError, match="it has more than 4 bytes"):
            read_at_most(path, 4)


def test_a_payload_that_was_deleted_as_recorded_leaves_a_ledger_that_verifies(
    ledger_folder: Path, hub: Hub, tmp_path: Path
) -> None:
    payload = update()
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        ledger.erase(sha256(payload).digest(), len(payload), "request")
    verdict = verify_ledger(ledger_folder, hub.authority)
    assert (verdict.problems, verdict.erased) == ((), 1)
    write_bundle(tmp_path / "kiso.tar", read_folder(ledger_folder))
    assert verify_evidence(read_bundle(tmp_path / "kiso.tar"), hub.authority) == verdict


def test_a_payload_recorded_again_after_it_was_deleted_must_be_there(ledger_folder: Path, hub: Hub) -> None:
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        ledger.erase(sha256(REASON_PAYLOAD).digest(), len(REASON_PAYLOAD), "request")
        ledger.append(draft_of(REASON_PAYLOAD, "task-d", EntryKind.REASON), REASON_PAYLOAD)
    assert verify_ledger(ledger_folder, hub.authority).problems == ()
    (ledger_folder / "payloads" / sha256(REASON_PAYLOAD).hexdigest()).unlink()
    assert verify_ledger(ledger_folder, hub.authority).problems == ("entry 8: its payload is gone",)


def test_sealed_payloads_are_read_with_their_key_alone(tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "ledger"
    with Ledger(folder, bytes(32), "ise", KEY) as ledger:
        ledger.set_space(SPACE)
        ledger.append(draft_of(update(), "task"), update())
        open_as(ledger, hub)
    assert all(b"ise" not in path.read_bytes() for path in (folder / "payloads").iterdir())
    assert verify_ledger(folder, hub.authority, payload_key=KEY).problems == ()
    found = verify_ledger(folder, hub.authority).problems
    assert found[0] == "entry 1: its payload was altered"
    assert (
        "entry 1: its payload was altered, or sealed under another key"
        in verify_ledger(folder, hub.authority, payload_key=bytes(32)).problems
    )


def test_the_same_payload_is_sealed_differently_every_time(tmp_path: Path) -> None:
    sealed = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digest = Payloads(tmp_path / name, KEY).put(b"payload")
        sealed.add((tmp_path / name / digest.hex()).read_bytes())
    assert len(sealed) == 2


@pytest.mark.parametrize(("text", "mode"), [("ab", 0o600), ("xx" * 32, 0o600), ("00" * 32, 0o640)])
def test_a_payload_key_that_is_none_or_open_to_others_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(LedgerError, match=r"the key .*key|others may read"):
        read_payload_key(tmp_path / "key")


def test_a_ledger_whose_end_was_altered_is_not_written_to(ledger_folder: Path) -> None:
    tamper(ledger_folder, "DELETE FROM entries WHERE sequence = 6")
    with pytest.raises(LedgerError, match="entries do not give its last checkpoint"):
        Ledger(ledger_folder, bytes(32), "ise")


def test_a_ledger_goes_on_with_its_own_key_alone(ledger_folder: Path, tmp_path: Path) -> None:
    key = ledger_folder / "ledger.key"
    with pytest.raises(LedgerError, match="altered"):
        Ledger(ledger_folder, bytes(32), "owari")  # a name is part of the checkpoint
    shutil.copy(key, tmp_path)
    key.chmod(0o644)
    with pytest.raises(LedgerError, match="others may read the key"):
        Ledger(ledger_folder, bytes(32), "ise")
    key.unlink()
    with pytest.raises(LedgerError, match="Restore it from a backup"):
        Ledger(ledger_folder, bytes(32), "ise")
    shutil.copy(tmp_path / "ledger.key", key)
    key.chmod(0o600)
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        assert (ledger.size, ledger.witnessed) == (6, 5)


def test_what_has_no_receipt_is_delivered_again_after_a_crash(ledger_folder: Path) -> None:
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence > 2")
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        found = ledger.undelivered(16)
        assert [(one.sequence, one.task_id) for one in found] == [(4, LEFT[4]), (5, LEFT[5])]
        assert [one.sequence for one in ledger.undelivered(1)] == [5]
        proof = ledger.prove(found[0], ledger.witnessed)
        assert (proof.entry, proof.old_size) == (4, 2)
        with pytest.raises(LedgerError, match="the hub has seen this ledger with 7 entries, it has 6 now"):
            ledger.prove(found[0], 7)


def test_a_write_that_failed_is_looked_for_on_disk_before_the_next(
    ledger_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system said that it failed, and yet it is there: the next entry must come after it."""
    with Ledger(ledger_folder, bytes(32), "ise") as ledger:
        insert = ledger._table.insert

        def written_and_yet_failed(*row: object) -> None:
            insert(*row)  # type: ignore[arg-type]
            raise LedgerError("no more")

        with monkeypatch.context() as patched:
            patched.setattr(ledger._table, "insert", written_and_yet_failed)
            with pytest.raises(LedgerError, match="no more"):
                ledger.append(call_draft(), b"")
        assert ledger.append(call_draft(), b"").sequence == 8
    assert verify_ledger(ledger_folder, None).problems == ()
