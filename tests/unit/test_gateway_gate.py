from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fedsparse_client.gateway.desk import Answer
from fedsparse_client.gateway.gate import Gate

from fedsparse import config
from fedsparse.audit import EgressPolicy, EntryKind, Ledger, read_folder, verify_ledger
from fedsparse.audit.policy import parse_policy
from fedsparse.delta import AdapterSpace, Operation, Reason, RoundUpdate, decode_update, encode_update
from fedsparse.errors import EgressRefusedError, LedgerError
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


def policy(**keys: Any) -> EgressPolicy:
    return EgressPolicy(
        config.EgressSettings.model_validate({**POLICY.settings.model_dump(), **keys}),
    )


def kinds(folder: Path) -> list[EntryKind]:
    return [EntryKind(entry.kind) for entry in entries(folder)]


def test_the_policy_in_force_is_in_the_ledger_once_whatever_is_restarted(ledger: Ledger, tmp_path: Path) -> None:
    other = policy(revision=2)
    for one in (POLICY, POLICY, other, other, POLICY):
        Gate(one, ledger, PEER)
    found = list(ledger.entries())
    assert [EntryKind(entry.kind) for entry in found] == [EntryKind.POLICY] * 3
    assert [entry.policy_sha256 for entry in found] == [POLICY.sha256, other.sha256, POLICY.sha256]
    kept = read_folder(tmp_path / "ledger").payload(found[1].payload_sha256)
    assert parse_policy(kept) == other.settings


def test_a_gate_whose_policy_cannot_be_recorded_does_not_come_to_be(ledger: Ledger, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "ledger" / "payloads")
    with pytest.raises(LedgerError):
        Gate(POLICY, ledger, PEER)


@pytest.mark.parametrize(
    ("keys", "payload", "rule"),
    [
        ({"messages": ["reason"]}, update(), "kind"),
        ({"bundles": ["0" * 64]}, update(), "bundle"),
        ({"bases": ["0" * 64]}, update(), "base"),
        ({"codings": ["ternary"]}, update(), "coding"),
        ({"tensors": ["head.*"]}, update(), "tensor"),
        ({"clip_norm": 0.5}, update(), "norm"),
        ({"per_round": {"bytes": 20}}, update(), "round-bytes"),
        ({}, update(metrics={"loss": 0.1 + 0.2}), "metric-precision"),
        ({}, update(metrics={"loss": -0.0}), "metric-precision"),
    ],
)
def test_every_kind_of_rule_reaches_what_really_travels(
    ledger: Ledger, tmp_path: Path, keys: dict[str, Any], payload: bytes, rule: str
) -> None:
    recorded = Gate(policy(**keys), ledger, PEER).decide(answered(payload), SPACE)
    assert recorded.payload == refusal(Reason.REFUSED_BY_GATE)
    assert [entry.rule for entry in entries(tmp_path)] == [rule, ""]


def test_budgets_are_kept_across_restarts(ledger: Ledger, tmp_path: Path) -> None:
    two = policy(per_round={"messages": 2})
    for _ in range(2):
        assert Gate(two, ledger, PEER).decide(answered(update()), SPACE).payload == update()
    with pytest.raises(EgressRefusedError, match="3 messages in this round") as caught:
        Gate(two, ledger, PEER).decide(answered(update()), SPACE)
    assert caught.value.rule == "round-messages"
    assert kinds(tmp_path) == [EntryKind.UPDATE] * 2 + [EntryKind.REFUSED] * 2  # the update, and the reason for it


def test_budgets_are_spent_by_one_thread_at_a_time(ledger: Ledger, tmp_path: Path) -> None:
    gate = Gate(policy(per_day={"messages": 3}), ledger, PEER)

    def send(_: int) -> None:
        with suppress(EgressRefusedError):
            gate.decide(answered(update()), SPACE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(12)))
    assert kinds(tmp_path).count(EntryKind.UPDATE) == 3


