from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.aggregation import (
    Accumulator,
    Admitted,
    Policy,
    Rule,
    SignElected,
    TrimmedMean,
    by_plant,
    by_samples,
    capped,
    holders_mean,
    shrunk,
    zero_fill,
)
from fedsparse.delta import TensorDelta
from tests.property.strategies import additions
from tests.unit.samples import SPACE, admitted

few = settings(max_examples=40, deadline=None)
rules = st.sampled_from(
    [holders_mean, zero_fill, shrunk(0.5), SignElected(0.25), TrimmedMean(0.2), TrimmedMean(0.5)]
)
something = additions().filter(lambda delta: delta.nnz > 0)
updates = st.lists(st.builds(admitted, something, st.integers(1, 10_000)), min_size=1, max_size=5)


def merged(updates: list[Admitted]) -> Accumulator:
    accumulator = Accumulator(SPACE)
    for update in updates:
        accumulator.add(update)
    return accumulator


policies = st.builds(
    Policy,
    rules,
    st.sampled_from([by_samples, by_plant, capped(50)]),
    st.sampled_from([None, 1.0, 2.0]),
    st.integers(1, 3),
)


@few
@given(st.data(), updates, policies)
def test_the_order_of_arrival_does_not_change_a_bit(
    data: st.DataObject, updates: list[Admitted], policy: Policy
) -> None:
    reordered = data.draw(st.permutations(updates))
    assert merged(reordered).result(policy) == merged(updates).result(policy)


@few
@given(st.data(), updates, rules)
def test_the_shape_of_the_merge_tree_does_not_change_a_bit(
    data: st.DataObject, updates: list[Admitted], rule: Rule
) -> None:
    leaves = [merged([update]) for update in data.draw(st.permutations(updates))]
    while len(leaves) > 1:
        taken = leaves.pop(data.draw(st.integers(0, len(leaves) - 1)))
        leaves[data.draw(st.integers(0, len(leaves) - 1))].merge(taken)
    assert leaves[0].result(Policy(rule)) == merged(updates).result(Policy(rule))


@few
@given(updates, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_shrunk_rule_equals_its_formula_in_exact_arithmetic(updates: list[Admitted], strength: float) -> None:
    total = sum(Fraction(update.samples) for update in updates)
    weighted: dict[tuple[int, int], Fraction] = {}
    size: dict[tuple[int, int], Fraction] = {}
    held: dict[tuple[int, int], Fraction] = {}
    for update in updates:
        for key, value in _values(update.tensors()).items():
            term = Fraction(update.samples) * Fraction(value)
            weighted[key] = weighted.get(key, Fraction(0)) + term
            size[key] = size.get(key, Fraction(0)) + abs(term)
            held[key] = held.get(key, Fraction(0)) + Fraction(update.samples)
    found = _values(merged(updates).result(Policy(shrunk(strength))).tensors)
    assert found.keys() == weighted.keys()
    for key, value in found.items():
        divisor = held[key] + Fraction(strength) * (total - held[key])
        slack = float(size[key] / divisor) * 1e-12 + 1e-44  # float64 sums; the smallest float32
        assert math.isclose(value, float(weighted[key] / divisor), rel_tol=1e-6, abs_tol=slack)


@few
@given(updates)
def test_the_named_ends_of_the_shrunk_rule_are_holders_mean_and_zero_fill(updates: list[Admitted]) -> None:
    accumulator = merged(updates)
    for rule, strength in ((holders_mean, 0.0), (zero_fill, 1.0)):
        expected = _values(accumulator.result(Policy(shrunk(strength))).tensors)
        assert _values(accumulator.result(Policy(rule)).tensors) == pytest.approx(expected, rel=1e-6)


def _values(tensors: Iterable[TensorDelta]) -> dict[tuple[int, int], float]:
    return {
        (tensor.tensor, int(index)): float(value)
        for tensor in tensors
        for index, value in zip(tensor.indices, tensor.values, strict=True)
    }
