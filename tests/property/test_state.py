from __future__ import annotations

from hypothesis import given, settings

from fedsparse.delta import SparseDelta, ValueCoding, apply, decode, difference, digest, encode
from tests.property.strategies import additions, deltas, moderate, states
from tests.unit.samples import LIMIT, NOTHING, SPACE

few = settings(max_examples=100, deadline=None)


@few
@given(states(), states())
def test_a_state_plus_the_difference_is_the_other_state_bit_for_bit(old: SparseDelta, new: SparseDelta) -> None:
    change = difference(old, new)
    travelled = decode(encode(change, SPACE, ValueCoding.FP32), SPACE, max_bytes=LIMIT)
    reached = apply(old, travelled)
    assert reached == new
    assert digest(reached, SPACE) == digest(new, SPACE)


@few
@given(states(), deltas(values=moderate))
def test_applying_gives_a_state_that_the_untouched_base_reaches_too(old: SparseDelta, change: SparseDelta) -> None:
    new = apply(old, change)
    assert apply(NOTHING, difference(NOTHING, new)) == new


@few
@given(states())
def test_a_state_differs_from_itself_by_nothing(state: SparseDelta) -> None:
    assert difference(state, state) == NOTHING


@few
@given(states(), additions(), additions())
def test_additions_on_a_state_change_no_other_coordinate(
    state: SparseDelta, one: SparseDelta, other: SparseDelta
) -> None:
    result = apply(apply(state, one), other)
    assert _coordinates(result) <= _coordinates(state) | _coordinates(one) | _coordinates(other)
    named = _coordinates(one) | _coordinates(other)
    kept = {key: value for key, value in _values(state).items() if key not in named}
    assert kept.items() <= _values(result).items()


def _values(delta: SparseDelta) -> dict[tuple[int, int], float]:
    return {
        (tensor.tensor, int(index)): float(value)
        for tensor in delta.tensors
        for index, value in zip(tensor.indices, tensor.values, strict=True)
    }


def _coordinates(delta: SparseDelta) -> set[tuple[int, int]]:
    return set(_values(delta))
