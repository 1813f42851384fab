from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fedsparse_client.gateway.desk import Answer
from fedsparse_client.gateway.gate import Gate

from fedsparse import config
from fedsparse.audit import EgressPolicy, EntryKind, Ledger, verify_ledger
from fedsparse.delta import AdapterSpace, Operation, Reason, RoundUpdate, decode_update, encode_update
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.federation_samples import SPACE, change, link_task, round_task, update
from tests.unit.samples import OWNERLESS

POLICY = EgressPolicy(
    config.EgressSettings(
        max_update_bytes=2000,
        max_density=0.05,  # 6 of 120 coordinates
        min_samples=16,
        metrics={"loss": config.MetricLimits(minimum=0.0, maximum=10.0)},
    )
)
PEER = "hub.example:8443"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger", bytes(32), "ise") as ledger:
        ledger.set_space(SPACE)
        yield ledger


@pytest.fixture
def gate(ledger: Ledger) -> Gate:
    return Gate(POLICY, ledger, PEER)


def entries(folder: Path) -> list[ledger_pb2.LedgerEntry]:
    with closing(sqlite3.connect(folder / "ledger" / "ledger.db")) as database:
        rows = database.execute("SELECT entry FROM entries ORDER BY sequence").fetchall()
    found = [ledger_pb2.LedgerEntry.FromString(row[0]) for row in rows]
    assert found[0].kind == EntryKind.POLICY  # which is in force before anything is judged
    return found[1:]


def answered(payload: bytes) -> Answer:
    return Answer(link_task(), payload=payload)


def refusal(reason: Reason, round: int = 1, version: int = 0) -> bytes:
    return encode_update(RoundUpdate.refusal(round, version, reason))


def test_an_allowed_update_leaves_as_it_is_and_is_recorded_with_what_it_says(gate: Gate, tmp_path: Path) -> None:
    payload = update(change(1, 5, 7), metrics={"loss": 0.5})
    recorded = gate.decide(answered(payload), SPACE)
    assert recorded.payload == payload
    (entry,) = entries(tmp_path)
    assert entry.kind == EntryKind.UPDATE
    assert (entry.task_id, entry.peer, entry.round, entry.version) == ("a" * 64, PEER, 1, 0)
    assert (entry.samples, entry.reason, entry.rule) == (100, Reason.NONE, "")
    assert [(t.name, t.nnz, t.minimum, t.maximum) for t in entry.tensors] == [("conv.weight", 3, -1.0, 1.0)]
    assert [(m.name, m.value) for m in entry.metrics] == [("loss", 0.5)]
    assert entry.policy_sha256 == POLICY.sha256


WRONG_SPACE = AdapterSpace(bytes(32), SPACE.tensors)


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (update(metrics={"secret": 0.5}), "metric-name"),
        (update(metrics={"loss": 10.5}), "metric-range"),
        (update(metrics={"loss": -0.5}), "metric-range"),
        (update(change(*range(7))), "density"),
        (update(samples=15), "min-samples"),
        (update(change(operation=Operation.SET)), "operation"),
        (update(round=2), "wrong-task"),
        (update(version=1), "wrong-task"),
        (refusal(Reason.TRAINING_FAILED, round=3), "wrong-task"),
        (b"", "malformed"),
        (b"image bytes, perhaps", "malformed"),
        (update() + b"\x40\x01", "malformed"),
        (update()[:-1], "malformed"),
        (bytes(2001), "bytes"),
    ],
)
def test_what_the_policy_does_not_allow_is_recorded_twice_and_only_a_code_leaves(
    gate: Gate, tmp_path: Path, payload: bytes, rule: str
) -> None:
    recorded = gate.decide(answered(payload), SPACE)
    assert recorded.payload == refusal(Reason.REFUSED_BY_GATE)
    stopped, left = entries(tmp_path)
    assert (stopped.kind, stopped.rule) == (EntryKind.REFUSED, rule)
    assert stopped.payload_bytes == len(payload)
    assert (left.kind, left.reason, left.rule) == (EntryKind.REASON, Reason.REFUSED_BY_GATE, "")
    assert stopped.task_id == left.task_id == "a" * 64
    assert recorded.sequence == left.sequence == 3


def test_the_densest_update_the_policy_allows_leaves(gate: Gate) -> None:
    payload = update(change(*range(6)), samples=16, metrics={"loss": 10.0})
    assert gate.decide(answered(payload), SPACE).payload == payload


def test_an_update_for_another_adapter_space_is_refused(gate: Gate, tmp_path: Path) -> None:
    recorded = gate.decide(answered(update()), WRONG_SPACE)
    assert decode_update(recorded.payload, max_bytes=1000).reason is Reason.REFUSED_BY_GATE
    assert entries(tmp_path)[0].rule == "malformed"


