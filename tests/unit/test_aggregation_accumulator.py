from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from fedsparse.aggregation import (
    Accumulator,
    Policy,
    Rule,
    SignElected,
    TrimmedMean,
    by_plant,
    capped,
    holders_mean,
    rule_named,
    shrunk,
    zero_fill,
)
from fedsparse.delta import Operation
from fedsparse.errors import DeltaError, SpaceMismatchError
from tests.unit.samples import OTHER_SPACE, SPACE, admitted, delta

LEFT = admitted(delta({0: {1: 1.0, 2: 4.0}}), samples=1)
RIGHT = admitted(delta({0: {2: 8.0}, 1: {0: 3.0}}), samples=3)


def both() -> Accumulator:
    accumulator = Accumulator(SPACE)
    accumulator.add(LEFT)
    accumulator.add(RIGHT)
    return accumulator


def test_the_holders_mean_divides_by_those_who_hold_the_coordinate() -> None:
    assert both().result(Policy(holders_mean)) == delta({0: {1: 1.0, 2: 7.0}, 1: {0: 3.0}})


def test_zero_fill_divides_by_everybody() -> None:
    assert both().result(Policy(zero_fill)) == delta({0: {1: 0.25, 2: 7.0}, 1: {0: 2.25}})


def test_the_shrunk_rule_lies_between() -> None:
    assert both().result(Policy(shrunk(0.5))) == delta({0: {1: 0.4, 2: 7.0}, 1: {0: 9 / 3.5}})


def test_the_result_is_an_addition() -> None:
    assert both().result(Policy(zero_fill)).operation is Operation.ADD


def test_merging_nothing_is_refused() -> None:
    with pytest.raises(DeltaError, match="no update to merge"):
        Accumulator(SPACE).result(Policy(zero_fill))


def test_an_update_of_another_space_is_refused_naming_both() -> None:
    with pytest.raises(SpaceMismatchError) as caught:
        Accumulator(OTHER_SPACE).add(LEFT)
    assert SPACE.fingerprint.hex()[:16] in str(caught.value)
    assert OTHER_SPACE.fingerprint.hex()[:16] in str(caught.value)


def test_accumulators_of_two_spaces_do_not_merge() -> None:
    with pytest.raises(SpaceMismatchError):
        Accumulator(OTHER_SPACE).merge(both())


def test_merging_leaves_the_other_accumulator_as_it_was() -> None:
    one, other = Accumulator(SPACE), Accumulator(SPACE)
    one.add(LEFT)
    other.add(RIGHT)
    before = other.result(Policy(zero_fill))
    one.merge(other)
    assert one.result(Policy(zero_fill)) == both().result(Policy(zero_fill))
    assert other.result(Policy(zero_fill)) == before


@pytest.mark.timeout(10)
def test_an_accumulator_merged_with_itself_counts_every_update_twice() -> None:
    doubled = both()
    doubled.merge(doubled)
    assert doubled.result(Policy(zero_fill)) == both().result(Policy(zero_fill))
    doubled.add(RIGHT)
    assert doubled.result(Policy(zero_fill)) == delta({0: {1: 2 / 11, 2: 80 / 11}, 1: {0: 27 / 11}})


def test_the_largest_values_and_weights_merge_without_overflow() -> None:
    most = 2.0**20  # the door admits no more
    accumulator = Accumulator(SPACE)
    for samples in (1 << 40, (1 << 40) - 1):
        accumulator.add(admitted(delta({0: {1: most}}), samples=samples))
    assert accumulator.result(Policy(holders_mean)) == delta({0: {1: most}})


CANCELLING = (2.0**20, -(2.0**20), 1e-10)
"""Their sum in float64 depends on their order, and float32 shows it."""


