from __future__ import annotations

import numpy as np
import pytest

from fedsparse.aggregation import (
    Agreement,
    Holders,
    Part,
    Rule,
    SignElected,
    TrimmedMean,
    holders_mean,
    merge_tensor,
    rule_named,
    shrunk,
    zero_fill,
)
from fedsparse.aggregation.holders import BLOCK
from fedsparse.aggregation.rules import Mean
from fedsparse.errors import ConfigError

TOTAL = 8.0


def merged(rule: Rule) -> list[float]:
    """Merge coordinates of which one plant holds 3 with weight 2, and both -0.5 with all the weight there is."""
    one = Part(np.array([0, 1]), np.array([3.0, 1.0], np.float32), 2.0)
    other = Part(np.array([1]), np.array([-1.0], np.float32), 6.0)
    return rule.merge(Holders.of([one, other], 100, TOTAL)).tolist()


def test_the_holders_mean_is_n_over_d() -> None:
    assert merged(holders_mean) == [3.0, -0.5]


def test_zero_fill_is_n_over_w() -> None:
    assert merged(zero_fill) == [0.75, -0.5]


@pytest.mark.parametrize(("strength", "first"), [(0.0, 3.0), (0.5, 1.2), (1.0, 0.75)])
def test_shrinking_is_n_over_d_plus_the_strength_times_those_without(strength: float, first: float) -> None:
    assert merged(shrunk(strength)) == pytest.approx([first, -0.5])


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match=f"strength is {strength}"):
        shrunk(strength)


def test_an_unknown_rule_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no merging rule is called 'mean'") as caught:
        rule_named("mean", 0.5)
    assert caught.value.remedy == (
        "Choose one of holders-mean, zero-fill, shrunk, sign-elected, trimmed-mean, median"
    )


def holders(*parts: dict[int, float], size: int = 100, weights: tuple[float, ...] = ()) -> Holders:
    """Return the holders of a tensor, one part each; without ``weights`` all weigh 1."""
    given = weights or (1.0,) * len(parts)
    made = [
        Part(np.array(sorted(part), np.int64), np.array([part[i] for i in sorted(part)], np.float32), weight)
        for part, weight in zip(parts, given, strict=True)
    ]
    return Holders.of(made, size, sum(given))


def test_the_elected_sign_is_that_of_the_weighted_sum_and_only_those_who_agree_are_averaged() -> None:
    told = holders({0: 3.0, 1: -1.0}, {0: 1.0, 1: 2.0}, {0: -1.0, 1: -5.0}, weights=(1, 1, 2))
    assert SignElected().merge(told).tolist() == [2.0, pytest.approx(-11 / 3)]


def test_the_elected_mean_shrinks_by_those_who_disagree_or_do_not_hold_the_coordinate() -> None:
    told = holders({0: 3.0}, {0: 1.0}, {0: -1.0}, {7: 1.0})
    assert SignElected(1.0).merge(told).tolist() == [1.0, 0.25]
    assert SignElected(0.5).merge(told).tolist() == [pytest.approx(4 / 3), 0.4]


def test_signs_in_balance_move_nothing() -> None:
    assert SignElected().merge(holders({0: 1.0, 1: 0.0}, {0: -1.0, 1: 0.0})).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("values", [[5.0], [1.0, 4.0], [1.0, 2.0, 90.0], [-9.0, 1, 2, 3], [0.0, 1, 2, 3, 1e6]])
def test_the_median_is_over_those_who_hold_the_coordinate(values: list[float]) -> None:
    parts = [{3: value, 50 + number: 1.0} for number, value in enumerate(values)]
    found = TrimmedMean(0.5).merge(holders(*parts, {90: 2.0}))
    assert found.tolist() == [np.median(values), *[1.0] * len(values), 2.0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 211.0), (0.2, 20 / 3), (0.4, 5.0), (0.39, 20 / 3)])
def test_the_trimmed_mean_leaves_out_a_share_of_the_holders_at_either_end(share: float, expected: float) -> None:
    parts = [{2: value} for value in (1035.0, 5.0, 3.0, 12.0, 0.0)]
    assert TrimmedMean(share).merge(holders(*parts)).tolist() == [pytest.approx(expected)]


def test_a_share_that_trims_more_than_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"share is 0\.6"):
        TrimmedMean(0.6)


@pytest.mark.parametrize("rule", [shrunk(0.25), SignElected(0.25), TrimmedMean(0.3)])
def test_a_rule_finds_the_same_bits_over_the_whole_tensor_and_over_the_union_alone(rule: Rule) -> None:
    draw = np.random.default_rng(5)
    where = [np.sort(draw.choice(400, 60, replace=False)) for _ in range(5)]
    parts = [dict(zip(w.tolist(), draw.normal(size=60).tolist(), strict=True)) for w in where]
    for part, value in zip(parts, (2.0**20, -(2.0**20), 1e-10, 2.0**19, -(2.0**19)), strict=True):
        part[0] = value  # whose sum depends on the order
    dense, sparse = holders(*parts, size=400), holders(*parts, size=1_000_000)
    assert dense.is_dense
    assert not sparse.is_dense
    assert dense.union.tolist() == sparse.union.tolist()
    assert rule.merge(dense).tobytes() == rule.merge(sparse).tobytes()


