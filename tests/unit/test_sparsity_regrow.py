from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError
from fedsparse.sparsity import drop_and_grow, drop_fraction, keep_largest

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (2, 4)), TensorSpec("head", (2,))))
SUPPORT = (np.array([0, 1, 2, 3]), np.array([0, 1]))
VALUES = [torch.tensor([0.5, -0.1, 0.2, -3.0]), torch.tensor([0.0, 0.0])]


def test_the_smallest_values_make_room_for_the_largest_gradients() -> None:
    scores = {0: torch.tensor([9.0, 9, 9, 9, 1, 4, 2, 3])}
    changed = drop_and_grow(SPACE, SUPPORT, VALUES, scores, 0.5, {1})
    assert [part.tolist() for part in changed] == [[0, 3, 5, 7], [0, 1]]


def test_no_more_is_dropped_than_can_grow() -> None:
    support = (np.arange(7), np.array([0, 1]))
    values = [torch.arange(7.0), torch.zeros(2)]
    changed = drop_and_grow(SPACE, support, values, {0: torch.zeros(8)}, 1.0, {1})
    assert changed[0].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_among_equals_the_first_is_kept_and_grows() -> None:
    values = [torch.ones(4), torch.zeros(2)]
    changed = drop_and_grow(SPACE, SUPPORT, values, {0: torch.ones(8)}, 0.25, {1})
    assert changed[0].tolist() == [0, 1, 2, 4]


def test_rows_are_replaced_by_rows() -> None:
    scores = {0: torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 1])}
    changed = drop_and_grow(SPACE, SUPPORT, VALUES, scores, 1.0, {1}, structure="row")
    assert changed[0].tolist() == [4, 5, 6, 7]


def test_tiles_are_replaced_by_tiles_of_their_size() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (2, 5)),))
    support, values = (np.array([0, 1, 5, 6]),), [torch.ones(4)]
    scores = {0: torch.tensor([0.0, 0, 1, 1, 9, 0, 0, 1, 1, 9])}
    changed = drop_and_grow(space, support, values, scores, 1.0, (), structure="block", block=2)
    assert changed[0].tolist() == [2, 3, 7, 8]  # not the better, but smaller tile of 4 and 9


def test_a_support_of_another_structure_is_refused() -> None:
    with pytest.raises(ConfigError, match="support of a does not consist of whole units of structure 'block'"):
        drop_and_grow(SPACE, SUPPORT, VALUES, {0: torch.ones(8)}, 0.5, {1}, structure="block", block=2)


def test_a_fraction_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fraction to drop, 1\.5"):
        drop_and_grow(SPACE, SUPPORT, VALUES, {0: torch.ones(8)}, 1.5, {1})


def test_the_dropped_fraction_falls_along_half_a_cosine() -> None:
    assert [drop_fraction(step, 100, 0.3) for step in (0, 100, 101)] == [0.3, 0.0, 0.0]
    assert drop_fraction(50, 100, 0.3) == pytest.approx(0.15)
    assert drop_fraction(25, 100, 0.3) == pytest.approx(0.15 * (1 + 2**-0.5))


def test_pruning_keeps_the_largest_values_over_all_sparse_tensors() -> None:
    support = (np.array([2, 5, 7]), np.array([0, 1]), np.array([1, 4]))
    values = [torch.tensor([0.5, -4.0, 1.0]), torch.tensor([9.0, 9.0]), torch.tensor([-2.0, 1.0])]
    kept = keep_largest(support, values, 3, {1})
    assert [part.tolist() for part in kept] == [[5, 7], [0, 1], [1]]


@pytest.mark.parametrize(("count", "left"), [(0, [[], [0, 1]]), (99, [[0, 1, 2, 3], [0, 1]])])
def test_pruning_to_nothing_or_to_more_than_there_is(count: int, left: list[list[int]]) -> None:
    assert [part.tolist() for part in keep_largest(SUPPORT, VALUES, count, {1})] == left


def test_pruning_where_all_is_dense_keeps_all() -> None:
    assert keep_largest(SUPPORT, VALUES, 0, {0, 1}) == SUPPORT
