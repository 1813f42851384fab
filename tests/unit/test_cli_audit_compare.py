"""`fedsparse audit compare`: a ledger beside the hub's record, and beside another view of it."""

from __future__ import annotations

import io
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedsparse.audit import Ledger, compare_receipts, compare_views, read_folder, receipt_line
from fedsparse.cli.audit_compare import compare
from fedsparse.errors import LedgerError
from fedsparse.v1 import link_pb2
from tests.unit.samples import LEFT, REASON_PAYLOAD, Hub, cell, copied, open_as, tamper

KEY = bytes(range(32))


@pytest.fixture
def receipts(ledger_folder: Path) -> list[link_pb2.Receipt]:
    return [link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", number)) for number in LEFT]


def disagreements(folder: Path, receipts: list[link_pb2.Receipt]) -> str:
    return "\n".join(compare_receipts(read_folder(folder), receipts).problems)


def test_a_ledger_and_the_hubs_whole_record_agree(
    ledger_folder: Path, receipts: list[link_pb2.Receipt], tmp_path: Path
) -> None:
    out = io.StringIO()
    for name in ("ise.jsonl", "a record by another name"):
        (tmp_path / name).write_bytes(b"".join(map(receipt_line, receipts)))
        assert compare(ledger_folder, tmp_path / name, None, Console(file=out, width=200))
        *_, limits, verdict = out.getvalue().splitlines()
        assert verdict == "they agree"
        assert limits.startswith("not checked: who signed the receipts and the checkpoint, and whose ledger it is")


def test_what_the_hub_has_no_receipt_for_is_named(ledger_folder: Path, receipts: list[link_pb2.Receipt]) -> None:
    told = "entry 5 (task-c): the hub has no receipt for it"
    assert disagreements(ledger_folder, receipts[:2]) == f"{told}, but the plant has filed one"
    tamper(ledger_folder, "DELETE FROM receipts WHERE sequence = 5")
    assert disagreements(ledger_folder, receipts[:2]) == told


def test_a_receipt_that_stands_there_twice_is_named(ledger_folder: Path, receipts: list[link_pb2.Receipt]) -> None:
    assert disagreements(ledger_folder, [*receipts, receipts[-1]]).splitlines() == [
        "the hub's receipt 4 (task-c) is for the same entry as the hub's receipt 3",
        "the hub's receipt 4 (task-c) has the number 3: one is missing above it, or stands there twice",
    ]


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("signature", "has no signature"),
        ("cosignature", "has no cosignature of the ledger's checkpoint"),
        ("hub_certificate", "has no certificate of the hub"),
    ],
)
def test_a_receipt_that_nobody_signed_is_named(
    ledger_folder: Path, receipts: list[link_pb2.Receipt], missing: Any, told: str
) -> None:
    receipts[1].ClearField(missing)
    assert disagreements(ledger_folder, receipts).splitlines() == [
        f"the hub's receipt 2 (task-b) {told}",
        "the hub's receipt 2 (task-b) is not, byte for byte, the one that the plant has filed for entry 4",
    ]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("checkpoint_root", bytes(32), "witnesses another history of the first 4 entries"),
        ("checkpoint_size", 40, "witnesses 40 entries, of which 6 are there"),
        ("checkpoint_size", 3, "witnesses the first 3 entries, before entry 4 was there"),
        ("origin", "fedsparse/\x1b[2Jise", r"witnesses another ledger, 'fedsparse/\x1b[2Jise'"),
        ("ledger_key", bytes(32), "witnesses another ledger, 'fedsparse/ise/"),
        ("plant", "kiso", "is for the plant 'kiso', which has no ledger 'fedsparse/ise/"),
        ("payload_sha256", bytes(32), "is for another payload than that of entry 4"),
        ("task_id", "task-x", "is for another task than that of entry 4"),
        ("ledger_hash", bytes(32), "is for an entry that the ledger does not have"),
        ("sequence", 7, "has the number 7: one is missing above it, or stands there twice"),
    ],
)
def test_whatever_a_receipt_tells_otherwise_than_the_ledger_is_named(
    ledger_folder: Path, receipts: list[link_pb2.Receipt], field: str, value: object, told: str
) -> None:
    setattr(receipts[1].body, field, value)
    tamper(ledger_folder, "DELETE FROM receipts")
    found = disagreements(ledger_folder, receipts)
    assert f"the hub's receipt 2 ({receipts[1].body.task_id}) {told}" in found


