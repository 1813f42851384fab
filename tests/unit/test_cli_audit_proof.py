"""`fedsparse audit prove` and `check-proof`: one entry is in a ledger, for somebody who may see no other."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedsparse.audit import Ledger, read_folder
from fedsparse.audit.conservation import Finding
from fedsparse.audit.proof import check_proof, make_proof
from fedsparse.cli.audit_proof import check, prove
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.samples import LEFT, Hub, open_as, tamper, update

KEY = bytes(range(32))


@pytest.fixture
def proof(ledger_folder: Path) -> dict[str, Any]:
    return make_proof(read_folder(ledger_folder), 2)


def test_a_proof_shows_an_entry_without_the_ledger(proof: dict[str, Any], hub: Hub) -> None:
    found = check_proof(json.dumps(proof).encode(), hub.authority)
    assert (found.problems, found.entry.task_id, found.size, found.receipt) == ((), "task-a", 6, True)
    assert found.origin.startswith("fedsparse/ise/")


@pytest.mark.parametrize("entry", range(1, 7))
def test_every_entry_can_be_proved(ledger_folder: Path, hub: Hub, entry: int) -> None:
    found = check_proof(json.dumps(make_proof(read_folder(ledger_folder), entry)).encode(), hub.authority)
    assert (found.problems, found.entry.sequence, found.receipt) == ((), entry, entry in LEFT)


def other_opening(proof: dict[str, Any]) -> None:
    opening = ledger_pb2.Opening.FromString(b64decode(proof["opening"]["payload"]))
    opening.signature = bytes(64)
    proof["opening"]["payload"] = b64encode(opening.SerializeToString()).decode()


def opening_of_another_kind(proof: dict[str, Any]) -> None:
    entry = ledger_pb2.LedgerEntry.FromString(b64decode(proof["opening"]["entry"]))
    entry.kind = ledger_pb2.ENTRY_KIND_POLICY
    proof["opening"]["entry"] = b64encode(entry.SerializeToString()).decode()


def other_receipt(proof: dict[str, Any]) -> None:
    receipt = link_pb2.Receipt.FromString(b64decode(proof["receipt"]))
    receipt.body.ledger_hash = bytes(32)
    proof["receipt"] = b64encode(receipt.SerializeToString()).decode()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda proof: proof.update(leaf_index=2), "entry 2 is not proved to be in the ledger"),
        (lambda proof: proof["inclusion_proof"].reverse(), "entry 2 is not proved to be in the ledger"),
        (lambda proof: proof["inclusion_proof"].pop(), "entry 2 is not proved to be in the ledger"),
        (lambda proof: proof.update(tree_size=7), "are of different ledgers"),
        (lambda proof: proof["opening"].update(leaf_index=0), "entry 6 is not proved to be in the ledger"),
        (lambda proof: proof.update(payload_sha256="00" * 32), "it names another payload than its entry does"),
        (lambda proof: proof.update(ledger_key=b64encode(bytes(32)).decode()), "its checkpoint does not count"),
        (other_opening, "its opening is not one that the ledger recorded"),
        (other_opening, "its opening is not the plant's"),
        (opening_of_another_kind, "its opening is not one that the ledger recorded"),
        (other_receipt, "its receipt speaks of another payload, entry or task"),
    ],
)
def test_a_proof_that_was_altered_shows_nothing(
    proof: dict[str, Any], hub: Hub, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    change(proof)
    assert told in "\n".join(check_proof(json.dumps(proof).encode(), hub.authority).problems)


def test_a_proof_from_another_federation_is_told(proof: dict[str, Any], tmp_path: Path) -> None:
    stranger = Hub.create(tmp_path / "other").authority
    problems = check_proof(json.dumps(proof).encode(), stranger).problems
    assert any(problem.startswith("its opening is not the plant's") for problem in problems)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff", b"1e999"])
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerError, match="this is no proof of an entry"):
        check_proof(data, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "fedsparse proof 2"),
        ("tree_size", "six"),
        ("tree_size", 1e999),
        ("tree_size", True),
        ("leaf_index", 1.0),
        ("entry", "AAAA"),
        ("entry", "not base64"),
        ("opening", None),
        ("inclusion_proof", [3]),
        ("checkpoint", None),
        ("receipt", []),
    ],
)
def test_a_proof_with_a_value_of_another_kind_is_none(proof: dict[str, Any], key: str, value: object) -> None:
    with pytest.raises(LedgerError, match="this is no proof of an entry"):
        check_proof(json.dumps(proof | {key: value}).encode(), None)


def test_a_file_that_is_no_proof_by_its_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "proof.json").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(LedgerError, match="it has more than 16,777,216 bytes"):
        check(tmp_path / "proof.json", None, Console(quiet=True))


def test_a_proof_says_how_it_is_checked_and_steers_no_terminal(ledger_folder: Path) -> None:
    out = io.StringIO()
    prove(ledger_folder, 2, None, Console(file=out, force_terminal=True, width=40))
    told = json.loads(out.getvalue())
    assert "check-proof" in told["how_to_check"][0]
    assert told["payload_sha256"] == sha256(update()).hexdigest()
    assert out.getvalue().isascii()
    assert "\x1b" not in out.getvalue()


def test_a_proof_without_the_ca_may_be_anybodys(proof: dict[str, Any], hub: Hub, tmp_path: Path) -> None:
    path, ca = tmp_path / "proof.json", tmp_path / "ca.pem"
    path.write_text(json.dumps(proof))
    ca.write_bytes(hub.authority)
    assert check(path, None, Console(quiet=True)) is Finding.UNKNOWN
    assert check(path, ca, Console(quiet=True)) is Finding.VERIFIED
    path.write_text(json.dumps(proof | {"leaf_index": 3}))
    assert check(path, None, Console(quiet=True)) is Finding.CONTRADICTED


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM entries WHERE sequence = 6", "the ledger's checkpoint is over 6 entries, 5 are there"),
        ("UPDATE entries SET entry = x'00' WHERE sequence = 3", "checkpoint is over 6 other entries than these"),
        ("UPDATE checkpoint SET note = x'00'", "the ledger has no checkpoint that can be read"),
        ("UPDATE receipts SET receipt = x'00' WHERE sequence = 2", "its receipt is unreadable"),
    ],
)
def test_nothing_is_proved_where_its_check_would_refuse_it(ledger_folder: Path, statement: str, told: str) -> None:
    tamper(ledger_folder, statement)
    with pytest.raises(LedgerError, match=f"entry 2 cannot be proved: .*{told}.* fedsparse audit verify names"):
        make_proof(read_folder(ledger_folder), 2)


def test_nothing_is_proved_of_a_ledger_whose_opening_is_gone(ledger_folder: Path) -> None:
    for payload in (ledger_folder / "payloads").iterdir():
        payload.unlink()
    with pytest.raises(LedgerError, match="entry 6 says whose ledger this is, but its payload is gone"):
        make_proof(read_folder(ledger_folder), 2)


def test_an_entry_of_a_ledger_with_sealed_payloads_is_proved_with_their_key(tmp_path: Path, hub: Hub) -> None:
    key = tmp_path / "payload.key"
    key.write_text(KEY.hex())
    key.chmod(0o600)
    with Ledger(tmp_path / "ledger", bytes(32), "ise", KEY) as ledger:
        open_as(ledger, hub)
    out = io.StringIO()
    prove(tmp_path / "ledger", 1, key, Console(file=out))
    assert check_proof(out.getvalue().encode(), hub.authority).problems == ()
