from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedsparse.audit import EgressPolicy, EntryKind
from fedsparse.audit.policy import RULES, Outgoing, Usage
from fedsparse.config import EgressSettings, MetricLimits
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorSpec
from fedsparse.errors import EgressRefusedError
from tests.unit.policy_samples import HOUR, LIMITS, NOON, SMALL, call, entry, limits, outgoing, rules
from tests.unit.samples import REASON_PAYLOAD, SPACE, delta, state, update


def judge(
    change: SparseDelta = SMALL,
    *,
    samples: int = 16,
    metrics: Mapping[str, float] | None = None,
    limits: EgressSettings = LIMITS,
) -> None:
    """Return if the policy lets the update leave."""
    payload = update(change, samples=samples, metrics=metrics)
    EgressPolicy(limits).evaluate(outgoing(payload, change), Usage())


def reason() -> Outgoing:
    return outgoing(REASON_PAYLOAD, None)


def values(count: int) -> SparseDelta:
    return delta({2: dict.fromkeys(range(count), 1.0)})


def test_what_keeps_every_limit_may_leave() -> None:
    judge(values(10), samples=16, metrics={"loss": 1.0})


def test_one_byte_too_many_is_refused() -> None:
    limit = len(update(SMALL, samples=16))
    judge(limits=limits(max_update_bytes=limit))
    with pytest.raises(EgressRefusedError, match=f"{limit} bytes, the limit is {limit - 1}") as caught:
        judge(limits=limits(max_update_bytes=limit - 1))
    assert caught.value.rule == "bytes"


def test_one_coordinate_too_many_is_refused() -> None:
    judge(values(10))
    with pytest.raises(EgressRefusedError, match="11 of 2026 coordinates") as caught:
        judge(values(11))
    assert caught.value.rule == "density"


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_density_of_exactly_the_limit_may_leave_whatever_the_rounding(percent: int) -> None:
    tensor_of_100 = AdapterSpace(bytes(32), (TensorSpec("weight", (100,)),))
    full = delta({0: dict.fromkeys(range(percent), 1.0)}, Operation.ADD, tensor_of_100.fingerprint)
    payload = update(full, space=tensor_of_100)
    EgressPolicy(limits(max_density=percent / 100)).evaluate(outgoing(payload, full, tensor_of_100), Usage())


def test_one_sample_too_few_is_refused() -> None:
    judge(samples=16)
    with pytest.raises(EgressRefusedError, match="15 samples are behind it, the least is 16") as caught:
        judge(samples=15)
    assert caught.value.rule == "min-samples"


def test_a_state_is_refused_because_only_additions_leave() -> None:
    with pytest.raises(EgressRefusedError) as caught:
        judge(state({2: {9: 1.0}}))
    assert caught.value.rule == "operation"


@pytest.mark.parametrize("name", ["Loss", "loss ", "accuracy"])
def test_a_metric_that_is_not_on_the_list_is_refused_by_name(name: str) -> None:
    with pytest.raises(EgressRefusedError, match=f"the metric {name!r} is not on the list") as caught:
        judge(metrics={"loss": 0.5, name: 0.5})
    assert caught.value.rule == "metric-name"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_metric_at_the_end_of_its_range_may_leave(value: float) -> None:
    judge(metrics={"loss": value})


@pytest.mark.parametrize("value", [-1e-9, 1.0 + 1e-9])
def test_a_metric_beyond_its_range_is_refused_with_value_and_range(value: float) -> None:
    with pytest.raises(EgressRefusedError, match=r"loss = .*, allowed are 0\.0 to 1\.0") as caught:
        judge(metrics={"loss": value})
    assert caught.value.rule == "metric-range"


@pytest.mark.parametrize("value", [0.1234, 0.001234, 1e-6, 0.0, 1.0, 0.3])
def test_a_metric_of_few_digits_may_leave(value: float) -> None:
    judge(metrics={"loss": value})


