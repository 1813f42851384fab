from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from fedsparse.aggregation import Admitted, admit
from fedsparse.delta import Operation, Reason, RoundUpdate, SparseDelta, encode_update
from fedsparse.errors import DeltaError, SpaceMismatchError
from tests.unit.samples import LIMIT, OTHER_SPACE, SPACE, delta, state, update


def taken(payload: bytes, **changes: Any) -> Admitted:
    limits = {"round": 3, "version": 2, "max_bytes": LIMIT, "max_density": 0.05}
    return admit(payload, SPACE, **(limits | changes))


def values(count: int) -> SparseDelta:
    return delta({2: dict.fromkeys(range(count), 1.0)})


def test_a_good_update_is_admitted_with_its_samples_digest_and_norm() -> None:
    change = delta({0: {1: 1.5}, 1: {0: -2.0}})
    payload = update(change, samples=40)
    found = taken(payload)
    assert (tuple(found.tensors()), found.samples, found.digest) == (change.tensors, 40, sha256(payload).digest())
    assert (found.nnz, found.norm) == (2, pytest.approx(2.5))


@pytest.mark.parametrize("changes", [{"round": 2}, {"round": 4}, {"version": 1}, {"version": 3}])
def test_an_update_for_another_round_or_version_is_refused_naming_both(changes: dict[str, int]) -> None:
    said = {"round": 3, "version": 2} | changes
    with pytest.raises(DeltaError) as caught:
        taken(update(**changes))
    assert f"for round {said['round']} from version {said['version']}" in str(caught.value)
    assert "this is round 3 from version 2" in str(caught.value)


@pytest.mark.parametrize("samples", [0, (1 << 40) + 1, (1 << 64) - 1])
def test_an_impossible_number_of_samples_is_refused(samples: int) -> None:
    with pytest.raises(DeltaError, match=f"claims {samples} samples"):
        taken(update(samples=samples))


@pytest.mark.parametrize("samples", [1, 1 << 40])
def test_the_least_and_the_most_samples_are_admitted(samples: int) -> None:
    assert taken(update(samples=samples)).samples == samples


def test_a_state_is_refused_where_an_addition_is_due() -> None:
    with pytest.raises(DeltaError, match="must be an ADD delta"):
        taken(update(state({0: {1: 0.5}})))


def test_a_reason_is_refused_by_its_name() -> None:
    payload = encode_update(RoundUpdate.refusal(3, 2, Reason.DATA_UNAVAILABLE))
    with pytest.raises(DeltaError, match="the reason DATA_UNAVAILABLE, not a delta"):
        taken(payload)


def test_the_density_is_limited_to_exactly_its_limit() -> None:
    limit = 128 / 2026  # times 2026, rounded, is less than 128
    assert taken(update(values(128)), max_density=limit).nnz == 128
    with pytest.raises(DeltaError, match=r"names 129 of 2026 coordinates, or more; the limit is 6\.32%"):
        taken(update(values(129)), max_density=limit)


def test_an_update_of_another_space_is_refused_naming_both() -> None:
    foreign = delta({0: {1: 0.5}}, Operation.ADD, OTHER_SPACE.fingerprint)
    with pytest.raises(SpaceMismatchError) as caught:
        taken(update(foreign, space=OTHER_SPACE))
    assert SPACE.fingerprint.hex()[:16] in str(caught.value)
    assert OTHER_SPACE.fingerprint.hex()[:16] in str(caught.value)


def test_an_update_longer_than_allowed_is_refused() -> None:
    payload = update()
    with pytest.raises(DeltaError, match=f"has {len(payload)} bytes, the limit is {len(payload) - 1}"):
        taken(payload, max_bytes=len(payload) - 1)


def test_a_delta_that_does_not_decode_is_refused() -> None:
    with pytest.raises(DeltaError, match="do not begin with their format"):
        taken(encode_update(RoundUpdate(3, 2, 40, b"\x18\x01", Reason.NONE)))


def test_nobody_makes_an_admitted_update_by_hand() -> None:
    with pytest.raises(TypeError, match="only admit"):
        Admitted(SPACE, b"", 1, bytes(32), 1, 0.5, object())
    with pytest.raises(TypeError, match="only admit"):
        replace(taken(update()), door=None)


@pytest.mark.parametrize("value", [3e38, -(2.0**20 + 1)])
def test_a_value_that_could_overflow_the_merge_is_refused(value: float) -> None:
    with pytest.raises(DeltaError, match=r"the limit is 1\.04858e\+06"):
        taken(update(delta({0: {1: value}})))


def test_an_update_that_names_no_coordinate_is_refused() -> None:
    with pytest.raises(DeltaError, match="names no coordinate"):
        taken(update(delta({})))
