from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import pytest
from fedsparse_client.gateway.calls import HELD_FILE, Calls
from fedsparse_client.gateway.gate import INTERNAL, Gate

from fedsparse.audit import EntryKind
from fedsparse.config import EgressSettings
from fedsparse.errors import EgressRefusedError

BUSY = EgressRefusedError("day-calls", "this would make 8 calls in 24 hours, the limit is 7")


class GateThatSays:
    """Refuses as told, one refusal for each call, and lets everything pass afterwards."""

    def __init__(self, *refusals: EgressRefusedError) -> None:
        self._refusals = list(refusals)
        self.asked: list[EntryKind] = []

    def record_call(self, kind: EntryKind) -> None:
        self.asked.append(kind)
        if self._refusals:
            raise self._refusals.pop(0)


def limits(calls: int = 7) -> EgressSettings:
    return EgressSettings.model_validate({"per_day": {"calls": calls}})


def test_where_the_days_calls_are_used_up_the_plant_waits_and_says_why_until_one_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate, told = GateThatSays(BUSY, BUSY), list[str]()

    def sleep(seconds: float) -> None:
        assert seconds >= 60  # each refusal is an entry in the ledger
        told.append((tmp_path / HELD_FILE).read_text())

    Calls(cast(Gate, gate), limits(), tmp_path, sleep).record(EntryKind.ATTEND)
    assert gate.asked == [EntryKind.ATTEND] * 3
    assert (
        told[0]
        == told[1]
        == (
            "this site's own policy does not let the plant attend at the hub (rule day-calls): "
            "this would make 8 calls in 24 hours, the limit is 7. "
            "Raise per_day.calls of the policy and start the plant again, or wait: calls count for a day"
        )
    )
    assert told[0] in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert not (tmp_path / HELD_FILE).exists()


@pytest.mark.parametrize(
    ("refusal", "most", "remedy"),
    [
        (
            EgressRefusedError("kind", "a message of the kind describe"),
            7,
            'Add "describe" to messages of the policy',
        ),
        (BUSY, 0, "Raise per_day.calls"),  # no call will ever be free
        (EgressRefusedError(INTERNAL, "the gate could not judge it"), 7, "Read above in the log why"),
    ],
)
def test_a_call_that_will_never_be_let_through_is_an_error_with_its_rule_and_remedy(
    tmp_path: Path, refusal: EgressRefusedError, most: int, remedy: str
) -> None:
    calls = Calls(cast(Gate, GateThatSays(refusal)), limits(most), tmp_path, lambda _: pytest.fail("it waits"))
    with pytest.raises(
        EgressRefusedError, match="own policy does not let the plant describe at the hub"
    ) as caught:
        calls.record(EntryKind.DESCRIBE)
    assert caught.value.rule == refusal.rule
    assert refusal.what in str(caught.value)
    assert remedy in str(caught.value)
    assert not (tmp_path / HELD_FILE).exists()


def test_what_an_earlier_gateway_said_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / HELD_FILE).write_text("it waited")
    Calls(cast(Gate, GateThatSays()), limits(), tmp_path)
    assert not (tmp_path / HELD_FILE).exists()
