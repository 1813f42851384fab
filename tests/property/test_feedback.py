from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    compensate,
    quantise,
)

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (7,)), TensorSpec("b", (5,))))
NOTHING = SparseDelta.empty(SPACE.fingerprint, Operation.ADD)

Values = dict[tuple[int, int], float]

some = settings(deadline=None)
_values = st.dictionaries(
    st.tuples(st.integers(0, 1), st.integers(0, 4)), st.floats(-4, 4, width=32).filter(bool), max_size=8
)
_rounds = st.lists(_values, min_size=1, max_size=6)
codings = st.sampled_from(ValueCoding)
seeds = st.none() | st.integers(0, 2**64 - 1)
limits = st.none() | st.integers(0, 8)


def _delta(values: Values) -> SparseDelta:
    parts = []
    for tensor in (0, 1):
        own = sorted((index, value) for (t, index), value in values.items() if t == tensor)
        if own:
            parts.append(
                TensorDelta(tensor, np.array([i for i, _ in own]), np.array([v for _, v in own], np.float32))
            )
    return SparseDelta(SPACE.fingerprint, Operation.ADD, tuple(parts))


def _dense(*deltas: SparseDelta) -> NDArray[np.float64]:
    total = np.zeros((2, 7))
    for delta in deltas:
        for part in delta.tensors:
            total[part.tensor, part.indices] += part.values
    return total


def _places(delta: SparseDelta) -> set[tuple[int, int]]:
    return {(part.tensor, int(index)) for part in delta.tensors for index in part.indices}


def _all_rounds(
    rounds: Sequence[Values], coding: ValueCoding, most: int | None = None, seed: int | None = None
) -> tuple[list[SparseDelta], SparseDelta]:
    """Return what was sent in every round, and the residual after the last."""
    residual, sent = NOTHING, []
    for values in rounds:
        update, residual = compensate(_delta(values), residual, coding, most=most, seed=seed)
        sent.append(update)
    return sent, residual


@some
@given(_rounds, codings, limits, seeds)
def test_what_was_sent_plus_the_residual_is_what_was_trained(
    rounds: list[Values], coding: ValueCoding, most: int | None, seed: int | None
) -> None:
    sent, residual = _all_rounds(rounds, coding, most, seed)
    np.testing.assert_allclose(_dense(*sent, residual), _dense(*map(_delta, rounds)), atol=1e-5)


@some
@given(_rounds, codings, seeds)
def test_without_a_limit_exactly_the_trained_coordinates_are_sent(
    rounds: list[Values], coding: ValueCoding, seed: int | None
) -> None:
    sent, _ = _all_rounds(rounds, coding, seed=seed)
    assert [_places(update) for update in sent] == [set(values) for values in rounds]


@some
@given(_rounds, codings, st.integers(0, 8), seeds)
def test_with_a_limit_as_many_coordinates_are_sent_as_it_allows_and_all_of_them_were_trained(
    rounds: list[Values], coding: ValueCoding, most: int, seed: int | None
) -> None:
    sent, _ = _all_rounds(rounds, coding, most, seed)
    for update, values in zip(sent, rounds, strict=True):
        assert update.nnz == min(most, len(values))
        assert _places(update) <= set(values)


@some
@given(_values, _values, st.integers(0, 8))
def test_the_largest_are_sent_and_the_first_of_equals(trained: Values, kept: Values, most: int) -> None:
    total = {place: np.float32(value) + np.float32(kept.get(place, 0)) for place, value in trained.items()}
    ranked = sorted(total, key=lambda place: (-abs(total[place]), place))
    sent, _ = compensate(_delta(trained), _delta(kept), ValueCoding.FP32, most=most)
    assert _places(sent) == set(ranked[:most])


@some
@given(_values, _values, codings, limits, seeds)
def test_what_is_sent_can_be_written_and_what_was_not_trained_waits(
    trained: Values, kept: Values, coding: ValueCoding, most: int | None, seed: int | None
) -> None:
    sent, residual = compensate(_delta(trained), _delta(kept), coding, most=most, seed=seed)
    assert quantise(sent, coding) == sent
    waiting = {place: value for place, value in kept.items() if place not in trained}
    found = {place: _dense(residual)[place] for place in waiting}
    assert found == waiting
    assert _places(residual) <= set(trained) | set(kept)
    assert all(np.all(part.values) for part in residual.tensors)


@some
@given(_rounds)
def test_without_rounding_nothing_stays_behind(rounds: list[Values]) -> None:
    residual = NOTHING
    for values in rounds:
        update, residual = compensate(_delta(values), residual, ValueCoding.FP32)
        assert update == _delta(values)
        assert residual.nnz == 0


@some
@given(_values, codings, limits, st.integers(0, 2**64 - 1))
def test_equal_seeds_send_the_same(values: Values, coding: ValueCoding, most: int | None, seed: int) -> None:
    once, again = (compensate(_delta(values), NOTHING, coding, most=most, seed=seed) for _ in range(2))
    assert once == again


SQUARE = AdapterSpace(bytes(32), (TensorSpec("square", (8, 8)), TensorSpec("bias", (8,))))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 72))
def test_whole_rows_are_sent_or_wait_by_their_mean_magnitude(seed: int, most: int) -> None:
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.choice(8, 3, replace=False))
    where = (8 * rows[:, None] + np.arange(8)).ravel()
    values = draw.normal(size=24).astype(np.float32)
    bias = TensorDelta(1, np.arange(2), np.array([9.0, 0.01], np.float32))
    delta = SparseDelta(SQUARE.fingerprint, Operation.ADD, (TensorDelta(0, where, values), bias))
    nothing = SparseDelta.empty(SQUARE.fingerprint, Operation.ADD)
    sent, residual = compensate(delta, nothing, ValueCoding.FP32, most=most, rows=SQUARE)
    means = {(0, row): float(np.abs(values[8 * i : 8 * i + 8]).mean()) for i, row in enumerate(rows.tolist())}
    ranked = sorted({**means, (1, 0): 9.0, (1, 1): 0.01}.items(), key=lambda item: -item[1])
    expected: list[tuple[int, int]] = []
    room = most
    for (tensor, row), _ in ranked:
        if (width := 1 if tensor else 8) <= room:
            expected.append((tensor, row))
            room -= width
    found = {(t.tensor, int(index) // (1 if t.tensor else 8)) for t in sent.tensors for index in t.indices}
    assert found == set(expected)
    assert sent.nnz <= most
    assert sent.nnz + residual.nnz == delta.nnz


def test_coordinates_are_sent_where_no_row_fits() -> None:
    values = np.arange(1, 9, dtype=np.float32)
    delta = SparseDelta(SQUARE.fingerprint, Operation.ADD, (TensorDelta(0, np.arange(8), values),))
    nothing = SparseDelta.empty(SQUARE.fingerprint, Operation.ADD)
    sent, _ = compensate(delta, nothing, ValueCoding.FP32, most=3, rows=SQUARE)
    assert sent.tensors[0].indices.tolist() == [5, 6, 7]