@pytest.mark.parametrize("value", [0.12345, 0.3 + 2**-54, 0.1 + 0.2, 1e-7, -0.0, 5e-324, 1 - 2**-53])
def test_a_metric_whose_low_bits_could_carry_data_is_refused(value: float) -> None:
    with pytest.raises(EgressRefusedError, match="allowed are 4 significant digits and 6 decimals") as caught:
        judge(metrics={"loss": value})
    assert caught.value.rule == "metric-precision"


def test_without_a_list_no_metric_leaves() -> None:
    with pytest.raises(EgressRefusedError) as caught:
        judge(metrics={"loss": 0.5}, limits=limits(metrics={}))
    assert caught.value.rule == "metric-name"


def test_a_reason_needs_no_samples_and_no_listed_bundle() -> None:
    assert rules(limits(bundles=[], spaces=[]), reason()) == []


def test_an_update_that_changes_nothing_may_leave() -> None:
    empty = SparseDelta.empty(SPACE.fingerprint, Operation.ADD)
    assert rules(limits(clip_norm=1e-9, max_abs_value=1e-9), outgoing(update(empty), empty)) == []


FIVE = delta({1: {0: -4.0}, 2: {9: 3.0}})
PAST = [entry(EntryKind.UPDATE, size=100)]
CASES: list[tuple[str, EgressSettings, Outgoing | None, list[object]]] = [
    ("kind", limits(messages=["reason"]), None, []),
    ("kind", limits(messages=["update"]), reason(), []),
    ("kind", limits(messages=[]), call(EntryKind.DESCRIBE), []),
    ("window", limits(windows=[]), reason(), []),
    ("window", limits(windows=[{"start": "12:01"}]), None, []),
    ("bytes", limits(max_update_bytes=1), reason(), []),
    ("round-messages", limits(per_round={"messages": 1}), None, PAST),
    ("round-messages", limits(per_round={"messages": 0}), reason(), []),
    ("round-bytes", limits(per_round={"bytes": 120}), None, PAST),
    ("day-messages", limits(per_day={"messages": 1}), None, [entry(EntryKind.REASON, number=9)]),
    ("day-bytes", limits(per_day={"bytes": 120}), None, [entry(EntryKind.UPDATE, size=100, number=9)]),
    ("day-calls", limits(per_day={"calls": 1}), call(), [entry(EntryKind.DESCRIBE)]),
    ("bundle", limits(bundles=["a" * 64]), None, []),
    ("base", limits(bases=["a" * 64]), None, []),
    ("space", limits(spaces=[]), None, []),
    ("coding", limits(codings=["int4", "ternary"]), None, []),
    ("samples-step", limits(samples_step=10), None, []),
    ("nnz", limits(max_nnz=1), outgoing(update(FIVE), FIVE), []),
    ("tensor", limits(tensors=["conv.*"]), None, []),
    ("tensor", limits(tensors=[]), None, []),
    ("tensor", limits(tensors=["Wide.*"]), None, []),
    ("tensor", limits(tensors_denied=["wide.*"]), None, []),
    ("tensor-glob", limits(tensors_denied=["haed.*"]), None, []),
    ("norm", limits(clip_norm=4.999), outgoing(update(FIVE), FIVE), []),
    ("range", limits(max_abs_value=3.999), outgoing(update(FIVE), FIVE), []),
]


@pytest.mark.parametrize(("rule", "settings", "message", "past"), CASES, ids=[case[0] for case in CASES])
def test_what_breaks_one_rule_is_refused_by_that_rule_alone(
    rule: str, settings: EgressSettings, message: Outgoing | None, past: list[object]
) -> None:
    assert rules(settings, message, past) == [rule]  # type: ignore[arg-type]


def test_every_rule_is_known_by_its_name_and_refuses_in_some_test() -> None:
    elsewhere = {"density", "operation", "min-samples", "metric-name", "metric-range", "metric-precision"}
    assert {case[0] for case in CASES} | elsewhere == set(RULES)


