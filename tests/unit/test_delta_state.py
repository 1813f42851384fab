from __future__ import annotations

import pytest

from fedsparse.delta import Operation, apply, difference, digest
from fedsparse.errors import DeltaError, SpaceMismatchError
from tests.unit.samples import NOTHING, OTHER_SPACE, SPACE, delta, state

OLD = state({0: {1: 1.0, 2: 2.0}, 1: {0: 3.0}})


def test_an_addition_adds_where_both_hold_a_coordinate_and_adds_it_elsewhere() -> None:
    assert apply(OLD, delta({0: {2: 0.5, 3: 4.0}})) == state({0: {1: 1.0, 2: 2.5, 3: 4.0}, 1: {0: 3.0}})


def test_setting_replaces() -> None:
    assert apply(OLD, delta({0: {2: 0.5}}, Operation.SET)) == state({0: {1: 1.0, 2: 0.5}, 1: {0: 3.0}})


def test_a_coordinate_that_becomes_zero_vanishes_and_with_the_last_one_its_tensor() -> None:
    assert apply(OLD, delta({0: {1: -1.0}, 1: {0: -3.0}})) == state({0: {2: 2.0}})


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_setting_to_either_zero_makes_a_coordinate_vanish(zero: float) -> None:
    assert apply(OLD, delta({1: {0: zero}}, Operation.SET)) == state({0: {1: 1.0, 2: 2.0}})


def test_the_difference_names_only_what_changed_and_sets_what_vanished_to_zero() -> None:
    new = state({0: {1: 1.0, 2: 2.5}, 2: {9: 1.0}})
    assert difference(OLD, new) == delta({0: {2: 2.5}, 1: {0: 0.0}, 2: {9: 1.0}}, Operation.SET)


def test_the_difference_keeps_bits_that_an_addition_would_lose() -> None:
    old, new = state({0: {0: 1e8}}), state({0: {0: 0.1}})
    assert apply(old, difference(old, new)) == new


def test_a_sum_beyond_the_largest_float_is_refused() -> None:
    most = 3.4028234663852886e38
    with pytest.raises(DeltaError, match="NaN or infinite"), pytest.warns(RuntimeWarning, match="overflow"):
        apply(state({0: {0: most}}), delta({0: {0: most}}))


def test_an_addition_is_no_state() -> None:
    with pytest.raises(DeltaError, match="not an ADD"):
        apply(delta({0: {0: 1.0}}), delta({0: {0: 1.0}}))
    with pytest.raises(DeltaError, match="not an ADD"):
        difference(OLD, delta({0: {0: 1.0}}))
    with pytest.raises(DeltaError, match="not an ADD"):
        digest(delta({0: {0: 1.0}}), SPACE)


def test_what_names_a_zero_is_no_state() -> None:
    with pytest.raises(DeltaError, match="tensor 1: a state names no coordinate whose value is 0"):
        digest(state({1: {0: 0.0}}), SPACE)
    with pytest.raises(DeltaError, match="value is 0"):
        difference(NOTHING, state({1: {0: 0.0}}))


def test_states_of_two_spaces_are_refused_naming_both() -> None:
    other = delta({0: {0: 1.0}}, Operation.SET, OTHER_SPACE.fingerprint)
    both = f"{SPACE.fingerprint.hex()[:16]} and {OTHER_SPACE.fingerprint.hex()[:16]}"
    with pytest.raises(SpaceMismatchError, match=both):
        apply(OLD, other)
    with pytest.raises(SpaceMismatchError, match=both):
        difference(OLD, other)


def test_the_digest_tells_states_and_spaces_apart() -> None:
    other = delta({0: {1: 1.0, 2: 2.0}, 1: {0: 3.0}}, Operation.SET, OTHER_SPACE.fingerprint)
    found = {digest(OLD, SPACE), digest(NOTHING, SPACE), digest(other, OTHER_SPACE)}
    assert len(found) == 3
    assert {len(each) for each in found} == {32}


def test_the_digest_of_a_state_of_another_space_is_refused() -> None:
    with pytest.raises(SpaceMismatchError):
        digest(OLD, OTHER_SPACE)
