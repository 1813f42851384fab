from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedsparse import config
from fedsparse.adapters import Adapter
from fedsparse.errors import ConfigError, DataError
from fedsparse.sparsity import SCORES, Loss, Support, gradient_magnitude, seeded_support
from fedsparse.training import selection
from fedsparse.training.batches import Batches
from fedsparse.training.selection import Selector

from .training_samples import classification, perceptron

HEAD = (np.arange(48), np.arange(3))


def stage(**settings: Any) -> config.StageSettings:
    return config.StageSettings(name="only", epochs=1, **{"density": 0.2, **settings})


def losses(adapter: Adapter, mixup: float = 0.0) -> list[Loss]:
    task = classification(augmentation=config.AugmentationSettings(mixup=mixup))
    return Batches(task, 16, (5,)).scoring(adapter.network)


def choose(adapter: Adapter, density: float = 0.2, mixup: float = 0.0, **settings: Any) -> Support:
    return Selector(adapter, 3).choose(stage(density=density, **settings), density, losses(adapter, mixup))


def same(one: Support, other: Support) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def holding(first: dict[int, float], second: dict[int, float]) -> Adapter:
    """Return an adapter with these values in training, and the head."""
    adapter = perceptron()
    attachment = adapter.attach((np.array([*first], np.int64), np.array([*second], np.int64), *HEAD))
    with torch.no_grad():
        attachment.sparse.copy_(torch.tensor([*first.values(), *second.values()]))
    adapter.push()
    return adapter


@pytest.mark.parametrize("score", [*SCORES])
def test_the_best_scored_coordinates_are_chosen_by_every_score(score: str) -> None:
    adapter = perceptron()
    scores = SCORES[score](adapter, losses(adapter), [0, 1])
    chosen = choose(adapter, score=score)
    ranked = torch.cat([scores[0], scores[1]]).sort(descending=True).values
    taken = torch.cat([scores[i][torch.from_numpy(chosen[i])] for i in range(2)]).sort(descending=True).values
    assert torch.equal(taken, ranked[:48])
    assert same(chosen[2:], HEAD)


