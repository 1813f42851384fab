from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsparse import config
from fedsparse.aggregation import Accumulator, Memory, Policy, by_plant, holders_mean, voted
from fedsparse.delta import Mask, SparseDelta, TrainingSettings
from fedsparse.errors import DeltaError, SpaceMismatchError
from fedsparse.simulation import federate
from fedsparse.sparsity import seeded_support, support_of
from fedsparse.training import Evaluator, LocalTrainer, Trained
from tests.unit.samples import OTHER_SPACE, SPACE, admitted, delta, state
from tests.unit.training_samples import trainer

DENSITY = 0.3
HALVES = (np.arange(0, 24, 2), np.arange(1, 24, 2))


def schedule(mask: str, rounds: int = 4, revote: int = 3) -> tuple[TrainingSettings, ...]:
    told = config.TrainingDefaults(
        density=DENSITY,
        batch_size=8,
        mask=mask,
        revote=revote,
        value_coding="fp32",  # type: ignore[arg-type]
    )
    return told.schedule(rounds)


def names(delta: SparseDelta) -> set[tuple[int, int]]:
    return {(tensor.tensor, index) for tensor in delta.tensors for index in tensor.indices.tolist()}


Coordinates = set[tuple[int, int]]


def trained(folder: Path, mask: str) -> list[list[Coordinates]]:
    """Return by round and plant the coordinates that were trained."""
    found: list[Coordinates] = []

    class Watched(LocalTrainer):
        def train(self, *given: Any) -> Trained:
            outcome = super().train(*given)
            found.append(names(outcome.delta))
            return outcome

    one = trainer(folder)
    plants = [Watched(one.adapter, one.samples.subset(part), one.inputs.take(part)) for part in HALVES]
    evaluator = Evaluator(one.adapter, one.samples.labels, one.inputs)
    server = config.ServerSettings(value_coding="fp32")
    rounds = list(federate(plants, evaluator, Policy(holders_mean), server, schedule(mask)))
    return [found[2 * number : 2 * number + 2] for number in range(len(rounds))]


def test_plants_choose_for_themselves(tmp_path: Path) -> None:
    assert all(one != other for one, other in trained(tmp_path, "local"))


def test_a_drawn_choice_is_everybodys_and_stands_for_its_rounds(tmp_path: Path) -> None:
    rounds = trained(tmp_path, "seeded")
    plant = trainer(tmp_path)
    for number, (one, other) in enumerate(rounds):
        drawn = seeded_support(plant.space, DENSITY, plant.adapter.dense, number // 3)
        allowed = {(position, i) for position, indices in enumerate(drawn) for i in indices.tolist()}
        assert one | other <= allowed
        assert len(one & other) > 0.3 * len(allowed)


def test_a_vote_stands_until_the_next(tmp_path: Path) -> None:
    rounds = trained(tmp_path, "consensus")
    plant = trainer(tmp_path)
    head = {(at, i) for at in plant.adapter.dense for i in range(plant.space.tensors[at].size)}
    voters = rounds[0][0] | rounds[0][1] | head
    for one, other in rounds[1:3]:
        assert one | other <= voters
    assert not rounds[3][0] | rounds[3][1] <= voters


def test_a_round_asks_for_what_was_voted_but_where_it_is_a_vote_itself() -> None:
    asked = schedule("consensus", 7, 3)
    memory = Memory.empty(SPACE)
    assert voted(asked[1], 2, memory, SPACE) is None  # nothing was voted yet
    agreed = delta({0: {1: 1.0}})
    memory = Memory(memory.residual, memory.moments, agreed)
    assert [voted(one, number, memory, SPACE) for number, one in enumerate(asked, 1)] == [
        None, agreed, agreed, None, agreed, agreed, None,
    ]  # fmt: skip
    lower = replace(asked[1], density=1e-9)
    assert voted(lower, 2, memory, SPACE) is None  # what was agreed on is more than that
    assert voted(schedule("local")[0], 2, memory, SPACE) is None
    assert asked[0].mask is Mask.CONSENSUS


def test_the_coordinates_of_most_weight_are_agreed_on_the_first_of_equals() -> None:
    accumulator = Accumulator(SPACE)
    accumulator.add(admitted(delta({0: {1: 1.0, 3: 1.0}, 2: {4: -1.0}}), samples=1))
    accumulator.add(admitted(delta({0: {3: 1.0}, 2: {4: 2.0, 9: 1.0}}), samples=1))
    accumulator.add(admitted(delta({0: {0: 1.0}}), samples=5))
    assert accumulator.agreed(Policy(holders_mean), 2, ()) == delta({0: {0: 1.0, 3: 1.0}})
    by_number = Policy(holders_mean, by_plant)
    assert accumulator.agreed(by_number, 3, ()) == delta({0: {0: 1.0, 3: 1.0}, 2: {4: 1.0}})
    assert accumulator.agreed(by_number, 100, ()).nnz == 5
    with_head = accumulator.agreed(by_number, 7, {1})
    assert with_head == delta({0: {3: 1.0}, 1: dict.fromkeys(range(6), 1.0)})
    assert accumulator.agreed(by_number, 2, {1}).nnz == 6


def test_a_support_is_read_only_of_its_own_space() -> None:
    found = support_of(delta({0: {1: 1.0, 3: 1.0}}), SPACE)
    assert [part.tolist() for part in found] == [[1, 3], [], []]
    with pytest.raises(SpaceMismatchError):
        support_of(delta({0: {1: 1.0}}), OTHER_SPACE)
    with pytest.raises(DeltaError):
        support_of(delta({0: {int(np.prod(SPACE.tensors[0].shape)): 1.0}}), SPACE)
    with pytest.raises(DeltaError):
        support_of(state({}), SPACE)
