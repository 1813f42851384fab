from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.sparsity import (
    Allocation,
    Structure,
    Support,
    choose_support,
    drop_and_grow,
    seeded_support,
    soft_threshold_,
    structured_rows,
    structured_tiles,
)
from fedsparse.sparsity.support import Selection

few = settings(max_examples=150, deadline=None)
shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
structures: st.SearchStrategy[Structure] = st.sampled_from(["unstructured", "row", "block"])
allocations: st.SearchStrategy[Allocation] = st.sampled_from(["global", "uniform", "early"])
Unit = tuple[int, list[int]]
"""Position and flat indices of what is taken whole."""


@dataclass(frozen=True)
class Case:
    space: AdapterSpace
    scores: dict[int, torch.Tensor]
    density: float
    dense: frozenset[int]
    structure: Structure
    block: int
    allocation: Allocation

    @property
    def options(self) -> dict[str, Any]:
        return {"structure": self.structure, "block": self.block, "allocation": self.allocation}

    @property
    def budget(self) -> int:
        return int(self.density * self.space.size) - sum(self.space.tensors[p].size for p in self.dense)


@st.composite
def cases(draw: st.DrawFn, full_size: bool = False) -> Case:
    """Draw what to choose from and how; with ``full_size`` blocks divide every tensor."""
    block = draw(st.integers(1, 4))
    drawn = draw(st.lists(shapes, min_size=1, max_size=4))
    if full_size:
        drawn = [(shape[0] * block, *shape[1:], block) for shape in drawn]
    tensors = tuple(TensorSpec(f"t{position}", shape) for position, shape in enumerate(drawn))
    space = AdapterSpace(bytes(32), tensors)
    dense = draw(st.frozensets(st.integers(0, len(tensors) - 1), max_size=1))
    least = sum(tensors[position].size for position in dense)
    density = (draw(st.integers(least, space.size)) + 0.5) / space.size
    scores = _scores(space, draw(st.integers(1, 6)), draw(st.integers(0, 2**32 - 1)))
    sparse = {position: score for position, score in scores.items() if position not in dense}
    return Case(space, sparse, density, dense, draw(structures), block, draw(allocations))


def _scores(space: AdapterSpace, levels: int, seed: int) -> dict[int, torch.Tensor]:
    """Draw few different scores, so that there are ties."""
    random = np.random.default_rng(seed)
    drawn = [random.integers(-levels, levels + 1, tensor.size) / 8 for tensor in space.tensors]
    return {position: torch.from_numpy(scores.astype(np.float32)) for position, scores in enumerate(drawn)}


def units(case: Case, position: int) -> list[Unit]:
    shape = case.space.tensors[position].shape
    matrix = np.arange(case.space.tensors[position].size).reshape(shape[0], -1)
    tiles = {"unstructured": (1, 1), "row": (1, matrix.shape[1]), "block": (case.block, case.block)}
    height, width = tiles[case.structure]
    return [
        (position, matrix[row : row + height, column : column + width].ravel().tolist())
        for row in range(0, matrix.shape[0], height)
        for column in range(0, matrix.shape[1], width)
    ]


def greedy(case: Case, candidates: list[Unit], room: int) -> list[Unit]:
    def mean(unit: Unit) -> Fraction:
        position, indices = unit
        return sum((Fraction(float(case.scores[position][i])) for i in indices), Fraction(0)) / len(indices)

    taken = []
    for unit in sorted(candidates, key=mean, reverse=True):  # stable: ties stay in the order of coordinates
        if len(unit[1]) <= room:
            taken.append(unit)
            room -= len(unit[1])
    return taken