def test_an_entry_that_was_altered_is_seen_by_what_the_hub_has_witnessed(
    ledger_folder: Path, receipts: list[link_pb2.Receipt]
) -> None:
    tamper(
        ledger_folder,
        "UPDATE entries SET entry = ? WHERE sequence = 3",
        cell(ledger_folder, "entries", "entry", 1),
    )
    found = disagreements(ledger_folder, receipts)
    assert "the ledger's checkpoint is over 6 other entries than these" in found
    assert "the hub's receipt 2 (task-b) witnesses another history of the first 4 entries" in found


def test_a_record_that_ends_within_a_line_is_told(
    ledger_folder: Path, receipts: list[link_pb2.Receipt], tmp_path: Path
) -> None:
    out = io.StringIO()
    (tmp_path / "ise.jsonl").write_bytes(b"".join(map(receipt_line, receipts))[:-1])
    assert not compare(ledger_folder, tmp_path / "ise.jsonl", None, Console(file=out, width=200))
    assert "the record ends in the middle of a line, which was left out" in out.getvalue()
    assert out.getvalue().endswith("\n1 disagreement\n")


def test_two_views_of_one_ledger_are_compared_in_all_that_both_tell(ledger_folder: Path, tmp_path: Path) -> None:
    def against(statement: str, *values: object) -> list[str]:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        tamper(copied(ledger_folder, tmp_path / "other"), statement, *values)
        return [*compare_views(read_folder(ledger_folder), read_folder(tmp_path / "other"))]

    receipt = cell(ledger_folder, "receipts", "receipt", 4)
    entry = cell(ledger_folder, "entries", "entry", 1)
    assert against("DELETE FROM receipts") == []
    assert against("UPDATE receipts SET receipt = ? WHERE sequence = 2", receipt) == [
        "entry 2: its receipt is another in each view"
    ]
    assert against("UPDATE receipts SET receipt = ? WHERE sequence = 2", b"\xff")[1:] == [
        "entry 2: its receipt is unreadable"
    ]
    assert against("UPDATE entries SET entry = ? WHERE sequence = 3", entry) == [
        "entry 3: it is another in each view: somebody keeps two histories"
    ]
    assert against("DELETE FROM entries WHERE sequence = 6") == [
        "the ledger's checkpoint is over 6 entries, 5 are there, in the second view"
    ]


def test_payloads_of_two_views_are_compared_as_well(ledger_folder: Path, tmp_path: Path) -> None:
    other = copied(ledger_folder, tmp_path / "other")
    (other / "payloads" / sha256(REASON_PAYLOAD).hexdigest()).write_bytes(b"other bytes")
    assert [*compare_views(read_folder(ledger_folder), read_folder(other))] == [
        "entry 4: its payload was altered, in the second view"
    ]


def test_sealed_payloads_are_compared_with_their_key(tmp_path: Path, hub: Hub) -> None:
    key = tmp_path / "payload.key"
    key.write_text(KEY.hex())
    key.chmod(0o600)
    with Ledger(tmp_path / "ledger", bytes(32), "ise", KEY) as ledger:
        open_as(ledger, hub)
    (tmp_path / "ise.jsonl").touch()
    for other in ("ledger", "ise.jsonl"):
        assert compare(tmp_path / "ledger", tmp_path / other, key, Console(quiet=True))


@pytest.mark.parametrize("content", [b"", b"no record and no bundle"])
def test_what_is_neither_record_nor_view_is_told_so(ledger_folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kiso.txt").write_bytes(content)
    with pytest.raises(
        LedgerError, match=r"kiso.txt is neither another view .* nor a hub's record: .*NAME\.jsonl"
    ):
        compare(ledger_folder, tmp_path / "kiso.txt", None, Console(quiet=True))


@pytest.mark.parametrize("name", ["gone", "x" * 300])
def test_another_view_that_cannot_be_read_is_told(ledger_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        compare(ledger_folder, tmp_path / name, None, Console(quiet=True))


def test_a_payload_that_was_altered_is_named(ledger_folder: Path, receipts: list[link_pb2.Receipt]) -> None:
    for payload in (ledger_folder / "payloads").iterdir():
        payload.write_bytes(b"other bytes")
    assert "entry 2 (task-a): its payload was altered" in disagreements(ledger_folder, receipts)


@pytest.mark.parametrize(
    "line", [b'{"receipt": ' + b"[" * 100_000, b"{}", b'{"receipt": 1}', b"nothing", b"x" * 3_000_000]
)
def test_a_record_with_another_line_is_refused(ledger_folder: Path, tmp_path: Path, line: bytes) -> None:
    (tmp_path / "ise.jsonl").write_bytes(line + b"\n")
    with pytest.raises(LedgerError, match=r"line 1 of .*ise\.jsonl is unreadable: it is no receipt"):
        compare(ledger_folder, tmp_path / "ise.jsonl", None, Console(quiet=True))