def test_sums_do_not_depend_on_the_order_of_arrival_where_float64_would() -> None:
    assert len({np.float32(sum(order)) for order in permutations(CANCELLING)}) > 1
    updates = [admitted(delta({0: {0: value}})) for value in CANCELLING]
    results = set()
    for order in permutations(updates):
        accumulator = Accumulator(SPACE)
        for update in order:
            accumulator.add(update)
        (tensor,) = accumulator.result(Policy(zero_fill)).tensors
        results.add(tensor.values.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize(
    ("name", "strength", "rule"),
    [
        ("holders-mean", 0.5, holders_mean),
        ("zero-fill", 0.5, zero_fill),
        ("shrunk", 0.25, shrunk(0.25)),
        ("sign-elected", 0.25, SignElected(0.25)),
        ("trimmed-mean", 0.25, TrimmedMean(0.25)),
        ("median", 0.25, TrimmedMean(0.5)),
    ],
)
def test_a_rule_is_found_by_its_name(name: str, strength: float, rule: Rule) -> None:
    assert both().result(Policy(rule_named(name, strength))) == both().result(Policy(rule))


def test_plants_may_weigh_alike_or_by_a_claim_up_to_a_limit() -> None:
    assert both().result(Policy(zero_fill, by_plant)) == delta({0: {1: 0.5, 2: 6.0}, 1: {0: 1.5}})
    assert both().result(Policy(holders_mean, capped(2))) == delta({0: {1: 1.0, 2: 20 / 3}, 1: {0: 3.0}})


def test_an_update_of_a_large_norm_is_scaled_down_to_the_bound() -> None:
    accumulator = Accumulator(SPACE)
    for value in (1.0, 1.0, -800.0):
        accumulator.add(admitted(delta({0: {0: value}})))
    assert accumulator.result(Policy(holders_mean, norm_bound=4.0)) == delta({0: {0: (1 + 1 - 4) / 3}})
    assert accumulator.result(Policy(holders_mean, norm_bound=1000.0)) == accumulator.result(Policy(holders_mean))


def test_a_norm_that_is_all_put_on_one_tensor_is_scaled_down_there() -> None:
    """All four updates are of the same length."""
    accumulator = Accumulator(SPACE)
    for value in (3.0, 3.0, 3.0):
        accumulator.add(admitted(delta({0: {0: 4.0}, 1: {0: value}})))
    accumulator.add(admitted(delta({1: {0: -5.0}})))
    assert accumulator.result(Policy(holders_mean)) == delta({0: {0: 4.0}, 1: {0: 1.0}})
    assert accumulator.result(Policy(holders_mean, norm_bound=1.0)) == delta({0: {0: 4.0}, 1: {0: 1.5}})
    by_data = accumulator.result(Policy(rule_named("shrunk", "auto"), norm_bound=1.0))
    assert [float(tensor.values[0]) for tensor in by_data.tensors][1] <= 1.5


def test_two_that_lie_do_not_take_away_what_a_lone_honest_one_says_of_a_tensor() -> None:
    accumulator = Accumulator(SPACE)
    accumulator.add(admitted(delta({0: {0: 1.0}, 1: {0: 1.0}})))
    for number in range(1, 8):
        accumulator.add(admitted(delta({0: {number: 1.5}})))
    for little in (1e-30, 2e-30):
        accumulator.add(admitted(delta({0: {9: 1.5}, 1: {0: little}})))
    _, moved = accumulator.result(Policy(zero_fill, by_plant, norm_bound=1.0)).tensors
    assert moved.values.tolist() == pytest.approx([0.1])


def test_a_late_update_is_judged_as_it_is_and_counts_in_part() -> None:
    accumulator = Accumulator(SPACE)
    for index, factor in ((0, 1.0), (1, 0.5), (2, 0.25)):
        accumulator.add(admitted(delta({0: {index: 4.0}})), factor)
    assert accumulator.result(Policy(holders_mean, norm_bound=1.0)) == delta({0: {0: 4.0, 1: 2.0, 2: 1.0}})


def test_of_two_updates_none_is_too_long() -> None:
    accumulator = Accumulator(SPACE)
    for value in (1.0, 9.0):
        accumulator.add(admitted(delta({0: {0: value}})))
    assert accumulator.result(Policy(holders_mean, norm_bound=1.0)) == delta({0: {0: 5.0}})
    accumulator.add(admitted(delta({1: {0: 1.0}})))  # a third one, and still but two hold tensor 0
    assert accumulator.result(Policy(holders_mean, norm_bound=1.0)) == delta({0: {0: 1.0}, 1: {0: 1.0}})


def test_coordinates_of_too_few_holders_do_not_move() -> None:
    assert both().result(Policy(holders_mean, min_holders=2)) == delta({0: {2: 7.0}})
    assert both().result(Policy(holders_mean, min_holders=3)) == delta({})


def test_who_changes_nothing_has_no_say_in_what_is_too_much() -> None:
    accumulator = Accumulator(SPACE)
    for value in (0.0, 0.0, 8.0):
        accumulator.add(admitted(delta({0: {0: value}})))
    assert accumulator.result(Policy(zero_fill, norm_bound=2.0)) == delta({0: {0: 8 / 3}})


def test_updates_beyond_the_memory_lie_in_one_file_without_a_name_and_merge_to_the_same_bits(
    tmp_path: Path,
) -> None:
    accumulator = Accumulator(SPACE, memory=len(LEFT.data), folder=tmp_path)
    for update in (LEFT, RIGHT, LEFT):
        accumulator.add(update)
    in_memory, *in_file = accumulator._updates
    assert (in_memory.data, in_memory.file) == (LEFT.data, None)
    assert [kept.data for kept in in_file] == [b"", b""]
    assert in_file[0].file is in_file[1].file is not None
    assert not list(tmp_path.iterdir())
    expected = both()
    expected.add(LEFT)
    assert accumulator.result(Policy(zero_fill)) == expected.result(Policy(zero_fill))
    other = Accumulator(SPACE)
    other.merge(accumulator)
    del accumulator, in_memory, in_file
    assert other.result(Policy(zero_fill)) == expected.result(Policy(zero_fill))


def test_an_update_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    accumulator = Accumulator(SPACE, memory=0, folder=tmp_path / "absent")
    with pytest.raises(DeltaError, match="fits neither in memory nor in a file: No such file"):
        accumulator.add(LEFT)


def test_the_shrunk_rule_takes_its_strength_from_the_updates() -> None:
    agreed = [admitted(delta({0: {1: 1.0, number + 2: 1.0}}), samples=7) for number in range(3)]
    accumulator = Accumulator(SPACE)
    for update in (*agreed, admitted(delta({0: {9: 1.0}}), samples=7)):
        accumulator.add(update)
    # Who holds the same coordinate holds the same value: nothing is shrunk.
    found = accumulator.result(Policy(rule_named("shrunk", "auto")))
    assert found == accumulator.result(Policy(holders_mean))
    assert found != accumulator.result(Policy(shrunk(0.25)))
