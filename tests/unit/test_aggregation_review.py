from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedsparse.aggregation import Accumulator, Admitted, Limits, Policy, Quarantine, Standing, holders_mean
from fedsparse.delta import SparseDelta
from fedsparse.errors import DeltaError
from tests.unit.samples import SPACE, admitted, delta

ALONG = {0: {0: 1.0, 3: 2.0}, 2: {7: 2.0}}
FREE = Limits()


def scaled(factor: float) -> SparseDelta:
    return delta({tensor: {i: factor * value for i, value in values.items()} for tensor, values in ALONG.items()})


def collected(*deltas: SparseDelta) -> tuple[Accumulator, list[Admitted]]:
    accumulator = Accumulator(SPACE)
    updates = [admitted(one, samples=number + 1) for number, one in enumerate(deltas)]
    for update in updates:
        accumulator.add(update)
    return accumulator, updates


def standings_of(limits: Limits, *deltas: SparseDelta) -> list[Standing]:
    """Return the standings in the order of ``deltas``."""
    accumulator, updates = collected(*deltas)
    found = {one.digest: one for one in accumulator.reviewed(limits)[1]}
    return [found[update.digest] for update in updates]


def test_norms_are_told_in_medians() -> None:
    found = standings_of(FREE, scaled(1), scaled(2), scaled(8))
    assert [one.norm for one in found] == pytest.approx([0.5, 1.0, 4.0])


def test_an_update_points_where_the_others_do_or_away() -> None:
    found = standings_of(FREE, scaled(1), scaled(1), scaled(1), scaled(-1))
    assert [one.cosine for one in found] == pytest.approx([1.0, 1.0, 1.0, -1.0])


def test_cosines_are_those_of_the_dense_vectors() -> None:
    parts = [delta({0: {1: 1.0, 2: -3.0}}), delta({0: {2: -1.0}, 2: {5: 2.0}}), delta({1: {0: 4.0}, 2: {5: 1.0}})]
    norms = np.array([10**0.5, 5**0.5, 17**0.5])
    scales = np.minimum(1, np.median(norms) / norms)
    vectors = np.array([[1.0, -3, 0, 0], [0, -1, 0, 2], [0, 0, 4, 1]]) * scales[:, None]
    wanted = []
    for place, vector in enumerate(vectors):
        others = vectors.sum(0) - vectors[place]
        wanted.append(vector @ others / (np.linalg.norm(vector) * np.linalg.norm(others)))
    assert [one.cosine for one in standings_of(FREE, *parts)] == pytest.approx(wanted)


def test_a_loud_update_does_not_decide_where_the_others_point() -> None:
    found = standings_of(FREE, scaled(1), scaled(1), scaled(1), scaled(-1000))
    assert [one.cosine for one in found] == pytest.approx([1.0, 1.0, 1.0, -1.0])


def test_alone_there_is_nothing_to_point_away_from() -> None:
    assert [one.cosine for one in standings_of(FREE, scaled(3))] == [0.0]
    apart = standings_of(FREE, scaled(1), delta({1: {0: 1.0}}))
    assert [one.cosine for one in apart] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_what_is_too_long_or_points_away_is_left_out_with_a_reason() -> None:
    limits = Limits(max_norm=3.0, min_cosine=0.0)
    found = standings_of(limits, scaled(1), scaled(1.5), scaled(1), scaled(-1), scaled(100))
    assert [one.reason for one in found] == [None, None, None, Quarantine.DIRECTION, Quarantine.NORM]


def test_without_limits_nothing_is_left_out() -> None:
    accumulator, _ = collected(scaled(1), scaled(1), scaled(1), scaled(-100))
    left, standings = accumulator.reviewed(FREE)
    assert not any(one.reason for one in standings)
    assert left.result(Policy(holders_mean)) == accumulator.result(Policy(holders_mean))


def test_what_is_left_out_has_no_say_in_the_merge() -> None:
    accumulator, _ = collected(scaled(1), scaled(1), scaled(1), scaled(-100))
    left, _ = accumulator.reviewed(Limits(max_norm=3.0))
    assert left.result(Policy(holders_mean)) == scaled(1)


def test_of_three_updates_none_is_left_out() -> None:
    found = standings_of(Limits(max_norm=1.5), scaled(1), scaled(1), scaled(100))
    assert not any(one.reason for one in found)


def test_fewer_than_half_are_left_out_the_worst_first() -> None:
    limits = Limits(max_norm=1.1)
    found = standings_of(limits, scaled(1), scaled(1), scaled(50), scaled(40), scaled(60))
    assert [one.reason for one in found] == [None, None, Quarantine.NORM, None, Quarantine.NORM] or [
        one.norm for one in found
    ] == pytest.approx([1 / 40, 1 / 40, 50 / 40, 1, 60 / 40])


def test_the_standings_do_not_depend_on_who_came_first() -> None:
    deltas = [scaled(1), delta({0: {0: 0.1, 4: -1.0}}), scaled(0.3), scaled(-2), delta({1: {0: 1.0}})]
    updates = [admitted(one, samples=7) for one in deltas]
    found = []
    for order in (updates, updates[::-1], updates[2:] + updates[:2]):
        accumulator = Accumulator(SPACE)
        for update in order:
            accumulator.add(update)
        found.append(accumulator.reviewed(Limits(2.0, 0.0))[1])
    assert found[0] == found[1] == found[2]


def test_a_review_of_nothing_is_refused() -> None:
    with pytest.raises(DeltaError, match="no update to merge"):
        Accumulator(SPACE).reviewed(FREE)


def test_a_standing_is_a_value() -> None:
    one = Standing(b"digest", 1.0, 0.5)
    assert replace(one, reason=Quarantine.NORM) != one


def test_an_update_of_zeros_points_nowhere() -> None:
    found = standings_of(Limits(min_cosine=-0.5), scaled(1), scaled(1), scaled(1), scaled(0))
    assert found[-1].cosine == 0.0
    assert found[-1].reason is None
