from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.aggregation import (
    Accumulator,
    Admitted,
    Asked,
    Lateness,
    Policy,
    by_samples,
    holders_mean,
    shrunk,
    zero_fill,
)
from fedsparse.errors import DeltaError
from tests.property.strategies import additions
from tests.unit.samples import SPACE, admitted

few = settings(max_examples=40, deadline=None)
something = additions().filter(lambda delta: delta.nnz > 0)
exponents = st.floats(0, 10)
latenesses = st.builds(Lateness, exponents, st.integers(1, 8))
stale_updates = st.lists(
    st.tuples(st.builds(admitted, something, st.integers(1, 10_000)), st.integers(0, 8)), min_size=1, max_size=5
)
asks = st.builds(Asked, st.integers(1, 12), st.integers(0, 12), st.sampled_from(["each plant's own", "draw 1"]))


def merged(updates: list[tuple[Admitted, int]], lateness: Lateness) -> Accumulator:
    accumulator = Accumulator(SPACE)
    for update, stale in updates:
        accumulator.add(update, lateness.weight(stale))
    return accumulator


@given(exponents, st.integers(0, 1000))
def test_the_weight_is_fedasyncs_polynomial_and_falls_with_staleness(exponent: float, stale: int) -> None:
    lateness = Lateness(exponent, 1000)
    assert lateness.weight(stale) == pytest.approx(math.exp(-exponent * math.log1p(stale)))
    assert 0 < lateness.weight(stale + 1) <= lateness.weight(stale) <= lateness.weight(0) == 1.0
    assert Lateness(0.0, 4).weight(stale) == 1.0


@few
@given(st.data(), stale_updates, latenesses, st.sampled_from([None, 1.0]))
def test_late_updates_merge_in_any_order_and_tree_bit_for_bit(
    data: st.DataObject, updates: list[tuple[Admitted, int]], lateness: Lateness, bound: float | None
) -> None:
    policy = Policy(shrunk(0.25), by_samples, bound)
    expected = merged(updates, lateness).result(policy)
    reordered = data.draw(st.permutations(updates))
    assert merged(reordered, lateness).result(policy) == expected
    cut = data.draw(st.integers(0, len(updates)))
    tree = merged(reordered[cut:], lateness)
    tree.merge(merged(reordered[:cut], lateness))
    assert tree.result(policy) == expected


@few
@given(stale_updates, latenesses)
def test_updates_that_are_not_late_merge_as_without_lateness(
    updates: list[tuple[Admitted, int]], lateness: Lateness
) -> None:
    punctual = Accumulator(SPACE)
    for update, _ in updates:
        punctual.add(update)
    fresh = [(update, 0) for update, _ in updates]
    assert merged(fresh, lateness).result(Policy(zero_fill)) == punctual.result(Policy(zero_fill))


@few
@given(something, st.integers(0, 8), latenesses)
def test_a_late_plant_that_is_alone_with_a_coordinate_moves_it_by_its_weight(
    delta: object, stale: int, lateness: Lateness
) -> None:
    update = admitted(delta)  # type: ignore[arg-type]
    found = merged([(update, stale)], lateness).result(Policy(holders_mean))
    for tensor, sent in zip(found.tensors, update.tensors(), strict=True):
        assert tensor.indices.tolist() == sent.indices.tolist()
        np.testing.assert_allclose(tensor.values, sent.values * lateness.weight(stale), rtol=1e-5, atol=1e-38)


@given(latenesses, asks, asks)
def test_exactly_those_updates_are_accepted_that_the_policy_permits(
    lateness: Lateness, asked: Asked, now: Asked
) -> None:
    permitted = (
        0 <= now.round - asked.round <= lateness.max_staleness
        and asked.version <= now.version
        and asked.mask == now.mask
    )
    if permitted:
        assert lateness.staleness(asked, now) == now.round - asked.round
    else:
        with pytest.raises(DeltaError, match=f"for round {asked.round}"):
            lateness.staleness(asked, now)