def test_calls_are_judged_and_counted_too(ledger: Ledger, tmp_path: Path) -> None:
    gate = Gate(policy(messages=["attend", "update"], per_day={"calls": 1}), ledger, PEER)
    with pytest.raises(EgressRefusedError, match="a message of the kind describe"):
        gate.record_call(EntryKind.DESCRIBE)
    gate.record_call(EntryKind.ATTEND)
    with pytest.raises(EgressRefusedError, match="2 calls in 24 hours"):
        gate.record_call(EntryKind.ATTEND)
    assert [(entry.kind, entry.rule) for entry in entries(tmp_path)] == [
        (EntryKind.REFUSED, "kind"),
        (EntryKind.ATTEND, ""),
        (EntryKind.REFUSED, "day-calls"),
    ]


def test_where_no_reason_may_leave_nothing_does(ledger: Ledger, tmp_path: Path) -> None:
    gate = Gate(policy(messages=["update"]), ledger, PEER)
    with pytest.raises(EgressRefusedError) as caught:
        gate.decide(answered(update(samples=1)), SPACE)
    assert caught.value.rule == "kind"
    stopped, reason = entries(tmp_path)
    assert (stopped.kind, stopped.rule) == (EntryKind.REFUSED, "min-samples")
    assert (reason.kind, reason.rule, reason.reason) == (EntryKind.REFUSED, "kind", Reason.REFUSED_BY_GATE)
    assert verify_ledger(tmp_path / "ledger", None).problems == (OWNERLESS,)


def test_outside_its_hours_nothing_leaves_and_inside_it_does(ledger: Ledger) -> None:
    hours = policy(timezone="Asia/Tokyo", windows=[{"days": ["thu"], "start": "21:00", "end": "22:00"}])
    thursday_noon_utc = 1_795_694_400.0
    now = [thursday_noon_utc - 1]
    gate = Gate(hours, ledger, PEER, lambda: now[0])
    with pytest.raises(EgressRefusedError, match="it is Thu 20:59 in Asia/Tokyo"):
        gate.decide(answered(update()), SPACE)
    now[0] = thursday_noon_utc
    assert gate.decide(answered(update()), SPACE).payload == update()


@pytest.mark.parametrize("broken", ["decode", "decode_update", "outgoing_update"])
def test_what_goes_wrong_in_judging_is_a_refusal_and_only_a_code_leaves(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(f"fedsparse_client.gateway.gate.{broken}", _fail)
    assert gate.decide(answered(update()), SPACE).payload == refusal(Reason.REFUSED_BY_GATE)
    assert [(entry.kind, entry.rule) for entry in entries(tmp_path)] == [
        (EntryKind.REFUSED, "internal"),
        (EntryKind.REASON, ""),
    ]


def test_a_task_that_cannot_be_judged_is_a_refusal_too(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsparse_client.gateway.gate.decode_task", _fail)
    assert gate.decide(answered(update()), SPACE).payload == refusal(Reason.TASK_MALFORMED)
    assert [(entry.kind, entry.rule) for entry in entries(tmp_path)] == [
        (EntryKind.REFUSED, "internal"),
        (EntryKind.REASON, ""),
    ]


def test_if_nothing_can_be_judged_nothing_leaves_and_no_call_is_made(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EgressPolicy, "refusals", _fail)
    with pytest.raises(EgressRefusedError) as caught:
        gate.decide(answered(update()), SPACE)
    assert caught.value.rule == "internal"
    with pytest.raises(EgressRefusedError):
        gate.record_call(EntryKind.ATTEND)
    assert [(entry.kind, entry.rule) for entry in entries(tmp_path)] == [(EntryKind.REFUSED, "internal")] * 3


def test_a_clock_without_sense_refuses(ledger: Ledger, tmp_path: Path) -> None:
    hours = policy(windows=[{}])
    with pytest.raises(EgressRefusedError):
        Gate(hours, ledger, PEER, lambda: 1e30).decide(answered(update()), SPACE)
    assert {entry.rule for entry in entries(tmp_path)} == {"internal"}


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("a bug, with data in its text")
