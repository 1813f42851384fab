"""A policy as text: canonical bytes, differences, plain words."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.audit import EgressPolicy
from fedsparse.audit.policy import Effect, canonical_bytes, changes_between, explain, explain_change, parse_policy
from fedsparse.audit.policy.labels import LABELS, Language
from fedsparse.config import DAYS, EgressSettings, MetricLimits
from fedsparse.errors import ConfigError

LANGUAGES = get_args(Language)
_printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
_digests = st.none() | st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), unique=True, max_size=3)
_count = st.integers(0, 1 << 53)
_positive = st.floats(min_value=1e-300, max_value=1e300)
_metric = st.fixed_dictionaries(
    {
        "minimum": st.floats(-1e300, 0.0),
        "maximum": st.floats(0.0, 1e300),
        "digits": st.integers(1, 15),
        "decimals": st.integers(0, 15),
    }
)
_window = st.fixed_dictionaries(
    {
        "days": st.lists(st.sampled_from(DAYS), unique=True, max_size=7),
        "start": st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}"),
        "end": st.just("24:00"),
    }
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "name": _printable,
        "revision": _count,
        "messages": st.lists(st.sampled_from(["update", "reason", "describe", "attend"]), unique=True),
        "bundles": _digests,
        "bases": _digests,
        "spaces": _digests,
        "tensors": st.lists(_printable, unique=True, max_size=3),
        "tensors_denied": st.lists(_printable, unique=True, max_size=3),
        "codings": st.lists(st.sampled_from(["fp32", "bf16", "int8", "int4", "ternary"]), unique=True),
        "max_update_bytes": st.integers(1, 1 << 30),
        "max_nnz": st.none() | st.integers(1, 1 << 40),
        "max_density": st.floats(min_value=1e-300, max_value=1.0),
        "clip_norm": st.none() | _positive,
        "max_abs_value": st.none() | _positive,
        "min_samples": st.integers(1, 1 << 40),
        "samples_step": st.integers(1, 1 << 32),
        "metrics": st.dictionaries(_printable, _metric, max_size=3),
        "per_round": st.fixed_dictionaries({"messages": _count, "bytes": st.none() | _count}),
        "per_day": st.fixed_dictionaries({"messages": _count, "bytes": st.none() | _count, "calls": _count}),
        "timezone": st.sampled_from(["UTC", "Asia/Tokyo", "Europe/Berlin"]),
        "windows": st.none() | st.lists(_window, max_size=3),
    },
).map(EgressSettings.model_validate)


def policy(**keys: Any) -> EgressSettings:
    return EgressSettings.model_validate(keys)


@given(POLICIES)
def test_a_policys_text_reads_as_the_same_policy(settings: EgressSettings) -> None:
    data = canonical_bytes(settings)
    read = parse_policy(data)
    assert read == settings
    assert canonical_bytes(read) == data
    assert EgressPolicy(read).sha256 == EgressPolicy(settings).sha256


@given(POLICIES, POLICIES)
def test_two_policies_with_one_text_are_one(one: EgressSettings, other: EgressSettings) -> None:
    assert (canonical_bytes(one) == canonical_bytes(other)) == (one == other) == (not changes_between(one, other))


@given(POLICIES, POLICIES)
def test_a_change_back_has_the_opposite_effect(one: EgressSettings, other: EgressSettings) -> None:
    opposite = {Effect.LOOSER: Effect.TIGHTER, Effect.TIGHTER: Effect.LOOSER}
    there = {(c.key, c.metric): opposite.get(c.effect, c.effect) for c in changes_between(one, other)}
    assert there == {(c.key, c.metric): c.effect for c in changes_between(other, one)}


@given(POLICIES, POLICIES)
def test_every_policy_and_every_change_can_be_put_into_words(one: EgressSettings, other: EgressSettings) -> None:
    for lang in LANGUAGES:
        assert all(explain(one, lang))
        assert all(explain_change(change, lang) for change in changes_between(one, other))


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 15), st.integers(0, 15))
def test_rounding_twice_is_rounding_once_and_leaves_no_sign_on_zero(
    value: float, digits: int, decimals: int
) -> None:
    limit = MetricLimits(digits=digits, decimals=decimals)
    once = limit.rounded(value)
    if math.isfinite(once):  # beyond the largest float, where no range reaches with few digits
        assert limit.rounded(once).hex() == once.hex()
        assert once != 0.0 or math.copysign(1.0, once) == 1.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 100_000,
        canonical_bytes(EgressSettings())[:-1],
        canonical_bytes(EgressSettings()) + b" ",
        canonical_bytes(EgressSettings()).replace(b"0.05", b"0.050"),
        canonical_bytes(EgressSettings()).replace(b"0.05", b"NaN"),
        canonical_bytes(EgressSettings()).replace(b"0.05", b'"0.05"'),
        canonical_bytes(EgressSettings()).replace(b'"version": 1', b'"version": 2'),
        canonical_bytes(EgressSettings()).replace(b'"name": ""', b'"name": "\\ud800"'),
        json.dumps({**EgressSettings().model_dump(mode="json"), "allow": True}, indent=1, sort_keys=True).encode(),
        bytes(2 << 20),
    ],
)
def test_what_is_no_policys_text_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="policy"):
        parse_policy(data)


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str, Effect]] = [
    ({}, {"max_density": 0.1}, "max_density", Effect.LOOSER),
    ({}, {"max_density": 0.01}, "max_density", Effect.TIGHTER),
    ({}, {"clip_norm": 1.0}, "clip_norm", Effect.TIGHTER),
    ({"clip_norm": 1.0}, {"clip_norm": 2.0}, "clip_norm", Effect.LOOSER),
    ({}, {"min_samples": 15}, "min_samples", Effect.LOOSER),
    ({"samples_step": 2}, {"samples_step": 4}, "samples_step", Effect.TIGHTER),
    ({"samples_step": 2}, {"samples_step": 3}, "samples_step", Effect.BOTH),
    ({}, {"messages": ["update"]}, "messages", Effect.TIGHTER),
    ({"codings": ["fp32"]}, {"codings": ["int4"]}, "codings", Effect.BOTH),
    ({}, {"bundles": []}, "bundles", Effect.TIGHTER),
    ({"tensors": ["a*"]}, {}, "tensors", Effect.LOOSER),
    ({}, {"tensors": ["*", "a"]}, "tensors", Effect.SAME),
    ({}, {"tensors_denied": ["head.*"]}, "tensors_denied", Effect.TIGHTER),
    ({"per_day": {"calls": 5}}, {"per_day": {"calls": 6}}, "per_day.calls", Effect.LOOSER),
    ({}, {"per_round": {"bytes": 100}}, "per_round.bytes", Effect.TIGHTER),
    ({"per_round": {"bytes": 100}}, {"per_round": {"bytes": 200}}, "per_round.bytes", Effect.LOOSER),
    ({"per_round": {"bytes": 64 << 23}}, {}, "per_round.bytes", Effect.SAME),
    ({}, {"per_round": {"bytes": 100_000_000_000}}, "per_round.bytes", Effect.SAME),
    ({}, {"per_day": {"bytes": (10_000 << 23) - 1}}, "per_day.bytes", Effect.TIGHTER),
    ({}, {"revision": 2}, "revision", Effect.SAME),
    ({}, {"timezone": "Asia/Tokyo"}, "timezone", Effect.SAME),
    ({}, {"windows": []}, "windows", Effect.TIGHTER),
    ({"windows": [{"start": "08:00"}]}, {"windows": [{"start": "07:00"}]}, "windows", Effect.LOOSER),
    ({}, {"windows": [{}]}, "windows", Effect.SAME),
    ({"metrics": {}}, {"metrics": {"loss": {}}}, "metrics", Effect.LOOSER),
    ({"metrics": {"loss": {}}}, {"metrics": {"loss": {"digits": 5}}}, "digits", Effect.LOOSER),
    ({"metrics": {"loss": {}}}, {"metrics": {"loss": {"minimum": 0.5}}}, "minimum", Effect.TIGHTER),
]


@pytest.mark.parametrize(("old", "new", "key", "effect"), CHANGES)
def test_a_change_is_told_with_its_effect(
    old: dict[str, Any], new: dict[str, Any], key: str, effect: Effect
) -> None:
    (change,) = changes_between(policy(**old), policy(**new))
    assert (change.key, change.effect) == (key, effect)


def test_windows_in_another_time_zone_are_looser_and_tighter() -> None:
    old, new = (policy(windows=[{"start": "08:00"}], timezone=zone) for zone in ("UTC", "Asia/Tokyo"))
    assert [(c.key, c.effect) for c in changes_between(old, new)] == [("timezone", Effect.BOTH)]


def test_a_change_in_words_has_both_values_and_what_it_means() -> None:
    changes = changes_between(
        policy(), policy(max_density=0.1, metrics={"train_loss": {"maximum": 1e6, "digits": 3}})
    )
    assert [explain_change(change, "en") for change in changes] == [
        "share of the adapter in one update: 5 % → 10 % (LOOSER: more may leave)",
        "metric holdout_balanced_accuracy: from 0 to 1, at most 4 significant digits and 6 decimals → kept here "
        "(tighter: less may leave)",
        "metric train_loss: significant digits: 4 → 3 (tighter: less may leave)",
        "metric train_seconds: from 0 to 1e+06, at most 4 significant digits and 6 decimals → kept here "
        "(tighter: less may leave)",
    ]
    assert explain_change(changes[0], "ja").endswith("5 % → 10 % (緩和：より多く送信できます)")


def test_a_limit_of_bytes_is_told_and_judged_beside_what_the_messages_can_have() -> None:
    changes = changes_between(
        policy(), policy(per_round={"messages": 1, "bytes": 100_000_000_000}, per_day={"bytes": 5})
    )
    assert [explain_change(change, "en") for change in changes] == [
        "messages in one round: 64 → 1 (tighter: less may leave)",
        "bytes in one round: 536,870,912 (default: messages × bytes of one) → 100,000,000,000 (above what "
        "messages can have: 8,388,608) (no effect on what may leave)",
        "bytes in 24 hours: 83,886,080,000 (default: messages × bytes of one) → 5 (tighter: less may leave)",
    ]
    assert explain_change(changes[1], "ja") == (
        "1ラウンドのバイト数: 536,870,912（既定：通数×1通の上限） → 100,000,000,000"
        "（メッセージで送れる上限8,388,608を超える値） (送信できるものは変わりません)"
    )
    assert not any("no limit" in explain_change(change, "en") for change in changes)


def test_a_limit_of_bytes_that_only_more_messages_reach_is_tighter_than_none() -> None:
    many = {"messages": 1 << 20}
    changes = changes_between(policy(), policy(per_round={**many, "bytes": 1 << 40}))
    assert [(one.key, one.effect) for one in changes] == [
        ("per_round.messages", Effect.LOOSER),
        ("per_round.bytes", Effect.TIGHTER),
    ]


def test_a_policy_in_words_says_what_may_leave_how_much_and_when() -> None:
    settings = policy(
        name="night shift",
        messages=["update", "describe"],
        clip_norm=1.5,
        bundles=["ab" * 32],
        spaces=[],
        samples_step=10,
        metrics={},
        per_day={"messages": 3, "bytes": 5000},
        windows=[{"days": ["mon", "tue"], "start": "18:00", "end": "06:00"}],
        timezone="Asia/Tokyo",
    )
    text = "\n".join(explain(settings, "en"))
    for said in (
        "Egress policy, night shift, revision 0",
        "- L2 norm of an update: at most 1.5",
        "- app bundles: abababababababab",
        "- adapter spaces: none, so no update may leave",
        "- step of the number of samples: 10",
        "Figures that may go with it:\n- none",
        "- in any 24 hours at most 3 messages with 5,000 bytes together",
        "- when something may leave: mon, tue 18:00 to 06:00 (Asia/Tokyo)",
        "whether noise was added",
    ):
        assert said in text
    assert "reason codes: one of" not in text
    assert "月・火 18:00〜06:00 (Asia/Tokyo)" in "\n".join(explain(settings, "ja"))


def test_every_key_has_a_name_in_both_languages() -> None:
    keys = {c.key for old, new, _, _ in CHANGES for c in changes_between(policy(**old), policy(**new))}
    assert keys - {"metrics"} <= set(LABELS)
    assert all(english and japanese for english, japanese in LABELS.values())
