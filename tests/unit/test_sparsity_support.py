from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError, DataError
from fedsparse.sparsity import choose_support, sparse_budget

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (2, 3)), TensorSpec("head", (2,)), TensorSpec("b", (12,))))
SCORES = {0: torch.tensor([0.0, 9, 1, 1, 8, 0]), 2: torch.tensor([7.0, *[0.5] * 11])}


def _lists(support: tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]) -> list[list[int]]:
    return [part.tolist() for part in support]


def test_the_best_scores_of_all_tensors_are_chosen_beside_the_dense_ones() -> None:
    assert _lists(choose_support(SPACE, SCORES, 0.25, {1})) == [[1, 4], [0, 1], [0]]


def test_ties_go_to_the_first_coordinate() -> None:
    ones = {0: torch.ones(6), 2: torch.ones(12)}
    assert _lists(choose_support(SPACE, ones, 0.2, {1})) == [[0, 1], [0, 1], []]


def test_negative_scores_rank_below_zero() -> None:
    scores = {0: torch.tensor([-1.0, -3, -2, 0, -5, -4]), 2: torch.full((12,), -9.0)}
    assert _lists(choose_support(SPACE, scores, 0.25, {1})) == [[0, 2, 3], [0, 1], []]


@pytest.mark.parametrize("density", [0.11, 0.3, 0.55, 1.0])
def test_the_support_uses_what_the_density_allows(density: float) -> None:
    chosen = choose_support(SPACE, SCORES, density, {1})
    assert sum(part.size for part in chosen) == int(density * SPACE.size)
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in chosen)


def test_a_density_below_the_dense_tensors_is_refused_naming_the_least() -> None:
    with pytest.raises(ConfigError, match=r"density 0\.05 .* at least 0\.1"):
        choose_support(SPACE, SCORES, 0.05, {1})


def test_the_budget_is_what_the_density_leaves_besides_the_dense_tensors() -> None:
    assert sparse_budget(SPACE, 0.5, {1}) == 8
    assert sparse_budget(SPACE, 0.5, ()) == 10


def test_dense_tensors_alone_need_no_scores() -> None:
    assert _lists(choose_support(SPACE, {}, 1.0, {0, 1, 2})) == [[*range(6)], [0, 1], [*range(12)]]


def test_whole_rows_are_taken_by_their_mean_and_those_that_no_longer_fit_are_passed_over() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("wide", (2, 2, 2)), TensorSpec("narrow", (3, 2))))
    scores = {0: torch.tensor([5.0, 5, 5, 5, 4, 4, 4, 4]), 1: torch.tensor([3.0, 3, 1, 9, 2, 2])}
    # means: wide 5 and 4, narrow 3, 5 and 2; seven coordinates hold 4 (wide 0) + 2 (narrow 1), not 4 more
    assert _lists(choose_support(space, scores, 0.5, (), structure="row")) == [[0, 1, 2, 3], [2, 3]]
    assert _lists(choose_support(space, scores, 0.58, (), structure="row")) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_tiles_at_the_edge_are_smaller_and_ranked_by_their_mean_all_the_same() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (3, 3)),))
    scores = {0: torch.tensor([1.0, 1, 0, 1, 1, 0, 0, 0, 7])}
    assert _lists(choose_support(space, scores, 5 / 9, (), structure="block", block=2)) == [[0, 1, 3, 4, 8]]
    assert _lists(choose_support(space, scores, 3 / 9, (), structure="block", block=2)) == [[2, 5, 8]]


def test_a_block_larger_than_the_tensor_takes_it_whole_or_not_at_all() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (2, 2)), TensorSpec("b", (5,))))
    scores = {0: torch.ones(4), 1: torch.zeros(5)}
    assert _lists(choose_support(space, scores, 8 / 9, (), structure="block")) == [[0, 1, 2, 3], []]


def test_uniform_gives_every_tensor_the_same_density_whatever_the_scale_of_its_scores() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (2, 5)), TensorSpec("b", (20,))))
    scores = {0: 1000 * torch.arange(10.0), 1: torch.arange(20.0)}
    assert [part.size for part in choose_support(space, scores, 0.3, (), allocation="global")] == [9, 0]
    assert _lists(choose_support(space, scores, 0.3, (), allocation="uniform")) == [
        [7, 8, 9],
        [14, 15, 16, 17, 18, 19],
    ]


def test_what_uniform_shares_leave_goes_to_the_best_units_overall() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (4,)), TensorSpec("b", (2, 3))))
    scores = {0: torch.tensor([4.0, 3, 2, 1]), 1: torch.tensor([9.0, 9, 9, 1, 1, 1])}
    # shares of 5: a 2, b 3 by coordinates; of 4: a 1, b 2, which holds no row, so 3 are left for b's better row
    assert _lists(choose_support(space, scores, 0.5, (), structure="row", allocation="uniform")) == [
        [0, 1],
        [0, 1, 2],
    ]
    assert _lists(choose_support(space, scores, 0.4, (), structure="row", allocation="uniform")) == [
        [0],
        [0, 1, 2],
    ]


def test_groups_in_any_order_choose_like_all_scores_at_once() -> None:
    def groups() -> Iterator[dict[int, torch.Tensor]]:
        yield {2: torch.ones(12)}
        yield {0: torch.ones(6)}

    assert _lists(choose_support(SPACE, groups(), 0.4, {1})) == [[0, 1, 2, 3, 4, 5], [0, 1], []]


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ({0: torch.ones(6)}, "the tensor b has no scores"),
        ({0: torch.ones(5), 2: torch.ones(12)}, r"the scores of a have shape \(5,\), not \(6,\)"),
        ({0: torch.full((6,), torch.nan), 2: torch.ones(12)}, "a score of a is NaN or infinite"),
        ({0: torch.ones(6), 2: torch.full((12,), torch.inf)}, "a score of b is NaN or infinite"),
    ],
)
def test_scores_that_cannot_rank_are_refused(scores: dict[int, torch.Tensor], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        choose_support(SPACE, scores, 0.4, {1})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"structure": "diagonal"}, "structure 'diagonal' is unknown.*unstructured, row, block"),
        ({"allocation": "fair"}, "allocation 'fair' is unknown.*global, uniform, early"),
        ({"structure": "block", "block": 0}, "block of side 0"),
    ],
)
def test_unknown_options_are_refused_naming_the_known(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        choose_support(SPACE, SCORES, 0.4, {1}, **options)  # type: ignore[arg-type]


def test_early_fills_one_tensor_after_another_from_the_input_side_on() -> None:
    scores = {0: torch.arange(6.0), 2: torch.full((12,), 100.0)}
    assert _lists(choose_support(SPACE, scores, 0.3, {1}, allocation="early")) == [[2, 3, 4, 5], [0, 1], []]
    assert _lists(choose_support(SPACE, scores, 0.5, {1}, allocation="early")) == [
        [0, 1, 2, 3, 4, 5],
        [0, 1],
        [0, 1],
    ]