def reference(case: Case, closed: list[Unit] | None = None) -> list[list[int]]:
    """What `choose_support` documents, one unit at a time, without those that are ``closed``."""
    own = {p: [unit for unit in units(case, p) if unit not in (closed or [])] for p in case.scores}
    everything = [unit for candidates in own.values() for unit in candidates]
    taken: list[Unit] = []
    total = sum(case.space.tensors[p].size for p in own)
    room = case.budget
    for p, candidates in own.items():
        free = sum(len(indices) for _, indices in candidates)
        if case.allocation == "uniform":
            taken += greedy(case, candidates, min(case.budget * case.space.tensors[p].size // total, free))
        elif case.allocation == "early":
            taken += greedy(case, candidates, min(free, room))
            room -= min(free, room)
    left = case.budget - sum(len(indices) for _, indices in taken)
    taken += greedy(case, [unit for unit in everything if unit not in taken], left)
    return [
        list(range(tensor.size)) if p in case.dense else sorted(i for q, unit in taken if q == p for i in unit)
        for p, tensor in enumerate(case.space.tensors)
    ]


def chosen(case: Case, scores: Any = None) -> list[list[int]]:
    support = choose_support(case.space, scores or case.scores, case.density, case.dense, **case.options)
    return [part.tolist() for part in support]


@few
@given(cases())
def test_the_choice_is_the_greedy_one_ties_to_the_first_coordinate(case: Case) -> None:
    assert chosen(case) == reference(case)


@few
@given(cases(), st.data())
def test_units_that_may_not_be_chosen_leave_their_room_to_others(case: Case, data: st.DataObject) -> None:
    everything = [unit for position in case.scores for unit in units(case, position)]
    closed = [unit for unit in everything if data.draw(st.booleans())]
    free = {
        p: sum(len(unit[1]) for unit in everything if unit[0] == p and unit not in closed) for p in case.scores
    }
    selection = Selection(case.space, case.budget, case.dense, **case.options, free=free)
    for position, tiling in selection.tilings.items():
        ranks = tiling.means(case.scores[position].numpy()).copy()
        ranks[[unit in closed for unit in units(case, position)]] = -np.inf
        selection.offer(position, ranks)
    assert [part.tolist() for part in selection.support()] == reference(case, closed)


@few
@given(cases(), st.data())
def test_scores_in_groups_choose_what_all_at_once_choose(case: Case, data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(case.scores)))
    groups, start = [], 0
    while start < len(order):
        end = data.draw(st.integers(start + 1, len(order)))
        groups.append({position: case.scores[position] for position in order[start:end]})
        start = end
    assert chosen(case, iter(groups)) == chosen(case)


@few
@given(cases(), st.integers(0, 2**64 - 1))
def test_supports_stay_in_range_and_within_the_density(case: Case, seed: int) -> None:
    for support in _both(case, seed):
        assert sum(map(len, support)) <= case.density * case.space.size
        for tensor, part in zip(case.space.tensors, support, strict=True):
            assert np.all(np.diff(part, prepend=-1, append=tensor.size) > 0)


@few
@given(cases())
def test_single_coordinates_use_the_whole_budget(case: Case) -> None:
    assert sum(map(len, chosen(replace(case, structure="unstructured")))) == int(case.density * case.space.size)


@few
@given(cases())
def test_uniform_densities_differ_by_less_than_what_rounding_leaves(case: Case) -> None:
    case = replace(case, structure="unstructured", allocation="uniform")
    support = chosen(case)
    total = sum(case.space.tensors[p].size for p in case.scores)
    shares = {p: case.budget * case.space.tensors[p].size // total for p in case.scores}
    extra = [len(support[p]) - share for p, share in shares.items()]
    assert all(more >= 0 for more in extra)
    assert sum(extra) < max(len(shares), 1)


@few
@given(cases(full_size=True), st.integers(0, 2**64 - 1))
def test_structured_supports_consist_of_whole_rows_or_tiles(case: Case, seed: int) -> None:
    rows, tiles = replace(case, structure="row"), replace(case, structure="block")
    for position in case.scores:
        shape = case.space.tensors[position].shape
        for support in _both(rows, seed):
            found = structured_rows(support[position], shape)
            assert found is not None
            assert len(found) * np.prod(shape[1:]) == len(support[position])
        for support in _both(tiles, seed):
            places = structured_tiles(support[position], shape, case.block)
            assert places is not None
            assert len(places[0]) * case.block**2 == len(support[position])


def _both(case: Case, seed: int) -> list[Support]:
    return [
        choose_support(case.space, case.scores, case.density, case.dense, **case.options),
        seeded_support(case.space, case.density, case.dense, seed, **case.options),
    ]


@few
@given(cases(), st.integers(0, 2**64 - 1))
def test_a_seeded_support_is_a_function_of_its_arguments(case: Case, seed: int) -> None:
    first, second = (seeded_support(case.space, case.density, case.dense, seed, **case.options) for _ in range(2))
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


@few
@given(cases(), st.floats(0, 1))
def test_regrowing_keeps_nnz_whole_units_and_the_dense_tensors(case: Case, fraction: float) -> None:
    support = choose_support(case.space, case.scores, case.density, case.dense, **case.options)
    values = [torch.rand(len(part)) for part in support]
    shape = {"structure": case.structure, "block": case.block}
    changed = drop_and_grow(case.space, support, values, case.scores, fraction, case.dense, **shape)  # type: ignore[arg-type]
    for p, (before, after) in enumerate(zip(support, changed, strict=True)):
        assert len(after) == len(before)
        assert np.all(np.diff(after, prepend=-1, append=case.space.tensors[p].size) > 0)
        if p in case.dense:
            assert np.array_equal(before, after)
        else:
            assert all(len(set(unit) - set(after.tolist())) in (0, len(unit)) for _, unit in units(case, p))


@few
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    st.floats(0, 50, width=32),
)
def test_the_soft_threshold_equals_its_closed_form(values: list[float], threshold: float) -> None:
    before = torch.tensor(values)
    after = soft_threshold_(before.clone(), threshold)
    assert torch.equal(after, before.sign() * (before.abs() - threshold).clamp(min=0))
    assert torch.all(after[before.abs() <= threshold] == 0)