def test_a_long_table_comes_in_blocks_that_together_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [{i: float(i + k) for i in range(k, 40, k + 1)} for k in range(4)]
    whole = TrimmedMean(0.5).merge(holders(*parts))
    monkeypatch.setattr("fedsparse.aggregation.holders._CELLS", 12)
    assert len(list(holders(*parts).tables())) > 5
    assert TrimmedMean(0.5).merge(holders(*parts)).tobytes() == whole.tobytes()


@pytest.mark.parametrize("rule", [shrunk(0.25), SignElected(0.25), TrimmedMean(0.3)])
def test_blocks_of_a_tensor_together_give_what_the_whole_gives(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(6)
    parts = [
        Part(np.sort(draw.choice(90, 20, replace=False)), draw.normal(size=20).astype(np.float32), 1.0 + n)
        for n in range(4)
    ]
    whole = Holders.of(parts, 90, 12.0)
    monkeypatch.setattr("fedsparse.aggregation.holders.BLOCK", 16)
    blocks = list(Holders.blocks(parts, 90, 12.0))
    assert [block.start for block in blocks] == [0, 16, 32, 48, 64, 80]
    assert np.concatenate([block.union for block in blocks]).tolist() == whole.union.tolist()
    assert b"".join(rule.merge(block).tobytes() for block in blocks) == rule.merge(whole).tobytes()


def test_empty_blocks_are_left_out_and_a_sparse_tensor_comes_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedsparse.aggregation.holders.BLOCK", 8)
    part = Part(np.array([1, 2, 30], np.int64), np.ones(3, np.float32), 1.0)
    assert [block.start for block in Holders.blocks([part], 32, 1.0)] == [0, 24]
    assert [block.start for block in Holders.blocks([part], 1000, 1.0)] == [0]


def test_a_huge_tensor_of_which_little_is_held_takes_no_room_of_its_size() -> None:
    size = 1 << 40
    part = Part(np.array([1, size - 1]), np.ones(2, np.float32), 1.0)
    moved, by = merge_tensor(holders_mean, 1, [part], size, 1.0)
    assert moved.tolist() == [1, size - 1]
    assert by.tolist() == [1.0, 1.0]
    assert Holders.of([part], size, 1.0).union.tolist() == [1, size - 1]


def test_the_holders_of_a_coordinate_are_counted() -> None:
    assert holders({4: 1.0, 9: 2.0}, {9: 4.0}).count().tolist() == [1, 2]


def _agreeing(common: float, own: float, plants: int, share: float) -> Agreement:
    """Return what is found where plants hold ``share`` of many coordinates with such deviations."""
    draw = np.random.default_rng(3)
    size = 40_000
    wanted = common * draw.normal(size=size)
    parts = []
    for _ in range(plants):
        indices = np.flatnonzero(draw.random(size) < share)
        values = wanted[indices] + own * draw.normal(size=len(indices))
        parts.append(Part(indices, values.astype(np.float32), 5.0))
    found = Agreement()
    for holders in Holders.blocks(parts, size, 5.0 * plants):
        found.add(holders)
    return found


@pytest.mark.parametrize(("common", "own", "plants"), [(1.0, 1.0, 6), (0.1, 0.15, 4), (1.0, 0.5, 8)])
def test_the_strength_follows_from_how_far_the_holders_agree(common: float, own: float, plants: int) -> None:
    wanted = (own / common) ** 2 / (plants - 1)
    assert _agreeing(common, own, plants, 0.3).strength(plants) == pytest.approx(wanted, rel=0.15)


def test_holders_that_have_nothing_in_common_are_shrunk_to_zero_fill() -> None:
    assert _agreeing(0.0, 1.0, 5, 0.3).strength(5) > 0.9
    assert Agreement().strength(5) == 1.0


def test_coordinates_that_everybody_holds_do_not_count() -> None:
    draw = np.random.default_rng(0)
    every = [Part(np.arange(9), draw.normal(size=9).astype(np.float32), 1.0) for _ in range(3)]
    found = Agreement()
    found.add(Holders.of(every, 9, 3.0))
    assert found.strength(3) == 1.0


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_a_dense_mean_is_written_as_it_is_computed_with_the_bits_of_the_rule(strength: float) -> None:
    draw = np.random.default_rng(9)
    size = 3 * BLOCK + 5
    parts = [
        Part(
            np.sort(draw.choice(size, size // 9, replace=False)),
            draw.normal(size=size // 9).astype(np.float32),
            draw.uniform(0.1, 90),
        )
        for _ in range(4)
    ]
    total = sum(part.weight for part in parts) + 3.0
    moved, by = merge_tensor(Mean(strength), 1, parts, size, total)
    whole = Holders.of(parts, size, total)
    assert moved.tolist() == whole.union.tolist()
    assert by.tobytes() == Mean(strength).merge(whole).astype(np.float32).tobytes()
    assert not moved.flags.writeable
    enough = whole.count() >= 2
    assert merge_tensor(Mean(strength), 2, parts, size, total)[0].tolist() == whole.union[enough].tolist()