def test_a_reason_of_the_trainers_leaves_as_a_code_and_is_recorded(gate: Gate, tmp_path: Path) -> None:
    recorded = gate.decide(answered(refusal(Reason.VERSION_NOT_HELD)), SPACE)
    assert recorded.payload == refusal(Reason.VERSION_NOT_HELD)
    (entry,) = entries(tmp_path)
    assert (entry.kind, entry.reason) == (EntryKind.REASON, Reason.VERSION_NOT_HELD)


@pytest.mark.parametrize("reason", [Reason.APP_FAILED, Reason.APP_NOT_APPROVED])
def test_a_reason_of_the_desks_leaves_for_the_round_of_the_task(
    gate: Gate, tmp_path: Path, reason: Reason
) -> None:
    task = link_task()
    task.round_task = round_task(round=4)
    assert gate.decide(Answer(task, reason=reason), SPACE).payload == refusal(reason, round=4)
    assert [entry.kind for entry in entries(tmp_path)] == [EntryKind.REASON]


def test_what_the_desk_refused_for_its_size_is_recorded_as_refused_too(gate: Gate, tmp_path: Path) -> None:
    recorded = gate.decide(Answer(link_task(), reason=Reason.REFUSED_BY_GATE), SPACE)
    assert recorded.payload == refusal(Reason.REFUSED_BY_GATE)
    stopped, left = entries(tmp_path)
    assert (stopped.kind, stopped.rule, stopped.payload_bytes) == (EntryKind.REFUSED, "bytes", 0)
    assert left.kind == EntryKind.REASON
    assert verify_ledger(tmp_path / "ledger", None).problems == (OWNERLESS,)


@pytest.mark.parametrize("task", [b"", b"junk", round_task() + b"\x58\x01"])
def test_a_malformed_task_is_answered_with_a_code_whatever_the_site_says(
    gate: Gate, tmp_path: Path, task: bytes
) -> None:
    given = link_pb2.Task(task_id="a" * 64, round_task=task)
    assert gate.decide(Answer(given, payload=update()), SPACE).payload == refusal(Reason.TASK_MALFORMED)
    assert [entry.kind for entry in entries(tmp_path)] == [EntryKind.REASON]


@pytest.mark.parametrize("kind", [EntryKind.DESCRIBE, EntryKind.ATTEND])
def test_a_call_without_payload_is_recorded(gate: Gate, tmp_path: Path, kind: EntryKind) -> None:
    gate.record_call(kind)
    (entry,) = entries(tmp_path)
    assert (entry.kind, entry.peer, entry.payload_bytes) == (kind, PEER, 0)


@pytest.mark.parametrize(
    "answer",
    [answered(update()), answered(b"junk"), Answer(link_task(), reason=Reason.APP_FAILED)],
    ids=["update", "refused", "reason"],
)
def test_if_the_ledger_cannot_write_nothing_is_returned(tmp_path: Path, answer: Answer) -> None:
    ledger = Ledger(tmp_path / "ledger", bytes(32), "ise")
    gate = Gate(POLICY, ledger, PEER)
    shutil.rmtree(tmp_path / "ledger" / "payloads")
    with ledger, pytest.raises(LedgerError):
        gate.decide(answer, SPACE)
    assert entries(tmp_path) == []


def test_if_the_ledger_cannot_write_no_call_is_made(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger", bytes(32), "ise") as ledger:
        gate = Gate(POLICY, ledger, PEER)
        with closing(sqlite3.connect(tmp_path / "ledger" / "ledger.db")) as database, database:
            database.execute("DROP TABLE entries")
        with pytest.raises(LedgerError):
            gate.record_call(EntryKind.DESCRIBE)


def test_everything_the_gate_records_verifies(gate: Gate, tmp_path: Path) -> None:
    gate.record_call(EntryKind.DESCRIBE)
    for payload in (update(), update(samples=1), b"junk", refusal(Reason.TRAINING_FAILED)):
        gate.decide(answered(payload), SPACE)
    verdict = verify_ledger(tmp_path / "ledger", None)
    assert verdict.problems == (OWNERLESS,)
    assert (verdict.entries, verdict.updates, verdict.refusals) == (8, 1, 2)


def test_a_receipt_is_filed_beside_its_entry(gate: Gate, tmp_path: Path) -> None:
    recorded = gate.decide(answered(update()), SPACE)
    body = link_pb2.ReceiptBody(
        task_id="a" * 64, payload_sha256=entries(tmp_path)[0].payload_sha256, ledger_hash=recorded.entry_hash
    )
    gate.file_receipt(recorded, link_pb2.Receipt(body=body))
    verdict = verify_ledger(tmp_path / "ledger", None)
    assert (verdict.receipts, verdict.missing_receipts) == (1, ())