@pytest.mark.parametrize("score", [*SCORES])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize("structure", ["unstructured", "row", "block"])
def test_scores_taken_a_tensor_at_a_time_lead_to_the_same_support(
    score: str, mixup: float, structure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = choose(perceptron(), mixup=mixup, score=score, structure=structure)
    monkeypatch.setattr(selection, "_SCORES_AT_ONCE", 1)
    assert same(choose(perceptron(), mixup=mixup, score=score, structure=structure), together)


def test_scores_ask_for_one_pass_over_the_batches_per_group(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    for limit in (1 << 24, 1):
        monkeypatch.setattr(selection, "_SCORES_AT_ONCE", limit)
        adapter, asked = perceptron(), []
        told = [_noting(loss, asked) for loss in losses(adapter)]
        Selector(adapter, 3).choose(stage(), 0.2, told)
        passes.append(len(asked))
    assert passes == [3, 6]  # 48 samples in batches of 16


def _noting(loss: Loss, asked: list[int]) -> Loss:
    def noting() -> torch.Tensor:
        asked.append(1)
        return loss()

    return noting


@pytest.mark.parametrize("structure", ["unstructured", "row", "block"])
@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_what_is_in_training_stays_and_the_best_of_the_rest_join(structure: str, allocation: str) -> None:
    settings: dict[str, Any] = {"structure": structure, "allocation": allocation, "block": 5}
    adapter = perceptron()
    adapter.attach(choose(adapter, 0.3, **settings), 5)
    held = adapter.support
    for density in (0.3, 0.35, 0.5, 0.8, 1.0):
        chosen = choose(adapter, density, **settings)
        assert all(np.isin(a, b).all() for a, b in zip(held, chosen, strict=True))
        assert sum(map(len, chosen)) <= int(density * 499)
    assert sum(map(len, chosen)) == 499


def test_coordinates_that_are_held_stay_also_where_whole_rows_join_them() -> None:
    adapter = holding({0: 0.0, 13: 0.0, 191: 0.0}, {255: 0.0})
    chosen = choose(adapter, 0.25, structure="row")
    assert all(np.isin(a, b).all() for a, b in zip(adapter.support, chosen, strict=True))
    assert 124 - 16 < sum(map(len, chosen)) <= 124


def test_drawn_coordinates_are_those_of_the_seed_and_grow_with_the_density() -> None:
    adapter = perceptron()
    chosen = choose(adapter, source="seeded")
    assert same(chosen, seeded_support(adapter.space, 0.2, (2, 3), 3))
    adapter.attach(chosen)
    assert all(np.isin(a, b).all() for a, b in zip(chosen, choose(adapter, 0.3, source="seeded"), strict=True))


def test_drawn_coordinates_that_do_not_hold_what_is_in_training_are_refused() -> None:
    adapter = holding({0: 0.0, 1: 0.0, 2: 0.0}, {})
    with pytest.raises(ConfigError, match=r"draws at density 0\.2 does not hold all"):
        choose(adapter, source="seeded")


def test_density_0_is_the_dense_tensors() -> None:
    assert same(choose(perceptron(), 0.0), (np.empty(0), np.empty(0), *HEAD))


def test_a_score_that_is_not_finite_is_an_error() -> None:
    adapter = perceptron()
    with pytest.raises(DataError, match=r"a score of first.weight is NaN or infinite"):
        Selector(adapter, 3).choose(stage(), 0.2, [lambda: losses(adapter)[0]() * torch.nan])


def zero_headed(
    dense: tuple[str, ...] = (), include: tuple[str, ...] = ("first.weight", "second.weight")
) -> Adapter:
    adapter = perceptron(dense, include)
    for parameter in adapter.network.get_submodule("head").parameters():
        parameter.zero_()
    return adapter


@pytest.mark.parametrize("score", ["gradient", "fisher", "snip", "movement"])
def test_where_every_score_is_0_and_nothing_else_is_trained_the_error_names_the_ways_out(score: str) -> None:
    told = rf"stage 'only' has nothing to go by: every '{score}' score .*adapter\.dense.*\"magnitude\".*\"seeded\""
    with pytest.raises(ConfigError, match=told):
        choose(zero_headed(), score=score)


def test_tensors_that_all_score_0_are_refused_too_where_the_allocation_passes_the_others_over() -> None:
    adapter = zero_headed(include=())
    with pytest.raises(ConfigError, match="has nothing to go by"):
        choose(adapter, allocation="early")
    assert len(choose(adapter)[2]) == 48  # the whole head, as it alone has gradients


@pytest.mark.parametrize("way", [{"score": "magnitude"}, {"source": "seeded"}])
def test_coordinates_that_are_chosen_without_gradients_need_none(way: dict[str, Any]) -> None:
    assert sum(map(len, choose(zero_headed(), **way))) == 89
    assert len(choose(zero_headed(include=("head.weight",)), 1.0, **way)[0]) == 48


def test_scores_of_0_are_taken_where_something_else_is_trained() -> None:
    assert sum(map(len, choose(zero_headed(dense=("head.*",))))) == 99
    adapter = zero_headed()
    adapter.attach((np.array([0]), np.array([], np.int64)))
    assert sum(map(len, choose(adapter))) == 89


def test_a_single_score_that_is_not_0_is_enough() -> None:
    adapter = zero_headed()
    adapter.network.get_parameter("head.weight")[0, 0] = 1e-3
    assert sum(map(len, choose(adapter))) == 89


def test_pruning_coordinates_keeps_the_largest_values() -> None:
    adapter = holding({3: 0.5, 7: -0.1, 11: 0.0, 30: -0.9}, {2: 0.2, 4: 0.3})
    assert same(Selector(adapter, 3).prune(stage(), 54.5 / 499), (np.array([3, 30]), np.array([4]), *HEAD))


def test_pruning_rows_keeps_those_with_the_largest_mean_whole() -> None:
    rows = {0: 0.1, 2: -0.4, 5: 0.3}  # of 12
    adapter = holding(
        {row * 12 + i: value for row, value in rows.items() for i in range(12)},
        {row * 16 + i: value for row, value in {1: 0.05, 3: 0.35}.items() for i in range(16)},
    )
    prune = Selector(adapter, 3).prune
    left = prune(stage(structure="row"), (51 + 40.5) / 499)
    assert same(left, (np.array([*range(24, 36), *range(60, 72)]), np.arange(48, 64), *HEAD))
    left = prune(stage(structure="row"), (51 + 30.5) / 499)  # row 5 of the first fits no more, nothing else is in
    assert same(left, (np.arange(24, 36), np.arange(48, 64), *HEAD))


@pytest.mark.parametrize(("allocation", "rows"), [("global", (3, 0)), ("uniform", (1, 1))])
def test_pruning_keeps_to_the_allocation(allocation: str, rows: tuple[int, int]) -> None:
    adapter = holding(dict.fromkeys(range(36), 0.5), dict.fromkeys(range(16), 0.2))
    left = Selector(adapter, 3).prune(stage(structure="row", allocation=allocation), (51 + 36.5) / 499)
    assert same(left, (np.arange(12 * rows[0]), np.arange(16 * rows[1]), *HEAD))
    left = Selector(adapter, 3).prune(stage(allocation=allocation), (51 + 35.5) / 499)
    # the share of the second is 20, but it has 16: the first gets what that leaves
    assert [len(part) for part in left[:2]] == ([35, 0] if allocation == "global" else [19, 16])


def test_pruning_blocks_keeps_them_whole_and_smaller_ones_at_the_edge_too() -> None:
    first = {row * 12 + column: 0.1 for row in range(5) for column in range(10, 12)}  # 5 × 2, at the edge
    second = {row * 16 + column: 0.2 for row in range(5) for column in range(5)}
    adapter = holding(first, dict(sorted(second.items())))
    prune = Selector(adapter, 3).prune
    both = prune(stage(structure="block", block=5), (51 + 35.5) / 499)
    assert same(both, (np.array([*first]), np.array([*second]), *HEAD))
    one = prune(stage(structure="block", block=5), (51 + 34.5) / 499)
    assert same(one, (np.empty(0), np.array([*second]), *HEAD))


def test_pruning_to_less_than_a_unit_is_refused() -> None:
    adapter = holding({}, dict.fromkeys(range(16), 0.1))
    with pytest.raises(ConfigError, match=r"leaves 15 coordinates .* less than one unit of structure 'row'"):
        Selector(adapter, 3).prune(stage(structure="row"), (51 + 15.5) / 499)


def test_regrowing_drops_the_smallest_values_and_takes_the_largest_gradients() -> None:
    adapter = holding({3: 0.5, 7: -0.1, 11: 0.0, 30: -0.9}, {2: 0.2, 4: 0.3})
    scores = gradient_magnitude(adapter, losses(adapter), [0, 1])
    grown = Selector(adapter, 3).regrow(stage(), 0.5, losses(adapter))
    for position, (kept, dropped) in enumerate([([3, 30], [7, 11]), ([4], [2])]):
        free = scores[position].clone()
        free[kept + dropped] = -1
        best = free.topk(len(dropped)).indices.tolist()
        assert grown[position].tolist() == sorted(kept + best)
    assert same(grown[2:], HEAD)