def test_limits_that_are_just_kept_let_it_leave() -> None:
    kept = limits(
        clip_norm=5.0,
        max_abs_value=4.0,
        max_nnz=2,
        bases=[SPACE.base_fingerprint.hex()],
        spaces=[SPACE.fingerprint.hex()],
        bundles=["b" * 64],
        tensors=["wide.*", "head.weight"],
        tensors_denied=["conv.*"],
        codings=["fp32"],
        samples_step=20,
        windows=[{"days": ["thu"], "start": "12:00", "end": "12:01"}],
        per_round={"messages": 2, "bytes": 10_000},
        per_day={"messages": 2, "bytes": 10_000, "calls": 0},
    )
    assert rules(kept, outgoing(update(FIVE), FIVE), PAST) == []


def test_another_round_or_version_has_limits_of_its_own() -> None:
    one = limits(per_round={"messages": 1})
    assert rules(one, None, [entry(EntryKind.UPDATE, number=4), entry(EntryKind.UPDATE, version=1)]) == []


@pytest.mark.parametrize(
    ("at", "refused"),
    [(NOON - 24 * HOUR, False), (NOON - 24 * HOUR + 1, True), (NOON, True), (NOON + 900 * HOUR, True)],
    ids=["a day ago", "a moment less", "now", "in the future: the clock was set back"],
)
def test_a_day_is_the_last_24_hours(at: int, refused: bool) -> None:
    past = [entry(EntryKind.UPDATE, at, number=9)]
    assert rules(limits(per_day={"messages": 1}), None, past) == (["day-messages"] if refused else [])


def test_an_entry_from_a_future_that_never_came_holds_back_no_other() -> None:
    past = [entry(EntryKind.UPDATE, at, number=9) for at in (NOON + 900 * HOUR, NOON - 30 * HOUR)]
    assert rules(limits(per_day={"messages": 2}), None, past) == []


def test_what_left_nothing_counts_as_nothing() -> None:
    past = [entry(kind, size=500) for kind in (EntryKind.REFUSED, EntryKind.POLICY, EntryKind.OPENED)]
    assert rules(limits(per_day={"messages": 1, "bytes": 400}), None, past) == []


@pytest.mark.parametrize(
    ("zone", "days", "start", "end", "inside"),
    [
        ("UTC", ["thu"], "12:00", "13:00", True),
        ("UTC", ["thu"], "11:00", "12:00", False),
        ("UTC", ["wed"], "18:00", "12:01", True),
        ("UTC", ["thu"], "18:00", "12:01", False),
        ("Asia/Tokyo", ["thu"], "21:00", "24:00", True),
        ("Asia/Tokyo", ["thu"], "12:00", "13:00", False),
        ("America/New_York", ["thu"], "07:00", "07:01", True),
    ],
)
def test_windows_are_of_the_week_in_the_sites_own_time(
    zone: str, days: list[str], start: str, end: str, inside: bool
) -> None:
    windows = [{"days": days, "start": start, "end": end}]
    assert rules(limits(timezone=zone, windows=windows)) == ([] if inside else ["window"])


def test_a_night_from_sunday_to_monday_is_one_window() -> None:
    night = limits(windows=[{"days": ["sun"], "start": "22:00", "end": "04:00"}])
    monday_three = NOON + (3 * 24 + 15) * HOUR
    small = update(SMALL, samples=16)
    assert rules(night, outgoing(small, SMALL, at=monday_three)) == []
    assert rules(night, outgoing(small, SMALL, at=monday_three + HOUR)) == ["window"]


def test_every_broken_rule_is_told_not_only_the_first() -> None:
    strict = limits(max_update_bytes=1, codings=[], min_samples=100)
    assert rules(strict) == ["bytes", "coding", "min-samples"]


def test_a_message_that_is_no_update_cannot_pass_for_one() -> None:
    with pytest.raises(ValueError, match="an update, and nothing else, has a delta"):
        Outgoing(EntryKind.UPDATE, NOON)


def test_the_digest_names_the_policy() -> None:
    others = [
        limits(max_update_bytes=2049),
        limits(max_density=0.5),
        limits(min_samples=15),
        limits(metrics={"loss": MetricLimits(maximum=2.0)}),
        limits(revision=2),
    ]
    digests = {EgressPolicy(settings).sha256 for settings in (LIMITS, *others)}
    assert len(digests) == 6
    assert EgressPolicy(LIMITS.model_copy()).sha256 == EgressPolicy(LIMITS).sha256
