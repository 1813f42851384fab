from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedsparse.audit import EgressPolicy
from fedsparse.config import EgressSettings, MetricLimits
from fedsparse.delta import AdapterSpace, Operation, RoundUpdate, SparseDelta, TensorSpec, decode_update
from fedsparse.errors import EgressRefusedError
from tests.unit.samples import LIMIT, REASON_PAYLOAD, SPACE, delta, state, update

LIMITS = EgressSettings(
    max_update_bytes=2048,
    max_density=10 / 2026,
    min_samples=16,
    metrics={"loss": MetricLimits(minimum=0.0, maximum=1.0)},
)
SMALL = delta({2: {9: 1.0}})


def judge(
    change: SparseDelta = SMALL,
    *,
    samples: int = 16,
    metrics: Mapping[str, float] | None = None,
    limits: EgressSettings = LIMITS,
) -> None:
    """Return if the policy lets the update leave."""
    payload = update(change, samples=samples, metrics=metrics)
    EgressPolicy(limits).evaluate(read(payload), payload, change, SPACE)


def read(payload: bytes) -> RoundUpdate:
    return decode_update(payload, max_bytes=LIMIT)


def values(count: int) -> SparseDelta:
    return delta({2: dict.fromkeys(range(count), 1.0)})


def test_what_keeps_every_limit_may_leave() -> None:
    judge(values(10), samples=16, metrics={"loss": 1.0})


def test_one_byte_too_many_is_refused() -> None:
    payload = update(SMALL)
    limit = len(payload)
    judge(limits=LIMITS.model_copy(update={"max_update_bytes": limit}))
    with pytest.raises(EgressRefusedError, match=f"{limit} bytes, the limit is {limit - 1}") as caught:
        judge(limits=LIMITS.model_copy(update={"max_update_bytes": limit - 1}))
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
    limits = LIMITS.model_copy(update={"max_density": percent / 100})
    EgressPolicy(limits).evaluate(read(payload), payload, full, tensor_of_100)


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


def test_without_a_list_no_metric_leaves() -> None:
    with pytest.raises(EgressRefusedError) as caught:
        judge(metrics={"loss": 0.5}, limits=LIMITS.model_copy(update={"metrics": {}}))
    assert caught.value.rule == "metric-name"


def test_a_reason_needs_no_samples() -> None:
    EgressPolicy(LIMITS).evaluate(read(REASON_PAYLOAD), REASON_PAYLOAD, None, SPACE)


def test_the_digest_names_the_policy() -> None:
    others = [
        LIMITS.model_copy(update={"max_update_bytes": 2049}),
        LIMITS.model_copy(update={"max_density": 0.5}),
        LIMITS.model_copy(update={"min_samples": 15}),
        LIMITS.model_copy(update={"metrics": {"loss": MetricLimits(maximum=2.0)}}),
    ]
    digests = {EgressPolicy(settings).sha256 for settings in (LIMITS, *others)}
    assert len(digests) == 5
    assert EgressPolicy(LIMITS.model_copy()).sha256 == EgressPolicy(LIMITS).sha256
